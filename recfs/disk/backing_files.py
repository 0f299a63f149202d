"""The bytes of open files: their descriptors.

A node has one body while anybody has it open: one descriptor for all handles.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

import trio

from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.disk.contended import Contended
from recfs.disk.diskio import is_beyond, too_many
from recfs.disk.publisher_waits import PublisherWaits
from recfs.disk.remains import Remains
from recfs.disk.staging import StagingPool
from recfs.disk.stops import Stops
from recfs.disk.unsealing import Unsealing
from recfs.disk.versions import Versions
from recfs.errors import IoFailure, RecfsError, Stale
from recfs.state.backing_file import FEW_BLOCKS, BackingFile
from recfs.state.nodes import is_gone
from recfs.state.waits import interruptible

if TYPE_CHECKING:
    from recfs.disk.home.inuse import InUse
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.disk.trash_index import TrashIndex
    from recfs.ports.work import Publisher
    from recfs.state.nodes import FileNode, Node
    from recfs.state.remote import RemoteBytes
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.fs")

COPY_THREADS = 2
"""Threads for whole copies of files, which take long."""


_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""What an open meets where a file, or a directory above it, was removed out of band, or replaced by something else."""


class BackingFiles:
    """Opens and closes bodies."""

    def __init__(
        self,
        tree: Tree,
        places: PathResolver,
        store: LocalStore,
        publisher: Publisher,
        pool: StagingPool,
        in_use: InUse,
        remote: RemoteBytes,
        trash: TrashIndex,
    ) -> None:
        self._tree = tree
        self._behind = tree.behind
        self._places = places
        self._store = store
        self._publisher = publisher
        self._limiter = pool.limiter
        self.remote = remote
        self._copies = trio.CapacityLimiter(COPY_THREADS)
        self.in_use = in_use
        self.contended = Contended(in_use)
        self.pool = pool
        self.moves = PublisherWaits(places, publisher)
        self.stops = Stops(self.contended, tree.behind.problems)
        self.versions = Versions(tree, tree.behind, self.stops.thaw, trash)
        self.unsealing = Unsealing(tree, places, pool, self.moves, self.contended, self.versions, self.stops)
        self._remains = Remains(tree, places, store, publisher, self.pool, self._copies)

    async def wait_for_moves(self, node: Node) -> None:
        """As `PublisherWaits.ended`."""
        await self.moves.ended(node)

    def path_of(self, node: FileNode) -> bytes:
        """Local path of its bytes, after `wait_for_moves`; holds until the next await."""
        return self._places.local(node)

    # --- opening and closing -------------------------------------------------------------------------------------

    async def acquire(self, node: FileNode, *, write: bool, empty: bool = False) -> BackingFile:
        """The node's body with one more handle on it (a writer, if *write*; one that will *empty* it first)."""
        while True:
            body = node.body
            if body is not None and (body.writable or not write):
                body.handles += 1
                body.writers += write
                return body
            if self.moves.any:
                await self.moves.ended_soon(node)
                if node.body is not body:
                    continue  # somebody else opened it meanwhile, it may be for writing
            if node.unlinked:
                await self._open_removed(node, write=write, empty=empty)
                continue
            if node.state.is_remote and (node.body is None or write):
                await self._from_afar(node, write=write, empty=empty)
                continue
            await self._open(node, os.O_RDWR if write else os.O_RDONLY, empty=empty)

    async def _from_afar(self, node: FileNode, *, write: bool, empty: bool) -> None:
        """Do a step towards a body of a file whose bytes S3 has."""
        if empty:
            await self._begin_anew(node)
        elif write or node.bytes <= self.remote.fetch_whole_below:
            try:
                with interruptible(f"the bytes of {node.path}"):  # who brings them says when nothing comes any more
                    await self.remote.bring(node)
            except RecfsError as error:
                if is_gone(node):
                    raise Stale(f"{node.path} was removed") from error
                raise
        else:
            with interruptible(f"the bytes of {node.path}"):
                begun = await self.remote.begin(node)
            if begun is not None:
                node.body = BackingFile(begun[0], writable=False)
                node.body.download = begun[1]

    async def _begin_anew(self, node: FileNode) -> None:
        """Give a file whose old bytes S3 has, or nobody, a fresh, empty staging file. The object is the way back."""
        await self.moves.ended_soon(node)
        if not (node.state.is_remote or node.state is State.CORRUPT) or is_gone(node):
            return
        staging, fd = self.pool.take()
        self._tree.events.superseded(node)
        self.unsealing.to_writing(node)
        node.promised = 0
        self._tree.resize(node, 0)
        node.staging, node.home_ino = staging, None
        if node.body is None:
            node.body = BackingFile(fd, writable=True)
        else:
            node.body.swap(fd, writable=True)
            node.body.download = None
        self.pool.label(node)

    async def _open_removed(self, node: FileNode, *, write: bool, empty: bool) -> None:
        before = node.body
        if node.state.is_remote:
            raise Stale(f"{node.path} was removed")  # and what only S3 had of it is not brought here any more
        if before is not None and before.backing:
            # The kernel has it open by itself: it must stay the same file.
            before.reopen(writable=True)
            return
        fd = await self._remains.open(node, write=write, empty=empty)
        if node.body is None:
            node.body = BackingFile(fd, writable=write)
        elif node.body is before and not before.writable and not before.backing:
            before.swap(fd, writable=True)
        else:
            os.close(fd)  # opened twice at once: look again

    async def _open(self, node: FileNode, flags: int, *, empty: bool) -> None:
        path = self._places.local(node)
        before = node.body
        try:
            fd = at_once = self._store.open_cached(path, flags)
            if fd is None:
                fd = await trio.to_thread.run_sync(self._store.open_file, path, flags, limiter=self._limiter)
        except OSError as error:
            if error.errno == errno.EXDEV:
                above = os.fsdecode(path)
                raise IoFailure(f"{node.path}: another file system is mounted over {above}: unmount it") from error
            if error.errno not in _GONE:
                raise
            if node.body is not before or node.unlinked or self._places.local(node) != path:
                return  # moved or removed meanwhile: look again
            if self.remote.lost(node):
                self._publisher.remake_above(node.ino)
                return
            if node.state is State.CORRUPT and empty:
                await self._begin_anew(node)
                return
            raise IoFailure(
                f"{node.path}: its bytes are missing, {os.fsdecode(path)} was removed out of band"
            ) from error
        if is_beyond(fd):
            os.close(fd)
            raise too_many()
        if at_once is None:
            twice = node.body is not before or (before is not None and before.writable)
            if twice or node.unlinked or self._places.local(node) != path:
                os.close(fd)  # opened twice at once, moved or removed meanwhile: look again
                return
        writable = flags == os.O_RDWR
        if node.state.is_whole and os.fstat(fd).st_size != node.bytes:
            node.enter(State.CORRUPT)
            self._behind.node(node)
            log.error("%s is corrupt: %s was changed out of band", node.path, os.fsdecode(path))
            self._tree.events.noted(EventKind.CORRUPT, node, "it was changed out of band")
        if node.body is None:
            node.body = BackingFile(fd, writable=writable)
        else:
            node.body.swap(fd, writable=writable)

    def create(self, node: FileNode, slot: tuple[str, int], *, copying: bool = False) -> BackingFile:
        """Give a new file its staging file, with one writing handle. *copying*: the next start drops it."""
        node.staging, fd = slot
        node.body = body = BackingFile(fd, writable=True)
        body.copying = copying
        body.handles = body.writers = 1
        self.pool.label(node)
        return body

    def drop(self, node: FileNode) -> BackingFile | None:
        """Close the body after its last handle. Atomic; one is left to `close_apart`, since to free it takes long."""
        self.versions.left(node)
        body, node.body = node.body, None
        assert body is not None
        self._tree.events.released(node)
        if node.unlinked and os.fstat(body.fd).st_blocks > FEW_BLOCKS:
            return body
        body.close()
        return None

    async def close_apart(self, node: FileNode, body: BackingFile) -> None:
        """Close what `drop` left, in a thread."""
        await self.contended.run(node, body.close)


__all__ = ["BackingFiles"]
