"""The page cache: what of a file is in it, and leaving it as it was. Blocking; for threads."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from typing import Final

PAGE: Final = mmap.PAGESIZE
WINDOW_BYTES: Final = 64 << 20
"""How far ahead it is looked: farther than the kernel reads ahead, so that what is found was there before."""
CHUNK_BYTES: Final = 1 << 20
AGAIN_BYTES: Final = 8 << 20
"""More than the largest folio that a file is read into."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.argtypes = [
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
]  # fmt: skip
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_LOWEST_BIT: Final = bytes(byte & 1 for byte in range(256))
_FAILED: Final = ctypes.c_void_p(-1).value


class Uncached:
    """Takes what a reader of a file brought into the page cache out again, and leaves what was there before.

    By chunks of 1 MiB: one of which anything was there stays. The kernel says so only to who may write the file
    (mincore(2)); to others, everything is there, and stays.
    """

    def __init__(self, fd: int, size_bytes: int) -> None:
        self._fd = fd
        self._size = size_bytes
        self._known: dict[int, bytes | None] = {}

    def look(self, offset: int) -> None:
        """Look, before *offset* is read, what there is of the next windows. What lies behind is forgotten."""
        window = offset // WINDOW_BYTES
        for each in (window, window + 1):
            if each not in self._known and each * WINDOW_BYTES < self._size:
                start = each * WINDOW_BYTES
                self._known[each] = _resident(self._fd, start, min(WINDOW_BYTES, self._size - start))
        for each in [each for each in self._known if each < window - 1]:
            del self._known[each]

    def drop(self, offset: int) -> None:
        """The chunk at *offset* was read: take it out unless it was there before (posix_fadvise(2)).

        Those before it, too, once more: the kernel leaves pages that lie in a folio with others, or are just arriving.
        """
        if self._was_there(offset):
            return
        start = offset
        while start >= CHUNK_BYTES and offset - start < AGAIN_BYTES and not self._was_there(start - CHUNK_BYTES):
            start -= CHUNK_BYTES
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._fd, start, offset + CHUNK_BYTES - start, os.POSIX_FADV_DONTNEED)

    def _was_there(self, offset: int) -> bool:
        """Whether anything of a chunk was there before, or nobody tells."""
        pages = self._known.get(offset // WINDOW_BYTES)
        first = offset % WINDOW_BYTES // PAGE
        return pages is None or pages.find(1, first, first + CHUNK_BYTES // PAGE) >= 0


def _resident(fd: int, offset: int, length: int) -> bytes | None:
    """A byte for each page, 0 for those that are not in the page cache (mincore(2)); None where nobody tells."""
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
    if address == _FAILED:
        return None
    try:
        pages = ctypes.create_string_buffer(-(-length // PAGE))
        if _libc.mincore(address, length, pages):
            return None
        return pages.raw.translate(_LOWEST_BIT)
    finally:
        _libc.munmap(address, length)


__all__ = ["CHUNK_BYTES", "Uncached"]
