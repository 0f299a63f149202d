"""The body of an open file: one descriptor for all handles, and who uses it."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from recfs.errors import FsError


FEW_BLOCKS = (256 << 10) // 512
"""What is freed in no time, in units of st_blocks."""


CLOCK_TICK_NS = 20_000_000
"""More than the coarsest step of a file system's clock."""
FOREIGN = -1
"""The backing id of a file that a writer of before this daemon's start has open (fs/survivors.py)."""


class Fetch(Protocol):
    """What brings the bytes of an open file that are not here yet."""

    def reading(self, offset: int, length: int) -> AbstractContextManager[None]:
        """What `ensure` brings of this range stays until the end of the block."""

    async def ensure(self, offset: int, length: int) -> None:
        """Return when these bytes are in the file. Raises an FsError or ObjectStoreError that kept them away."""


class Counts(Protocol):
    """Who counts the descriptors of each user."""

    def grown(self, body: BackingFile) -> None:
        """It keeps one descriptor more, by those who have it open."""


class Untouched(NamedTuple):
    """A committed file as it was opened for writing: should nobody have written, it is committed still."""

    sha256: bytes | None
    md5: bytes | None
    size_bytes: int
    mtime_ns: int
    """Of the file below, not the one users see."""
    opened_ns: int

    def describes(self, size_bytes: int, mtime_ns: int) -> bool:
        """Whether the file below, being so, has not been written to since.

        A write within the clock's tick of the last one would leave the time as it was, so only a file that had been
        left alone for a while before it was opened can be told to be untouched.
        """
        same = (size_bytes, mtime_ns) == (self.size_bytes, self.mtime_ns)
        return same and self.mtime_ns <= self.opened_ns - CLOCK_TICK_NS


class BackingFile:
    """An open file's descriptor and who uses it."""

    # What hardly any body ever differs in stands here once: one is made for nearly every open.
    copying = False
    """It is the copy of a shown file, and not all of that is here yet."""
    download: Fetch | None = None
    """What brings the bytes that are not here yet."""
    handles = 0
    writers = 0
    unproven = False
    """Whether the row on the disk may still say `committed` of a file that is about to be changed."""
    in_place = False
    """Whether the bytes are changed where they lie, and the row on the disk says so (Pending.UNMARKED): the kernel
    had the file open, and may keep it locked (disk/home/inuse.py)."""
    retired: tuple[int, ...] = ()
    """Descriptors that were replaced, and take long to close; closed with the body."""
    # Of disk/shares.py:
    charged = 0
    """How many descriptors count for each of the users."""
    shares: Counts | None = None
    # Of the kernel's opens of this inode (fs/iomodes.py):
    backing = 0
    """Backing id of this file, while `passing`; FOREIGN if only the kernel of an earlier mount has it open."""
    passing = 0
    """Opens in mode PASS or DIRECT."""
    foreign = False
    """Whether a writer of an earlier mount is among the users: the kernel of this one knows nothing of it."""
    cached = 0
    """Opens in mode CACHED."""
    unchecked_writers = 0
    """Writers among the PASS and DIRECT opens: the file below may be ahead of the metadata."""
    seen = (0, 0)
    """(size, mtime_ns) of the file below at the last look."""
    charged_size = 0
    """The size the file is charged for already, while a thread makes it grow to that (fs/ranges.py)."""
    asked = False
    """Whether bytes of what is being fetched were asked for."""
    checked_bytes = 0
    """Size up to which the limits were looked at."""
    invalidation_pending = False
    """Whether the kernel may still believe in times of before the last look."""
    stopped: tuple[type[FsError], str] | None = None
    """The limit a writer ran past: no more writes, and the file ends as `incomplete`."""
    freezing: trio.Event | None = None
    """Set when the thread has ended that stops (or no longer stops) the writers of this file."""
    untouched: Untouched | None = None

    def __init__(self, fd: int, *, writable: bool) -> None:
        self.fd = fd
        self.writable = writable
        self.users: dict[int, int] = {}
        """Handles by user id."""

    @functools.cached_property
    def lock(self) -> trio.Lock:
        """Serialises the node's way between home and staging, which has awaits in it; taken through `waits.Held`. While
        it is held nobody else changes `staging`, `in_place`, or which file `fd` has open, of a file that is being
        written. One file at a time, and before `WriteBehind`'s: docs/architecture.md, "Who may change what".
        """
        return trio.Lock()

    @property
    def is_locked(self) -> bool:
        """Whether anybody holds the lock, which is made when it is first wanted."""
        return "lock" in self.__dict__ and self.lock.locked()

    @property
    def is_being_read(self) -> bool:
        """Whether others read a file that is being fetched. Its pages are right then, and to drop them would mean to
        wait for those that are still to come, in a way that nothing interrupts.
        """
        return self.download is not None and self.asked and self.cached > 1

    def swap(self, fd: int, *, writable: bool) -> None:
        """Use another file from now on, the one that *fd* has open, which is taken over.

        It gets the number of the one before (dup2(2)), so a thread that is about to use that never meets a stranger.
        """
        self.writable = writable
        info = os.fstat(self.fd)
        if info.st_nlink or info.st_blocks <= FEW_BLOCKS:
            os.dup2(fd, self.fd, inheritable=False)
            os.close(fd)
            return
        # Its bytes go with this descriptor, and that takes long.
        self.retired = (*self.retired, self.fd)
        self.fd = fd
        if self.users and self.shares is not None:
            self.shares.grown(self)

    def reopen(self, *, writable: bool) -> None:
        """Open the same file once more (proc(5)), for writing or for reading only. Raises OSError."""
        fd = os.open(f"/proc/self/fd/{self.fd}", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        self.writable = writable

    def close(self) -> None:
        """Close every descriptor."""
        for fd in (self.fd, *self.retired):
            os.close(fd)
        self.retired = ()


__all__ = ["FEW_BLOCKS", "FOREIGN", "BackingFile", "Counts", "Fetch", "Untouched"]
