"""The files of the intent log: two that take turns.

An entry is copied into the page cache (pwrite(2)), which outlives the process; `sync` makes it survive a power cut. The
blocks are there from the beginning, so that an entry fits on a full disk, and that fdatasync(2) has no size to record.
The files are not mapped, which would be 2 µs less for each entry: where a page has no block any more (somebody has cut
the file off; a disk that is full writes blocks elsewhere at each change, as btrfs does), the kernel ends who touches it
(SIGBUS), and the mount with it. pwrite(2) says so.

When a file is full the other begins anew, once the catalogue has all that stands there on stable storage. What is left
of older entries behind the new ones has lower numbers, and so is not read.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from recfs.catalogue.intents.frames import described, frame
from recfs.errors import IoFailure

if TYPE_CHECKING:
    from recfs.ports.intents import Entry

log = logging.getLogger("recfs.catalogue")

ROOM_BYTES = 1 << 20
"""What each file has: some thousand changes."""
SMALL_ROOM_BYTES = 256 << 10
"""The same on a disk that is smaller than SMALL_DISK_BYTES."""
SMALL_DISK_BYTES = 1 << 30
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Nobody waits for who opens the other end of a pipe."""
_MOST_BYTES: Final = 64 << 20
"""So much of a file is read, whatever its size: far more than any version has put into one."""

# It holds on to the interpreter: an entry is copied in 1 µs, and to get that back from other threads may take long.
_pwrite = ctypes.PyDLL(None, use_errno=True).pwrite64
_pwrite.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64)
_pwrite.restype = ctypes.c_ssize_t


def log_paths(catalogue: Path) -> tuple[Path, Path]:
    """Both files of the log that goes with a catalogue."""
    return Path(f"{catalogue}-intents-0"), Path(f"{catalogue}-intents-1")


def read(path: Path) -> bytes:
    """What one of them holds. Raises OSError, also for what is no regular file."""
    fd = _open(path, os.O_RDONLY)
    with open(fd, "rb") as file:
        return file.read(_MOST_BYTES)


def _open(path: Path, flags: int) -> int:
    fd = os.open(path, flags | _FLAGS, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return fd


class IntentLog:
    """The port's log in two files beside the catalogue."""

    def __init__(self, catalogue: Path) -> None:
        self._catalogue = catalogue
        self._paths = log_paths(catalogue)
        self._fds: list[int] = []
        self._room = 0
        self._epoch = 0
        self._current = 0
        self._place = 0
        """Where the next entry of the current file begins."""
        self._ends = [0, 0]
        """The number of the last entry in each file."""
        self.last = 0
        self._missing = 0
        """The number of the last entry that is not in the log."""
        self._written = 0
        self._settled = 0
        self._synced = 0
        self._one = trio.CapacityLimiter(1)
        self._told = False

    @property
    def is_whole(self) -> bool:
        """As the port says."""
        return self._missing <= self._written

    @property
    def wants_room(self) -> bool:
        """As the port says."""
        return self._place > self._room // 2 and self._ends[1 - self._current] > self._settled

    # --- entries -------------------------------------------------------------------------------------------------

    def described(self, epoch: int) -> str:
        """As the port says."""
        return described(epoch)

    def begin(self, epoch: int) -> None:
        """As the port says."""
        self.close()
        room = _room(self._paths[0].parent)
        try:
            for path in self._paths:
                fd = _open(path, os.O_RDWR | os.O_CREAT)
                self._fds.append(fd)
                self._give(fd)
                os.posix_fallocate(fd, 0, room)
                os.fsync(fd)
            _sync_folder(self._paths[0].parent)
        except BaseException:
            self.close()
            raise
        self._room, self._epoch = room, epoch
        self._current = self._place = 0
        self._ends = [0, 0]
        self.last = self._missing = self._written = self._settled = self._synced = 0
        self._told = False

    def _give(self, fd: int) -> None:
        """A file made by root is the catalogue's owner's, as its log is (SQLite does the same)."""
        with contextlib.suppress(OSError):
            owner, own = os.stat(self._catalogue), os.fstat(fd)
            if os.geteuid() == 0 and (own.st_uid, own.st_gid) != (owner.st_uid, owner.st_gid):
                os.fchown(fd, owner.st_uid, owner.st_gid)

    def append(self, entry: Entry) -> None:
        """As the port says."""
        self.last = number = self.last + 1
        try:
            head, body = frame(self._epoch, number, entry)
            if self._fds and self._fits(len(head) + len(body)):
                self._put(head, body)
                self._ends[self._current] = number
                return
        except Exception as error:
            if not self._told:
                log.error("a change is not in the intent log, and with the next batch in the catalogue: %s", error)
            self._told = True
        self._missing = number

    def skip(self) -> None:
        """As the port says."""
        self.last = self._missing = self.last + 1

    def _fits(self, length: int) -> bool:
        """Whether so many bytes have room, perhaps in the other file."""
        if self._place + length <= self._room:
            return True
        other = 1 - self._current
        if length > self._room or self._ends[other] > self._settled:
            return False
        self._current, self._place = other, 0
        return True

    def _put(self, head: bytes, body: bytes) -> None:
        """Copy it into the page cache; a death in between leaves a checksum that is wrong."""
        entry = head + body
        done = _pwrite(self._fds[self._current], entry, len(entry), self._place)
        if done != len(entry):
            number = ctypes.get_errno() if done < 0 else errno.ENOSPC
            raise OSError(number, os.strerror(number), os.fspath(self._paths[self._current]))
        self._place += len(entry)

    # --- what is safe --------------------------------------------------------------------------------------------

    def written(self, number: int) -> None:
        """As the port says."""
        self._written = max(self._written, number)

    def settled(self, number: int) -> None:
        """As the port says."""
        self._settled = max(self._settled, number)

    async def sync(self) -> bool:
        """As the port says."""
        wanted = self.last
        async with self._one:
            if self._synced < wanted:
                covered, fds = (
                    self.last,
                    [fd for fd, end in zip(self._fds, self._ends, strict=False) if end > self._synced],
                )
                try:
                    await trio.to_thread.run_sync(_sync_all, fds)
                except OSError as error:
                    self._missing = self.last  # what the disk has of it nobody knows any more
                    raise IoFailure(f"the intent log {self._paths[0]}: {error}") from error
                self._synced = covered
        return self._missing <= self._settled

    def close(self) -> None:
        """As the port says."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


def _sync_all(fds: list[int]) -> None:
    for fd in fds:
        os.fdatasync(fd)


def _room(folder: Path) -> int:
    info = os.statvfs(folder)
    return ROOM_BYTES if info.f_blocks * info.f_frsize >= SMALL_DISK_BYTES else SMALL_ROOM_BYTES


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


__all__ = ["IntentLog", "log_paths", "read"]
