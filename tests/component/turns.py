"""How often tasks get their turn: whoever waits does not run, and whoever spins is found out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import trio


class Turns(trio.abc.Instrument):
    """Counts the turns of every task; beyond the limit it ends the whole."""

    def __init__(self, limit: int, scope: trio.CancelScope) -> None:
        self._limit = limit
        self._scope = scope
        self.taken: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count one."""
        self.taken[task.name] += 1
        if self.taken[task.name] > self._limit:
            self._scope.cancel()


async def together(*works: Callable[[], Awaitable[object]], limit: int = 200) -> None:
    """Start all *works* at the same moment and see them end, each within *limit* turns of its task."""
    with trio.CancelScope() as scope:
        turns = Turns(limit, scope)
        trio.lowlevel.add_instrument(turns)
        try:
            async with trio.open_nursery() as nursery:
                for number, work in enumerate(works):
                    nursery.start_soon(work, name=f"work {number}")
        finally:
            trio.lowlevel.remove_instrument(turns)
    busy = {name: count for name, count in turns.taken.items() if count > limit}
    assert not scope.cancelled_caught, f"no end after so many turns: {busy}"
