"""Cursors: where a reader of the events is. They outlive the daemon, and say when what they point to is not kept.

A cursor is `EPOCH-ID`: the id of the last event that was read, in a history that is one. A new epoch begins where the
history is broken: a catalogue that was restored or made anew does not go on from what readers have seen, and while
events were turned off some are missing.
"""

import re
from typing import NamedTuple

from recfs.core.dates import parse_date
from recfs.core.units import parse_duration

EPOCH = "events_epoch"
"""Store-wide fact: the epoch of the events that are written; empty while none are."""
OLDEST, NOW = "oldest", "now"
"""What may stand for a cursor: before all that are kept, after all there are."""

_NS = 1_000_000_000
_match_cursor = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})").fullmatch


class Cursor(NamedTuple):
    """The last event that was read."""

    epoch: str
    id: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.id}"


def parse_since(text: str, now_ns: int) -> Cursor | int | str:
    """What `--since` says: a cursor, a time (ns since the epoch), OLDEST or NOW.

    Times are dates as `parse_date` knows them, or how long ago: "2h", "7d". Raises ValueError that says what to write.
    """
    word = text.strip().lower()
    if word in (OLDEST, NOW):
        return word
    found = _match_cursor(word)
    if found is not None:
        return Cursor(found[1], int(found[2]))
    return parse_time(text, now_ns)


def parse_time(text: str, now_ns: int) -> int:
    """A date, or how long ago, in ns since the epoch. Raises ValueError that says what to write."""
    try:
        return max(0, now_ns - round(parse_duration(text) * _NS))
    except ValueError:
        pass
    try:
        date_ns = parse_date(text)
    except ValueError:
        date_ns = None
    if date_ns is None:
        raise ValueError(f"{text[:40]!r}: write a date (2027-01-31T18:00:00Z), or how long ago (2h, 7d)")
    return date_ns


__all__ = ["EPOCH", "NOW", "OLDEST", "Cursor", "parse_since", "parse_time"]
