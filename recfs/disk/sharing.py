"""Two files that have the same bytes share their blocks on the disk, where the file system can do that (XFS, btrfs).

The kernel compares the bytes itself, with both files locked, and shares what is equal (ioctl_fideduperange(2)): so
nobody's bytes can change by it, whatever recfs believes of them, and neither times nor owners do. What is written later
to one of them goes to blocks of its own. Neither file is opened for writing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Final

from recfs.core.reuse import extents
from recfs.errors import NotSupported

SLICE_BYTES: Final = 16 << 20
"""What btrfs compares at once; and so long, at most, writers wait who come meanwhile."""
_FIDEDUPERANGE: Final = 0xC0189436
_RANGE: Final = struct.Struct("=QQHHIqQQiI")
"""struct file_dedupe_range with one struct file_dedupe_range_info (linux/fs.h)."""
_DIFFERS: Final = 1

_FS_IOC_FIEMAP: Final = 0xC020660B
_MAP: Final = struct.Struct("=QQIIII")
_EXTENT: Final = struct.Struct("=QQQQQIIII")
"""struct fiemap and struct fiemap_extent (linux/fiemap.h)."""
_AT_ONCE: Final = 256
_SYNC: Final = 1
_LAST: Final = 1
_NOT_SURE: Final = 0x2 | 0x4 | 0x80 | 0x100 | 0x200
"""Extents without blocks of their own, or none yet: unknown, delayed, not aligned, inside metadata, of a tail."""
_MAX_EXTENTS: Final = 1 << 16
_CANNOT: Final = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.ENOSYS)


def share(source: int, target: int, offset: int, length: int) -> int:
    """Have *target* share the blocks of *source*, from one offset in both; how many bytes it shares now. Blocking.

    Fewer than *length*: 0 where the bytes differ. Raises NotSupported where the file system cannot, OSError.
    """
    asked = bytearray(_RANGE.pack(offset, length, 1, 0, 0, target, offset, 0, 0, 0))
    try:
        fcntl.ioctl(source, _FIDEDUPERANGE, asked, True)
    except OSError as error:
        if error.errno in _CANNOT:
            raise _not_supported() from error
        raise
    done, status = _RANGE.unpack(asked)[7:9]
    if status == _DIFFERS:
        return 0
    if -status in _CANNOT:
        raise _not_supported()
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return int(done)


def _not_supported() -> NotSupported:
    return NotSupported("the file system of the store shares no blocks between files: XFS (reflink=1) and btrfs do")


def own_bytes(one: int, other: int) -> int | None:
    """How many bytes of *other* do not share their blocks with *one*, as the file system tells (FIEMAP). Blocking.

    None where that cannot be told.
    """
    try:
        first, second = _extents(one), _extents(other)
    except OSError:
        return None
    return extents.own_bytes(first, second) if first is not None and second is not None else None


def _extents(fd: int) -> list[tuple[int, int, int]] | None:
    """(offset in the file, place on the disk, length) of all up to its end, in order; None where nobody can tell."""
    found: list[tuple[int, int, int]] = []
    size = os.fstat(fd).st_size
    start = 0
    while len(found) < _MAX_EXTENTS:
        asked = _MAP.pack(start, (1 << 64) - 1 - start, _SYNC, 0, _AT_ONCE, 0)
        room = bytearray(asked + bytes(_AT_ONCE * _EXTENT.size))
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, room, True)
        mapped = _MAP.unpack_from(room)[3]
        if not mapped:
            return found
        for number in range(mapped):
            logical, physical, length, _, _, flags, *_ = _EXTENT.unpack_from(room, _MAP.size + number * _EXTENT.size)
            if flags & _NOT_SURE:
                return None
            if logical < size:
                found.append((logical, physical, min(length, size - logical)))
            start = logical + length
            if flags & _LAST:
                return found
    return None


__all__ = ["SLICE_BYTES", "own_bytes", "share"]
