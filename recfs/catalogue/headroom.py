"""Room on the disk that is the catalogue's before it needs it, so that a disk others have filled refuses it nothing.

Blocks are allocated to the log and to the main file beyond their ends (fallocate(2), FALLOC_FL_KEEP_SIZE): SQLite
writes into them, and nobody else can. Room kept in a file of its own would have to be given up first, and whoever fills
the disk would be there sooner than the catalogue. A file system without fallocate(2) keeps none; that file helps there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

LOG_BYTES = 8 << 20
"""Of the log, beyond its end. One that has been folded into the main file is written anew from its beginning."""
FILE_BYTES = 4 << 20
"""Of the main file, beyond its end: folding the log in takes new pages."""
INDEX_BYTES = 64 << 10
"""Of the log's index (-shm), and what of it has no blocks yet: who touches that on a full disk is ended (mmap(2))."""
_KEEP_SIZE = 1
_BLOCK_BYTES = 512

Allocate = Callable[[int, int, int, int], None]
"""fallocate(2): descriptor, mode, offset, length. Raises OSError."""


def give_up(path: Path) -> None:
    """Give the room back that a catalogue nobody has open keeps beyond the ends of its files (truncate(2))."""
    for suffix in ("-wal", ""):
        with contextlib.suppress(OSError):
            os.truncate(f"{path}{suffix}", os.stat(f"{path}{suffix}").st_size)


class Headroom:
    """Keeps it; its descriptors stay open, since closing one would drop SQLite's locks on that file (fcntl(2))."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fds: dict[str, int] = {}

    def keep(self, allocate: Allocate, most_bytes: int) -> None:
        """Put the room aside that is missing, *most_bytes* at most. Does nothing where that cannot be."""
        for suffix, wanted in (("-shm", INDEX_BYTES), ("-wal", LOG_BYTES), ("", FILE_BYTES)):
            room = min(wanted, most_bytes)
            with contextlib.suppress(OSError):
                fd = self._fd(suffix)
                info = os.fstat(fd)
                if info.st_blocks * _BLOCK_BYTES - info.st_size < room // 2:
                    begin = 0 if suffix == "-shm" else info.st_size
                    allocate(fd, _KEEP_SIZE, begin, info.st_size - begin + room)

    def _fd(self, suffix: str) -> int:
        if suffix not in self._fds:
            self._fds[suffix] = os.open(f"{self._path}{suffix}", os.O_RDWR | os.O_CLOEXEC)
        return self._fds[suffix]

    def close(self) -> None:
        """Let go of the files; SQLite has closed them."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
