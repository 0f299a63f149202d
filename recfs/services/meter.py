"""The meter: follows the files the kernel writes by itself, so that usage is live and limits hold."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.state.problems import forever

if TYPE_CHECKING:
    from recfs.fs.iomodes import IoModes

PERIOD_S = 0.05
"""Between two looks. With the time a look takes, and what the trio thread does beside it, below 100 ms."""


class Meter:
    """Looks while anybody writes ahead of the books, and sleeps otherwise."""

    def __init__(self, modes: IoModes) -> None:
        self._modes = modes

    async def run(self) -> None:
        """Measure for ever."""
        async with trio.open_nursery() as nursery:
            await forever("metering", partial(self._look, nursery), self._modes.problems)

    async def _look(self, nursery: trio.Nursery) -> None:
        await self._modes.stops.due.wait()
        await trio.sleep(PERIOD_S)
        self._modes.measure()
        self._modes.freeze(nursery)
