"""Remembers what the counters of files say, once a day: what `recfs stats --trend` is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from recfs.core.figures.counters import day_of
from recfs.core.sweeping import Schedule
from recfs.ports.sweep import Sweep
from recfs.services.figures import PART

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.ports.figures import FigureBooks, OfDay
    from recfs.ports.reports import Reports, Snapshot
    from recfs.state.tree import Tree

DAY_LOOK_S = 60.0
ROWS_AT_ONCE = 500
"""Of a day: some milliseconds."""
_NS = 10**9


class Days:
    """Remembers what the counters say, once a day: as soon as one has begun, or the daemon has."""

    def __init__(self, tree: Tree, books: FigureBooks, reports: Reports, *, keep_s: float) -> None:
        self._clock = tree.clock
        self._books = books
        self._reports = reports
        self.keep_s = keep_s
        """A reload may change it."""
        self._last: str | None = None

    def sweep(self) -> Sweep[Any, Any]:
        """The look, which costs nothing on a day that is remembered."""
        schedule = Schedule(DAY_LOOK_S, at_once=True, patience_s=600.0)
        return Sweep("days", PART, schedule, self._due, lambda day: day, self._remember, recorded=False)

    async def _due(self) -> str | None:
        today = day_of(self._clock.calendar_ns())
        if self._last is None:
            self._last = await self._reports.ask(_last_day) or ""
        return today if today > self._last else None

    async def _remember(self, day: str, going_on: trio.Nursery) -> str | None:
        at_ns = self._clock.now_ns()
        rows = await self._reports.ask(_changed_since, day)
        if rows is None:
            return None  # they are being counted anew
        for first in range(0, len(rows), ROWS_AT_ONCE):
            await self._books.keep_day(rows[first : first + ROWS_AT_ONCE], day, None)
            await trio.lowlevel.checkpoint()  # requests come first
        await self._books.keep_day([], day, at_ns)
        self._last = day
        before = day_of(self._clock.calendar_ns() - round(self.keep_s * _NS))
        while await self._books.drop_days(before):
            await trio.lowlevel.checkpoint()
        return f"{len(rows):,} counters changed"


def _last_day(snapshot: Snapshot) -> str | None:
    return snapshot.last_day()


def _changed_since(snapshot: Snapshot, day: str) -> Sequence[OfDay] | None:
    return snapshot.changed_since(day)


__all__ = ["Days"]
