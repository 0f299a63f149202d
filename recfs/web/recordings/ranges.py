"""Range requests: which bytes are meant (RFC 9110, section 14)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from recfs.web.problems import Problem

MOST: Final = 8
"""Ranges that one request may ask for. More are refused: many small ones cost more than they are worth (14.2)."""
_spec = re.compile(r"(?:([0-9]{1,20})-([0-9]{0,20})|-([0-9]{1,20}))", re.ASCII).fullmatch


class Span(NamedTuple):
    """Bytes from `start` up to, and not with, `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many."""
        return self.end - self.start


def spans_of(header: str, size: int) -> list[Span] | None:
    """Give what a Range header asks for of so many bytes; None where it is to be ignored: another unit, no syntax.

    What overlaps or touches is joined, in the order in which it was asked for. Raises Problem("RangeNotSatisfiable").
    """
    unit, equals, specs = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    asked = [each.strip(" \t") for each in specs.split(",")]
    asked = [each for each in asked if each]
    found = [_spec(each) for each in asked[: MOST + 1]]
    if not found or not all(found):
        return None
    if len(asked) > MOST:
        raise _unsatisfiable(size, f"at most {MOST} ranges are given at once")
    spans: list[Span] = []
    for match in found:
        assert match is not None
        first, last, suffix = match.groups()
        if first is None:
            span = Span(max(0, size - int(suffix)), size)
        else:
            if last and int(last) < int(first):
                return None
            span = Span(int(first), min(size, int(last) + 1) if last else size)
        if span.size > 0:
            spans.append(span)
    if not spans:
        raise _unsatisfiable(size, f"there are {size} bytes")
    return _joined(spans)


def _joined(spans: list[Span]) -> list[Span]:
    """What overlaps or touches becomes one, at the place of the first of them."""
    found: list[Span] = []
    for span in spans:
        place = len(found)
        for index in range(len(found) - 1, -1, -1):
            if found[index].start <= span.end and span.start <= found[index].end:
                span = Span(min(span.start, found[index].start), max(span.end, found[index].end))
                place = index
                del found[index]
        found.insert(place, span)
    return found


def _unsatisfiable(size: int, detail: str) -> Problem:
    headers = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}
    return Problem("RangeNotSatisfiable", detail, headers=headers)


__all__ = ["MOST", "Span", "spans_of"]
