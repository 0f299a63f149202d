"""When the background scrub may read, how fast, and how far it is. Decisions only: the time is an argument."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace

DAY_S = 86_400
BURST_S = 0.25
"""After a pause so much may be read at once, in seconds of the rate."""
EMPTY_S = 3600.0
"""How long after a round without files the next one begins, if not sooner."""
SLICE_BYTES = 32 << 20
"""Read at a time where there is no rate."""
LEAST_SLICE_BYTES = 64 << 10
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of a day, from one time to another; over midnight where the end comes before the beginning."""

    start_s: int
    """Seconds since midnight."""
    end_s: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read "22:00-06:00". Raises ValueError."""
        found = _WINDOW.fullmatch(text.strip())
        if found is None:
            raise ValueError(f'not a window of hours: {text[:40]!r}; write two times of day, such as "22:00-06:00"')
        first_h, first_m, last_h, last_m = (int(part) for part in found.groups())
        made = cls(first_h * 3600 + first_m * 60, last_h * 3600 + last_m * 60)
        if made.start_s == made.end_s:
            raise ValueError(f"a window that ends when it begins: {text!r}; leave it empty for all day")
        return made

    def __str__(self) -> str:
        return "-".join(f"{each // 3600:02}:{each % 3600 // 60:02}" for each in (self.start_s, self.end_s))

    def is_open(self, of_day_s: float) -> bool:
        """Whether it is open so many seconds after midnight."""
        if self.start_s < self.end_s:
            return self.start_s <= of_day_s < self.end_s
        return of_day_s >= self.start_s or of_day_s < self.end_s

    def opens_in_s(self, of_day_s: float) -> float:
        """How long until it is open; 0 while it is."""
        return 0.0 if self.is_open(of_day_s) else (self.start_s - of_day_s) % DAY_S


class Pace:
    """A limit of bytes a second, over whatever is read one after another. Its clock must not jump (monotonic)."""

    def __init__(self, rate: float | None) -> None:
        """*rate* None: no limit."""
        self.rate = rate
        self._free_s = float("-inf")

    @property
    def slice_bytes(self) -> int:
        """How much to read before the next look at the time."""
        if self.rate is None:
            return SLICE_BYTES
        return max(LEAST_SLICE_BYTES, min(SLICE_BYTES, int(self.rate * BURST_S)))

    def pause_s(self, now_s: float, done_bytes: int) -> float:
        """How long to wait after *done_bytes* were read."""
        if self.rate is None:
            return 0.0
        self._free_s = max(self._free_s, now_s - BURST_S) + done_bytes / self.rate
        return max(0.0, self._free_s - now_s)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the scrub over all files, as the catalogue keeps it. Times are those of `Clock.steady_ns`."""

    after_ino: int = 0
    """Files up to this inode number were looked at; -1: all of them."""
    began_ns: int = 0
    ended_ns: int = 0
    """When the round ended, if it has."""
    files: int = 0
    read_bytes: int = 0
    problems: int = 0
    """Files that were found bad or unreadable."""

    @property
    def is_over(self) -> bool:
        """Whether all files were looked at."""
        return self.after_ino < 0

    def due_in_s(self, now_ns: int, period_s: float) -> float:
        """How long until something is to be read: 0 while a round is under way, or when the next one is due.

        One that has met no file, as that of a new store, is no reason to leave those that come alone for a period.
        """
        if not self.is_over:
            return 0.0
        if not self.files:
            period_s = min(period_s, EMPTY_S)
        return min(period_s, max(0.0, period_s - (now_ns - self.began_ns) / 1e9))

    def next(self, now_ns: int) -> Round:
        """The round to go on with: this one, or where it is over a fresh one."""
        return Round(began_ns=now_ns) if self.is_over or not self.began_ns else self

    def over(self, now_ns: int) -> Round:
        """All files were looked at."""
        return replace(self, after_ino=-1, ended_ns=now_ns)

    def text(self) -> str:
        """As the catalogue keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str | None) -> Round:
        """What the catalogue has kept; a first round where that is nothing, or cannot be read."""
        try:
            told = json.loads(text or "{}")
            return cls(**{name: int(told[name]) for name in cls.__slots__ if name in told})
        except (ValueError, TypeError):
            return cls()


__all__ = ["Pace", "Round", "Window"]
