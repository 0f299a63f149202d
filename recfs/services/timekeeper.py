"""Watches the wall clock: tells when it was put ahead or back, and keeps what the next run has to know."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import trio

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

    async def run(self) -> None:
        """Look for ever."""
        kept = trio.current_time()
        while True:
            await trio.sleep(LOOK_S)
            self.look()
            if trio.current_time() - kept >= KEPT_EVERY_S:
                self.keep()
                kept = trio.current_time()
