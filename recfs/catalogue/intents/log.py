"""The files of the intent log: two that take turns, mapped into memory.

An entry is copied into the page cache (mmap(2), no system call), which outlives the process; `sync` makes it survive a
power cut. The blocks are there from the beginning, so that an entry fits on a full disk, and that fdatasync(2) has no
size to record (a page without a block would end the daemon, SIGBUS).

When a file is full the other begins anew, once the catalogue has all that stands there on stable storage. What is left
of older entries behind the new ones has lower numbers, and so is not read.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from recfs.catalogue.intents.frames import HEAD, described, frame
from recfs.errors import IoFailure

if TYPE_CHECKING:
    from recfs.ports.intents import Entry

log = logging.getLogger("recfs.catalogue")

ROOM_BYTES = 1 << 20
"""What each file has: some thousand changes."""
SMALL_ROOM_BYTES = 256 << 10
"""The same on a disk that is smaller than SMALL_DISK_BYTES."""
SMALL_DISK_BYTES = 1 << 30


def log_paths(catalogue: Path) -> tuple[Path, Path]:
    """Both files of the log that goes with a catalogue."""
    return Path(f"{catalogue}-intents-0"), Path(f"{catalogue}-intents-1")


class IntentLog:
    """The port's log in two files beside the catalogue."""

    def __init__(self, catalogue: Path) -> None:
        self._catalogue = catalogue
        self._paths = log_paths(catalogue)
        self._fds: list[int] = []
        self._maps: list[mmap.mmap] = []
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
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._fds.append(fd)
                self._give(fd)
                os.posix_fallocate(fd, 0, room)
                os.fsync(fd)
                self._maps.append(mmap.mmap(fd, room))
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
            if self._maps and self._fits(len(head) + len(body)):
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
        begin, middle = self._place, self._place + HEAD.size
        end = middle + len(body)
        mapped = self._maps[self._current]
        mapped[middle:end] = body
        mapped[begin:middle] = head
        self._place = end

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
        for each in self._maps:
            each.close()
        self._maps.clear()
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


__all__ = ["IntentLog", "log_paths"]
