"""What was deleted or overwritten and lies in the trash: shown, brought back, or given up before its time.

A file comes back with its checksum, times, owner and mode, without a copy: its bytes are taken from the trash to
staging, and the publisher brings them home like those of any committed file. Their label says where they came from, so
that they go back there should the daemon die in between. What was never committed is sealed first.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

import trio

from recfs.core.layout import child_role
from recfs.core.model import Kind, State
from recfs.disk.staging import TRASH_LABEL
from recfs.errors import Exists, IsADirectory, NotADirectory, NotFound, Stale
from recfs.fs.caller import Caller, may_change
from recfs.ports.rows import Pending
from recfs.state.nodes import DirNode, FileNode, LinkNode
from recfs.state.waits import bounded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recfs.disk.home.publisher import HomePublisher
    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache
    from recfs.state.nodes import Garbage
    from recfs.stores.local import LocalStore

MADE_MODE = 0o755
"""Of directories that are made anew: the trash does not keep theirs."""
_NS = 1_000_000_000


class Trashed(NamedTuple):
    """One version of a file in the trash."""

    number: int
    path: bytes
    """Which it had."""
    size_bytes: int
    sha256: bytes | None
    """None: it was deleted before it was committed."""
    uid: int
    gid: int
    age_s: float
    """Since it was deleted or overwritten."""


class Trash:
    """The trash of a store. Its entries are those of `Tree.garbage` that only their retention keeps."""

    def __init__(
        self, vfs: Vfs, store: LocalStore, publisher: HomePublisher, kernel: KernelCache, *, retention_s: float
    ) -> None:
        self._vfs = vfs
        self._tree = vfs.tree
        self._behind = vfs.behind
        self._store = store
        self._publisher = publisher
        self._kernel = kernel
        self.retention_s = retention_s
        self._leaving: set[int] = set()
        """Entries that are being brought back."""

    def entries(self) -> list[Trashed]:
        """All of them, in the order in which they were deleted. Atomic."""
        now = self._tree.clock.steady_ns()
        return [
            Trashed(
                each.gid, each.path, each.size_bytes, each.sha256, each.uid, each.gid_owner,
                max(0.0, (now - each.deleted_ns) / _NS),
            )
            for _, each in sorted(self._tree.garbage.items())
            if self._is_kept(each)
        ]  # fmt: skip

    def _is_kept(self, entry: Garbage) -> bool:
        """Whether it is in the trash, or on its way there, and nobody has taken it."""
        is_taken = entry.gid in self._leaving or self._publisher.is_given_up(entry)
        kept = entry.kind is Kind.FILE and entry.size_bytes > 0 and entry.held_by is None
        return kept and self.retention_s > 0 and not is_taken

    def is_leaving(self, entry: Garbage) -> bool:
        """Whether it is being brought back, and its bytes may be on their way. Atomic."""
        return entry.gid in self._leaving

    def purge(self, entry: Garbage) -> None:
        """The retention of *entry* is over, or nobody wants it any more. Atomic."""
        if entry.gid not in self._leaving:
            self._publisher.purge(entry)

    async def give_up(self, number: int) -> None:
        """Have a version removed for good. Raises NotFound."""
        entry = self._known(number)
        await self._arrived(entry)
        self.purge(self._known(number))

    async def restore(self, number: int, to: Iterable[bytes] | None = None, *, force: bool = False) -> FileNode:
        """Bring a version back to the path it had, or *to* another.

        *force*: in place of a file that is there by now, which goes to the trash in turn. Raises NotFound where there
        is no such version, Stale where its bytes are gone, Exists, and what making a file may (QuotaExceeded …).
        """
        entry = self._known(number)
        await self._arrived(entry)
        names = list(to) if to is not None else entry.path.split(b"/")
        made: list[DirNode] = []
        folder = await self._folder(names[:-1], entry, made)
        entry = self._known(number)  # somebody else may have been faster
        self._leaving.add(number)
        try:
            await self._admit(folder, names[-1], entry, force=force)
            with trio.CancelScope(shield=True):
                node = await self._move(entry, folder, names[-1], force=force)
                await self._behind.durable(node.ino)
        finally:
            self._leaving.discard(number)
        if node.state.is_whole and not node.unlinked:
            self._publisher.add(node.ino)
        for each in (*made, node):
            self._kernel.forget_entry(each.parent.ino, each.name, 0)
            self._kernel.forget_inode(each.parent.ino)
        return node

    def _known(self, number: int) -> Garbage:
        entry = self._tree.garbage.get(number)
        if entry is None or not self._is_kept(entry):
            raise NotFound(f"the trash has no number {number}")
        return entry

    async def _arrived(self, entry: Garbage) -> None:
        """Wait until the bytes lie in the trash."""
        with bounded(f"{os.fsdecode(entry.path)} to arrive in the trash"):
            while not entry.in_trash and entry.gid in self._tree.garbage:
                await self._behind.flush()
                self._publisher.hurry()
                await self._publisher.no_batch()
                await trio.sleep(0.01)

    async def _folder(self, names: list[bytes], entry: Garbage, made: list[DirNode]) -> DirNode:
        """The directory of that path; what is missing of it is made, as the owner's. No link is followed: its owner
        could have it lead anywhere.
        """
        folder = self._tree.root
        caller = Caller(entry.uid, entry.gid_owner, operator=True)
        for name in names:
            child = await self._tree.child(folder, name)
            if child is None:
                with contextlib.suppress(Exists):
                    made.append(await self._vfs.mkdir(folder.ino, name, MADE_MODE, caller))
                child = await self._tree.child(folder, name)
            if not isinstance(child, DirNode):
                raise NotADirectory(f"{folder.path}/{os.fsdecode(name)} is not a directory")
            folder = child
        return folder

    async def _admit(self, folder: DirNode, name: bytes, entry: Garbage, *, force: bool) -> None:
        """Raise what is against it before anything has moved."""
        there = await self._tree.child(folder, name)
        if isinstance(there, DirNode):
            raise IsADirectory(f"{there.path} is a directory")
        if there is not None and not force:
            raise Exists(f"{there.path} exists")
        self._check(folder, name, entry.size_bytes)

    def _check(self, folder: DirNode, name: bytes, size: int) -> None:
        may_change(folder, Caller(0, 0, operator=True))
        child_role(folder.role, name, is_dir=False)
        replaced = folder.children.get(name)
        freed = replaced.bytes if isinstance(replaced, FileNode) else 0
        if folder.account is not None:
            if replaced is None:
                folder.account.check_add_file(self._tree.clock.calendar_ns(), upload=False)
            folder.account.demand(freed, max(freed, size))

    async def _move(self, entry: Garbage, folder: DirNode, name: bytes, *, force: bool) -> FileNode:
        """Take the bytes to staging, and enter the file. Either both, or neither."""
        limiter = self._vfs.backing_files.pool.limiter
        staging, size = await trio.to_thread.run_sync(self._take, entry, limiter=limiter)
        try:
            there = await self._tree.child(folder, name)
            if isinstance(there, DirNode) or (there is not None and not force):
                raise Exists(f"{folder.path}/{os.fsdecode(name)} exists")
            self._check(folder, name, size)
            if folder.fallback is not None:
                self._vfs.views.unhide(folder, name)
            if there is not None:
                assert isinstance(there, (FileNode, LinkNode))
                self._vfs.removal.discard(there, successor=None)
            node = self._enter(entry, folder, name, staging, size)
        except BaseException:
            await trio.to_thread.run_sync(self._give_back, entry, staging, limiter=limiter)
            raise
        if there is not None:
            self._kernel.forget_entry(folder.ino, name, there.ino)
        return node

    def _take(self, entry: Garbage) -> tuple[str, int]:
        """Blocking. Raises Stale when the bytes are not those that were deleted."""
        path = self._store.trash(entry.gid)
        try:
            fd = self._store.open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            raise Stale(f"{os.fsdecode(entry.path)}: its bytes are gone from the trash") from None
        try:
            info = os.fstat(fd)
            is_other = entry.sha256 is not None and info.st_size != entry.size_bytes  # else somebody wrote on
            if is_other or not stat.S_ISREG(info.st_mode):
                raise Stale(f"{os.fsdecode(entry.path)}: what lies in the trash under {entry.gid} is something else")
            with contextlib.suppress(OSError):  # it matters only if recfs dies within the next moment
                self._store.label(fd, TRASH_LABEL + b"%d" % entry.gid)
        finally:
            os.close(fd)
        staging = self._vfs.backing_files.pool.take_over(path)
        self._store.sync_staging()
        return staging, info.st_size

    def _give_back(self, entry: Garbage, staging: str) -> None:
        self._store.rename(self._store.staging(staging), self._store.trash(entry.gid))

    def _enter(self, entry: Garbage, folder: DirNode, name: bytes, staging: str, size: int) -> FileNode:
        """The file is there again, and the trash has it no more. Atomic."""
        tree, now = self._tree, self._tree.clock.now_ns()
        node = FileNode(tree.new_ino(), folder, name, entry.mode, entry.uid, entry.gid_owner, now)
        node.staging, node.home_ino = staging, entry.home_ino
        tree.add(node)
        tree.touch(folder, now)
        tree.resize(node, size)
        node.mtime_ns = entry.mtime_ns
        node.enter(State.SEALING)
        if entry.sha256 is not None:
            node.enter(State.COMMITTED)
            node.sha256, node.md5 = entry.sha256, entry.md5
            node.pending |= Pending.MOVE
            tree.events.committed(node)
        else:
            node.promised = entry.promised
            self._vfs.pipeline.submit(node.ino)
        self._behind.node(node)
        del tree.garbage[entry.gid]
        self._behind.purged(entry.gid)
        return node


__all__ = ["Trash", "Trashed"]
