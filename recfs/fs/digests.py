"""The read pass over a closed file: to stable storage, and sha256 and md5 from one reading. Blocking; for threads."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from recfs.fs.nodes import Untouched
    from recfs.stores.local import LocalStore

CHUNK_BYTES = 1 << 20
ROUND_BUFFERS = 4
SIDE_BY_SIDE_BYTES = 8 << 20
"""From this size a second thread for md5 is worth starting."""
GROUP_SYNC_FILES = 8
"""From this many files in a batch one syncfs(2) costs less than an fdatasync(2) each."""


class Hash(Protocol):
    """What of hashlib is used here."""

    def update(self, data: memoryview, /) -> None:
        """Feed bytes. Releases the GIL from 2 KiB on."""

    def digest(self) -> bytes:
        """The digest of what was fed."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What the read pass found; `error` instead if it could not read."""

    sha256: bytes = b""
    md5: bytes = b""
    size_bytes: int = 0
    st_ino: int = 0
    error: OSError | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One file to be digested."""

    path: bytes
    alone: bool = True
    """Nobody of ours has it open: whoever can still write to it does so through a mapping."""
    untouched: Untouched | None = None


def digest_files(sources: Sequence[Source], store: LocalStore) -> list[Digest]:
    """Bring the files to stable storage and hash them. Blocking; for a thread."""
    grouped = len(sources) >= GROUP_SYNC_FILES
    if grouped:
        store.sync_all()
    buffer = memoryview(bytearray(CHUNK_BYTES if len(sources) == 1 else 64 << 10))
    return [_digest(source, store, buffer, sync=not grouped) for source in sources]


def _digest(source: Source, store: LocalStore, buffer: memoryview, *, sync: bool) -> Digest:
    try:
        fd = store.open_file(source.path, os.O_RDONLY)
        assert fd is not None
        try:
            if source.alone and _is_mapped(fd):
                raise BlockingIOError(errno.EAGAIN, "it is still mapped for writing", os.fsdecode(source.path))
            if sync:
                os.fdatasync(fd)
            info, before = os.fstat(fd), source.untouched
            if before is not None and before.describes(info.st_size, info.st_mtime_ns) and before.sha256 and before.md5:
                return Digest(before.sha256, before.md5, info.st_size, info.st_ino)
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            size = _pass(fd, buffer, sha256, md5) if info.st_size < SIDE_BY_SIDE_BYTES else _two(fd, sha256, md5)
            return Digest(sha256.digest(), md5.digest(), size, info.st_ino)
        finally:
            os.close(fd)
    except OSError as error:
        return Digest(error=error)


def _is_mapped(fd: int) -> bool:
    """Whether somebody can still write to the file: a shared mapping outlives its descriptor.

    Where the kernel writes by itself, such a mapping is one of this very file, and its end is not told. But a lease
    for reading is refused as long as anything has the file open for writing (fcntl(2), F_SETLEASE).
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # else this file system has no leases
    return False


def _pass(fd: int, buffer: memoryview, sha256: Hash, md5: Hash) -> int:
    """Feed the file to both digests in turn; returns its size."""
    size = 0
    while got := os.preadv(fd, [buffer], size):
        part = buffer[:got]
        sha256.update(part)
        md5.update(part)
        size += got
        if got < len(buffer):  # a regular file reads short only at its end
            break
    return size


def _two(fd: int, sha256: Hash, md5: Hash) -> int:
    """Feed a large file to both digests side by side, from one read; returns its size. md5 sets the pace.

    A few buffers go round, so that md5 finds the next one filled when it is done with the last: waking a thread for
    each would cost it a tenth of its time.
    """
    free: SimpleQueue[memoryview] = SimpleQueue()
    filled: SimpleQueue[tuple[memoryview, memoryview] | None] = SimpleQueue()
    for _ in range(ROUND_BUFFERS):
        free.put(memoryview(bytearray(CHUNK_BYTES)))

    def follow() -> None:
        while (item := filled.get()) is not None:
            buffer, part = item
            md5.update(part)
            free.put(buffer)

    size = 0
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="recfs-md5") as helper:
        behind = helper.submit(follow)
        try:
            while got := os.preadv(fd, [buffer := free.get()], size):
                part = buffer[:got]
                filled.put((buffer, part))
                sha256.update(part)
                size += got
        finally:
            filled.put(None)
        behind.result()
    return size


def synced_sha256(fd: int) -> bytes:
    """Checksum of a whole file, which is on stable storage then: a row is about to say that it is here. Blocking."""
    os.fdatasync(fd)
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").digest()
