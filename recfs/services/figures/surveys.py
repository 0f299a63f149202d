"""Surveys all files of a large store now and then, for what no counter tells: when the first was written, how old
recordings are, which files have the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from recfs.core.retention import Now
from recfs.core.sweeping import Schedule
from recfs.ports.figures import Surveyed
from recfs.ports.sweep import Sweep
from recfs.services.figures import PART

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.ports.figures import FigureBooks
    from recfs.ports.reports import Reports, Snapshot
    from recfs.state.tree import Tree

SURVEY_LOOK_S = 300.0
_NS = 10**9


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
        self.every_s = every_s
        """A reload may change it; 0: never."""
        self._few = few

    def sweep(self) -> Sweep[Any, Any]:
        """The look."""
        schedule = Schedule.every(SURVEY_LOOK_S if self.every_s else 0.0, patience_s=1800.0)
        return Sweep("survey", PART, schedule, self._due, lambda due: due or None, self._look_through, recorded=False)

    async def _due(self) -> bool:
        if self._tree.root.rfiles <= self._few:
            return False
        last = await self._reports.ask(_surveyed_ns, self._name)
        age_ns = self._tree.clock.now_ns() - last if last is not None else None
        return age_ns is None or not 0 <= age_ns < self.every_s * _NS

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


__all__ = ["Surveys"]
