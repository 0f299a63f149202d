"""Three times, so that a clock which is put right, or wrong, neither holds anything up nor removes anything.

- `now_ns`, the wall clock: what is recorded for people and programs (mtime, ctime). It may step either way.
- `steady_ns`: by it recfs waits (uploads, retries) and measures ages (temp jobs, trash, keep_local). It began as the
  wall clock's time when the store was made, and goes on with CLOCK_BOOTTIME (clock_gettime(2)): it counts suspend,
  never steps and never goes back. Across a reboot nobody knows how long the machine was off, least of all a clock whose
  battery is empty, so the time in which the machine is off does not count.
- `calendar_ns`, for whatever goes by months: the wall clock, but a step has to have lasted (`AHEAD_S`, `BACK_S`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recfs.core.units import format_duration

log = logging.getLogger("recfs.clock")

STEP_S = 5.0
"""From here a difference is a step. NTP slews by 0.5 ms a second (adjtimex(2)) and is looked at every few seconds."""
AHEAD_S = 3600.0
"""How long a clock that was put ahead has to stay so until the calendar follows."""
BACK_S = 86_400.0
"""… and one that was put back."""
FACT = "clock"
"""Key among the store-wide facts."""
_NS = 10**9


def boot_id() -> str:
    """What tells one boot of the machine from the next (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def _boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The wall clock was put ahead (positive) or back."""

    step_ns: int
    at_ns: int
    """When, by the wall clock after it."""

    def __str__(self) -> str:
        way = "ahead" if self.step_ns > 0 else "back"
        return f"put {way} by {format_duration(abs(self.step_ns) / _NS)}"


class SystemClock:
    """The Clock port. *facts*: what `facts` gave in an earlier run; *boot*: which boot of the machine this is."""

    def __init__(
        self, facts: Mapping[str, str], boot: str,
        *, wall_ns: Callable[[], int] = time.time_ns, boottime_ns: Callable[[], int] = _boottime_ns,
    ) -> None:  # fmt: skip
        self._wall_ns, self._boottime_ns = wall_ns, boottime_ns
        self._boot = boot
        self.step: ClockStep | None = None
        """The last step that was seen."""
        passed, known = boottime_ns(), _read(facts)
        # All of these are differences to CLOCK_BOOTTIME.
        self._wall_ahead = self._calendar_ahead = self._steady_ahead = wall_ns() - passed
        self._differs_since: int | None = None
        if known is None:
            return
        if known["boot"] == boot and known["steady_ns"] <= passed + known["steady_ahead"]:
            self._steady_ahead = known["steady_ahead"]
            self._wall_ahead, self._calendar_ahead = known["wall_ahead"], known["calendar_ahead"]
            self.look()
        else:
            self._steady_ahead = known["steady_ns"] - passed
            self._calendar_ahead = known["calendar_ns"] - passed
        self._adjust_calendar(passed)

    def now_ns(self) -> int:
        """Nanoseconds since the epoch (CLOCK_REALTIME)."""
        return self._wall_ns()

    def steady_ns(self) -> int:
        """The time that passed, on a scale that began as the wall clock's. Never goes back."""
        return self._boottime_ns() + self._steady_ahead

    def calendar_ns(self) -> int:
        """The wall clock without steps that have not lasted yet."""
        return self._boottime_ns() + self._calendar_ahead

    def look(self) -> bool:
        """Compare the clocks; tells whether the wall clock was put ahead or back since the last look."""
        passed = self._boottime_ns()
        ahead = self._wall_ns() - passed
        step_ns = ahead - self._wall_ahead
        self._wall_ahead = ahead
        stepped = abs(step_ns) >= STEP_S * _NS
        if stepped:
            self.step = ClockStep(step_ns, passed + ahead)
        self._adjust_calendar(passed)
        return stepped

    def _adjust_calendar(self, passed: int) -> None:
        differs = self._wall_ahead - self._calendar_ahead
        if abs(differs) < STEP_S * _NS:
            self._calendar_ahead, self._differs_since = self._wall_ahead, None
        elif self._differs_since is None:
            self._differs_since = passed
        elif passed - self._differs_since >= (AHEAD_S if differs > 0 else BACK_S) * _NS:
            self._calendar_ahead, self._differs_since = self._wall_ahead, None

    def facts(self) -> dict[str, str]:
        """What the next run has to know."""
        passed = self._boottime_ns()
        known = {
            "boot": self._boot, "steady_ahead": self._steady_ahead, "steady_ns": passed + self._steady_ahead,
            "wall_ahead": self._wall_ahead, "calendar_ahead": self._calendar_ahead,
            "calendar_ns": passed + self._calendar_ahead,
        }  # fmt: skip
        return {FACT: json.dumps(known)}


def _read(facts: Mapping[str, str]) -> dict[str, Any] | None:
    """The facts of an earlier run; None where there are none, or none that can be understood."""
    try:
        known = json.loads(facts[FACT])
        numbers = ("steady_ahead", "steady_ns", "wall_ahead", "calendar_ahead", "calendar_ns")
        if isinstance(known["boot"], str) and all(type(known[name]) is int for name in numbers):
            return dict(known)
    except (KeyError, ValueError, TypeError):
        pass
    return None
