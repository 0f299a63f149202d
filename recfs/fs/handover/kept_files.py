"""Open files of a daemon that died, taken over by what its ledger says (state/ledger/) and what lies on the disk."""

from __future__ import annotations

import fcntl
import logging
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from recfs.core.bounds import time_ns
from recfs.core.model import State
from recfs.disk.diskio import is_frozen
from recfs.errors import IoFailure, QuotaExceeded, RecfsError, Stale
from recfs.fs.fallback_entries import VIEW_BIT, FallbackEntry
from recfs.fs.handles import Mode
from recfs.state.backing_file import BackingFile
from recfs.state.events import Subscriber
from recfs.state.ledger import COUNTED, DIRECT, LEFT, WRITES
from recfs.state.nodes import FileNode

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.fs.vfs import Vfs
from recfs.state.ledger import Ledger, Opened

log = logging.getLogger("recfs.recovery")

NAMELESS: Final = "recfs-nameless-"
"""Begins the names of descriptors of files without one; the inode number follows, then what no row says any more."""


def name_of(node: FileNode) -> str:
    """What its descriptor is called: mode and owner are not the file's below, which is the daemon's."""
    return f"{NAMELESS}{node.ino}.{node.mode:o}.{node.uid}.{node.gid}"


class Nameless(NamedTuple):
    """What was kept of a file that had lost its name."""

    name: str
    fd: int
    rest: list[str]
    """Mode, owner and group; empty of a daemon that did not say them."""


def nameless_by_ino(kept: dict[str, int]) -> dict[int, Nameless]:
    """Those among the descriptors of an earlier daemon, by inode number."""
    found = {}
    for name, fd in kept.items():
        if name.startswith(NAMELESS):
            ino, *rest = name.removeprefix(NAMELESS).split(".")
            found[int(ino)] = Nameless(name, fd, rest)
    return found


def writing(ledger: Ledger) -> frozenset[int]:
    """Inode numbers of the files that are open for writing."""
    return frozenset(each.ino for each in ledger.open_files() if each.flags & WRITES)


class KeptNameless(Subscriber):
    """Has the bytes of files kept that lose their name while they are open: no path leads to them any more."""

    def __init__(self, store: Callable[[int, str], None], remove: Callable[[str], None]) -> None:
        """*store* and *remove*: those of whoever keeps descriptors, by name; *store* raises OSError."""
        self._store = store
        self._remove = remove
        self._known: dict[int, str] = {}

    def know(self, ino: int, name: str) -> None:
        """An earlier daemon had this one kept, under that name."""
        self._known[ino] = name

    def keep(self, node: FileNode) -> None:
        """Have the bytes of a nameless file kept as they are open now. Atomic."""
        if node.body is None or not node.body.handles:
            return
        self.forget(node.ino)
        try:
            self._store(node.body.fd, name := name_of(node))
        except OSError as error:
            log.warning("%s was removed while it is open, and would be lost with the daemon: %s", node.path, error)
        else:
            self._known[node.ino] = name

    def forget(self, ino: int) -> None:
        """Nobody has it open any more. Atomic."""
        name = self._known.pop(ino, None)
        if name is not None:
            self._remove(name)

    def forget_all(self) -> None:
        """The mount has ended in order."""
        for ino in list(self._known):
            self.forget(ino)

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """It is about to lose its name."""
        self.keep(node)

    def described(self, node: FileNode) -> None:
        """Its mode or owner is another."""
        if node.ino in self._known:
            self.keep(node)

    def released(self, node: FileNode) -> None:
        """Its last handle is gone."""
        self.forget(node.ino)


class KeptFiles:
    """Enters them: after recovery, before anything is served."""

    def __init__(self, vfs: Vfs, ledger: Ledger, nameless: dict[int, Nameless]) -> None:
        """*nameless*: files that had lost their name, by inode number; their descriptors are taken over."""
        self._nameless = dict(nameless)
        self._vfs = vfs
        self._tree = vfs.tree
        self._ledger = ledger

    async def take_over(self) -> None:
        """Enter all of them. One whose file is gone, or cannot be opened, is told: what asks for it gets an error."""
        found: dict[int, FileNode] = {}
        for opened in self._ledger.open_files():
            try:
                found[opened.ino] = await self._enter(opened)
            except (RecfsError, OSError) as error:
                if not opened.flags & LEFT:
                    log.error("an open file of before this start is lost (inode %d): %s", opened.ino, error)
                self._ledger.released(opened.number)
        for node in found.values():
            if node.state is State.WRITING and node.body is not None and node.body.writers:
                self._catch_up(node, node.body)
        for opened in self._ledger.open_files():
            if opened.flags & LEFT:  # the kernel has let go of it
                await self._vfs.files.release(opened.number)
                self._ledger.left(opened.number)
        self._vfs.files.next_number = max(self._vfs.files.next_number, self._ledger.next_number)

    async def _enter(self, opened: Opened) -> FileNode:
        files, writes = self._vfs.files, bool(opened.flags & WRITES)
        try:
            node = await self._tree.get(opened.ino)
        except Stale:
            node = self._removed(opened)
        if not isinstance(node, FileNode):
            raise Stale(f"inode {opened.ino} is no file")
        shown = await self._vfs.views.resolve(opened.asked) if opened.asked >= VIEW_BIT else None
        if node.state.is_remote and not node.unlinked:
            self._from_afar(node, opened)
        body = await self._vfs.backing_files.acquire(node, write=writes)
        body.handles -= 1
        body.writers -= writes
        handle = files.inherit(opened.number, node, body, opened.uid, writes=writes)
        handle.direct = bool(opened.flags & DIRECT)
        handle.shown = shown if isinstance(shown, FallbackEntry) else None
        if node.state is State.WRITING and not node.unlinked:
            body.in_place = node.staging is None and node.unmarked
        # Of one that the kernel has let go of, the backing id may be given back, and the file have another by now.
        if opened.mode is not None and not opened.flags & LEFT:
            body.backing = body.backing or opened.backing
            files.modes.inherit(handle, Mode(opened.mode), counted=bool(opened.flags & COUNTED))
        return node

    def _from_afar(self, node: FileNode, opened: Opened) -> None:
        """Nothing is fetched yet, and S3 may not answer: who reads it waits for its bytes, not the start for S3."""
        if opened.flags & LEFT:
            raise Stale(f"{node.path} is read by nobody any more")
        if opened.flags & WRITES:
            raise IoFailure(f"{node.path} was open for writing, and only S3 has its bytes")
        if node.body is None:
            fd, download = self._vfs.backing_files.remote.begin_again(node)
            node.body = BackingFile(fd, writable=False)
            node.body.download = download

    def _removed(self, opened: Opened) -> FileNode:
        """A file that has lost its name, of what was kept of it. Raises Stale."""
        node = self._tree.orphans.get(opened.ino)
        if isinstance(node, FileNode):
            return node
        kept = self._nameless.pop(opened.ino, None)
        if kept is None:
            raise Stale("it was removed, and its bytes are not kept")
        fd, info = kept.fd, os.fstat(kept.fd)
        now = time_ns(info.st_mtime_ns)
        mode, uid, gid = 0o600, opened.uid, info.st_gid
        if len(kept.rest) == 3:
            mode, uid, gid = int(kept.rest[0], 8), int(kept.rest[1]), int(kept.rest[2])
        node = FileNode(opened.ino, self._tree.root, b"(removed)", mode, uid, gid, now)
        node.unlinked, node.bytes = True, info.st_size
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        node.body = BackingFile(fd, writable=writable)
        node.body.in_place = writable
        self._tree.orphans.add(node)
        return node

    def _catch_up(self, node: FileNode, body: BackingFile) -> None:
        """What was written when nobody took it over into the row. Atomic."""
        info = os.fstat(body.fd)
        if info.st_size != node.bytes:
            self._tree.resize(node, info.st_size)
            node.mtime_ns = node.ctime_ns = time_ns(info.st_mtime_ns)
            self._tree.behind.node(node)
        if is_frozen(body.fd):
            body.stopped = (QuotaExceeded, f"{node.path}: its writer had run past a limit before recfs was started")


__all__ = ["NAMELESS", "KeptFiles", "KeptNameless", "Nameless", "name_of", "nameless_by_ino", "writing"]
