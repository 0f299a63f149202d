"""Looks after what is done to the home tree past recfs: by an admin's cp, rsync, mv and rm, or by a restore.

Events say where to look, and nothing else. A look compares a directory with its rows (`core/foreign.py`), so what recfs
does itself needs no note of its own: it is what the rows say. What differs waits until it was left alone for a while
(`core/candidates.py`), is looked at once more, and is then taken for what it is (`fs/foreign/`). Where inotify(7) is
not to be had for all directories, all of them are looked at every now and then.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

import trio

from recfs.core.candidates import Candidates
from recfs.core.layout import TOP_DIRS
from recfs.core.model import Kind
from recfs.disk.watching import looks
from recfs.disk.watching.inotify import Marks, Watches, limit_of
from recfs.errors import IoFailure, NotADirectory, Stale
from recfs.fs.foreign.acts import Acts
from recfs.fs.foreign.again import Again
from recfs.fs.foreign.covered import Covered
from recfs.fs.foreign.judging import PART, Judging
from recfs.fs.foreign.missing import Missing
from recfs.ports.rows import Pending
from recfs.state.events import Subscriber, acting_for, own

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recfs.core.foreign import Seen
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache
    from recfs.ports.work import Publisher
    from recfs.state.nodes import DirNode, FileNode
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.watch")

GATHER_S = 0.1
"""How long the first event waits for others."""
PAGE = 200
LONGEST_PAUSE_S = 0.05
TOGETHER = 32
"""So many directories are looked at in one call of a thread, when everything is."""
MISSED_S = 10.0
"""When entries are looked at again that nothing could be told of, if nothing has led to them before."""
COMPARED = 50
"""So many entries are compared with their rows, in a third of a millisecond, before others have their turn."""
LIMIT = "limit"
"""The problem of directories that cannot be watched."""


class Watcher(Subscriber):
    """The service."""

    def __init__(
        self, vfs: Vfs, places: PathResolver, store: LocalStore, publisher: Publisher, kernel: KernelCache,
        *, quiet_s: float, scan_interval_s: float,
    ) -> None:  # fmt: skip
        self._tree = vfs.tree
        self._problems = vfs.behind.problems
        self._places = places
        self._store = store
        self._publisher = publisher
        self.scan_interval_s = scan_interval_s
        self._limiter = trio.CapacityLimiter(1)
        self._token: trio.lowlevel.TrioToken | None = None
        self._wake = trio.Event()
        self._scan_wanted = trio.Event()
        self._marks = Marks(self._woken)
        self._watches: Watches | None = None
        self._limit: str | None = None
        self._candidates = Candidates()
        self._again = Again(vfs.tree, self._marks)
        self._covered = Covered(store, places, self._problems, PART, self.scan)
        self._judging = Judging(
            vfs.tree, vfs.backing_files.in_use, places, store, self._candidates, self._marks, self._again,
            self._covered, quiet_s=quiet_s,
        )  # fmt: skip
        self._missing = Missing(vfs.tree, store, self._candidates)
        self._judging.is_accepted = self._missing.is_accepted
        self._acts = Acts(
            vfs, places, store, publisher, kernel, self._candidates, self._marks, self._judging, self._missing,
            self._covered, self._forget_watch,
        )  # fmt: skip
        self.scans = 0
        """How often everything was looked at."""
        vfs.tree.events.subscribe(self)

    # --- what others ask (atomic) --------------------------------------------------------------------------------

    def released(self, node: FileNode) -> None:
        """As `Subscriber.released`."""
        self._judging.released(node)

    def emptied(self, folder: DirNode) -> None:
        """As `Subscriber.emptied`: that its files go on the disk now is nothing to look at."""
        self._forget_watch(folder.ino)

    def misplaced(self, folder: DirNode, name: bytes) -> None:
        """As `Subscriber.misplaced`."""
        self._judging.misplaced(folder, name)

    def set_pace(self, quiet_s: float, scan_interval_s: float) -> None:
        """Believe what is left alone for so long, and look at everything so often; from the next look on."""
        self._judging.quiet_s, self.scan_interval_s = quiet_s, scan_interval_s

    def scan(self) -> None:
        """Have everything looked at."""
        self._scan_wanted.set()

    def accept(self) -> int:
        """What is missing was removed on purpose, however much it is; tells how many files that are."""
        files = self._missing.accept() + len(self._judging.nowhere)
        if self._judging.nowhere:
            self.scan()
        self._look_at_missing()
        return files

    def _look_at_missing(self) -> None:
        for folder, names in self._candidates.missing().items():
            self._marks.entries(folder, names)

    def as_json(self) -> dict[str, Any]:
        """For people."""
        tally = self._acts.tally
        return {
            "watched": len(self._watches) if self._watches is not None else 0,
            "limit": self._limit,
            "mounted": self._covered.points,
            "scanning": self._judging.scanning,
            "scans": self.scans,
            "waiting": len(self._candidates),
            "missing_files": self._candidates.gone_files + len(self._judging.nowhere),
            "held": self._missing.held,
            **{what: tally[what] for what in ("adopted", "changed", "described", "moved", "removed", "evicted")},
        }

    def _woken(self) -> None:
        """From any thread."""
        if self._token is None:
            self._wake.set()
            return
        try:
            self._token.run_sync_soon(lambda: self._wake.set())
        except trio.RunFinishedError:
            log.debug("the daemon has ended")

    # --- the service ---------------------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Watch for ever."""
        self._token, self._limit, self._judging.is_blind = trio.lowlevel.current_trio_token(), None, False
        await self._covered.begin()
        try:
            self._watches = Watches(self._marks)
        except OSError as error:
            self._tell_limit(limit_of(error))
        try:
            with acting_for(own("watch")):  # who does it past recfs, nobody can say
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._scan_again_and_again)
                    nursery.start_soon(self._covered.watch)
                    while True:
                        await self._step()
        finally:
            self._covered.close()
            watches, self._watches = self._watches, None
            if watches is not None:
                watches.close()

    async def _step(self) -> None:
        with trio.move_on_at(min(self._candidates.next_s, self._judging.links.next_s, self._again.next_s)):
            await self._wake.wait()
        await trio.sleep(GATHER_S)
        self._wake = trio.Event()
        changed = self._marks.take()
        if changed.folders:
            await self._covered.look()
        if changed.everything:
            self.scan()
        for ino, names in changed.folders.items():
            await self._look_aside(ino, names)
        for ino, due in self._candidates.take_due(trio.current_time()).items():
            await self._look_aside(ino, due)
        for ino, linked in self._judging.links.take_due().items():
            await self._look_aside(ino, linked)
        for ino in self._again.take_due():
            await self._look_aside(ino, None)
        limit = self._watches.limit if self._watches is not None else None
        if limit and self._limit is None and not self._judging.scanning:
            self._tell_limit(limit)
            self.scan()  # from here on everything is looked at again and again
        if self._missing.look_again():
            self._look_at_missing()
        if self._candidates.crowded and not len(self._candidates):
            self._candidates.crowded = False
            self.scan()
        if self._again.take_crowded():
            self.scan()

    async def _look_aside(self, ino: int, names: set[bytes] | None) -> None:
        """Look at a directory; what fails is tried again."""
        with self._problems.aside(PART, ino, f"directory {ino}"):
            await self._look(ino, names)
        if self._problems.has(PART, ino):
            self._again.want(ino)

    # --- everything ----------------------------------------------------------------------------------------------

    async def _scan_again_and_again(self) -> NoReturn:
        while True:
            self._scan_wanted = trio.Event()
            await self._scan()
            with trio.move_on_after(self.scan_interval_s if self._limit else float("inf")):
                await self._scan_wanted.wait()

    async def _scan(self) -> None:
        """Look at everything, with pauses as long as the work."""
        await self._covered.look()
        watches, began_s = self._watches, trio.current_time()
        if watches is not None:
            watches.limit = None  # it may have been raised
        self._judging.scanning = True
        try:
            tops = [await self._tree.child(self._tree.root, name) for name in TOP_DIRS]
            pending = [top.ino for top in tops if top is not None]
            while pending:
                began_s = trio.current_time()
                together = [pending.pop() for _ in range(min(len(pending), TOGETHER))]
                loaded = [ino for ino in together if ino not in self._tree.nodes]
                pending += await self._look_together(together)
                for ino in loaded:
                    self._tree.memory.let_go(ino)
                self._tree.memory.shrink()
                await trio.sleep(min(trio.current_time() - began_s, LONGEST_PAUSE_S))
        finally:
            self._judging.scanning = False
        self.scans += 1
        self._judging.looked_s = began_s
        self._wake.set()
        if watches is not None and watches.limit:
            self._tell_limit(watches.limit)
        elif watches is not None:
            self._limit, self._judging.is_blind = None, False
            self._problems.solved(PART, LIMIT)

    def _tell_limit(self, limit: str) -> None:
        remedy = f"raise it: sysctl {limit}=…, also in /etc/sysctl.d" if limit.startswith("fs.") else "inotify fails"
        why = (
            f"not all directories of the home tree can be watched: {limit} is reached; {remedy}. Until then everything"
            f" is looked at every {self.scan_interval_s:g} s"
        )
        if not self._problems.has(PART, LIMIT):
            log.warning("%s", why)
        self._limit, self._judging.is_blind = limit, True
        self._problems.note(PART, LIMIT, IoFailure(why), quiet=True)

    # --- one directory -------------------------------------------------------------------------------------------

    async def _folder(self, ino: int) -> DirNode | None:
        """The directory, if there is something to look at."""
        try:
            folder = await self._tree.directory(ino)
        except (Stale, NotADirectory):
            self._ended(ino)
            return None
        if folder.unlinked or folder is self._tree.root:
            self._ended(ino)
            return None
        if self._covered.has_folder(folder):
            self._again.looked(ino)
            return None  # it is looked at with everything when it can be seen
        if (folder.pending | folder.publishing) & Pending.MAKE:
            self._again.want(ino)
            return None
        return folder

    def _ended(self, ino: int) -> None:
        """There is no such directory any more."""
        self._again.looked(ino)
        self._forget_watch(ino)

    async def _look_together(self, inos: list[int]) -> list[int]:
        """Look at all of some directories; gives those in them."""
        folders = [folder for ino in inos if (folder := await self._folder(ino)) is not None]
        await self._publisher.arranged()
        found = await trio.to_thread.run_sync(
            looks.look_all, self._store, self._watches,
            [(folder.ino, self._places.home(folder), folder.home_ino) for folder in folders],
            limiter=self._limiter,
        )  # fmt: skip
        below: list[int] = []
        for folder, each in zip(folders, found, strict=True):
            with self._problems.aside(PART, folder.ino, f"directory {folder.path}"):
                if isinstance(each, OSError):
                    self._again.want(folder.ino)
                    raise each
                there = self._there(folder, each, is_whole=True)
                if there is not None:
                    below += await self._compare_all(folder, there, in_scan=True)
        return below

    def _there(self, folder: DirNode, found: dict[bytes, Seen] | None, *, is_whole: bool) -> dict[bytes, Seen] | None:
        """What to compare the rows with; None: nothing now. *is_whole*: all of the directory was looked at."""
        if found is not None or folder.ino in self._judging.hollow:
            if is_whole:
                self._again.looked(folder.ino)
            return found or {}
        self._again.want(folder.ino)
        if folder.parent is self._tree.root:
            self._missing.may_forget()  # tells that it is not there
        else:
            self._marks.entry(folder.parent.ino, folder.name)  # it comes first: it may only have been moved
        return None

    async def _look(self, ino: int, names: set[bytes] | None) -> None:
        folder = await self._folder(ino)
        if folder is None:
            self._not_looked(ino, names)
            return
        due = names
        if ino in self._again or (self._watches is not None and self._watches.wants(ino, folder.home_ino)):
            names = None  # nobody knows what else has become of it meanwhile
        await self._publisher.arranged()
        looked = await trio.to_thread.run_sync(
            looks.look, self._store, self._watches, ino, self._places.home(folder), folder.home_ino, names,
            limiter=self._limiter,
        )  # fmt: skip
        found = self._there(folder, looked, is_whole=names is None)
        if found is None:
            self._not_looked(ino, due)
            return
        if names is None:
            await self._compare_all(folder, found, due or ())
            return
        ready: list[bytes] = []
        for count, name in enumerate(names, 1):
            entry = folder.children.get(name) or await self._tree.child(folder, name)
            seen = found.get(name)
            if self._judging.is_ready(folder, name, entry, seen):
                ready.append(name)
            elif entry is not None and entry.kind is Kind.DIR and seen is not None and self._wants(entry.ino, seen):
                self._marks.whole(entry.ino)
            if count % COMPARED == 0:
                await trio.lowlevel.checkpoint()
        await self._acts.act(folder, ready)

    def _not_looked(self, ino: int, names: Iterable[bytes] | None) -> None:
        """Nothing could be told of some entries now, which may have been due; of a directory that is gone there is
        nothing to tell.
        """
        if ino not in self._again:
            self._candidates.forget(ino, names or ())
        for name in names or ():
            self._candidates.put_off((ino, name), trio.current_time() + MISSED_S)

    async def _compare_all(
        self, folder: DirNode, found: dict[bytes, Seen], due: Iterable[bytes] = (), *, in_scan: bool = False
    ) -> list[int]:
        """Compare all entries with their rows, those that were *due*, too, if they are gone; gives the directories in
        it, which a scan looks at next.
        """
        below: list[int] = []
        ready: list[bytes] = []
        after = 0
        for name in self._judging.told(folder.ino).union(due) - found.keys():
            self._judging.is_ready(folder, name, await self._tree.child(folder, name), None)
        while page := await self._tree.page(folder, after, PAGE, placed=True):
            after = page[-1].ino
            for row in page:
                seen = found.pop(row.name, None)
                if self._judging.is_ready(folder, row.name, row, seen):
                    ready.append(row.name)
                if row.kind is Kind.DIR:
                    below.append(row.ino)
                    if seen is not None and not in_scan and self._wants(row.ino, seen):
                        self._marks.whole(row.ino)
            await trio.lowlevel.checkpoint()
        for count, (name, seen) in enumerate(found.items(), 1):
            # Its row may have come since: that is asked for once more before anything is done.
            if name not in folder.children and self._judging.is_ready(folder, name, None, seen):
                ready.append(name)
            if count % COMPARED == 0:
                await trio.lowlevel.checkpoint()
        await self._acts.act(folder, ready)
        return below

    def _wants(self, ino: int, seen: Seen) -> bool:
        """Whether a directory is to be looked at so that it is watched."""
        watches = self._watches
        return watches is not None and watches.wants(ino, seen.st_ino)

    def _forget_watch(self, ino: int) -> None:
        self._judging.links.forget(ino)
        if self._watches is not None:
            self._watches.forget(ino)


__all__ = ["Watcher"]
