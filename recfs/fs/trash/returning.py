"""One version in the trash on its way back to a name.

A file comes back with its checksum, times, owner, mode and attributes, without a copy: its bytes go from the trash
to staging, and the publisher brings them home like those of any committed file. Their label says where they came from,
so that they go back there should the daemon die in between. What was never committed is sealed first. What only S3 has
is there again as soon as the rows say so.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

import trio

from recfs.core.layout import child_role
from recfs.core.life import restored_life
from recfs.core.model import Kind, State
from recfs.core.observing.kinds import EventKind
from recfs.disk.staging import TRASH_LABEL
from recfs.errors import Exists, IsADirectory, NotADirectory, NotSupported, Stale
from recfs.fs.attributes import Changes
from recfs.fs.caller import Caller, may_change, may_grow
from recfs.ports.rows import Pending, Promise, TrashRow
from recfs.state.nodes import DirNode, FileNode, LinkNode
from recfs.state.waits import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recfs.disk.home.publisher import HomePublisher
    from recfs.disk.trash_index import TrashIndex
    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache
    from recfs.state.nodes import Garbage, Node
    from recfs.stores.local import LocalStore
    from recfs.tier.trashed import TrashedObjects

MADE_MODE = 0o755
"""Of directories that are made anew and that the trash does not have."""
_OPERATOR = Caller(0, 0, operator=True)


class Returning:
    """Brings versions back."""

    def __init__(
        self, vfs: Vfs, store: LocalStore, publisher: HomePublisher, kernel: KernelCache, index: TrashIndex,
        objects: TrashedObjects | None,
    ) -> None:  # fmt: skip
        self._vfs = vfs
        self._tree = vfs.tree
        self._behind = vfs.behind
        self._store = store
        self._publisher = publisher
        self._kernel = kernel
        self._index = index
        self._objects = objects
        self.taken: set[int] = set()
        """Versions that are being brought back."""

    async def bring(
        self, number: int, known: Callable[[], Garbage | TrashRow], names: Sequence[bytes],
        *, force: bool, durable: bool = True,
    ) -> Node:  # fmt: skip
        """Bring a version back under a path. *durable* False: whoever brings several waits for all of them at the end.

        *known*: gives the version as it is now, and raises NotFound where somebody else was faster.
        """
        folder = await self._folder(names[:-1], known())
        entry = known()
        self.taken.add(number)
        try:
            await self._admit(folder, names[-1], entry, force=force)
            own = await self._index.attributes(entry)
            with trio.CancelScope(shield=True):
                node = await self._enter_as(entry, folder, names[-1], own, force=force)
                if durable:
                    await self._behind.durable(node.ino)
        finally:
            self.taken.discard(number)
            self._tree.accounts.in_trash.released(number)
        if self._objects is not None and entry.kind is Kind.FILE:
            self._objects.give_up_copy(entry)  # it goes to S3 anew, or has its object: what else there is goes
        if isinstance(node, FileNode) and node.state.is_whole and not node.unlinked:
            if durable:
                self._publisher.add(node.ino)
            else:
                self._behind.publish(node)  # its bytes are not to come home before its row says so
        self._tell(node)
        return node

    async def _enter_as(
        self, entry: Garbage | TrashRow, folder: DirNode, name: bytes, own: dict[bytes, bytes], *, force: bool
    ) -> Node:
        """*own*: the extended attributes it had."""
        if not isinstance(entry, TrashRow):
            return await self._move(entry, folder, name, own, force=force)
        if entry.kind is Kind.DIR:
            return await self._make_dir(folder, name, entry, own)
        is_far = entry.kind is Kind.FILE and entry.object_key is not None
        if is_far and self._objects is None:
            raise NotSupported("its bytes are in S3, and the configuration has no [s3]")
        while True:
            there = await self._tree.child(folder, name)
            if there is not None:
                await self._vfs.removal.prepare(there)
            if is_far and self._objects is not None:  # last: its object may be copied aside at any time
                await self._objects.check(entry)
                entry = self._index.rows[entry.gid]
            if folder.children.get(name) is there:
                break
        self._refuse(folder, name, entry, force=force)
        if entry.object_key is not None and self._objects is not None:
            self._objects.take(entry)
        self._make_room(folder, name)
        return self._enter_row(entry, folder, name, own)

    def _tell(self, node: Node) -> None:
        self._kernel.forget_entry(node.parent.ino, node.name, 0)
        self._kernel.forget_inode(node.parent.ino)

    async def arrived(self, entry: Garbage | TrashRow) -> None:
        """Wait until the bytes lie in the trash."""
        if isinstance(entry, TrashRow):
            return
        with bounded(f"{os.fsdecode(entry.path)} to arrive in the trash"):
            while not entry.in_trash and entry.gid in self._tree.garbage:
                await self._behind.flush()
                self._publisher.hurry()
                await self._publisher.no_batch()
                await trio.sleep(0.01)

    # --- directories ---------------------------------------------------------------------------------------------

    async def _folder(self, names: Sequence[bytes], entry: Garbage | TrashRow) -> DirNode:
        """The directory of that path; what is missing of it comes from the trash, or is made, as the owner's.

        No link is followed: its owner could have it lead anywhere.
        """
        folder = self._tree.root
        for depth, name in enumerate(names):
            child = await self._tree.child(folder, name)
            if child is None:
                path = b"/".join(names[: depth + 1])
                row = self._index.folder(path)
                with contextlib.suppress(Exists):
                    if row is not None:
                        await self._make_dir(folder, name, row, await self._index.attributes(row))
                    else:
                        caller = Caller(entry.uid, entry.gid_owner, operator=True)
                        self._tell(await self._vfs.mkdir(folder.ino, name, MADE_MODE, caller, reserved=True))
                child = await self._tree.child(folder, name)
            if not isinstance(child, DirNode):
                raise NotADirectory(f"{folder.path}/{os.fsdecode(name)} is not a directory")
            folder = child
        return folder

    async def _make_dir(self, folder: DirNode, name: bytes, row: TrashRow, own: dict[bytes, bytes]) -> DirNode:
        """Make a directory as it was, and take it out of the trash. Raises Exists."""
        caller = Caller(row.uid, row.gid_owner, operator=True)
        node = await self._vfs.mkdir(folder.ino, name, row.mode, caller, reserved=True)
        self._index.drop(row.gid)
        self._tree.events.noted(EventKind.RESTORED, node, "from the trash")
        self._describe(node, own)
        life = restored_life(row.life, self._tree.clock.steady_ns()) if row.life else None
        if life is not None:  # also of one that had been moved into another directory: it goes with it from there
            node.life = life
            self._behind.recording(node)
        await self._vfs.setattr(node.ino, Changes(mode=row.mode, gid=row.gid_owner), _OPERATOR)
        self._tell(node)
        return node

    def _describe(self, node: Node, own: dict[bytes, bytes]) -> None:
        """Give *node* the extended attributes it had. Atomic."""
        node.xattrs = own
        for name, value in own.items():
            self._behind.xattr(node.ino, name, value)
        if own:
            self._behind.node(node)

    # --- files and links -----------------------------------------------------------------------------------------

    async def _admit(self, folder: DirNode, name: bytes, entry: Garbage | TrashRow, *, force: bool) -> None:
        """Raise what is against it before anything has moved."""
        await self._tree.child(folder, name)
        self._refuse(folder, name, entry, force=force)

    def _refuse(self, folder: DirNode, name: bytes, entry: Garbage | TrashRow, *, force: bool) -> None:
        """Raise what is against it. Atomic."""
        there = folder.children.get(name)
        if isinstance(there, DirNode) and entry.kind is not Kind.DIR:
            raise IsADirectory(f"{there.path} is a directory")
        if there is not None and (not force or entry.kind is Kind.DIR):
            remedy = "; --force replaces it, --to PATH gives another name" if entry.kind is not Kind.DIR else ""
            raise Exists(f"{there.path} exists by now{remedy}")
        self._check(folder, name, entry, entry.size_bytes)

    def _check(self, folder: DirNode, name: bytes, entry: Garbage | TrashRow, size: int) -> None:
        may_change(folder, _OPERATOR)
        may_grow(folder)
        child_role(folder.role, name, is_dir=entry.kind is Kind.DIR)
        if entry.kind is Kind.DIR:
            return
        replaced, accounts = folder.children.get(name), self._tree.accounts
        freed = 0
        if isinstance(replaced, FileNode) and not accounts.in_trash.charges:  # else it goes on counting, in the trash
            freed = replaced.bytes
        if folder.account is not None:
            freed += accounts.in_trash.charged_for(folder.account.user, entry.gid)
            if replaced is None:
                folder.account.check_add_file(self._tree.clock.calendar_ns(), upload=False)
            folder.account.demand(freed, max(freed, size))

    def _make_room(self, folder: DirNode, name: bytes) -> None:
        """What is under that name goes to the trash in turn. Atomic."""
        there = folder.children.get(name)
        if folder.fallback is not None:
            self._vfs.views.unhide(folder, name)
        if there is not None:
            assert isinstance(there, (FileNode, LinkNode))
            self._vfs.removal.discard(there, successor=None)
            self._kernel.forget_entry(folder.ino, name, there.ino)

    async def _move(
        self, entry: Garbage, folder: DirNode, name: bytes, own: dict[bytes, bytes], *, force: bool
    ) -> FileNode:
        """Take the bytes to staging, and enter the file. Either both, or neither."""
        limiter = self._vfs.backing_files.pool.limiter
        staging, size = await trio.to_thread.run_sync(self._take, entry, limiter=limiter)
        try:
            there = await self._tree.child(folder, name)
            while there is not None and await self._vfs.removal.prepare(there):
                there = await self._tree.child(folder, name)
            self._refuse(folder, name, entry, force=force)
            self._check(folder, name, entry, size)
            self._make_room(folder, name)
            return self._enter(entry, folder, name, own, staging, size)
        except BaseException:
            await trio.to_thread.run_sync(self._give_back, entry, staging, limiter=limiter)
            raise

    def _take(self, entry: Garbage) -> tuple[str, int]:
        """Blocking. Raises Stale when the bytes are not those that were deleted."""
        path = self._store.trash(entry.gid)
        try:
            fd = self._store.open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            raise Stale(f"{os.fsdecode(entry.path)}: its bytes are gone from the trash") from None
        try:
            info = os.fstat(fd)
            is_sealed = entry.sha256 is not None and not entry.promised & Promise.DAMAGED
            is_other = is_sealed and info.st_size != entry.size_bytes  # else somebody wrote on
            if is_other or not stat.S_ISREG(info.st_mode):
                raise Stale(f"{os.fsdecode(entry.path)}: what lies in the trash under {entry.gid} is something else")
            with contextlib.suppress(OSError):  # it matters only if recfs dies within the next moment
                self._store.label(fd, TRASH_LABEL + b"%d" % entry.gid)
        finally:
            os.close(fd)
        staging = self._vfs.backing_files.pool.take_over(path)
        self._store.sync_staging()
        return staging, entry.size_bytes if entry.promised & Promise.DAMAGED else info.st_size

    def _give_back(self, entry: Garbage, staging: str) -> None:
        self._store.rename(self._store.staging(staging), self._store.trash(entry.gid))

    def _enter(
        self, entry: Garbage, folder: DirNode, name: bytes, own: dict[bytes, bytes], staging: str, size: int
    ) -> FileNode:
        """The file is there again, and the trash has it no more. Atomic."""
        node = self._file(entry, folder, name, size)
        node.staging, node.home_ino = staging, entry.home_ino
        self._describe(node, own)
        if entry.sha256 is not None:
            node.never_left(State.CORRUPT if entry.promised & Promise.DAMAGED else State.COMMITTED)
            node.sha256, node.md5 = entry.sha256, entry.md5
            if node.state is State.COMMITTED:  # else its bytes stay in staging until they are right
                node.pending |= Pending.MOVE
                self._tree.events.committed(node)
        elif entry.promised & Promise.CUT_OFF:
            node.never_left(State.INCOMPLETE)
        else:
            node.enter(State.SEALING)
            node.promised = entry.promised
            self._vfs.pipeline.submit(node.ino)
        self._tree.events.noted(EventKind.RESTORED, node, "from the trash")
        self._behind.node(node)
        del self._tree.garbage[entry.gid]
        self._behind.purged(entry.gid)
        return node

    def _enter_row(self, row: TrashRow, folder: DirNode, name: bytes, own: dict[bytes, bytes]) -> FileNode | LinkNode:
        """The same of what has no bytes here. Atomic."""
        tree = self._tree
        node: FileNode | LinkNode
        if row.kind is Kind.SYMLINK:
            node = LinkNode(
                tree.new_ino(), folder, name, row.target or b"", row.uid, row.gid_owner, tree.clock.now_ns()
            )
            node.pending = Pending.MAKE
            node.mtime_ns = row.mtime_ns
            tree.add(node)
            tree.touch(folder, node.ctime_ns)
            self._behind.publish(node)
        else:
            node = self._file(row, folder, name, row.size_bytes)
            if row.object_key is not None and self._objects is not None:
                self._objects.enter(node, row)
            else:
                node.staging, fd = self._vfs.backing_files.pool.take()
                os.close(fd)
                self._vfs.backing_files.pool.label(node)
                node.enter(State.SEALING)
                self._vfs.pipeline.submit(node.ino)
        self._describe(node, own)
        self._tree.events.noted(EventKind.RESTORED, node, "from the trash")
        self._behind.node(node)
        self._index.drop(row.gid)
        return node

    def _file(self, entry: Garbage | TrashRow, folder: DirNode, name: bytes, size: int) -> FileNode:
        tree, now = self._tree, self._tree.clock.now_ns()
        node = FileNode(tree.new_ino(), folder, name, entry.mode, entry.uid, entry.gid_owner, now)
        tree.add(node)
        tree.touch(folder, now)
        tree.resize(node, size)
        node.mtime_ns = entry.mtime_ns
        return node


__all__ = ["MADE_MODE", "Returning"]
