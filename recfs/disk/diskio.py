"""Reads, writes and the like on descriptors of files of the store, with regard to who waits for them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

import trio

from recfs.disk.leases import is_written
from recfs.errors import FileTooLarge, IoFailure, OutOfSpace

if TYPE_CHECKING:
    from pathlib import Path

    from recfs.state.nodes import FileNode

Args = TypeVarTuple("Args")
Result = TypeVar("Result")

SLOW_IO_S = 0.005
"""An inline call that took longer sends the following ones to threads …"""
SLOW_FOR_S = 1.0
"""… for this long: the disk is throttling, and the trio thread must not wait for it."""
READ_BUFFER_BYTES = 1 << 20
COPY_CHUNK_BYTES = 8 << 20
SYNC_STEP_BYTES = 64 << 20
"""A large file is written out in steps of this size, so that a stop need not wait for all of it."""
FD_RESERVE = 48
"""Descriptors that opening files leaves to the catalogue, the control socket and the threads; of few, a quarter."""
FEW_FILES = 1024
"""A limit below this is told at start, and by `recfs status` and `recfs doctor`."""

# fallocate(2), linux/falloc.h
KEEP_SIZE: Final = 0x01
PUNCH_HOLE: Final = 0x02

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]

_WAIT_AND_WRITE: Final = 0x01 | 0x02 | 0x04
"""SYNC_FILE_RANGE_WAIT_BEFORE | _WRITE | _WAIT_AFTER (sync_file_range(2))."""
# ioctl_iflags(2), ioctl_ficlone(2)
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_FL = 0x10
_FICLONE = 0x40049409


class DiskIo:
    """Reads and writes for the trio thread: from and to the page cache at once, in threads what would wait."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self._limiter = limiter
        self._slow_until = 0.0
        self._nowait = os.RWF_NOWAIT
        self._buffer = memoryview(bytearray(READ_BUFFER_BYTES))

    async def write_at(self, fd: int, data: bytes, offset: int) -> int:
        """pwrite(2): on the trio thread while the disk keeps up, in a thread when it does not."""
        return await self.promptly(os.pwrite, fd, data, offset)

    async def promptly(self, function: Callable[[Unpack[Args]], int], *args: *Args) -> int:
        """Call what seldom waits: on the trio thread while the disk keeps up, in a thread when it does not."""
        if self._slow_until:
            if time.monotonic() < self._slow_until:
                return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)
            self._slow_until = 0.0
        start = time.monotonic()
        result = function(*args)
        if time.monotonic() - start > SLOW_IO_S:
            self._slow_until = start + SLOW_FOR_S
        return result

    async def read_at(self, fd: int, size: int, offset: int, end: int) -> bytes | memoryview:
        """pread(2): from the page cache on the trio thread, from the disk in a thread.

        A memoryview is only valid until the next await of anybody: it shares one buffer.
        """
        size = min(size, end - offset, READ_BUFFER_BYTES)
        if size <= 0:
            return b""
        view = self._buffer[:size]
        try:
            got = os.preadv(fd, [view], offset, self._nowait)
        except BlockingIOError:
            got = 0
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL) or not self._nowait:
                raise
            self._nowait = 0  # tmpfs and friends: always in memory
            got = os.preadv(fd, [view], offset)
        if got == size or not self._nowait:
            return view[:got]
        return await trio.to_thread.run_sync(os.pread, fd, size, offset, limiter=self._limiter)


_below = 0
"""Descriptors below are for files, as far as is known: asked anew when one is not."""


def is_full(error: BaseException) -> bool:
    """Whether the disk, or a quota of the file system below, has no room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_beyond(fd: int) -> bool:
    """Whether a descriptor of a file is one of those that are kept for other uses."""
    global _below
    if fd < _below:
        return False
    _below = file_limit() - kept_files()  # it can be changed from outside (prlimit(2)); lowered, opening itself fails
    return fd >= _below


def kept_files() -> int:
    """How many descriptors are kept for other uses than open files."""
    return min(FD_RESERVE, file_limit() // 4)


def file_limit() -> int:
    """How many descriptors this process may have (RLIMIT_NOFILE, getrlimit(2))."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def few_files() -> str | None:
    """What to tell people when that is few; None when it is enough."""
    limit = file_limit()
    if limit >= FEW_FILES:
        return None
    return (
        f"recfs may have {limit} descriptors only, and refuses opens (EMFILE) when some {limit // 2} files are open: "
        f"raise the limit (LimitNOFILE= of its service, ulimit -n) to 65536 or more, and mount again"
    )


def too_many() -> OSError:
    """What a file that cannot be opened for that is refused with."""
    return OSError(
        errno.EMFILE, "too many open files: raise the daemon's limit (LimitNOFILE= of its service, ulimit -n)"
    )


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2). Raises OSError."""
    while _libc.fallocate(fd, mode, offset, length):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Free a range; its bytes read as zeros."""
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)


def flush_range(fd: int, offset: int, length: int) -> bool:
    """Write a range of a file out and wait for it (sync_file_range(2)); no substitute for fdatasync(2).

    False where that cannot be done so.
    """
    return not _libc.sync_file_range(fd, offset, length, _WAIT_AND_WRITE)


def extent_at(fd: int, offset: int, end: int) -> tuple[bool, int]:
    """Whether there is data at *offset* or a hole, and where that ends, at most at *end* (lseek(2), SEEK_DATA)."""
    try:
        start = os.lseek(fd, offset, os.SEEK_DATA)
        if start > offset:
            return False, min(start, end)
        return True, min(os.lseek(fd, offset, os.SEEK_HOLE), end)
    except OSError as error:
        return error.errno != errno.ENXIO, end  # ENXIO: nothing but a hole; else the file system cannot tell


def copy_bytes(source: int, target: int, stopped: threading.Event) -> None:
    """Copy a whole file to stable storage, its holes as holes: shared extents where the file system has them. Blocking.

    Raises InterruptedError soon after *stopped* is set.
    """
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        os.fdatasync(target)
        return
    size, offset = os.fstat(source).st_size, 0
    os.ftruncate(target, size)
    while offset < size:
        is_data, until = extent_at(source, offset, size)
        while is_data and offset < until:
            if stopped.is_set():
                raise InterruptedError(errno.EINTR, "stopped copying")
            chunk = os.pread(source, min(COPY_CHUNK_BYTES, until - offset), offset)
            if not chunk:
                break  # it has become shorter
            offset += _write_out(target, chunk, offset)
        offset = until
    for start in range(0, size, SYNC_STEP_BYTES):
        if stopped.is_set():
            raise InterruptedError(errno.EINTR, "stopped copying")
        if not flush_range(target, start, SYNC_STEP_BYTES):
            break
    os.fdatasync(target)


def _write_out(fd: int, data: bytes, offset: int) -> int:
    view = memoryview(data)
    while view:
        view = view[os.pwrite(fd, view, offset + len(data) - len(view)) :]
    return len(data)


async def stoppable(
    function: Callable[[Unpack[Args], threading.Event], Result], *args: *Args, limiter: trio.CapacityLimiter
) -> Result:
    """Call what takes long in a thread. Its last argument is set when the caller is cancelled: it is to stop then."""
    stopped = threading.Event()

    async def watch() -> None:
        try:
            await trio.sleep_forever()
        finally:
            stopped.set()

    results: list[Result] = []
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            results.append(await trio.to_thread.run_sync(function, *args, stopped, limiter=limiter))
        except Exception as error:  # raised below, by itself and not in a group
            failed = error
        nursery.cancel_scope.cancel()
    await trio.lowlevel.checkpoint_if_cancelled()
    if failed is not None:
        raise failed
    return results[0]


# --- stopping a writer that is not asked ---------------------------------------------------------------------------


def freeze(fd: int, *, frozen: bool) -> bool:
    """Make a file immutable or changeable again (FS_IMMUTABLE_FL): writes through descriptors already open fail, too.

    Needs CAP_LINUX_IMMUTABLE. False where that or the file system's support is missing; nothing changed then.
    """
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, struct.pack("i", 0)))
        wanted = flags | _FS_IMMUTABLE_FL if frozen else flags & ~_FS_IMMUTABLE_FL
        if wanted != flags:
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i", wanted))
    except OSError:
        return False
    return True


def is_frozen(fd: int) -> bool:
    """Whether the file is immutable."""
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, struct.pack("i", 0)))
    except OSError:
        return False
    return bool(flags & _FS_IMMUTABLE_FL)


def can_freeze(directory: Path) -> bool:
    """Whether `freeze` really stops a writer on this file system: tmpfs takes the flag and ignores it."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        if not freeze(fd, frozen=True):
            return False
        try:
            os.pwrite(fd, b"x", 0)
        except PermissionError:
            return True
        return False
    finally:
        freeze(fd, frozen=False)
        os.close(fd)


def thaw_path(path: bytes) -> None:
    """Undo a `freeze` that a daemon left when it died, unless the stopped writer is there still (fs/survivors.py).

    Ignores what cannot be opened.
    """
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if is_frozen(fd) and not is_written(fd):
                freeze(fd, frozen=False)
        finally:
            os.close(fd)


def disk_error(error: OSError, node: FileNode) -> Exception:
    """What a failed system call on the file below means to who asked."""
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return OSError(error.errno, error.strerror, node.path)  # the disk's own answer (fuse/guard.py)
    if error.errno == errno.EFBIG:
        return FileTooLarge(f"{node.path}: larger than the file system below takes")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(f"{node.path}: the disk is full")
    return IoFailure(f"{node.path}: {error}")
