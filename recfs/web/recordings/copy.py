"""A part of a file on its way into a connection, by a thread.

What lies on this machine is mapped, and the connection copies it from the page cache at once; what comes from S3, and
what cannot be mapped, is read into a buffer and copied again. A map is only ever handed to write(2): where somebody
has made the file shorter meanwhile that fails (EFAULT), and nobody gets SIGBUS.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from recfs.web.copying import Step
from recfs.web.limiters import in_thread

if TYPE_CHECKING:
    from anyio import CapacityLimiter

    from recfs.web.recordings.opening import Opened

PIECE_BYTES: Final = 256 << 10
"""What a thread reads and writes at a time: it stays in the CPU's caches."""
MAPPED_BYTES: Final = 1 << 20
"""The same of a map. Less than this is not mapped: making a map and taking it away costs as much as it saves."""
_TAKEN_MS: Final = 5
"""So long a thread that nobody else wants waits for a fast reader, who nearly always takes the next bytes sooner."""
NOT_ANY_MORE: Final = "whoever gets it may not have it any more"
_WRITTEN: Final = "it was written to"


class CutOff(Exception):
    """Somebody wrote to the file while it was sent, or whoever gets it may not have it any more."""


class FileCopy:
    """A part of a file that a thread brings into a connection."""

    def __init__(
        self, opened: Opened, at: int, size: int, last: bool, limiter: CapacityLimiter, buffer: memoryview,
        still: Callable[[], bool],
    ) -> None:  # fmt: skip
        """*last*: nothing follows, so the file has to be still the same. *still*: whether who gets it may have it."""
        self._opened, self._at, self._end, self._last, self._limiter = opened, at, at + size, last, limiter
        self._still = still
        self._buffer = buffer
        self._unsent = buffer[:0]
        self._map: memoryview | None = None
        self._map_at = 0
        self._mappable = not opened.far and size > MAPPED_BYTES
        self.size, self.sent, self.longest_s = size, 0, 0.0

    async def step(self, descriptor: int) -> Step:
        """Write as long as the connection takes something. Raises OSError, CutOff."""
        if not self._still():  # of a slow reader a copy takes long, and has many of these
            raise CutOff(NOT_ANY_MORE)
        return await in_thread(self._limiter, partial(self._step, descriptor))

    def _step(self, descriptor: int) -> Step:
        while self._unsent or self._at < self._end:
            if not self._unsent:
                self.read()
            began_s = time.monotonic()
            try:
                size = os.write(descriptor, self._unsent)
            except BlockingIOError:
                if self._limiter.borrowed_tokens > 1 or not _takes(descriptor):
                    return Step.FULL
                continue
            except OSError as error:
                if error.errno == errno.EFAULT:  # of the map: it has become shorter, or the disk does not give it
                    raise CutOff(_WRITTEN) from None
                return Step.GONE  # of the connection, which whoever reads has left
            self.longest_s = max(self.longest_s, time.monotonic() - began_s)
            self._unsent = self._unsent[size:]
            self.sent += size
        self._map = None
        return Step.DONE

    def read(self) -> None:
        """Have the next piece at hand. Raises OSError, CutOff."""
        if self._mapped():
            return
        began_s = time.monotonic()
        piece = self._buffer[: self._end - self._at]
        size = os.preadv(self._opened.file, [piece], self._at)
        self._at += size
        if not size or (self._last and self._at == self._end and not self._opened.same()):
            raise CutOff(_WRITTEN)
        self._unsent = piece[:size]
        self.longest_s = max(self.longest_s, time.monotonic() - began_s)

    def _mapped(self) -> bool:
        """Have a piece of the map at hand; False where there is none.

        What comes last of all is read, and then looked at the file: in a map it might change until it is copied.
        """
        left = self._end - self._at - (len(self._buffer) if self._last else 0)
        if not self._mappable or left <= 0:
            self._map = None
            return False
        if self._map is None:
            self._map_at = self._at - self._at % mmap.ALLOCATIONGRANULARITY
            size = self._end - self._map_at
            try:
                self._map = memoryview(
                    mmap.mmap(self._opened.file, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=self._map_at)
                )
            except (OSError, ValueError):  # ValueError: it is shorter by now
                self._mappable = False
                return False
        first = self._at - self._map_at
        self._unsent = self._map[first : first + min(left, MAPPED_BYTES)]
        self._at += len(self._unsent)
        return True


def _takes(descriptor: int) -> bool:
    """Wait a moment; whether a connection takes something again. One that is lost does: writing to it tells."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    return bool(waiting.poll(_TAKEN_MS))


__all__ = ["NOT_ANY_MORE", "PIECE_BYTES", "CutOff", "FileCopy"]
