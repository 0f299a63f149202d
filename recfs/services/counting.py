"""Counts files anew by user, category and place, where the counters say that they are not to be believed; and surveys
them, for what no counter tells: when the first was written, how old recordings are, which files have the same bytes.

So they are of a store from before there were counters, and after a directory with more files than are counted at once
became another place (`catalogue/counting`). The files are counted in a thread, of one state of the catalogue; what the
counters were off by in it is added to what they say by then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.figures.counters import RECOUNT_DUE
from recfs.core.quota import day_of
from recfs.core.retention import Now
from recfs.core.sweeping import Schedule
from recfs.ports.figures import Surveyed
from recfs.ports.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recfs.ports.figures import FigureBooks, FiguresProof, OfDay
    from recfs.ports.reports import Reports, Snapshot
    from recfs.state.tree import Tree

PART = "figures"
LOOK_S = 10.0
SURVEY_LOOK_S = 300.0
DAY_LOOK_S = 60.0
ROWS_AT_ONCE = 500
"""Of a day: some milliseconds."""
_NS = 10**9
REST = 20.0
"""It is left alone for so many times the time that the last count took: a twentieth of a CPU at most goes into it."""


class Counting:
    """Looks whether there is something to be counted."""

    def __init__(self, books: FigureBooks, reports: Reports) -> None:
        self._books = books
        self._reports = reports
        self._not_before_s = -math.inf

    def sweep(self) -> Sweep[Any, Any]:
        """The look, which costs a row."""
        schedule = Schedule(LOOK_S, at_once=True, patience_s=600.0)
        return Sweep("counters", PART, schedule, self._due, lambda due: due or None, self._count, recorded=False)

    async def _due(self) -> bool:
        if trio.current_time() < self._not_before_s:
            return False
        return (await self._books.meta()).get(RECOUNT_DUE, "0") != "0"

    async def _count(self, due: bool, going_on: trio.Nursery) -> str:
        began_s = trio.current_time()
        proof = await self._reports.ask(_prove)
        await self._books.correct(proof)
        ended_s = trio.current_time()
        self._not_before_s = ended_s + REST * (ended_s - began_s)
        return f"{len(proof.off)} counters"


class Days:
    """Remembers what the counters say, once a day: as soon as one has begun, or the daemon has."""

    def __init__(self, tree: Tree, books: FigureBooks, reports: Reports, *, keep_s: float) -> None:
        self._clock = tree.clock
        self._books = books
        self._reports = reports
        self._keep_ns = round(keep_s * _NS)
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
        before = day_of(self._clock.calendar_ns() - self._keep_ns)
        while await self._books.drop_days(before):
            await trio.lowlevel.checkpoint()
        return f"{len(rows):,} counters changed"


def _last_day(snapshot: Snapshot) -> str | None:
    return snapshot.last_day()


def _changed_since(snapshot: Snapshot, day: str) -> Sequence[OfDay] | None:
    return snapshot.changed_since(day)


class Surveys:
    """Looks through all files of a large store now and then, in a thread; of a small one whoever asks does."""

    def __init__(
        self, tree: Tree, books: FigureBooks, reports: Reports, survey: Callable[[Snapshot, Now], dict[str, Any]],
        *, name: str, every_s: float, few: int,
    ) -> None:  # fmt: skip
        """*survey* is kept under *name*; not of *few* files and less. *every_s* 0: never."""
        self._tree = tree
        self._books = books
        self._reports = reports
        self._survey = survey
        self._name = name
        self._every_s = every_s
        self._few = few

    def sweep(self) -> Sweep[Any, Any]:
        """The look."""
        schedule = Schedule.every(SURVEY_LOOK_S if self._every_s else 0.0, patience_s=1800.0)
        return Sweep("survey", PART, schedule, self._due, lambda due: due or None, self._look_through, recorded=False)

    async def _due(self) -> bool:
        if self._tree.root.rfiles <= self._few:
            return False
        last = await self._reports.ask(_surveyed_ns, self._name)
        age_ns = self._tree.clock.now_ns() - last if last is not None else None
        return age_ns is None or not 0 <= age_ns < self._every_s * _NS

    async def _look_through(self, due: bool, going_on: trio.Nursery) -> str:
        clock, began_s = self._tree.clock, trio.current_time()
        at_ns = clock.now_ns()
        found = await self._reports.ask(self._survey, Now(clock.steady_ns(), clock.calendar_ns()))
        took_ms = round((trio.current_time() - began_s) * 1000)
        await self._books.keep_survey(self._name, Surveyed(at_ns, took_ms, found))
        return f"{self._tree.root.rfiles:,} files"


def _surveyed_ns(snapshot: Snapshot, name: str) -> int | None:
    last = snapshot.survey(name)
    return last.at_ns if last is not None else None


def _prove(snapshot: Snapshot) -> FiguresProof:
    return snapshot.prove()


__all__ = ["LOOK_S", "PART", "Counting", "Days", "Surveys"]
