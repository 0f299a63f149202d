"""Counts files anew by user, category and place, where the counters say that they are not to be believed.

So they are of a store from before there were counters, and after a directory with more files than are counted at once
became another place (`catalogue/counting`). The files are counted in a thread, of one state of the catalogue; what the
counters were off by in it is added to what they say by then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.figures.counters import RECOUNT_DUE
from recfs.core.sweeping import Schedule
from recfs.ports.sweep import Sweep
from recfs.services.figures import PART

if TYPE_CHECKING:
    from recfs.ports.figures import FigureBooks, FiguresProof
    from recfs.ports.reports import Reports, Snapshot

LOOK_S = 10.0
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


def _prove(snapshot: Snapshot) -> FiguresProof:
    return snapshot.prove()


__all__ = ["LOOK_S", "Counting"]
