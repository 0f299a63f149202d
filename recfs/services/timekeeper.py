"""Watches the wall clock: tells when it was put ahead or back, and keeps what the next run has to know."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import trio

from recfs.core.sweeping import Schedule
from recfs.ports.sweep import Sweep

if TYPE_CHECKING:
    from recfs.clock import ClockStep
    from recfs.state.writebehind import WriteBehind

log = logging.getLogger("recfs.clock")

LOOK_S = 2.0
KEPT_EVERY_S = 600.0
"""After a power cut and a reboot, the time since the last record counts as if the machine had been off."""


class Steady(Protocol):
    """What is used of the clock."""

    @property
    def step(self) -> ClockStep | None:
        """The last step."""

    def look(self) -> bool:
        """Whether the wall clock was put ahead or back since the last look."""

    def facts(self) -> dict[str, str]:
        """What the next run has to know."""


class Timekeeper:
    """Looks at the clock, and keeps its facts in the catalogue."""

    def __init__(self, clock: Steady, behind: WriteBehind) -> None:
        self._clock = clock
        self._behind = behind
        if clock.step is not None:
            self._tell()  # seen when the facts of the last run were read
        self.keep()

    def keep(self) -> None:
        """Put down what the next run has to know. Atomic."""
        self._kept_s = trio.current_time()
        for key, value in self._clock.facts().items():
            self._behind.meta(key, value)

    def look(self) -> ClockStep | None:
        """Look at the clock now; the last step that was ever seen. Atomic."""
        if self._clock.look():
            self._tell()
            self.keep()
        return self._clock.step

    def _tell(self) -> None:
        log.warning(
            "the clock was %s: what waits and what expires goes by the time that passed, not by the clock",
            self._clock.step,
        )

    def sweep(self) -> Sweep[float, bool]:
        """Looks at the clock, and keeps its facts now and then."""
        return Sweep("clock", "time", Schedule(LOOK_S), self._unkept_s, is_to_keep, self._keep, recorded=False)

    async def _unkept_s(self) -> float:
        self.look()
        return trio.current_time() - self._kept_s

    async def _keep(self, due: bool, going_on: trio.Nursery) -> None:
        self.keep()


def is_to_keep(unkept_s: float) -> bool | None:
    """Whether facts of the clock that are so old, in seconds, are to be recorded anew; None where they are not."""
    return True if unkept_s >= KEPT_EVERY_S else None
