"""Which blocks of a file are here, which are on their way, and which a sequential reader will want next. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# States of a block, one byte each: searching and counting bytes is what CPython does fastest.
_ABSENT, _COMING, _PRESENT = 0, 1, 2

NEAR_BYTES = 1 << 20
"""A read that starts this close to where a stream stands goes on with it: the kernel's own read-ahead comes out of
order, and players skip a track they do not play."""
MIN_WINDOW_BYTES = 1 << 20
WINDOW_PER_READ = 2
"""The window grows by so many bytes for each byte read in sequence: what is fetched in vain stays in proportion."""
REQUESTS_PER_WINDOW = 4
MAX_STREAMS = 16


class Blocks:
    """The state of every block of *size* bytes. Block numbers are half-open ranges; the last block may be short."""

    __slots__ = ("_states", "block_bytes", "count", "present_bytes", "size")

    def __init__(self, size: int, block_bytes: int) -> None:
        if size < 0 or block_bytes <= 0:
            raise ValueError(f"{size} bytes in blocks of {block_bytes}")
        self.size, self.block_bytes = size, block_bytes
        self.count = -(-size // block_bytes)
        self.present_bytes = 0
        self._states = bytearray(self.count)

    @property
    def complete(self) -> bool:
        """Whether every block is present."""
        return self.present_bytes == self.size

    # --- ranges --------------------------------------------------------------------------------------------------

    def covering(self, offset: int, length: int) -> tuple[int, int]:
        """The blocks that hold these bytes; what lies beyond the end needs none. ValueError if negative."""
        if offset < 0 or length < 0:
            raise ValueError(f"{length} bytes from {offset}")
        end = min(offset + length, self.size)
        if end <= offset:
            return 0, 0
        return offset // self.block_bytes, -(-end // self.block_bytes)

    def span(self, first: int, stop: int) -> tuple[int, int]:
        """(offset, length) in bytes of these blocks."""
        offset = first * self.block_bytes
        return offset, min(stop * self.block_bytes, self.size) - offset

    def has(self, first: int, stop: int) -> bool:
        """Whether all of these blocks are present."""
        return self._states.count(_PRESENT, first, stop) == stop - first

    def first_absent(self, first: int, stop: int) -> int | None:
        """The first of these blocks that is neither here nor on its way."""
        found = self._states.find(_ABSENT, first, stop)
        return None if found < 0 else found

    def absent_end(self, first: int, stop: int) -> int:
        """Where the absent blocks from *first* end, *stop* at most."""
        for state in (_PRESENT, _COMING):
            found = self._states.find(state, first, stop)
            if found >= 0:
                stop = found
        return stop

    # --- changes -------------------------------------------------------------------------------------------------

    def coming(self, first: int, stop: int) -> None:
        """A request for these absent blocks starts."""
        self._change(_ABSENT, _COMING, first, stop)

    def arrived(self, first: int, stop: int) -> None:
        """The request for these blocks brought them."""
        self._change(_COMING, _PRESENT, first, stop)
        self.present_bytes += self.span(first, stop)[1]

    def lost(self, first: int, stop: int) -> None:
        """The request for these blocks failed."""
        self._change(_COMING, _ABSENT, first, stop)

    def dropped(self, first: int, stop: int) -> None:
        """These present blocks are not here any more."""
        self.present_bytes -= self.span(first, stop)[1]
        self._change(_PRESENT, _ABSENT, first, stop)

    def first_present(self, first: int, stop: int) -> int | None:
        """The first of these blocks that is here."""
        found = self._states.find(_PRESENT, first, stop)
        return None if found < 0 else found

    def present_end(self, first: int, stop: int) -> int:
        """Where the present blocks from *first* end, *stop* at most."""
        for state in (_ABSENT, _COMING):
            found = self._states.find(state, first, stop)
            if found >= 0:
                stop = found
        return stop

    def _change(self, old: int, new: int, first: int, stop: int) -> None:
        assert self._states.count(old, first, stop) == stop - first > 0, (first, stop)
        self._states[first:stop] = bytes([new]) * (stop - first)


@dataclass(slots=True)
class Stream:
    """One reader's way through the file."""

    position: int
    """End of what it has read."""
    run_bytes: int
    """How much it has read since it started or jumped."""
    sequential: bool = False
    """Whether it went on at least once."""


class ReadAhead:
    """Finds the sequential readers among all reads of a file, and how far ahead of each to fetch.

    Readers are told apart by where they read, as there may be several behind one descriptor and one behind several.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._streams: list[Stream] = []

    def note(self, offset: int, end: int) -> Stream:
        """Somebody reads these bytes."""
        streams = self._streams
        for index, stream in enumerate(streams):
            if -NEAR_BYTES <= offset - stream.position <= NEAR_BYTES:
                if end > stream.position:
                    stream.run_bytes += end - max(offset, stream.position)
                    stream.position = end
                    stream.sequential = True
                if index:
                    streams.insert(0, streams.pop(index))
                return stream
        stream = Stream(end, end - offset)
        streams.insert(0, stream)
        del streams[MAX_STREAMS:]
        return stream

    def window(self, stream: Stream) -> int:
        """How many bytes beyond its position are worth fetching: none before it has shown to go on."""
        if not stream.sequential:
            return 0
        return min(self._max_bytes, max(MIN_WINDOW_BYTES, WINDOW_PER_READ * stream.run_bytes))

    def __iter__(self) -> Iterator[Stream]:
        """The streams, the one that read last first."""
        return iter(self._streams)

    def forget(self) -> None:
        """Every reader has to show anew that it reads in sequence."""
        self._streams.clear()
