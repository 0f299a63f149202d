"""Bytes on the local disk that no row knows, and rows whose bytes are not where they say.

Found one directory at a time, beside everybody who works: what a listing and the rows do not agree on is looked at
once more while the publisher does nothing, when every entry of the home tree is some row's, and that look and
whatever it leads to are one stretch without an await. What is removed is held to its inode number and time of change
to the very end.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import trio

from recfs.core.foreign import Seen, refusal
from recfs.core.layout import TOP_DIRS, child_role
from recfs.core.model import Kind, State
from recfs.core.upkeep.leftovers import Deed, Missing, Stray, Where
from recfs.disk.staging import COPY_LABEL, FETCH_LABEL, VERSION_LABEL
from recfs.disk.watching import looks
from recfs.errors import FsError, IoFailure, NotADirectory, RecfsError, Stale
from recfs.ports.rows import ROOT_INO, NodeRow, Pending
from recfs.state.nodes import DirNode, FileNode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from recfs.disk.home.path_resolver import PathResolver
    from recfs.disk.home.publisher import HomePublisher
    from recfs.fs.trash import Trash
    from recfs.fs.vfs import Vfs
    from recfs.ports.sweep import Progress
    from recfs.state.nodes import Garbage, Node
    from recfs.stores.beneath import Beneath
    from recfs.stores.local import LocalStore

    Tell = Callable[["Lying | Gone"], Awaitable[None]]
    """Told of each; what it does may change what is looked at next."""

Found = TypeVar("Found")

PAGE = 200
WEIGHED = 10_000
"""So many entries of a directory that no row knows are looked at for its size."""
_SPARE = (COPY_LABEL, FETCH_LABEL, VERSION_LABEL)
_LIES_ELSEWHERE = Pending.MAKE | Pending.MOVE


class Lying(NamedTuple):
    """Bytes that no row knows, and where they lie."""

    stray: Stray
    path: bytes
    """On the disk."""
    st_ino: int
    ctime_ns: int
    folder: DirNode | None
    """Of the home tree; None: in staging, the trash or the holding area."""

    @property
    def name(self) -> bytes:
        """The last part of its path."""
        return self.path.rpartition(b"/")[2]

    def is_still(self, info: os.stat_result | None) -> bool:
        """Whether that is the same, and nobody has changed it."""
        return info is not None and (info.st_ino, info.st_ctime_ns) == (self.st_ino, self.ctime_ns)


class Gone(NamedTuple):
    """A row without its bytes."""

    missing: Missing
    ino: int


class LocalLeftovers:
    """What is left over on the local disk."""

    def __init__(
        self, vfs: Vfs, places: PathResolver, store: LocalStore, publisher: HomePublisher, trash: Trash,
        fetched: Callable[[], Iterable[str]],
    ) -> None:  # fmt: skip
        """*fetched*: staging ids of what is being brought from S3."""
        self._vfs = vfs
        self._tree = vfs.tree
        self._places = places
        self._store = store
        self._publisher = publisher
        self._trash = trash
        self._fetched = fetched
        self._limiter = vfs.backing_files.pool.limiter

    async def look(self, progress: Progress, tell: Tell) -> list[str]:
        """Tell of all of it, one by one; *progress* counts the files, and ends it early.

        Gives why directories could not be read, one reason for each: nothing was told of what lies in them.
        """
        unread: list[str] = []
        await self._home(progress, tell, unread)
        for part in (self._holding_area, self._in_staging, self._in_trash):
            if not progress.is_stopping:
                try:
                    await part(tell)
                except IoFailure as error:
                    unread.append(str(error))
        return unread

    # --- the home tree -------------------------------------------------------------------------------------------

    async def _home(self, progress: Progress, tell: Tell, unread: list[str]) -> None:
        pending = [ROOT_INO]
        while pending and not progress.is_stopping:
            try:
                folder = await self._tree.directory(pending.pop())
            except (Stale, NotADirectory):
                continue
            names: set[bytes] | None
            try:
                names = await self.names(folder)
            except IoFailure as error:  # of this one: the others are none the worse for it
                names = None
                unread.append(str(error))
            absent, odd = [], []
            after = 0
            while page := await self._tree.page(folder, after, PAGE, placed=True):
                after = page[-1].ino
                for row in page:
                    progress.done += Kind(row.kind) is not Kind.DIR
                    if Kind(row.kind) is Kind.DIR and row.ino != ROOT_INO:
                        pending.append(row.ino)
                    if names is None:
                        continue
                    is_there = row.name in names
                    names.discard(row.name)
                    if not is_there and _lies_at_home(row):
                        absent.append(row.ino)
                    elif is_there and _is_remote(row):
                        odd.append(row.name)
                await trio.lowlevel.checkpoint()
            for ino in absent:
                if (gone := await self.missing(ino)) is not None:
                    await tell(gone)
            for name in (*odd, *sorted(names or ())):
                if (lying := await self._lying(folder, name)) is not None:
                    await tell(lying)

    async def names(self, folder: DirNode) -> set[bytes]:
        """What lies in a directory; of the root nothing but its own is looked at."""
        await self._publisher.no_batch()
        path = self._places.home(folder)
        names = await trio.to_thread.run_sync(_listed, self._store.beneath, path, limiter=self._limiter)
        return names if folder.ino != ROOT_INO else names & TOP_DIRS.keys()

    async def _settled(self, read: Callable[[], Awaitable[Found]]) -> Found:
        """What *read* answers while the publisher does nothing, and has done nothing since until the next await."""
        while True:
            found = await read()
            if not self._publisher.is_working:
                return found
            await self._publisher.no_batch()

    async def at(self, folder: DirNode, name: bytes) -> tuple[bytes, os.stat_result, bool] | None:
        """(path, what lies there, whether it is a copy of what is in S3), if it is no row's. Atomic from its last
        await on.
        """
        node = await self._settled(partial(self._tree.child, folder, name))
        if folder.unlinked or self._tree.locations.occupant((folder, name)) is not None:
            return None
        if node is not None and not (_is_remote(node) and _lies_in_its_place(node)):
            return None
        path = self._places.at((folder, name))
        info = self._store.stat(path)
        if info is None or self._store.beneath.is_mount_point(path):
            return None
        return path, info, node is not None

    async def _lying(self, folder: DirNode, name: bytes) -> Lying | None:
        """What lies under a name of the home tree, if that is no row's."""
        found = await self.at(folder, name)
        if found is None:
            return None
        path, info, is_copy = found
        where, adopts, why = Where.HOME, True, "no row has this name"
        if is_copy:
            where, adopts, why = Where.CACHE, False, "its row says that the bytes are in S3 alone"
        elif (against := self.refusal(folder, name, looks.seen(info))) is not None:
            adopts, why = False, f"no row has this name; {against}"
        size, changed_ns = info.st_size, max(info.st_ctime_ns, info.st_mtime_ns)
        if stat.S_ISDIR(info.st_mode):
            size, changed_ns, count = await trio.to_thread.run_sync(
                _weighed, self._store.beneath, path, changed_ns, limiter=self._limiter
            )
            why = f"{why}; a directory with {count:,}{' or more' if count >= WEIGHED else ''} entries"
        stray = Stray(where, self._shown(path), size, changed_ns, why, adopts, Deed.SET_ASIDE)
        return Lying(stray, path, info.st_ino, info.st_ctime_ns, folder)

    def refusal(self, folder: DirNode, name: bytes, seen: Seen) -> str | None:
        """Why an entry cannot become a file; None if nothing is against it."""
        owned_by = None if self._store.gives_owners else os.geteuid()
        try:
            child_role(folder.role, name, is_dir=seen.format == stat.S_IFDIR)
        except FsError as error:
            return str(error)
        return refusal(seen, owned_by=owned_by)

    async def missing(self, ino: int) -> Gone | None:
        """A row without its entry in the home tree, if that is so. Atomic from its last await on."""
        try:
            node = await self._settled(partial(self._tree.get, ino))
        except Stale:
            return None
        if node.unlinked or not _lies_at_home(node) or self._store.stat(self._places.home(node)) is not None:
            return None
        size = node.bytes if isinstance(node, FileNode) else 0
        if isinstance(node, FileNode) and node.state is State.STORED:
            why = "its local copy is gone; S3 has the bytes"
            return Gone(Missing(Where.CACHE, node.path, size, why, in_s3=True), ino)
        what = "directory" if isinstance(node, DirNode) else "entry"
        return Gone(Missing(Where.HOME, node.path, size, f"its {what} is not there"), ino)

    async def _holding_area(self, tell: Tell) -> None:
        area = self._store.holding_area
        for name in sorted(await trio.to_thread.run_sync(_listed, self._store.beneath, area, limiter=self._limiter)):
            await self._publisher.no_batch()
            info = self._store.stat(area + b"/" + name)
            if info is None or self._tree.locations.occupant((None, name)) is not None:
                continue
            why = "it made room for a rename"
            await tell(self._private(Where.HOME, area + b"/" + name, info, why, Deed.SET_ASIDE))

    # --- what only recfs sees ------------------------------------------------------------------------------------

    async def _in_staging(self, tell: Tell) -> None:
        seen = await trio.to_thread.run_sync(self._store.scan_staging, limiter=self._limiter)
        strays = seen.keys() - await self._known_staging()
        if not strays:
            return
        strays -= {node.staging for node in self._tree.nodes.values() if isinstance(node, FileNode) and node.staging}
        strays -= await self._known_staging()
        for each in sorted(strays):
            label = seen[each].label or b""
            info = self._store.stat(self._store.staging(each))
            if info is None:
                continue
            is_spare = label.startswith(_SPARE) or not info.st_size
            where = Where.CACHE if label.startswith(FETCH_LABEL) else Where.STAGING
            why = "half of a copy" if is_spare else "a file whose row is lost; the next start adopts it by its label"
            if not is_spare and not label:
                why = "nobody knows what it was"
            removal = Deed.DELETE if is_spare else Deed.SET_ASIDE
            await tell(self._private(where, self._store.staging(each), info, why, removal))

    async def _known_staging(self) -> set[str]:
        """Staging ids that somebody has: rows that are written, garbage, the pool, and what comes from S3."""
        try:
            await self._tree.behind.flush()
        except RecfsError:
            pass  # a full disk, say: what is in memory counts anyway
        known = {each for each in await self._tree.catalogue.staged() if each is not None}
        known.update(entry.staging for entry in self._tree.garbage.values() if entry.staging is not None)
        return known | self._vfs.backing_files.pool.spare_ids() | set(self._fetched())

    async def _in_trash(self, tell: Tell) -> None:
        before = {gid for gid, entry in self._tree.garbage.items() if self._is_trashed(entry)}
        numbers = await trio.to_thread.run_sync(self._store.trashed, limiter=self._limiter)
        for number in sorted(numbers - before):
            await self._publisher.no_batch()
            path = self._store.trash(number)
            info = self._store.stat(path)
            if info is not None and number not in self._tree.garbage:
                why = "no row of a removal has this number"
                await tell(self._private(Where.TRASH, path, info, why, Deed.DELETE))
        for number in sorted(before - numbers):
            await self._publisher.no_batch()
            entry = self._tree.garbage.get(number)
            if entry is None or not self._is_trashed(entry) or self._store.stat(self._store.trash(number)) is not None:
                continue
            why = f"number {number} is not in the trash; the next start forgets it"
            await tell(Gone(Missing(Where.TRASH, os.fsdecode(entry.path), entry.size_bytes, why), 0))

    def _is_trashed(self, entry: Garbage) -> bool:
        return entry.in_trash and entry.held_by is None and not self._trash.is_leaving(entry)

    def _private(self, where: Where, path: bytes, info: os.stat_result, why: str, removal: Deed) -> Lying:
        changed_ns = max(info.st_ctime_ns, info.st_mtime_ns)
        stray = Stray(where, self._shown(path), info.st_size, changed_ns, why, False, removal)
        return Lying(stray, path, info.st_ino, info.st_ctime_ns, None)

    def _shown(self, path: bytes) -> str:
        return os.fsdecode(path[len(os.fsencode(self._store.root)) + 1 :])

    # --- acting --------------------------------------------------------------------------------------------------

    async def remove(self, lying: Lying) -> bool:
        """Have it gone, as its `removal` says; False: it is somebody's by now, or was changed. Raises IoFailure."""
        if lying.folder is not None:
            again = await self._lying(lying.folder, lying.name)
            if again is None or (again.st_ino, again.ctime_ns) != (lying.st_ino, lying.ctime_ns):
                return False
            if lying.name in lying.folder.children and not _is_remote(lying.folder.children[lying.name]):
                return False
        elif lying.path.startswith(self._store.staging("")):
            if lying.name.decode("ascii") in await self._known_staging():
                return False
        elif lying.stray.where is Where.TRASH and int(lying.name) in self._tree.garbage:
            return False
        try:
            # Beside no batch of the publisher: one that comes first has put away what stands in its way.
            return await self._publisher.alone(partial(self._remove, lying))
        except OSError as error:
            raise IoFailure(f"{lying.stray.name}: {error.strerror}") from error

    def _remove(self, lying: Lying) -> bool:
        """In a thread."""
        if not lying.is_still(self._store.stat(lying.path)):
            return False
        if lying.stray.removal is Deed.DELETE:
            os.unlink(lying.path)  # in a directory of recfs's own
        else:
            name = os.fsdecode(lying.name)[:150]
            self._store.rename(lying.path, self._store.lost(f"{lying.stray.where}-{lying.st_ino}-{name}"))
            self._store.beneath.sync(self._store.lost("").rstrip(b"/"))
        self._store.beneath.sync(lying.path.rpartition(b"/")[0])
        return True

    async def forget(self, gone: Gone) -> bool:
        """The row of a file that S3 has says that there is no local copy; False: there is, or S3 has not."""
        if await self.missing(gone.ino) is None:
            return False
        node = self._tree.nodes[gone.ino]
        assert isinstance(node, FileNode)
        return node.state is State.STORED and self._vfs.backing_files.remote.lost(node)


def _lies_at_home(entry: Node | NodeRow) -> bool:
    """Whether the home tree has an entry of it, as far as rows say."""
    state = getattr(entry, "state", None)
    return _lies_in_its_place(entry) and (state is None or state.is_whole or state is State.CORRUPT)


def _lies_in_its_place(entry: Node | NodeRow) -> bool:
    if isinstance(entry, NodeRow):
        here = entry.placement
        return here.staging is None and here.home_name is None and not here.pending & _LIES_ELSEWHERE
    is_there = getattr(entry, "staging", None) is None and entry.moved is None
    return is_there and not (entry.pending | entry.publishing) & _LIES_ELSEWHERE


def _is_remote(entry: Node | NodeRow) -> bool:
    state = getattr(entry, "state", None)
    return state is not None and state.is_remote


def _listed(beneath: Beneath, path: bytes) -> set[bytes]:
    """The names in a directory; none where it is not there. Raises IoFailure. In a thread."""
    try:
        fd = beneath.open_at(path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise IoFailure(f"{os.fsdecode(path)}: {error.strerror}") from error
    try:
        return {os.fsencode(name) for name in os.listdir(fd)}
    except OSError as error:
        raise IoFailure(f"{os.fsdecode(path)}: {error.strerror}") from error
    finally:
        os.close(fd)


def _weighed(beneath: Beneath, top: bytes, changed_ns: int) -> tuple[int, int, int]:
    """(bytes, last change, entries) of all below a directory, up to WEIGHED entries. In a thread."""
    size = count = 0
    for path, _ in beneath.walk(top):
        info = beneath.stat(path)
        if info is not None:
            size += info.st_size if stat.S_ISREG(info.st_mode) else 0
            changed_ns = max(changed_ns, info.st_ctime_ns)
        count += 1
        if count >= WEIGHED:
            break
    return size, changed_ns, count


__all__ = ["Gone", "LocalLeftovers", "Lying"]
