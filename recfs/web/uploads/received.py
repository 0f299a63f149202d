"""Which bytes of an upload have come: a few ranges, in any order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_TEXT = re.compile(r"(?:[0-9]{1,19}-[0-9]{1,19}(?:,|$))*")


@dataclass(frozen=True, slots=True)
class Received:
    """Ranges of bytes that have come: from a first one to the one behind the last, apart from each other, in order."""

    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Received:
        """Make one of what `text` gave. Raises ValueError for anything else."""
        if not _TEXT.fullmatch(text) or text.endswith(","):
            raise ValueError(f"{text[:80]!a} is no list of ranges")
        pairs = [part.split("-") for part in text.split(",")] if text else []
        ranges = tuple((int(first), int(end)) for first, end in pairs)
        before = -1
        for first, end in ranges:
            if not before < first < end:
                raise ValueError(f"{text[:80]!a}: these ranges are not in order")
            before = end
        return cls(ranges)

    def text(self) -> str:
        """Give them as text, such as "0-5242880,10485760-15728640"."""
        return ",".join(f"{first}-{end}" for first, end in self.ranges)

    @property
    def prefix(self) -> int:
        """So many bytes have come from the first one on without a gap."""
        return self.ranges[0][1] if self.ranges and self.ranges[0][0] == 0 else 0

    @property
    def count(self) -> int:
        """How many bytes have come."""
        return sum(end - first for first, end in self.ranges)

    def covers(self, first: int, end: int) -> bool:
        """Whether all bytes from *first* to before *end* have come."""
        return first >= end or any(a <= first and end <= b for a, b in self.ranges)

    def whole(self, length: int) -> bool:
        """Whether all bytes of an upload of that length have come."""
        return self.covers(0, length)

    def missing(self, end: int, first: int = 0) -> tuple[tuple[int, int], ...]:
        """Give what is missing of the bytes from *first* to before *end*, in order."""
        gaps, at = [], first
        for begun, behind in (*self.ranges, (end, end)):
            if at < begun and at < end:
                gaps.append((at, min(begun, end)))
            at = max(at, behind)
        return tuple(gaps)

    def plus(self, first: int, end: int) -> Received:
        """Give these and the bytes from *first* to before *end*."""
        return self if first >= end else Received(tuple(_joined(sorted([*self.ranges, (first, end)]))))


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Join what touches or overlaps, of ranges in order."""
    held: tuple[int, int] | None = None
    for first, end in ranges:
        if held is not None and first <= held[1]:
            held = (held[0], max(held[1], end))
            continue
        if held is not None:
            yield held
        held = (first, end)
    if held is not None:
        yield held


__all__ = ["Received"]
