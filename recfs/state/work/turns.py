"""Long work on the trio thread, in turns: a stretch is bounded by the time that it takes, not by how many items it has.

What an item costs differs by a factor of a hundred, with the depth of a tree, the machine and what else it does; what a
request may wait for does not.
"""

from __future__ import annotations

import time
from typing import Final

import trio

TURN_S: Final = 0.000_5
"""How long a piece of work keeps everybody else waiting: as long as requests may (`fuse/loop.py`)."""


class Turn:
    """The stretch of one task that works on many items; it ends with the item that it is over at."""

    __slots__ = ("_began_s",)

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Others have just had theirs."""
        self._began_s = time.perf_counter()

    @property
    def spent_s(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._began_s

    @property
    def is_over(self) -> bool:
        """Whether it is somebody else's."""
        return time.perf_counter() - self._began_s >= TURN_S

    async def pass_on(self) -> None:
        """Let others have theirs: requests come first. Raises trio.Cancelled like any checkpoint."""
        await trio.lowlevel.checkpoint()
        self.begin()


__all__ = ["TURN_S", "Turn"]
