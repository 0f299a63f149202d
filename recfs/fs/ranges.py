"""Parts of open files: finding holes, allocating and freeing, copying from file to file below.

While the kernel waits for one of these it keeps the file that changes locked: no write, no truncate, no other of these
meets it. The meter does (`refresh`), hence `BackingFile.charged_size`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVarTuple, Unpack

import trio

from recfs.core.bounds import end_of
from recfs.disk.diskio import KEEP_SIZE, PUNCH_HOLE, disk_error, fallocate
from recfs.disk.refresh import refresh, remember_below
from recfs.errors import InvalidArgument, NotSupported

if TYPE_CHECKING:
    from recfs.disk.contended import Contended
    from recfs.fs.files import OpenFiles
    from recfs.fs.handles import Handle
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree

Args = TypeVarTuple("Args")

ZERO_RANGE: Final = 0x10
OFFERED: Final = frozenset({0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE})
"""Modes of fallocate. Not: collapsing and inserting ranges, which the kernel does not pass on, and unsharing."""

COPY_BYTES: Final = 128 << 20
"""The most that one request copies: the file is locked, and its caller cannot be killed, until it is done."""
SMALL_BYTES: Final = 128 << 10
"""Up to this, reading and writing costs less than asking a thread."""
FETCHED_BYTES: Final = 1 << 20
"""The most that one request copies of a file whose bytes are on their way from S3."""
AT_ONCE: Final = 4
"""Threads that allocate and copy. They may take long, so they must not be all the threads there are."""
BLOCK_BYTES: Final = 512  # of st_blocks


class Ranges:
    """What pyfuse3 has no requests for, on open files."""

    def __init__(self, files: OpenFiles, tree: Tree, contended: Contended) -> None:
        self._files = files
        self._contended = contended
        self._tree = tree
        self._changes = trio.CapacityLimiter(AT_ONCE)

    # --- holes ---------------------------------------------------------------------------------------------------

    async def seek(self, number: int, offset: int, whence: int) -> int | None:
        """lseek(2) for data or a hole from *offset* on; None where there is none any more (ENXIO)."""
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise InvalidArgument(f"lseek whence {whence}")
        handle = self._files.handles[number]
        refresh(self._tree, handle.node)
        if not 0 <= offset < handle.node.bytes:
            return None
        if handle.body.download is not None:
            # What is not here yet is a hole below. As lseek(2) allows, all is told to be data.
            return offset if whence == os.SEEK_DATA else handle.node.bytes
        try:
            # The descriptor's own position moves. Nobody uses it.
            if handle.body.backing:
                return await self._contended.run(handle.node, os.lseek, handle.body.fd, offset, whence)
            return await self._files.disk.promptly(os.lseek, handle.body.fd, offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise disk_error(error, handle.node) from error

    # --- allocating ----------------------------------------------------------------------------------------------

    async def allocate(self, number: int, mode: int, offset: int, length: int) -> None:
        """fallocate(2). Growing is charged, and done whole or not at all. Raises NotSupported for other modes."""
        if mode not in OFFERED:
            raise NotSupported(f"fallocate mode {mode:#x}")
        end = end_of(offset, length, self._files.space.max_file_bytes)
        if not length:
            raise InvalidArgument(f"fallocate of no bytes at {offset}")
        handle = self._files.handles[number]
        await self._files.keep_pace(handle.node)
        await self._files.begin(handle)
        node = handle.node
        grows = not mode & KEEP_SIZE and end > node.bytes
        account = node.parent.account if not node.unlinked else None
        if grows and account is not None:
            account.demand(node.bytes, end)
        if not mode & PUNCH_HOLE and (missing := _missing(handle.body.fd, offset, length)):
            self._files.space.admit(missing)
        await self._change(handle, end if grows else 0, 0, _allocate, handle.body.fd, mode, offset, length, node.bytes)

    # --- copying -------------------------------------------------------------------------------------------------

    async def copy(self, source_number: int, source_offset: int, number: int, offset: int, length: int) -> int:
        """copy_file_range(2): bytes copied, as many as quota, disk and `COPY_BYTES` allow, holes kept.

        Raises when that is not a single byte; 0 at the end of the source.
        """
        source, handle = self._files.handles[source_number], self._files.handles[number]
        length = min(length, COPY_BYTES, self._left(source, end_of(source_offset, 0)))
        end_of(offset, length)
        if source.body.download is not None:
            return await self._copy_fetched(source_number, source_offset, number, offset, min(length, FETCHED_BYTES))
        if length <= SMALL_BYTES:
            data = await self._files.read(source_number, source_offset, length)
            return await self._files.write(number, offset, bytes(data))
        await self._files.keep_pace(handle.node)
        await self._files.begin(handle)
        node = handle.node
        length = min(length, self._left(source, source_offset))
        if not length:
            return 0
        end = offset + length
        grows = end > node.bytes
        if grows:
            end = self._files.sizes.admit(node, offset, end)
        return await self._change(
            handle, end if grows else 0, source.body.backing,
            _copy, source.body.fd, source_offset, handle.body.fd, offset, end - offset,
        )  # fmt: skip

    async def _copy_fetched(self, source_number: int, source_offset: int, number: int, offset: int, length: int) -> int:
        """Copy from a file whose bytes come from S3: below, what is not here yet reads as nothing, or as zeros."""
        data = await self._files.read(source_number, source_offset, length)
        return await self._files.write(number, offset, bytes(data))

    def _left(self, source: Handle, offset: int) -> int:
        refresh(self._tree, source.node)
        return max(0, source.node.bytes - offset)

    # --- both ----------------------------------------------------------------------------------------------------

    async def _change(
        self, handle: Handle, size: int, backing: int, function: Callable[[Unpack[Args]], int], *args: *Args
    ) -> int:
        """Let a thread change the file, which may grow to *size*, so far admitted; then the metadata follows the file.

        *backing*: that of another file which *function* reads, if the kernel has that open by itself.
        """
        node, body = handle.node, handle.body
        if size:
            self._tree.resize(node, size)
            body.charged_size = size
        try:
            while True:
                try:
                    if body.backing or backing:
                        result = await self._contended.run(node, function, *args)
                    else:
                        result = await trio.to_thread.run_sync(function, *args, limiter=self._changes)
                except PermissionError:  # that of a stop which is over by now is none
                    if body.stopped is not None or not await self._files.stops.thawed(node, body):
                        raise
                else:
                    self._files.changed(node)
                    return result
        except OSError as error:
            if body.stopped is not None:
                raise body.stopped[0](body.stopped[1]) from error
            raise _refusal(error, node) from error
        finally:
            body.charged_size = 0
            self._tree.resize(node, os.fstat(body.fd).st_size)
            remember_below(node)


def _missing(fd: int, offset: int, length: int) -> int:
    """How many bytes allocating a range may take at most: what the file has already is somewhere outside, or there."""
    info = os.fstat(fd)
    outside = offset + max(0, info.st_size - offset - length)
    return max(0, min(length, length + outside - info.st_blocks * BLOCK_BYTES))


def _allocate(fd: int, mode: int, offset: int, length: int, size: int) -> int:
    """fallocate(2) in a thread. A file that grew in vain is cut back to *size*, and what it took is given back."""
    try:
        fallocate(fd, mode, offset, length)
    except OSError:
        if os.fstat(fd).st_size > size:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, size)
        raise
    return length


def _copy(source: int, source_offset: int, target: int, offset: int, length: int) -> int:
    """Copy a range in a thread; tells how much was done. Raises OSError when that is nothing.

    Data is copied by the kernel, or shared where the file system can. Holes stay holes.
    """
    done = 0
    try:
        while done < length:
            hole, data = _extent(source, source_offset + done, length - done)
            if hole:
                _dig(target, offset + done, hole)
                done += hole
            step = hole
            while data and (step := os.copy_file_range(source, target, data, source_offset + done, offset + done)):
                done, data = done + step, data - step
            if not step:
                break  # the source was cut meanwhile
    except OSError:
        if not done:
            raise
    return done


def _extent(fd: int, offset: int, length: int) -> tuple[int, int]:
    """The next (hole, data) in a range: lengths, the one after the other."""
    try:
        start = min(os.lseek(fd, offset, os.SEEK_DATA), offset + length)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return max(0, min(length, os.fstat(fd).st_size - offset)), 0
    if start == offset + length:
        return length, 0
    return start - offset, min(os.lseek(fd, start, os.SEEK_HOLE), offset + length) - start


def _dig(fd: int, offset: int, length: int) -> None:
    """Make a hole: by freeing what is there, and beyond the end by growing."""
    size = os.fstat(fd).st_size
    if offset < size:
        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
    if offset + length > size:
        os.ftruncate(fd, offset + length)


def _refusal(error: OSError, node: FileNode) -> Exception:
    if error.errno in (errno.EOPNOTSUPP, errno.EXDEV):
        return NotSupported(f"{node.path}: the file system below does not do that")
    return disk_error(error, node)


__all__ = ["COPY_BYTES", "KEEP_SIZE", "PUNCH_HOLE", "ZERO_RANGE", "Ranges"]
