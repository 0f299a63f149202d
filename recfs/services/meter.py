"""The meter: takes over what the kernel writes by itself (disk/refresh.py), so that usage is live and limits hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.sweeping import Schedule
from recfs.disk.stops import PART
from recfs.ports.sweep import Sweep, always

if TYPE_CHECKING:
    import trio

    from recfs.fs.iomodes import IoModes

PERIOD_S = 0.05
"""Between two looks. With the time a look takes, and what the trio thread does beside it, below 100 ms."""


class Meter:
    """Looks while any file has writers that nobody checks, and sleeps otherwise."""

    def __init__(self, modes: IoModes) -> None:
        self._modes = modes

    def sweep(self) -> Sweep[IoModes, IoModes]:
        """The look; it judges each file by itself."""
        return Sweep(
            "usage",
            PART,
            Schedule(PERIOD_S),
            self._writers,
            always,
            self._measure,
            due=self._some_unchecked,
            recorded=False,
        )

    async def _some_unchecked(self) -> None:
        await self._modes.stops.due.wait()

    async def _writers(self) -> IoModes:
        return self._modes

    async def _measure(self, modes: IoModes, going_on: trio.Nursery) -> None:
        modes.measure()
        modes.freeze(going_on)
