"""The bytes of open files: descriptors, and the way of a file between home and staging.

A node has one body while anybody has it open: one descriptor for all handles.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from recfs.core.model import State
from recfs.disk.contended import Contended
from recfs.disk.diskio import copy_bytes, freeze, is_beyond, is_full, too_many
from recfs.disk.remains import Remains
from recfs.disk.staging import COPY_LABEL, ELSEWHERE, LONG_PATH_BYTES, VERSION_LABEL, Label, StagingPool
from recfs.disk.versions import Versions
from recfs.errors import IoFailure, OutOfSpace, RecfsError, Stale
from recfs.ports.rows import Pending, Promise
from recfs.state.backing_file import FEW_BLOCKS, BackingFile, Untouched
from recfs.state.nodes import is_changeable
from recfs.state.problems import reason_of
from recfs.state.waits import Held, bounded, interruptible

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.disk.home.inuse import InUse
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.ports.work import Settler
    from recfs.state.nodes import FileNode, Node
    from recfs.state.remote import Remote
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.fs")

COPY_THREADS = 2
"""Threads for whole copies of files, which take long."""


def _gone(node: Node) -> bool:
    """Whether the node lost its name. A call, so that no answer from before an await is taken for granted."""
    return node.unlinked


class BackingFiles:
    """Opens, moves and closes bodies."""

    def __init__(
        self,
        tree: Tree,
        places: PathResolver,
        store: LocalStore,
        settler: Settler,
        pool: StagingPool,
        in_use: InUse,
        remote: Remote,
    ) -> None:
        self._tree = tree
        self._behind = tree.behind
        self._places = places
        self._store = store
        self._settler = settler
        self._limiter = pool.limiter
        self.remote = remote
        self._copies = trio.CapacityLimiter(COPY_THREADS)
        self.in_use = in_use
        self.contended = Contended(in_use)
        self.pool = pool
        self.versions = Versions(tree, tree.behind, self.thaw)
        self._remains = Remains(tree, places, store, settler, self.pool, self._copies)
        self.thaw_later: Callable[[FileNode, BackingFile], None] = lambda node, body: None
        """Lets a file be changed again in a thread (IoModes)."""

    # --- waiting for the settler ---------------------------------------------------------------------------------

    async def wait_for_moves(self, node: Node) -> None:
        """Wait while the settler moves the node or a directory that it lies in; its path then holds until the next
        await.
        """
        while self._settler.touches(self._places.way(node)):
            await self._settler.quiet()

    def is_worked_on(self, node: FileNode) -> bool:
        """Whether the settler does anything with the file just now. Atomic."""
        return node.ino in self._settler.worked_on

    async def left_alone(self, node: FileNode) -> None:
        """Wait for what the settler does with the file just now, if anything. Raises Interrupted or TryAgain."""
        if node.ino in self._settler.worked_on:
            with bounded(f"the home tree, where {node.path} is changed"):
                await self._settler.quiet()

    async def _wait_for_moves(self, node: Node) -> None:
        """`wait_for_moves`, for a request: raises Interrupted or TryAgain."""
        if not self._settler.is_moving or not self._settler.touches(self._places.way(node)):
            return
        with bounded(f"the move of {node.path} or a directory above it"):
            await self.wait_for_moves(node)

    # --- opening and closing -------------------------------------------------------------------------------------

    async def acquire(self, node: FileNode, *, write: bool, empty: bool = False) -> BackingFile:
        """The node's body with one more handle on it (a writer, if *write*; one that will *empty* it first)."""
        while True:
            body = node.body
            if body is not None and (body.writable or not write):
                body.handles += 1
                body.writers += write
                return body
            if self._settler.is_moving:
                await self._wait_for_moves(node)
                if node.body is not body:
                    continue  # somebody else opened it meanwhile, it may be for writing
            if node.unlinked:
                await self._open_removed(node, write=write, empty=empty)
                continue
            if node.state.is_remote and (node.body is None or write):
                await self._from_afar(node, write=write, empty=empty)
                continue
            await self._open(node, os.O_RDWR if write else os.O_RDONLY)

    async def _from_afar(self, node: FileNode, *, write: bool, empty: bool) -> None:
        """Do a step towards a body of a file whose bytes S3 has."""
        if empty:
            await self._begin_anew(node)
        elif write or node.bytes <= self.remote.fetch_whole_below:
            try:
                with interruptible(f"the bytes of {node.path}"):  # who brings them says when nothing comes any more
                    await self.remote.bring(node)
            except RecfsError as error:
                if _gone(node):
                    raise Stale(f"{node.path} was removed") from error
                raise
        else:
            with interruptible(f"the bytes of {node.path}"):
                begun = await self.remote.begin(node)
            if begun is not None:
                node.body = BackingFile(begun[0], writable=False)
                node.body.download = begun[1]

    async def _begin_anew(self, node: FileNode) -> None:
        """Give a file whose old bytes only S3 has a fresh, empty staging file. The object is the way back."""
        await self._wait_for_moves(node)
        if not node.state.is_remote or _gone(node):
            return
        staging, fd = self.pool.take()
        self._tree.events.superseded(node)
        self._to_writing(node)
        node.promised = 0
        self._tree.resize(node, 0)
        node.staging = staging
        if node.body is None:
            node.body = BackingFile(fd, writable=True)
        else:
            node.body.swap(fd, writable=True)
            node.body.download = None
        self.label(node)

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

    async def _open(self, node: FileNode, flags: int) -> None:
        path = self._places.local(node)
        before = node.body
        try:
            fd = at_once = self._store.open_cached(path, flags)
            if fd is None:
                fd = await trio.to_thread.run_sync(self._store.open_file, path, flags, limiter=self._limiter)
        except FileNotFoundError as error:
            if node.body is not before or node.unlinked or self._places.local(node) != path:
                return  # moved or removed meanwhile: look again
            if self.remote.lost(node):
                self._settler.remake_above(node.ino)
                return
            raise IoFailure(
                f"{node.path}: its bytes are missing, {os.fsdecode(path)} was removed past recfs"
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
            log.error("%s is corrupt: %s was changed past recfs", node.path, os.fsdecode(path))
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
        self.label(node)
        return body

    def label(self, node: FileNode, *, before_writing: bool = False) -> None:
        """Write on the staging file whose it is: enough to adopt it if its row never got written.

        *before_writing*: nothing has been changed yet, and nothing may be while the label says "closed": raises
        OSError. Else a label that cannot be written is a warning: it counts only if the daemon dies at once.
        """
        if node.body is None or node.unlinked:
            return
        closed = node.bytes if node.state is State.SEALING and not before_writing else None
        path = b"/".join(node.parts())
        now = time.monotonic_ns()
        label = Label(node.ino, node.parent.ino, node.mode, node.uid, node.gid, closed, path, now)
        kind = COPY_LABEL if node.body.copying else b""
        try:
            fd = node.body.fd
            if len(path) > LONG_PATH_BYTES or not self._store.label(fd, kind + label.encode()):
                self._store.label(fd, kind + replace(label, path=ELSEWHERE + node.name).encode())
        except Exception as error:
            if before_writing:
                raise
            log.warning("%s: its staging file cannot be labelled: %s", node.path, reason_of(error))

    def drop(self, node: FileNode) -> BackingFile | None:
        """Close the body after its last handle. Atomic; one is left to `close_apart`, since to free it takes long."""
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

    def thaw(self, node: FileNode) -> bool:
        """Let a stopped file be changed again; tells whether it was stopped. Atomic."""
        body = node.body
        if body is None or body.stopped is None:
            return False
        body.stopped = None
        if body.freezing is None:  # else the thread that freezes it looks again afterwards (fs/iomodes.py)
            if body.backing:
                self.thaw_later(node, body)
            else:
                freeze(body.fd, frozen=False)
        return True

    async def thawed(self, node: FileNode, body: BackingFile) -> bool:
        """Let a stopped file be changed again, and wait until it can be; tells whether anything was to be done.

        Its writers may run past a limit once more meanwhile. Raises Interrupted or TryAgain.
        """
        stopped = self.thaw(node)
        if body.freezing is not None:
            stopped = True
            with bounded(f"the stop of the writers of {node.path}"):
                await body.freezing.wait()
        return stopped

    # --- home to staging -----------------------------------------------------------------------------------------

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
        body.in_place = False
        softly = node.state in (State.SEALING, State.INCOMPLETE)
        if node.state.is_whole or node.state is State.CORRUPT or softly:
            body.unproven = True
        if remember and (node.state.is_whole or node.state is State.SEALING):
            info = os.fstat(body.fd)
            body.untouched = Untouched(node.sha256, node.md5, info.st_size, info.st_mtime_ns, time.time_ns())
        if node.state is not State.WRITING:
            self._to_writing(node)
        elif body.backing and not node.unmarked:
            node.unmarked = body.unproven = True
            self._behind.node(node)
        if body.unproven and not node.unlinked:
            # A row that says `committed` must never describe changed bytes, not even after a power cut.
            with interruptible(f"the row of {node.path}"):
                if softly:
                    await self._taken_up()
                else:
                    await self._behind.durable()
        body.unproven = False
        if node.staging is not None and not node.unmarked and not body.backing:
            self.label(node, before_writing=True)  # it no longer says "closed", before the first byte changes
        if body.backing:
            body.in_place = True  # rename(2) would wait for whoever has it locked, and everybody for rename(2)
        elif not _gone(node):
            await self._wait_for_moves(node)
            if _gone(node) or node.staging is not None:
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
        """From home to staging, inline, so that books and disk change in one step.

        rename(2) within a file system does not wait for data; and the kernel does not have the file open by itself.
        """
        staging = self.pool.new_id()
        self.label(node, before_writing=True)
        try:
            self._store.rename(self._places.home(node), self._store.staging(staging))
        except OSError as error:
            raise OSError(error.errno, error.strerror, node.path) from error  # not the names in two directories
        self._tree.forget_location(node, node.moved)
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
            self.label(node)
        node.unmarked = False

    async def retire(self, node: FileNode) -> None:
        """An incomplete file leaves the home tree as soon as it can. Raises Interrupted, TryAgain, OSError."""
        body = node.body
        assert body is not None
        async with Held(body.lock, node):
            await self._wait_for_moves(node)
            if node.state is State.INCOMPLETE and node.staging is None and not node.unlinked and not body.backing:
                self._to_staging(node)

    def _to_writing(self, node: FileNode) -> None:
        body = node.body
        node.unmarked = body is not None and bool(body.backing)
        if body is not None and node.unmarked:
            body.unproven = True  # the row alone tells that the bytes change, so it comes before them
        if node.state.is_whole:
            node.promised = Promise.CLOSED  # its bytes, whatever is written among them
        node.enter(State.WRITING)
        node.sha256 = node.md5 = None
        node.reopened += 1
        self._tree.events.modified(node)
        if node.staging is not None:
            node.pending = 0  # the settler must not carry it home any more
        self._behind.node(node)

    def _anew(self, node: FileNode) -> None:
        """Other bytes come, of which nothing was promised yet."""
        if node.state is not State.WRITING:
            self._to_writing(node)
        node.promised = 0
        self._behind.node(node)

    async def supersede(self, node: FileNode, *, room: bool = True) -> None:
        """Empty the file. Bytes that were promised to somebody are kept until as much is promised of the new ones.

        *room*: whether the disk has room for a copy of them, should it take one.
        """
        body = node.body
        assert body is not None
        async with Held(body.lock, node):
            kept = self.versions.keeps(node)
            if not kept or (body.backing and not room and self.versions.is_half_gone(node)):
                await self.unseal_held(node)
                await self.cut(node, body, 0)
                if not kept:
                    node.promised = 0
                return
            if body.backing:
                await self._empty_in_place(node, body)
                return
            await self._wait_for_moves(node)
            if _gone(node):
                return
            slot = self.pool.take()
            self.versions.set_aside(node, holder=node)
            self._anew(node)
            self._tree.resize(node, 0)
            node.staging, fd = slot
            body.swap(fd, writable=True)
            self.label(node)

    async def _empty_in_place(self, node: FileNode, body: BackingFile) -> None:
        """Empty a file the kernel has open by itself: it must stay the same file below. The old bytes are copied."""
        staging, fd = self.pool.take()
        try:
            self._store.label(fd, VERSION_LABEL + b"%d" % node.ino)
            with interruptible(f"a copy of {node.path}"):
                await self.contended.stoppable(node, copy_bytes, body.fd, fd)
            info = os.fstat(fd)
            await self._wait_for_moves(node)
        except BaseException as error:
            self._store.drop_staging([staging])
            if not (is_full(error) and self.versions.is_half_gone(node)):
                raise
            # Who empties a file on a full disk makes room. It stays what was promised last: no older version is back.
            await self.unseal_held(node)
            await self.cut(node, body, 0)
            return
        finally:
            os.close(fd)
        promised = 0
        if _gone(node):
            self._store.drop_staging([staging])
        else:
            self.versions.set_aside(node, holder=node, copy=(staging, info))
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
        """ftruncate(2), and the books follow: others may write meanwhile. Raises OSError, and Interrupted before.

        Freeing many pieces takes minutes on some disks, so the trio thread only cuts what has none.
        """
        while True:
            try:
                if size or body.backing or os.fstat(body.fd).st_blocks:
                    await self.contended.run(node, os.ftruncate, body.fd, size)
                else:
                    os.ftruncate(body.fd, 0)
            except PermissionError:
                if not await self.thawed(node, body):
                    raise
            else:
                break
        self._tree.resize(node, max(os.fstat(body.fd).st_size, body.held))
