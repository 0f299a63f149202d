"""Takes entries of the home tree that were left alone for long enough for what they are, one by one.

Each is looked at once more where nothing can come between the look and the act: while the publisher moves nothing, and
with no await after it but those of a new directory or name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections import Counter
from typing import TYPE_CHECKING

import trio

from recfs.core.foreign import Finding, Seen, is_same, judge, refusal
from recfs.core.model import State
from recfs.disk.leases import is_written
from recfs.disk.watching.looks import AtHand
from recfs.errors import FsError, IoFailure, NotADirectory, Stale
from recfs.fs.foreign.rows import ForeignRows
from recfs.state.nodes import DirNode, FileNode, Node

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.candidates import Candidates, Key
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.disk.watching.inotify import Marks
    from recfs.fs.foreign.covered import Covered
    from recfs.fs.foreign.judging import Judging
    from recfs.fs.foreign.missing import Missing
    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache
    from recfs.ports.work import Publisher
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.watch")

TOLD = 5
"""So many paths of what was taken over together are logged."""
AT_ONCE = 20
"""So many entries are seen to before others have their turn."""
HELD_S = 60.0
"""When what is gone is looked at again, if it is kept."""
FAILED_S = 10.0
"""When what could not be taken over is looked at again, unless it is left alone for good."""
VISITS = 3
"""So often it is looked at before its entries count as such that lie elsewhere."""
AGAIN_S = 0.1
"""When a directory that is gone is looked at again, once what was in it has gone."""


class Acts:
    """Acts on what was found."""

    def __init__(
        self, vfs: Vfs, places: PathResolver, store: LocalStore, publisher: Publisher, kernel: KernelCache,
        candidates: Candidates, marks: Marks, judging: Judging, missing: Missing, covered: Covered,
        forget_watch: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._tree = vfs.tree
        self._places = places
        self._store = store
        self._publisher = publisher
        self._rows = ForeignRows(vfs, kernel)
        self._candidates = candidates
        self._marks = marks
        self._judging = judging
        self._covered = covered
        self._missing = missing
        self._forget_watch = forget_watch
        self.tally: Counter[str] = Counter()
        """How many entries became what, since the start."""
        self._told: dict[str, list[str]] = {}
        """Paths of the first few of each, while they are seen to …"""
        self._counted: Counter[str] = Counter()
        """… and how many they are."""
        self._apart: set[int] = set()
        """Directories that cannot be where they lie by now: what has their name is taken for them."""

    async def act(self, folder: DirNode, names: list[bytes]) -> None:
        """See to entries of a directory. What fails is told, and the others go on."""
        if names:
            await self._covered.look()
        for start in range(0, len(names), AT_ONCE):
            if start:
                await trio.lowlevel.checkpoint()
            with contextlib.closing(AtHand(self._store)) as here, self._rows.gathered():
                for name in names[start : start + AT_ONCE]:
                    try:
                        await self._act_on(here, folder, name)
                    except Exception as error:  # of any class: the other entries are other people's
                        self._judging.failed(folder, name, error)
                        self._put_off((folder.ino, name), FAILED_S)
        for what, paths in self._told.items():
            count = self._counted[what]
            log.info("%d %s past recfs: %s%s", count, what, ", ".join(paths), ", …" if count > len(paths) else "")
        self._told.clear()
        self._counted.clear()

    def _done(self, key: Key, what: str, entry: Node) -> None:
        self._candidates.drop(key, taken=True)
        self._judging.solved(key)
        self.tally[what] += 1
        self._counted[what] += 1
        told = self._told.setdefault(what, [])
        if len(told) < TOLD:
            told.append(entry.path)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s past recfs: %s", what, entry.path)

    async def _act_on(self, here: AtHand, folder: DirNode, name: bytes) -> None:
        key = (folder.ino, name)
        while True:
            entry = await self._tree.child(folder, name)
            await self._rows.prepare(folder)
            origin = await self._origin(key)
            is_empty = isinstance(entry, DirNode) and await self._tree.is_empty(entry)
            await self._publisher.arranged()
            if folder.children.get(name) is entry:
                break
        candidate = self._candidates.get(key)
        if candidate is None or folder.unlinked:
            return
        if candidate.scanned and self._judging.scanning:
            self._put_off(key, self._judging.quiet_s)  # where it was moved to may not have been looked at yet
            return
        if self._judging.is_unsure(folder, candidate):
            self._put_off(key, FAILED_S)
            return
        # From here on nobody changes anything: what rows and disk say is of one moment.
        if not here.is_open:
            here.open(self._places.home(folder), folder.home_ino)
        seen = here.seen(name)
        if not self._judging.is_ready(folder, name, entry, seen):
            return
        if seen is not None and here.is_covered(name):  # and the table of mounts has not told it yet, under this path
            self._put_off(key, self._judging.quiet_s)
            return
        match candidate.finding:
            case Finding.NEW if seen is not None:
                await self._adopt(here, folder, name, seen, origin)
            case Finding.CHANGED if isinstance(entry, FileNode) and seen is not None:
                if self._is_left_alone(here, folder, name, seen):
                    self._rows.changed(entry, seen)
                    self._done(key, "changed", entry)
            case Finding.DESCRIBED if entry is not None and seen is not None:
                self._rows.described(entry, seen)
                self._done(key, "described", entry)
            case Finding.RENUMBERED if isinstance(entry, DirNode) and seen is not None:
                await self._renumber(key, entry, seen, origin)
            case Finding.GONE if entry is not None:
                self._gone(key, entry, seen, is_empty=is_empty)

    def _put_off(self, key: Key, seconds: float) -> None:
        self._candidates.put_off(key, trio.current_time() + seconds)

    def _is_left_alone(self, here: AtHand, folder: DirNode, name: bytes, seen: Seen) -> bool:
        """Whether nobody has a file open for writing, as far as that can be told; else it is looked at again."""
        if seen.format != stat.S_IFREG:
            return True
        fd = here.open_file(name)
        try:
            written = is_written(fd)
        finally:
            os.close(fd)
        if written:
            self._put_off((folder.ino, name), self._judging.quiet_s)
        return not written

    # --- what no row knows ---------------------------------------------------------------------------------------

    async def _origin(self, key: Key) -> Node | None:
        """What seems to have been moved here, of what is missed elsewhere or has something else in its place."""
        candidate = self._candidates.get(key)
        come = (Finding.NEW, Finding.RENUMBERED)
        seen = candidate.seen if candidate is not None and candidate.finding in come else None
        source = self._candidates.gone_from(seen.st_ino) if seen is not None else None
        if source is None:
            return None
        try:
            origin = await self._tree.child(await self._tree.directory(source[0]), source[1])
        except (Stale, NotADirectory):
            return None
        return origin if origin is None or origin.ino not in self._apart else None

    async def _adopt(self, here: AtHand, folder: DirNode, name: bytes, seen: Seen, origin: Node | None) -> None:
        key = (folder.ino, name)
        if not self._is_left_alone(here, folder, name, seen):
            return
        try:
            self._may_adopt(folder, name, seen, is_moved=origin is not None)
        except FsError:
            self._candidates.drop(key)
            raise
        if origin is not None and self._has_moved(origin, seen):
            source = (origin.parent.ino, origin.name)
            was = self._candidates.get(source)
            try:
                await self._rows.moved(origin, folder, name)
            except FsError:
                if was is not None and was.finding is Finding.RENUMBERED:
                    self._apart.add(origin.ino)
                raise
            self._candidates.drop(source)
            self._done(key, "moved", origin)
            self._marks.entry(*source)  # something else may be there instead
            self._marks.entry(*key)  # with another mode, perhaps, than a user has given it meanwhile
            if isinstance(origin, DirNode):
                self._judging.hollow.pop(origin.ino, None)
                self._judging.again.found(origin.ino)  # what happened in it meanwhile could not be seen
            return
        if seen.format == stat.S_IFDIR:
            made: Node = await self._rows.directory(folder, name, seen)
            self._marks.whole(made.ino)
        elif seen.format == stat.S_IFLNK:
            made = await self._rows.symlink(folder, name, self._target(folder, name), seen)
        else:
            made = self._rows.file(folder, name, seen)
        self._done(key, "adopted", made)

    def _may_adopt(self, folder: DirNode, name: bytes, seen: Seen, *, is_moved: bool) -> None:
        """Raise IoFailure for what is left alone, and the reason."""
        owned_by = None if self._store.gives_owners else os.geteuid()
        why = refusal(seen, links_count=not is_moved, owned_by=owned_by)
        if why is not None:
            if seen.format == stat.S_IFREG and seen.links > 1:
                self._judging.links.left_alone((folder.ino, name), seen.st_ino)
            raise IoFailure(f"left alone: {why}")
        try:
            self._rows.allow(folder, name, seen)
        except FsError as error:
            raise IoFailure(f"left alone: {error}") from error

    def _target(self, folder: DirNode, name: bytes) -> bytes:
        with self._store.beneath.folder(self._places.at((folder, name))) as (fd, last):
            return os.readlink(last, dir_fd=fd)

    def _has_moved(self, origin: Node, seen: Seen) -> bool:
        """Whether an entry is that of a row which is missed elsewhere. Atomic."""
        parent = origin.parent
        if origin.unlinked or parent.children.get(origin.name) is not origin or origin.home_ino != seen.st_ino:
            return False
        known = self._judging.known(origin)
        if known is None:
            return False
        if judge(known, self._judging.seen(parent, origin.name)) not in (Finding.GONE, Finding.RENUMBERED):
            return False
        # At its new place it would have to be what its row says; else it is another that got the number.
        return is_same(known, seen)

    # --- a directory under whose name another one lies ------------------------------------------------------------

    async def _renumber(self, key: Key, entry: DirNode, seen: Seen, origin: Node | None) -> None:
        if entry.ino not in self._apart:
            if self._candidates.come_to(entry.home_ino) is not None:
                self._put_off(key, self._judging.quiet_s)  # it has moved, and is renamed there
                return
            if origin is not None and self._have_changed_places(entry, seen, origin):
                await self._exchange(entry, origin)
                return
        self._apart.discard(entry.ino)
        self._forget_watch(entry.ino)
        self._rows.renumbered(entry, seen)
        self._candidates.drop(key)
        self._judging.hollow.pop(entry.ino, None)
        self._judging.again.found(entry.ino)

    def _have_changed_places(self, entry: Node, seen: Seen, origin: Node) -> bool:
        """Whether what lies at *entry*'s place is *origin*'s, and the other way round. Atomic."""
        if origin is entry or not self._has_moved(origin, seen):
            return False
        there = self._judging.seen(origin.parent, origin.name)
        return there is not None and self._has_moved(entry, there)

    async def _exchange(self, one: Node, two: Node) -> None:
        keys = [(node.parent.ino, node.name) for node in (one, two)]
        try:
            await self._rows.exchanged(one, two)
        except FsError:
            self._apart |= {one.ino, two.ino}
            raise
        for key, node in zip(keys, (two, one), strict=True):
            self._done(key, "moved", node)
            self._marks.entry(*key)  # with another mode, perhaps
            self._judging.hollow.pop(node.ino, None)
            self._judging.again.found(node.ino)  # what happened in it meanwhile could not be seen

    # --- what is gone (atomic) -----------------------------------------------------------------------------------

    def _gone(self, key: Key, entry: Node, seen: Seen | None, *, is_empty: bool) -> None:
        above = entry.parent
        candidate = self._candidates.get(key)
        is_elsewhere = candidate is not None and candidate.elsewhere
        is_stored = isinstance(entry, FileNode) and entry.state is State.STORED
        if self._judging.is_missed(above) and above.ino not in self._judging.hollow:
            self._put_off(key, self._judging.quiet_s)  # that comes first: it may only have been moved
        elif self._candidates.come_to(entry.home_ino) is not None:
            self._put_off(key, self._judging.quiet_s)  # it has moved, and is renamed there
        elif not self._missing.may_forget(is_safe=is_stored or is_elsewhere):
            self._put_off(key, HELD_S)
        elif isinstance(entry, DirNode) and not is_empty:
            self._empty(key, entry, seen)
        elif self._rows.gone(entry):
            self._judging.hollow.pop(entry.ino, None)
            self._forget_watch(entry.ino)
            self._done(key, "removed", entry)
            if not isinstance(entry, DirNode) and not is_elsewhere:
                self._missing.forgotten()
            if seen is not None:
                self._marks.entry(*key)  # something else is there instead
        elif isinstance(entry, DirNode) and entry.ino in self._tree.locations.entries:
            self._put_off(key, self._judging.quiet_s)  # something has yet to leave it, or to be given up
        else:
            self._candidates.drop(key)
            if isinstance(entry, FileNode) and entry.state is State.EVICTED:
                self._done(key, "evicted", entry)
            elif isinstance(entry, FileNode):
                raise IoFailure("its bytes are gone from the disk, and S3 has not got them: its name is kept")

    def _empty(self, key: Key, entry: DirNode, seen: Seen | None) -> None:
        """A directory is gone, and the entries that it had have rows still: they go first, but for what S3 holds."""
        hollow = self._judging.hollow
        if entry.ino not in hollow:
            hollow[entry.ino] = 0
            self._marks.whole(entry.ino)
            self._put_off(key, AGAIN_S)
        elif any((entry.ino, name) in self._candidates for name in entry.children) or hollow[entry.ino] < VISITS:
            hollow[entry.ino] += 1  # its last entry may have gone since it was asked whether it has any
            self._put_off(key, AGAIN_S)
        else:
            del hollow[entry.ino]
            self._candidates.drop(key)
            if seen is None:
                self._rows.remake(entry)


__all__ = ["Acts"]
