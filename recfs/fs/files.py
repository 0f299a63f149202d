"""Open files: handles, reads, writes, truncation, and what the last release sets in motion."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from typing import TYPE_CHECKING

import trio

from recfs.core.model import State
from recfs.core.retention import Use
from recfs.disk.diskio import DiskIo, disk_error
from recfs.disk.refresh import drop_privileges, refresh
from recfs.disk.shares import Shares
from recfs.errors import IoFailure, RecfsError
from recfs.fs.caller import may_change, may_grow
from recfs.fs.handles import Handle
from recfs.fs.sizes import Sizes
from recfs.ports.object_errors import TransferCancelled
from recfs.ports.rows import Promise
from recfs.state.nodes import FileNode, is_changeable
from recfs.state.waits import bounded, interruptible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recfs.disk.backing_files import BackingFiles
    from recfs.disk.staging import DiskReserve
    from recfs.fs.backlog import Backlog
    from recfs.fs.caller import Caller
    from recfs.fs.iomodes import IoModes
    from recfs.fs.names.namespace import Namespace
    from recfs.ports.work import Pipeline
    from recfs.state.backing_file import BackingFile
    from recfs.state.nodes import DirNode
    from recfs.state.tree import Tree


HELD_S = 10.0
"""Longest wait of truncate(2) for S3, in seconds. Whoever removes the file waits as long, and holds its directory."""


class OpenFiles:
    """All open handles, by number."""

    def __init__(
        self,
        tree: Tree,
        backing_files: BackingFiles,
        names: Namespace,
        space: DiskReserve,
        backlog: Backlog,
        pipeline: Pipeline,
        modes: IoModes,
        *,
        operators: Iterable[int] = (),
    ) -> None:
        self._kernel = modes.cache
        self.modes = modes
        self._limiter = backing_files.pool.limiter
        self.disk = DiskIo(self._limiter)
        self._tree = tree
        self._behind = tree.behind
        self._backing_files = backing_files
        self._unsealing = backing_files.unsealing
        self.stops = backing_files.stops
        self._names = names
        self.space = space
        self.sizes = Sizes(tree, backing_files, space)
        self.backlog = backlog
        self._pipeline = pipeline
        self.next_number = 1
        self._released: trio.Event | None = None
        """Set with the next release, where somebody waits for one."""
        self.shares = Shares(operators)
        self.handles: dict[int, Handle] = {}
        self.copying: dict[int, trio.Event] = {}
        """Files being copied up, by inode number: half a copy is not opened."""

    # --- opening -------------------------------------------------------------------------------------------------

    def _register(self, node: FileNode, body: BackingFile, uid: int, *, writes: bool) -> int:
        number = self.next_number
        self.next_number = number + 1
        self.handles[number] = Handle(node, body, uid, writes=writes)
        self.shares.opened(body, uid)
        return number

    def adopt(self, node: FileNode, body: BackingFile) -> int:
        """A writer that outlived an earlier daemon has the file open, which nobody else has. Atomic."""
        body.handles = body.writers = 1
        number = self._register(node, body, node.uid, writes=True)
        handle = self.handles[number]
        handle.foreign = True
        self.modes.adopt(handle)
        return number

    def inherit(self, number: int, node: FileNode, body: BackingFile, uid: int, *, writes: bool) -> Handle:
        """A handle of this mount that an earlier daemon gave to the kernel. Atomic."""
        body.handles += 1
        body.writers += writes
        handle = self.handles[number] = Handle(node, body, uid, writes=writes)
        self.shares.opened(body, uid)
        return handle

    async def create(
        self, folder: DirNode, name: bytes, mode: int, caller: Caller, *, copying: bool = False
    ) -> tuple[int, FileNode]:
        """Make a new file open for writing. Raises Exists, QuotaExceeded, InvalidPath, OutOfSpace, TooManyFiles."""
        self.shares.admit(caller.uid)
        if folder.children.get(name) is not None or not folder.complete:
            await self._names.absent(folder, name)
        slot = self._backing_files.pool.take()
        try:
            may_change(folder, caller)
            may_grow(folder)
            if name in folder.children:
                await self._names.absent(folder, name)
            self.space.admit_entry()
            upload = self._names.admit_file(folder, name)
        except BaseException:
            os.close(slot[1])
            await trio.to_thread.run_sync(self._backing_files.pool.discard, slot[0], limiter=self._limiter)
            raise
        node = self._names.add_file(folder, name, mode, caller, upload=upload)
        body = self._backing_files.create(node, slot, copying=copying)
        return self._register(node, body, caller.uid, writes=True), node

    async def open(self, node: FileNode, flags: int, uid: int) -> int:
        """Open an existing file; one that is just being copied up, when that is done."""
        self.shares.admit(uid)
        before = self.next_number
        if self.copying:
            await self._copied(node)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        truncate = bool(flags & os.O_TRUNC)
        body = await self._backing_files.acquire(node, write=writes or truncate, empty=truncate)
        try:
            if self.next_number != before:
                self.shares.admit(uid)  # others of the same user may have been opened meanwhile
            if truncate:
                await self.sizes.resize(node, 0)
            elif node.state is State.CORRUPT:
                raise IoFailure(f"{node.path} is corrupt: its bytes are not those that were committed")
        except BaseException:
            await self.let_go(node, body, writes=writes or truncate)
            raise
        if truncate and not writes:  # O_RDONLY|O_TRUNC: unspecified by POSIX, Linux truncates
            body.writers -= 1
            if not body.writers:
                self.seal(node)
        number = self._register(node, body, uid, writes=writes)
        if writes:
            self.note(number, flags)
        return number

    def note(self, number: int, flags: int) -> None:
        """Keep what matters of an open's flags. Atomic."""
        handle = self.handles[number]
        handle.direct = handle.writes and bool(flags & os.O_DIRECT)

    async def _copied(self, node: FileNode) -> None:
        while node.ino in self.copying:
            with bounded(f"the copy of {node.path}, which is under way"):
                await self.copying[node.ino].wait()

    # --- bytes ---------------------------------------------------------------------------------------------------

    async def read(self, number: int, offset: int, size: int) -> bytes | memoryview:
        """Bytes at *offset*; fewer than *size* only at the end of the file."""
        handle = self.handles[number]
        if handle.body.unchecked_writers:
            refresh(self._tree, handle.node)
        download = handle.body.download
        if download is not None:
            with download.reading(offset, size):
                handle.body.asked = True
                with interruptible(f"bytes of {handle.node.path}"):
                    await self.fetch(handle.body, offset, size)
                return await self.disk.read_at(handle.body.fd, size, offset, handle.node.bytes)
        if handle.body.backing:
            size = max(0, min(size, handle.node.bytes - offset))
            return await self._backing_files.contended.run(handle.node, os.pread, handle.body.fd, size, offset)
        return await self.disk.read_at(handle.body.fd, size, offset, handle.node.bytes)

    async def fetch(self, body: BackingFile, offset: int, length: int) -> None:
        """Have these bytes here. If the file is overwritten meanwhile, what it is then counts."""
        while (download := body.download) is not None:
            try:
                await download.ensure(offset, length)
                return
            except TransferCancelled:
                if body.download is download:
                    raise

    async def write(self, number: int, offset: int, data: bytes) -> int:
        """Write as much of *data* as quota and disk allow; raises when that is not a single byte."""
        if not data:
            return 0  # not even a hole: pwrite(2)
        await self.keep_pace(self.handles[number].node)
        return await self.write_now(number, offset, data)

    async def keep_pace(self, node: FileNode) -> None:
        """Pause before more is written while others have to catch up (fs/backlog.py). Raises OutOfSpace."""
        if self.backlog.is_full:
            await self.backlog.pause(node)

    async def write_now(self, number: int, offset: int, data: bytes) -> int:
        handle = self.handles[number]
        await self.begin(handle)
        node, body = handle.node, handle.body
        end = offset + len(data)
        if end > node.bytes:
            wanted, end = end, self.sizes.admit(node, offset, end)
            if end < wanted and handle.direct:
                # The kernel tells EIO of half a write past the page cache, if it lay inside what was the file when it
                # was sent (fuse_get_res_by_io, fs/fuse/file.c).
                self.sizes.demand(node, wanted)
            data = data[: end - offset]
            self._tree.resize(node, end)
        try:
            if body.backing:
                written = await self._backing_files.contended.run(node, os.pwrite, body.fd, data, offset)
            else:
                written = await self.disk.write_at(body.fd, data, offset)
        except BaseException as error:
            self._tree.resize(node, os.fstat(body.fd).st_size)
            if not isinstance(error, OSError):
                raise
            if body.stopped is not None:
                raise body.stopped[0](body.stopped[1]) from error
            if error.errno != errno.EPERM or not await self.stops.thawed(node, body):
                raise disk_error(error, node) from error
            return await self.write_now(number, offset, data)
        if written < len(data) or offset + written > node.bytes:  # others may have cut it, or failed, meanwhile
            self._tree.resize(node, os.fstat(body.fd).st_size)
        self.changed(node)
        if handle.direct and body.handles > 1:
            # The kernel drops its pages before an asynchronous write past them, and not after it: somebody who read in
            # between has old ones.
            self._kernel.forget_inode(node.ino)
        return written

    async def begin(self, handle: Handle) -> None:
        """Make ready to change the bytes of the file. Raises what stopped it; nothing is awaited after that."""
        node, body = handle.node, handle.body
        while not is_changeable(node, body):
            await self._unsealing.unseal(node)
            if self._tree.ledger is None:
                break
            with contextlib.suppress(RecfsError):  # where its bytes lie is known before they change
                await self._behind.flush()
        if body.stopped is not None:
            raise body.stopped[0](body.stopped[1])
        if body.unchecked_writers:
            refresh(self._tree, node)
        body.untouched = None
        if node.mode & 0o6000 and drop_privileges(node):
            self._kernel.forget_inode(node.ino)

    def changed(self, node: FileNode) -> None:
        """The bytes of the file are others now. Atomic."""
        now = self._tree.clock.now_ns()
        node.mtime_ns = node.ctime_ns = now
        self._behind.node(node)
        if node.parent.job is not None or node.parent.recording is not None:
            self._tree.activity(node.parent)

    async def truncate(self, node: FileNode, size: int) -> None:
        """truncate(2), with or without an open handle. Raises TryAgain when S3 takes long to bring what is kept."""
        await self._copied(node)
        if size:
            await self.bring(node)
        body = await self._backing_files.acquire(node, write=True, empty=size == 0)
        try:
            await self.sizes.resize(node, size)
        finally:
            await self.let_go(node, body, writes=True)

    async def bring(self, node: FileNode) -> None:
        """Have the bytes here for a request that the kernel holds the file for. Raises TryAgain after HELD_S."""
        if node.state.is_remote and not node.unlinked:
            with bounded(f"the bytes of {node.path} from S3", HELD_S):
                await self._backing_files.remote.bring(node)

    async def fsync(self, number: int) -> None:
        """fsync(2): the bytes written so far, and the row that names them, survive a power cut."""
        handle = self.handles[number]
        node = handle.node
        self.modes.check_now(handle)
        if handle.body.stopped is not None:
            raise handle.body.stopped[0](handle.body.stopped[1])
        if not node.state.is_whole and not node.state.is_remote:
            try:
                with interruptible(f"the disk to take {node.path}"):
                    await trio.to_thread.run_sync(_fsync, handle.body.fd, limiter=self._limiter, abandon_on_cancel=True)
                await self._backing_files.pool.names_durable()
            except OSError as error:
                raise disk_error(error, node) from error
            if not node.unlinked:
                node.promised |= Promise.FSYNCED
                self._behind.node(node)
                self._pipeline.hurry(node.ino)
        with interruptible("the catalogue's log"):
            await self._behind.durable()

    # --- closing -------------------------------------------------------------------------------------------------

    def flush(self, number: int) -> None:
        """close(2) of one reference: the moment to tell a writer that it ran past a limit. Raises what stopped it."""
        handle = self.handles[number]
        if handle.writes:
            self.modes.check_now(handle)
            if handle.body.stopped is not None:
                raise handle.body.stopped[0](handle.body.stopped[1])

    async def release(self, number: int) -> None:
        """The last reference to this open is gone. The last writer's release starts the sealing."""
        handle = self.handles.pop(number)
        if handle.foreign:
            handle.body.foreign = False
        self.shares.closed(handle.body, handle.uid)
        self.modes.let_go(handle)
        if handle.direct:
            self._kernel.forget_inode(handle.node.ino)
        await self.let_go(handle.node, handle.body, writes=handle.writes)
        if self._released is not None:
            self._released.set()
            self._released = None

    async def no_writers(self) -> None:
        """Wait until no program has a file of this mount open for writing."""
        while any(handle.writes and not handle.foreign for handle in self.handles.values()):
            if self._released is None:
                self._released = trio.Event()
            await self._released.wait()

    async def let_go(self, node: FileNode, body: BackingFile, *, writes: bool) -> None:
        if writes:
            body.writers -= 1
            if not body.writers:
                self.seal(node)
        if node.state is State.INCOMPLETE and node.staging is None and not node.unlinked and not body.backing:
            with self.modes.problems.aside("home tree", ("incomplete", node.ino), node.path):
                await self._unsealing.retire(node)
        body.handles -= 1
        if not body.handles and node.body is body:
            large = self._backing_files.drop(node)
            if large is not None:
                await self._backing_files.close_apart(node, large)

    def seal(self, node: FileNode) -> None:
        """Nobody writes any more: hand the file to the commit pipeline. Atomic."""
        if node.state is not State.WRITING or node.unlinked:
            return
        if self.stops.thaw(node):
            node.enter(State.INCOMPLETE)
            self._backing_files.versions.release_priors(node)
            self._behind.node(node)
            self._tree.events.abandoned(node)
            return
        node.enter(State.SEALING)
        self._backing_files.versions.closed(node)
        self._unsealing.mark_closed(node)
        body = node.body
        known = body.untouched if body is not None else None
        node.untouched = known if known is not None and known.sha256 is not None else None
        if body is not None:
            body.untouched = None
        self._behind.node(node)
        self._pipeline.submit(node.ino)

    def jobs_in_use(self) -> Counter[int]:
        """How many files are open in each temp job, by its inode number, or still written to by a mapping; else 0."""
        jobs = {handle.node.ino: handle.node.parent.job for handle in self.handles.values()}
        jobs |= {node.ino: node.parent.job for node in self._mapped()}
        return Counter(job.ino for job in jobs.values() if job is not None)

    def _mapped(self) -> list[FileNode]:
        """Files that were closed, and that somebody still has mapped for writing."""
        nodes = (self._tree.nodes.get(ino) for ino in self._pipeline.still_mapped())
        return [node for node in nodes if isinstance(node, FileNode) and not node.unlinked]

    def recordings_in_use(self) -> dict[int, Use]:
        """The same of each recording; those without any are left out."""
        opened: dict[int, tuple[DirNode | None, bool]] = {
            node.ino: (node.parent.recording, True) for node in self._mapped()
        }
        for handle in self.handles.values():
            node = handle.node
            writes = handle.writes or (node.ino in opened and opened[node.ino][1])
            opened[node.ino] = (node.parent.recording, writes)
        files = Counter(top.ino for top, _ in opened.values() if top is not None)
        writers = Counter(top.ino for top, writes in opened.values() if top is not None and writes)
        return {ino: Use(count, writers[ino]) for ino, count in files.items()}


def _fsync(fd: int) -> None:
    own = os.dup(fd)  # who waits for it may be killed, and the file be closed
    try:
        os.fsync(own)
    finally:
        os.close(own)


__all__ = ["HELD_S", "OpenFiles"]
