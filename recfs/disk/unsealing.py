"""The way of a file's bytes back from home to staging, where they may be changed."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from recfs.core.model import State
from recfs.disk.diskio import copy_bytes, is_full
from recfs.errors import IoFailure, OutOfSpace
from recfs.ports.rows import Pending, Promise
from recfs.state.backing_file import Untouched
from recfs.state.nodes import is_changeable, is_gone, is_told_of
from recfs.state.waits import Held, interruptible

if TYPE_CHECKING:
    from recfs.disk.contended import Contended
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.disk.publisher_waits import PublisherWaits
    from recfs.disk.staging import StagingPool
    from recfs.disk.stops import Stops
    from recfs.disk.versions import Versions
    from recfs.state.backing_file import BackingFile
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree


class Unsealing:
    """Makes bodies changeable, and empties them."""

    def __init__(
        self,
        tree: Tree,
        places: PathResolver,
        pool: StagingPool,
        moves: PublisherWaits,
        contended: Contended,
        versions: Versions,
        stops: Stops,
    ) -> None:
        self._tree = tree
        self._behind = tree.behind
        self._places = places
        self._pool = pool
        self._moves = moves
        self._contended = contended
        self._versions = versions
        self._stops = stops

    async def unseal(self, node: FileNode, *, remember: bool = False) -> None:
        """Make the body changeable: in staging, state `writing`. The row says so before the first byte changes.

        *remember*: nothing may come of it, then the file is committed as it was.
        """
        body = node.body
        assert body is not None
        async with Held(body.lock, node):
            await self.unseal_held(node, remember=remember)

    async def unseal_held(self, node: FileNode, *, remember: bool = False) -> None:
        """`unseal` for who holds the body's lock. Left half-way by an error, it goes on where it was the next time."""
        body = node.body
        assert body is not None
        if is_changeable(node, body):
            return
        await self._unseal(node, body, remember=remember)
        if is_told_of(node):  # it lost its name meanwhile, and what was known of its bytes went into the row of those
            await self._unseal(node, body, remember=False)

    async def _unseal(self, node: FileNode, body: BackingFile, *, remember: bool) -> None:
        body.in_place = False
        softly = node.state in (State.SEALING, State.INCOMPLETE)
        if node.state.is_whole or node.state is State.CORRUPT or softly:
            body.unproven = True
        if remember and (node.state.is_whole or node.state is State.SEALING):
            info = os.fstat(body.fd)
            body.untouched = Untouched(node.sha256, node.md5, info.st_size, info.st_mtime_ns, time.time_ns())
        if node.state is not State.WRITING:
            self.to_writing(node)
        elif is_told_of(node):
            body.unproven = True
            self._versions.written_on(node)
        elif body.backing and not node.unmarked:
            node.unmarked = body.unproven = True
            self._behind.node(node)
        if body.unproven and (not node.unlinked or self._versions.remains_of(node) is not None):
            # A row that says `committed` must never describe changed bytes, not even after a power cut.
            with interruptible(f"the row of {node.path}"):
                if softly:
                    await self._taken_up()
                else:
                    await self._behind.durable()
        body.unproven = False
        if node.staging is not None and not node.unmarked and not body.backing:
            self._pool.label(node, before_writing=True)  # it no longer says "closed", before the first byte changes
        if body.backing:
            body.in_place = True  # rename(2) would wait for whoever has it locked, and everybody for rename(2)
        elif is_gone(node):
            await self._moves.left_alone(node)  # its removal, if that is under way, goes by what was known of the bytes
        else:
            await self._moves.ended_soon(node)
            if is_gone(node) or node.staging is not None:
                node.pending &= ~Pending.MOVE
                self._behind.node(node)
            else:
                self._to_staging(node)

    async def _taken_up(self) -> None:
        """A row that says `sealing` must not describe changed bytes either: a start would have them sealed.

        Nor must one that says `incomplete`: a start leaves such a file as it is.

        On a full disk the label alone tells.
        """
        with contextlib.suppress(OutOfSpace, IoFailure):
            await self._behind.flush()

    def _to_staging(self, node: FileNode) -> None:
        """From home to staging, inline, so that metadata and disk change in one step.

        rename(2) within a file system does not wait for data; and the kernel does not have the file open by itself.
        """
        self._pool.label(node, before_writing=True)
        try:
            staging = self._pool.take_over(self._places.home(node))
        except OSError as error:
            raise OSError(error.errno, error.strerror, node.path) from error  # not the names in two directories
        self._tree.locations.forget(node, node.moved)
        node.moved = None
        node.pending = 0
        node.unmarked = False
        node.staging = staging
        self._behind.node(node)

    def mark_closed(self, node: FileNode) -> None:
        """The last writer is gone, and the file is being sealed. Atomic.

        Should the daemon die before the row is written, the label alone tells that these bytes are whole. Where there
        cannot be one the row is written at once.
        """
        body = node.body
        if node.unmarked or (body is not None and body.backing):
            self._behind.soon()
        if body is None or not body.backing:
            self._pool.label(node)
        node.unmarked = False

    async def retire(self, node: FileNode) -> None:
        """An incomplete file leaves the home tree as soon as it can. Raises Interrupted, TryAgain, OSError."""
        body = node.body
        assert body is not None
        async with Held(body.lock, node):
            await self._moves.ended_soon(node)
            if node.state is State.INCOMPLETE and node.staging is None and not node.unlinked and not body.backing:
                self._to_staging(node)

    def to_writing(self, node: FileNode) -> None:
        """The bytes of the file are about to change. Atomic; `unseal` sees to the disk."""
        body = node.body
        node.unmarked = body is not None and bool(body.backing)
        if body is not None and node.unmarked:
            body.unproven = True  # the row alone tells that the bytes change, so it comes before them
        if node.state.is_whole:
            node.promised = Promise.CLOSED  # its bytes, whatever is written among them
        node.promised &= ~Promise.UNHASHED
        node.enter(State.WRITING)
        self._versions.written_on(node)
        node.reopened += 1
        self._tree.events.modified(node)
        node.sha256 = node.md5 = None
        if node.staging is not None:
            node.pending = 0  # the publisher must not carry it home any more
        self._behind.node(node)

    def _anew(self, node: FileNode) -> None:
        """Other bytes come, of which nothing was promised yet."""
        if node.state is not State.WRITING:
            self.to_writing(node)
        node.promised = 0
        self._behind.node(node)

    async def supersede(self, node: FileNode, *, room: bool = True) -> None:
        """Empty the file. Bytes that were promised to somebody are kept until as much is promised of the new ones.

        *room*: whether the disk has room for a copy of them, should it take one.
        """
        body = node.body
        assert body is not None
        async with Held(body.lock, node):
            if self._versions.trash.is_kept and not node.unlinked:
                await self._tree.xattrs(node)  # the trash has them beside the old bytes
            kept = self._versions.keeps(node)
            if not kept or (body.backing and not room and self._versions.is_half_gone(node)):
                await self.unseal_held(node)
                await self.cut(node, body, 0)
                if not kept:
                    node.promised = 0
                return
            if body.backing:
                await self._empty_in_place(node, body)
                return
            await self._moves.ended_soon(node)
            if is_gone(node):
                return
            slot = self._pool.take()
            self._versions.overwritten(node)
            self._anew(node)
            self._tree.resize(node, 0)
            node.staging, fd = slot
            body.swap(fd, writable=True)
            self._pool.label(node)

    async def _empty_in_place(self, node: FileNode, body: BackingFile) -> None:
        """Empty a file the kernel has open by itself: it must stay the same file below. The old bytes are copied."""
        staging, fd = self._pool.take()
        try:
            self._pool.label_version(fd, node)
            with interruptible(f"a copy of {node.path}"):
                await self._contended.stoppable(node, copy_bytes, body.fd, fd)
            info = os.fstat(fd)
            await self._moves.ended_soon(node)
        except BaseException as error:
            self._pool.discard(staging)
            if not (is_full(error) and self._versions.is_half_gone(node)):
                raise
            # Who empties a file on a full disk makes room. It stays what was promised last: no older version is back.
            await self.unseal_held(node)
            await self.cut(node, body, 0)
            return
        finally:
            os.close(fd)
        promised = 0
        if is_gone(node):
            self._pool.discard(staging)
        else:
            self._versions.overwritten(node, copy=(staging, info))
            promised = Promise.CLOSED if node.state.is_whole else node.promised
            self._anew(node)
            body.unproven = True  # the rows have to know of the copy before there is nothing else
        try:
            if body.unproven:
                await self.unseal_held(node)
            await self.cut(node, body, 0)
        except BaseException:
            node.promised |= promised  # the bytes are there still, and others go on with them
            self._behind.node(node)
            raise
        node.promised = 0  # an fsync that ended meanwhile was of what is cut now

    async def cut(self, node: FileNode, body: BackingFile, size: int) -> None:
        """ftruncate(2), and the metadata follows: others may write meanwhile. Raises OSError, and Interrupted before.

        Freeing many pieces takes minutes on some disks, so the trio thread only cuts what has none.
        """
        body.untouched = None  # before anything is awaited: should it lose its name meanwhile, nothing vouches for it
        while True:
            try:
                if size or body.backing or os.fstat(body.fd).st_blocks:
                    await self._contended.run(node, os.ftruncate, body.fd, size)
                else:
                    os.ftruncate(body.fd, 0)
            except PermissionError:
                if not await self._stops.thawed(node, body):
                    raise
            else:
                break
        self._tree.resize(node, max(os.fstat(body.fd).st_size, body.charged_size))


__all__ = ["Unsealing"]
