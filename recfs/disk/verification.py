"""Looking at the bytes that lie here: whether they are there, how many, and their sha256. Blocking; for threads.

A file is read piece by piece, so that whoever has it read can pause, and stop, in between. Nothing is written, nothing
is brought to stable storage, and the page cache is left as it was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

from recfs.core.verification.verdicts import Copy
from recfs.disk.beside import Beside
from recfs.disk.diskio import extent_at
from recfs.disk.leases import is_written
from recfs.disk.pagecache import CHUNK_BYTES, Uncached

if TYPE_CHECKING:
    from recfs.stores.local import LocalStore

_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What opening says where the file, or a directory above it, was removed or replaced by something else."""
_ZEROS: Final = memoryview(bytes(CHUNK_BYTES))
BESIDE_BYTES: Final = 8 << 20
"""From so much on the digest has a thread of its own: it is what takes longest, and does not wait for the reading."""
FED_BYTES: Final = 32 << 20
"""How much is fed to the digest at a time, holes included, before whoever has it read may look at something else."""


class LocalCheck:
    """One look at one file."""

    def __init__(self, store: LocalStore, path: bytes, size_bytes: int | None, sha256: bytes | None) -> None:
        """*size_bytes* None: only look whether it is there; *sha256* None: do not read it."""
        self._store = store
        self._path = path
        self._wanted_bytes = size_bytes
        self._size = size_bytes or 0
        self._sha256 = sha256
        self._fd: int | None = None
        self._hash = hashlib.sha256()
        self._ending = contextlib.ExitStack()
        """Of the thread beside this one."""
        self._at = 0
        self._mark: tuple[int, ...] = ()
        self._again = False
        self.found: Copy | None = None
        """None: there is more to be read."""
        self.reason = ""
        """What is wrong, for people."""
        self.read_bytes = 0
        """Read from the disk, or the page cache; holes are not read."""
        self.info: os.stat_result | None = None
        """What lies there, if it could be opened."""
        self.is_flaky = False
        """It was wrong when it was read first, and right the second time."""

    def go_on(self, most_bytes: int) -> None:
        """Open it, or read on, about so much."""
        try:
            if self._fd is None:
                self._open()
            if self.found is None:
                self._read(most_bytes)
        except OSError as error:
            self.found, self.reason = Copy.UNREADABLE, f"{os.fsdecode(self._path)}: {error.strerror or error}"
            if error.errno in _GONE and self._fd is None:
                self.found, self.reason = Copy.GONE, f"{os.fsdecode(self._path)} is not there"

    def close(self) -> None:
        """Give the file back."""
        self._ending.close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        self._fd = self._store.open_file(self._path, os.O_RDONLY)
        self.info = info = os.fstat(self._fd)
        if not stat.S_ISREG(info.st_mode):
            self.found, self.reason = Copy.GONE, f"{os.fsdecode(self._path)} is no file any more"
        elif self._wanted_bytes not in (None, info.st_size):
            self.found, self.reason = Copy.WRONG, f"it has {info.st_size} bytes, and {self._size} were committed"
        elif self._sha256 is None:
            self.found = Copy.RIGHT
        if is_written(self._fd):  # a mapping that outlived its descriptor, or somebody in the home tree
            self.found, self.reason = Copy.UNSETTLED, "somebody has it open for writing"
        self._begin(info)

    def _begin(self, info: os.stat_result) -> None:
        assert self._fd is not None
        self._mark = _mark(info)
        self._hash, self._at = hashlib.sha256(), 0
        self._ending.close()  # of what was read of it before
        size = 0 if self._sha256 is None else self._size  # else nothing is read
        hashing = Beside(self._hash.update, min(CHUNK_BYTES, size), beside=size >= BESIDE_BYTES)
        self._hashing = self._ending.enter_context(hashing)
        self._cache = Uncached(self._fd, self._size)
        self._is_sparse = info.st_blocks * 512 < info.st_size

    def _read(self, most_bytes: int) -> None:
        assert self._fd is not None
        read_until, fed = self.read_bytes + most_bytes, 0
        hole_end, goes_on = 0, True
        while goes_on and self._at < self._size:
            if self.read_bytes >= read_until or fed >= max(most_bytes, FED_BYTES):
                return
            if self._is_sparse and self._at >= hole_end:
                is_data, end = extent_at(self._fd, self._at, self._size)
                hole_end = hole_end if is_data else end
            buffer = self._hashing.buffer()
            if self._at < hole_end:
                part = _ZEROS[: min(CHUNK_BYTES, hole_end - self._at)]
            else:
                part = self._chunk(buffer, read_until - self.read_bytes)
                goes_on = bool(part)  # else it has become shorter
            self._hashing.give(part, buffer)
            self._at += len(part)
            fed += len(part)
        self._hashing.catch_up()
        self._ended()

    def _chunk(self, buffer: memoryview, most_bytes: int) -> memoryview:
        assert self._fd is not None
        at, start = self._at, self._at - self._at % CHUNK_BYTES
        self._cache.look(at)
        got = os.preadv(self._fd, [buffer[: min(start + CHUNK_BYTES - at, most_bytes)]], at)
        self.read_bytes += got
        if at + got >= min(start + CHUNK_BYTES, self._size):
            self._cache.drop(start)
        return buffer[:got]

    def _ended(self) -> None:
        assert self._fd is not None
        info = os.fstat(self._fd)
        if self._hash.digest() == self._sha256:
            self.found, self.is_flaky = Copy.RIGHT, self._again
        elif _mark(info) != self._mark or is_written(self._fd):
            self.found, self.reason = Copy.UNSETTLED, "it was changed meanwhile"
        elif self._again:
            self.found, self.reason = Copy.WRONG, "its bytes are not those that were committed: another sha256"
        else:
            # It may have been a page of the cache, or memory, that was wrong: look at the disk once more.
            self._again = True
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
            self._begin(info)


def _mark(info: os.stat_result) -> tuple[int, ...]:
    """What stays the same while nobody writes, sets its size, or replaces it."""
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


__all__ = ["LocalCheck"]
