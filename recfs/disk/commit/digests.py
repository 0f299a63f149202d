"""The read pass over a closed file: to stable storage, and sha256 and md5 from one reading. Blocking; for threads.

md5 costs more than sha256 where the CPU has instructions for that, and is left out where nobody needs it yet.

A pass can be stopped within a chunk of 1 MiB, and goes on where it was as long as the file is the same. Holes are not
read: their zeros come from one buffer, and what many files have in common, zeros from the start on, is hashed once.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from recfs.disk.beside import Beside
from recfs.disk.diskio import SYNC_STEP_BYTES, extent_at, flush_range
from recfs.disk.leases import is_written
from recfs.stores.many import still_written

if TYPE_CHECKING:
    from recfs.state.backing_file import Untouched
    from recfs.stores.local import LocalStore

CHUNK_BYTES = 1 << 20
SIDE_BY_SIDE_BYTES = 8 << 20
"""From this size a second thread for md5 is worth starting."""
ZEROS_STEP_BYTES = 1 << 30
ZEROS_STEPS = 1024
"""The states after 1, 2, 3 … steps of nothing but zeros are kept, up to this many: some 600 KB."""
_ZEROS = memoryview(bytes(CHUNK_BYTES))


class Hash(Protocol):
    """What of hashlib is used here."""

    def update(self, data: memoryview, /) -> None:
        """Feed bytes. Releases the GIL from 2 KiB on."""

    def digest(self) -> bytes:
        """The digest of what was fed."""

    def copy(self) -> Hash:
        """The same state, to be fed apart."""


class Digest(NamedTuple):
    """What the read pass found; `error` instead if it could not read."""

    sha256: bytes = b""
    md5: bytes | None = None
    """None: it was not asked for."""
    size_bytes: int = 0
    st_ino: int = 0
    error: OSError | None = None
    attributes: tuple[int, int, int, int] | None = None
    """Mode bits, owner, group and time of modification of a file that lies at its place; None of another."""


class Source(NamedTuple):
    """One file to be digested."""

    path: bytes
    alone: bool = True
    """Nobody of ours has it open: whoever can still write to it does so through a mapping."""
    untouched: Untouched | None = None
    md5: bool = True
    """Whether somebody needs that, too."""
    in_place: bool = False
    """It lies at its place in the home tree: its name and attributes are brought to stable storage with its bytes."""


def _sync(source: Source, fd: int) -> None:
    """To stable storage: with mode, owner and time of modification, too, where nobody is going to set them after it."""
    (os.fsync if source.in_place else os.fdatasync)(fd)


def digest_one(source: Source, store: LocalStore, buffer: memoryview, *, sync: bool) -> Digest:
    """Hash a file in one go, brought to stable storage first if it is to (*sync*). *buffer* is what it is read into."""
    try:
        fd = _open(source, store)
        try:
            if sync:
                _sync(source, fd)
            info = os.fstat(fd)
            if (known := _known(source, info)) is not None:
                return known
            sha256, md5 = hashlib.sha256(), _md5(source)
            size = _pass(fd, buffer, sha256, md5)
            return _found(source, info, sha256.digest(), md5.digest() if md5 is not None else None, size)
        finally:
            os.close(fd)
    except OSError as error:
        return Digest(error=error)


def _found(source: Source, info: os.stat_result, sha256: bytes, md5: bytes | None, size_bytes: int) -> Digest:
    attributes = (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns) if source.in_place else None
    return Digest(sha256, md5, size_bytes, info.st_ino, attributes=attributes)


def _md5(source: Source) -> Hash | None:
    return hashlib.md5(usedforsecurity=False) if source.md5 else None


def _pass(fd: int, buffer: memoryview, sha256: Hash, md5: Hash | None) -> int:
    """Feed the file to the digests in turn; returns its size."""
    size = 0
    while got := os.preadv(fd, [buffer], size):
        part = buffer[:got]
        sha256.update(part)
        if md5 is not None:
            md5.update(part)
        size += got
        if got < len(buffer):  # a regular file reads short only at its end
            break
    return size


def _open(source: Source, store: LocalStore) -> int:
    fd = store.open_file(source.path, os.O_RDONLY)
    if source.alone and is_written(fd):  # a shared mapping outlives its descriptor, and its end is not told
        os.close(fd)
        raise still_written(source.path)
    return fd


def _known(source: Source, info: os.stat_result) -> Digest | None:
    before = source.untouched
    if before is None or not before.sha256 or not (before.md5 or not source.md5):
        return None
    if before.describes(info.st_size, info.st_mtime_ns):
        return _found(source, info, before.sha256, before.md5, info.st_size)
    return None


# --- a pass that can be stopped ------------------------------------------------------------------------------------

_zeros: dict[int, tuple[Hash, Hash | None]] = {}
_zeros_without: dict[int, tuple[Hash, Hash | None]] = {}
"""States after so many steps of zeros, with md5 and without.

Filled by whoever gets there first; two who do at once agree."""


class Pass:
    """The read pass over one file, in slices. A thread works on it; others may only `stop` it and look at it."""

    def __init__(self, source: Source, size_bytes: int) -> None:
        self.source = source
        self.total_bytes = size_bytes
        self.done_bytes = 0
        """How far it is."""
        self.read_bytes = 0
        """How much was read, and not known to be zeros."""
        self.hashed_bytes = 0
        """How much was fed to the digests, and not known from another file."""
        self.stopped = False
        self._sha256: Hash = hashlib.sha256()
        self._md5: Hash | None = _md5(source)
        self._seen: tuple[int, int, int] | None = None
        self._synced = False
        self._flushed_bytes = 0
        """How far it was written out, and waited for."""
        self._only_zeros = True
        self._found: Digest | None = None

    @property
    def left_bytes(self) -> int:
        """How much is left to be hashed."""
        return max(0, self.total_bytes - self.done_bytes)

    def stop(self) -> None:
        """Have the thread come back within a moment; what it has done so far is kept."""
        self.stopped = True

    def run(self, store: LocalStore, slice_s: float, others_wait: Callable[[], bool]) -> Digest | None:
        """Go on with the file. None when it was stopped, or after *slice_s* seconds if others wait by then."""
        try:
            fd = _open(self.source, store)
            try:
                return self._go_on(store, fd, slice_s, others_wait)
            finally:
                os.close(fd)
        except OSError as error:
            return Digest(error=error)

    def _go_on(self, store: LocalStore, fd: int, slice_s: float, others_wait: Callable[[], bool]) -> Digest | None:
        info = os.fstat(fd)
        if _mark(info) != self._seen:
            self._begin(info)
        until = time.monotonic() + slice_s

        def is_over() -> bool:
            return others_wait() and time.monotonic() >= until

        if not self._synced:
            if not self._sync(store, fd, info.st_size, is_over):
                return None
            info = os.fstat(fd)
            self._begin(info, synced=True)
        if (known := _known(self.source, info)) is not None:
            return known
        if self._found is None:
            began = self.done_bytes

            def goes_on() -> bool:
                return not self.stopped and (self.done_bytes == began or not is_over())

            end = self._feed(fd, info.st_size, sparse=info.st_blocks * 512 < info.st_size, goes_on=goes_on)
            if self.done_bytes < end:
                return None
            md5 = self._md5.digest() if self._md5 is not None else None
            self._found = _found(self.source, info, self._sha256.digest(), md5, end)
        return self._found

    def _begin(self, info: os.stat_result, *, synced: bool = False) -> None:
        """Start at the file's beginning: what was hashed of other bytes counts for nothing."""
        self._sha256, self._md5 = hashlib.sha256(), _md5(self.source)
        self._seen, self.total_bytes, self._synced = _mark(info), info.st_size, synced
        self.done_bytes, self._only_zeros, self._found = 0, True, None
        self._flushed_bytes = 0

    def _sync(self, store: LocalStore, fd: int, size: int, is_over: Callable[[], bool]) -> bool:
        """Bring it to stable storage; False when stopped before, or when the slice *is_over*: it goes on from there."""
        began = self._flushed_bytes
        while SYNC_STEP_BYTES < size > self._flushed_bytes:
            if self.stopped or (self._flushed_bytes > began and is_over()):
                return False
            # A file of nothing but holes may be as large as the file system lets it.
            is_data, end = extent_at(fd, self._flushed_bytes, size)
            end = min(end, self._flushed_bytes + SYNC_STEP_BYTES) if is_data else end
            if is_data and not flush_range(fd, self._flushed_bytes, end - self._flushed_bytes):
                break
            self._flushed_bytes = end
        if self.stopped:
            return False
        _sync(self.source, fd)
        if self.source.in_place:
            store.beneath.sync(os.path.dirname(self.source.path))
        return True

    def _feed(self, fd: int, end: int, *, sparse: bool, goes_on: Callable[[], bool]) -> int:
        """Feed what is left of the file, as long as *goes_on*; returns where the file really ends."""
        data_end = 0 if sparse else end
        hole_end = 0
        beside = self._md5 is not None and end - self.done_bytes >= SIDE_BY_SIDE_BYTES
        with Beside(self._feed_md5, CHUNK_BYTES, beside=beside) as md5:
            while self.done_bytes < end and goes_on():
                offset = self.done_bytes
                if offset >= data_end and offset >= hole_end:
                    is_data, until = extent_at(fd, offset, end)
                    data_end, hole_end = (until, 0) if is_data else (0, until)
                if offset < data_end:
                    buffer = md5.buffer()
                    got = os.preadv(fd, [buffer[: data_end - offset]], offset)
                    if not got:
                        return offset  # it has become shorter
                    part = buffer[:got]
                    self._only_zeros = False
                    self.read_bytes += got
                elif self._only_zeros and offset % ZEROS_STEP_BYTES == 0 and self._leap(offset, hole_end, md5):
                    continue
                else:
                    buffer = md5.buffer()
                    part = _ZEROS[: min(hole_end - offset, ZEROS_STEP_BYTES - offset % ZEROS_STEP_BYTES)]
                md5.give(part, buffer)
                self._sha256.update(part)
                self.done_bytes += len(part)
                self.hashed_bytes += len(part)
        return end

    def _leap(self, offset: int, hole_end: int, md5: Beside) -> bool:
        """At a full step of zeros: keep the state for others, or go on from a later one that somebody has kept."""
        step, known = offset // ZEROS_STEP_BYTES, _zeros if self._md5 is not None else _zeros_without
        if step and step not in known and step <= ZEROS_STEPS:
            md5.catch_up()
            known[step] = self._sha256.copy(), self._md5.copy() if self._md5 is not None else None
        for later in range(min(hole_end // ZEROS_STEP_BYTES, ZEROS_STEPS), step, -1):
            if (state := known.get(later)) is not None:
                md5.catch_up()
                self._sha256 = state[0].copy()
                self._md5 = state[1].copy() if state[1] is not None else None
                self.done_bytes = later * ZEROS_STEP_BYTES
                return True
        return False

    def _feed_md5(self, part: memoryview) -> None:
        """In a second thread for a large file, where md5 sets the pace."""
        if self._md5 is not None:
            self._md5.update(part)


def _mark(info: os.stat_result) -> tuple[int, int, int]:
    """What stays the same while nobody writes."""
    return info.st_ino, info.st_size, info.st_mtime_ns
