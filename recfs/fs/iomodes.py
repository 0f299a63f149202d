"""Who moves the bytes of an open file: the kernel by itself (passthrough), or the daemon.

Rules of the kernel (fs/fuse/iomode.c): all passthrough opens of an inode share one backing file, and while there are
any, every other open of it must be one too. An open that is both passthrough and direct I/O sends its reads and writes
to the daemon all the same, and only maps the backing file. So an inode's first open decides, until the last release:

  PASS     the kernel reads and writes
  DIRECT   a writer that must be checked write by write, on an inode others have open as PASS
  CACHED   reads and writes come to the daemon, through the kernel's page cache; then everybody's do

The file of a PASS writer is in staging, and its row says `writing`, before the open is answered: nobody tells of the
first byte. So is that of a DIRECT one, who may map it. `measure` takes over what they did, and stops those that crossed
a limit.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

from recfs.disk.diskio import can_freeze
from recfs.disk.refresh import refresh
from recfs.disk.stops import PART
from recfs.errors import FileTooLarge, FsError, OutOfSpace, QuotaExceeded
from recfs.fs.handles import Mode
from recfs.state.backing_file import FOREIGN
from recfs.state.nodes import is_changeable
from recfs.state.waits import Held

if TYPE_CHECKING:
    import trio

    from recfs.disk.backing_files import BackingFiles
    from recfs.disk.staging import DiskReserve
    from recfs.fs.backlog import Backlog
    from recfs.fs.handles import Handle
    from recfs.ports.kernel import KernelCache, KernelFiles
    from recfs.state.backing_file import BackingFile
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.fs")

SPACE_HEADROOM_BYTES = 256 << 20
"""Free disk above the reserve that each PASS writer needs at its open: what it can write between two looks."""


class IoModes:
    """Chooses each open's mode, keeps the backing ids, measures what writers nobody checks did."""

    def __init__(
        self, tree: Tree, backing_files: BackingFiles, space: DiskReserve, store: LocalStore, kernel: KernelFiles,
        cache: KernelCache, backlog: Backlog, *, headroom: int | None,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._backing_files = backing_files
        self._space = space
        self._can_freeze = can_freeze(store.private)
        self._kernel = kernel
        self.cache = cache
        self.headroom = headroom
        self.problems = tree.behind.problems
        self._unchecked: dict[int, FileNode] = {}
        self.stops = backing_files.stops
        self._refused: set[int | None] = set()
        self.backlog = backlog

    @property
    def keeps_pages(self) -> bool:
        """Whether the kernel's cached pages of a file that is opened again can still be right.

        Not when the kernel may have written past them meanwhile.
        """
        return not self._kernel.acceleration.writes

    @property
    def can_stop(self) -> bool:
        """Whether a writer that passed a limit can be kept from going on."""
        return self._can_freeze

    # --- opening and closing -------------------------------------------------------------------------------------

    async def choose(self, handle: Handle) -> tuple[Mode, int]:
        """The mode and backing id to open with (0: none). Raises FsError when the file cannot be made ready."""
        body = handle.body
        if not self._kernel.acceleration.reads:
            # It may be switched on while this is open, and the kernel takes one way for a file at a time.
            body.cached += 1
            handle.mode = Mode.CACHED
            return Mode.CACHED, 0
        if not (body.is_locked or (handle.writes and self._must_unseal(handle)) or self._is_busy(handle)):
            return self._decide(handle)
        # Not "wait until the lock is free, then look again": it is handed over, and two who wait so never get on.
        # While it is held the file may be on its way between home and staging, and end on another inode of the disk.
        async with Held(body.lock, handle.node):
            if handle.writes and self._must_unseal(handle):
                await self._backing_files.unsealing.unseal_held(handle.node, remember=True)
            if self._is_busy(handle):
                await self._backing_files.moves.left_alone(handle.node)
                if handle.writes and self._must_unseal(handle):  # it lost its name meanwhile
                    await self._backing_files.unsealing.unseal_held(handle.node)
            return self._decide(handle, busy=self._is_busy(handle))

    def _is_busy(self, handle: Handle) -> bool:
        """Whether the kernel must not have the file just now: the publisher would wait for whoever locks it."""
        return not handle.body.backing and self._backing_files.moves.work_on(handle.node)

    def _must_unseal(self, handle: Handle) -> bool:
        """Whether a writer's file must be changeable before the open is answered: nobody tells of its first byte."""
        node, body = handle.node, handle.body
        if body.cached or body.download is not None or is_changeable(node, body):
            return False
        return bool(body.backing) or self._passes(handle)

    def _passes(self, handle: Handle) -> bool:
        """Whether a writer need not be checked write by write."""
        return self._kernel.acceleration.writes and self._may_write_unchecked(handle.node)

    def _decide(self, handle: Handle, *, busy: bool = False) -> tuple[Mode, int]:
        """Choose, and count it. Atomic: what it looks at holds until the kernel has the answer."""
        node, body = handle.node, handle.body
        passes = not handle.writes or self._passes(handle)
        through_us = body.cached or body.download is not None or not (passes or body.backing) or busy
        if through_us or not self._registered(node):
            body.cached += 1
            handle.mode = Mode.CACHED
            return Mode.CACHED, 0
        body.passing += 1
        handle.mode = Mode.PASS if passes else Mode.DIRECT
        if handle.writes:
            self._enter_unchecked(handle)
        return handle.mode, body.backing

    def _may_write_unchecked(self, node: FileNode) -> bool:
        if node.mode & 0o6000:
            return False  # its first write has to clear them
        if self.backlog.is_held_back(node):  # the kernel would not pause
            return False
        account = node.parent.account if not node.unlinked else None
        if account is not None and not account.may_write_unchecked(node.bytes, self.headroom):
            return False
        return self._space.left() >= SPACE_HEADROOM_BYTES * (len(self._unchecked) + 1)

    def _registered(self, node: FileNode) -> bool:
        body = node.body
        assert body is not None
        if body.backing <= 0:
            try:
                backing = self._kernel.backing_open(body.fd)
            except OSError as error:
                if error.errno not in self._refused:
                    self._refused.add(error.errno)
                    log.warning(
                        "%s: the kernel takes no more files to read and write by itself (%s); the daemon does it",
                        node.path, os.strerror(error.errno or errno.EIO),
                    )  # fmt: skip
                return False
            self._refused.clear()
            if self._tree.ledger is not None:
                self._tree.ledger.backed(backing)
            if not body.backing:
                self._backing_files.in_use.begin(node)
            body.backing = backing
        return True

    def _enter_unchecked(self, handle: Handle, *, counted: bool = True) -> None:
        node, body = handle.node, handle.body
        body.unchecked_writers += 1
        is_counted = counted and handle.mode is Mode.PASS and not node.unlinked
        account = node.parent.account if is_counted else None
        handle.account = account
        if account is not None:
            account.unchecked_writers += 1
        if body.unchecked_writers == 1:
            info = os.fstat(body.fd)
            body.seen = (info.st_size, info.st_mtime_ns)
            body.checked_bytes = node.bytes
        self._unchecked[node.ino] = node
        self.stops.due.set()

    def needs_flush(self, handle: Handle) -> bool:
        """Whether close(2) has something to tell: that a limit was passed."""
        return handle.account is not None and handle.account.is_bounded

    def let_go(self, handle: Handle) -> None:
        """The open is released: its last writes enter the metadata. Atomic."""
        mode, handle.mode = handle.mode, None
        node, body = handle.node, handle.body
        if mode is None:
            return
        if mode is Mode.CACHED:
            body.cached -= 1
            return
        if handle.writes:
            self._check_limits(node)
            body.unchecked_writers -= 1
            if handle.account is not None:
                handle.account.unchecked_writers -= 1
                handle.account = None
            if not body.unchecked_writers:
                del self._unchecked[node.ino]
                if not self._unchecked:
                    self.stops.rest()
        body.passing -= 1
        if not body.passing:
            if body.backing > 0:
                self._close_backing(body)
            body.backing = 0
            self._backing_files.in_use.end(node)

    def adopt(self, handle: Handle) -> None:
        """An open of before this daemon's start, by a writer whom the kernel serves by itself. Atomic."""
        handle.body.backing = FOREIGN
        handle.body.foreign = True
        handle.body.passing = 1
        handle.mode = Mode.PASS
        self._backing_files.in_use.begin(handle.node)
        self._enter_unchecked(handle)

    def inherit(self, handle: Handle, mode: Mode, *, counted: bool) -> None:
        """An open of this mount that an earlier daemon answered, and the mode it chose. Atomic.

        *counted*: an account counts it among its writers that nobody checks.
        """
        body, handle.mode = handle.body, mode
        if mode is Mode.CACHED:
            body.cached += 1
            return
        if not body.passing:
            self._backing_files.in_use.begin(handle.node)
        body.passing += 1
        if handle.writes:
            self._enter_unchecked(handle, counted=counted)

    def give_back(self, body: BackingFile) -> None:
        """Give up the backing id once nobody of this mount has the file open by it. Atomic."""
        if body.backing > 0 and body.passing <= 1:
            self._close_backing(body)
            body.backing = FOREIGN

    def _close_backing(self, body: BackingFile) -> None:
        self._kernel.backing_close(body.backing)
        if self._tree.ledger is not None:
            self._tree.ledger.given_back(body.backing)

    def check_now(self, handle: Handle) -> None:
        """Look at the file of a writer now, without waiting for the meter. Atomic."""
        if handle.body.unchecked_writers:
            self._check_limits(handle.node)

    # --- the meter -----------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Take over what PASS writers did since the last look, and stop those that crossed a limit. Atomic."""
        for node in list(self._unchecked.values()):
            try:
                self._check_limits(node)
            except Exception as error:  # this one's: the others go on being measured
                self.problems.note(PART, node.ino, error, node.path)
            else:
                self.problems.solved(PART, node.ino)

    def freeze(self, nursery: trio.Nursery) -> None:
        """Carry out the stops that `measure` decided on, in tasks of *nursery*."""
        self.stops.carry_out(nursery)
        if not self._unchecked:
            self.stops.rest()

    def _check_limits(self, node: FileNode) -> None:
        body = node.body
        assert body is not None
        refresh(self._tree, node)
        if body.invalidation_pending:
            body.invalidation_pending = False
            self.cache.forget_inode(node.ino)
        # Not what this look found: somebody else, a stat(2), may have looked since.
        grown, body.checked_bytes = node.bytes > body.checked_bytes, node.bytes
        if grown:
            self._space.forget()
        if not grown or body.stopped is not None or node.unlinked:
            return
        try:
            if node.parent.account is not None:
                node.parent.account.check_exceeded(node.bytes)
            if self._can_freeze and self._space.left() <= 0:
                raise OutOfSpace("the disk's reserve is reached")
        except (QuotaExceeded, FileTooLarge, OutOfSpace) as error:
            self._stop(node, error)

    def _stop(self, node: FileNode, error: FsError) -> None:
        body = node.body
        assert body is not None
        body.stopped = (type(error), f"{node.path}: {error}")
        if self._can_freeze:
            self.stops.stop(node)
        log.warning(
            "%s: %s; its writer %s, and it will be kept as incomplete",
            node.path, error, "is stopped" if self._can_freeze else "cannot be stopped on this file system",
        )  # fmt: skip


__all__ = ["SPACE_HEADROOM_BYTES", "IoModes"]
