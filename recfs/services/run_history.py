"""What the sweeps did: the last runs of each, kept in the catalogue (the History port of `ports/sweep.py`)."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from recfs.core.sweeping import KEPT_RUNS, RunOutcome
from recfs.ports.rows import SweepRow

if TYPE_CHECKING:
    from recfs.ports.catalogue import Catalogue
    from recfs.ports.clock import Clock
    from recfs.state.writebehind import WriteBehind

CUT_OFF = "cut off: the daemon did not come to its end"
_NS = 10**9


class RunHistory:
    """The runs that are remembered. Atomic but for `load`."""

    def __init__(self, behind: WriteBehind, clock: Clock) -> None:
        self._behind = behind
        self._clock = clock
        self._runs: dict[str, list[SweepRow]] = defaultdict(list)
        """Of each sweep, oldest first; without those that have only begun."""
        self._last_id = 0

    async def load(self, catalogue: Catalogue) -> None:
        """Take up what the last daemons left; a run that one of them did not end is told to be cut off."""
        for row in await catalogue.sweeps():
            self._last_id = max(self._last_id, row.id)
            if row.outcome == RunOutcome.RUNNING:
                row = row._replace(outcome=RunOutcome.STOPPED, result=CUT_OFF)
                self._behind.swept(row)
            self._runs[row.name].append(row)

    def last(self, name: str) -> SweepRow | None:
        """The last run of a sweep that ended, one way or the other."""
        runs = self._runs.get(name)
        return runs[-1] if runs else None

    def since_last_s(self, name: str) -> float | None:
        """How long ago it ended, in seconds of time that passed; None: no run is known of."""
        row = self.last(name)
        return None if row is None else (self._clock.steady_ns() - row.steady_ns) / _NS

    def begun(self, name: str, began_ns: int, *, asked: bool) -> SweepRow:
        """A run has found something to do: from now on a death leaves a trace of it."""
        row = self._new(name, began_ns, RunOutcome.RUNNING, "", 0.0, asked=asked)
        self._behind.swept(row)
        return row

    def ended(
        self, row: SweepRow | None, name: str, began_ns: int, outcome: RunOutcome, result: str, took_s: float,
        *, asked: bool,
    ) -> None:  # fmt: skip
        """A run has ended; *row*: what `begun` said of it, None: it found nothing to do, or failed before."""
        runs = self._runs[name]
        if row is None:
            row = self._new(name, began_ns, outcome, result, took_s, asked=asked)
        else:
            row = self._as_ended(row, outcome, result, took_s)
        if outcome is RunOutcome.NOTHING and runs and runs[-1].outcome == RunOutcome.NOTHING:
            before = runs.pop()
            row = row._replace(times=before.times + 1)
            self._behind.swept_gone(before.id)
        runs.append(row)
        self._behind.swept(row)
        while len(runs) > KEPT_RUNS:
            self._behind.swept_gone(runs.pop(0).id)

    def _new(
        self, name: str, began_ns: int, outcome: RunOutcome, result: str, took_s: float, *, asked: bool
    ) -> SweepRow:
        self._last_id += 1
        row = SweepRow(self._last_id, name, began_ns, 0, 0, outcome, result, int(asked))
        return self._as_ended(row, outcome, result, took_s)

    def _as_ended(self, row: SweepRow, outcome: RunOutcome, result: str, took_s: float) -> SweepRow:
        return row._replace(
            steady_ns=self._clock.steady_ns(), took_ms=round(took_s * 1000), outcome=outcome, result=result
        )


__all__ = ["CUT_OFF", "RunHistory"]
