"""What a download asks for next: first what readers wait for, then what they will, then the rest of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.ports.objects import MIB
from recfs.tier.downloads.extents import REQUESTS_PER_WINDOW, Blocks, ReadAhead, Stream

if TYPE_CHECKING:
    from recfs.tier.downloads.fetchslots import FetchSlots
    from recfs.tier.downloads.waiters import Waiters

MAX_REQUEST_BYTES = 8 * MIB
MAX_URGENT_BYTES = 2 * MIB
"""A request somebody waits for is stretched to this at most: the first byte is only there when the last has come."""


class RequestPlan:
    """Ranges of absent blocks that one GET each should bring. Atomic."""

    def __init__(self, blocks: Blocks, ahead: ReadAhead, waiters: Waiters, slots: FetchSlots) -> None:
        self._blocks = blocks
        self._ahead = ahead
        self._waiters = waiters
        self._slots = slots

    def urgent(self) -> tuple[int, int] | None:
        """The next blocks that a reader waits for, with some more for one that reads in sequence."""
        for waiter in self._waiters.reading():
            if waiter.stream is None or waiter.error is not None:
                continue
            first = self._blocks.first_absent(waiter.first, waiter.stop)
            if first is None:
                continue
            wanted_bytes = (waiter.stop - waiter.first) * self._blocks.block_bytes
            piece = self._request_blocks(max(MIB, wanted_bytes // REQUESTS_PER_WINDOW))
            stretch = self._request_blocks(min(MAX_URGENT_BYTES, self._ahead_request_bytes(waiter.stream)))
            stop = first + max(stretch, min(piece, waiter.stop - first))
            return first, self._blocks.absent_end(first, min(stop, self._blocks.count))
        return None

    def at_leisure(self) -> tuple[int, int] | None:
        """The next blocks that nobody waits for yet."""
        return self._ahead_of_readers() or self._in_background()

    def _ahead_of_readers(self) -> tuple[int, int] | None:
        """The next blocks that somebody will wait for."""
        blocks = self._blocks
        for stream in self._ahead:
            end = stream.position + self._ahead.window(stream)
            last = blocks.count if end >= blocks.size else end // blocks.block_bytes
            first = blocks.first_absent(stream.position // blocks.block_bytes, last)
            if first is None:
                continue
            request = self._request_blocks(self._ahead_request_bytes(stream))
            stop = blocks.absent_end(first, min(first + request, last))
            # A short request at the window's edge would be the rule, as the edge moves with each read.
            if stop - first == request or stop < last or stop == blocks.count:
                return first, stop
        return None

    def _in_background(self) -> tuple[int, int] | None:
        """The next blocks of a file that is to become whole."""
        if not self._waiters.in_background:
            return None
        first = self._blocks.first_absent(0, self._blocks.count)
        if first is None:
            return None
        stop = min(first + self._request_blocks(MAX_REQUEST_BYTES), self._blocks.count)
        return first, self._blocks.absent_end(first, stop)

    def _ahead_request_bytes(self, stream: Stream) -> int:
        return self._ahead.window(stream) // REQUESTS_PER_WINDOW

    def _request_blocks(self, wanted_bytes: int) -> int:
        """A request's size in blocks: *wanted_bytes* within the limits."""
        most = min(wanted_bytes, MAX_REQUEST_BYTES, self._slots.sensible_bytes())
        return max(1, most // self._blocks.block_bytes)


__all__ = ["MAX_REQUEST_BYTES", "MAX_URGENT_BYTES", "RequestPlan"]
