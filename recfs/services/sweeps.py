"""Runs the sweeps, each by itself: one that raises, hangs or is slow stops no other.

A sweep is registered by `parts.py`. What fails is set aside (`state/problems.py`) under the sweep's name until a run
succeeds, and so is a run that does not end in time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import trio

from recfs.core.units import format_duration

if TYPE_CHECKING:
    from recfs.ports.clock import Clock
    from recfs.ports.sweep import Sweep
    from recfs.state.problems import Problem, Problems

LOOK_S = 5.0
"""How often it is looked whether a run has taken too long."""
NOTHING = "nothing to do"
DONE = "done"


@dataclass(slots=True)
class _Record:
    """What became of a sweep so far; `began_s` and `next_s` are trio's time."""

    sweep: Sweep[Any, Any]
    began_s: float | None = None
    """Since when a run is under way."""
    next_s: float | None = None
    last_ns: int | None = None
    took_s: float | None = None
    result: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As JSON."""
        now_s = trio.current_time()
        return {
            "name": self.sweep.name,
            "every_s": self.sweep.schedule.period_s,
            "last_ns": self.last_ns,
            "took_s": self.took_s,
            "result": self.result,
            "running_s": None if self.began_s is None else now_s - self.began_s,
            "next_s": None if self.next_s is None else max(0.0, self.next_s - now_s),
        }


class Sweeps:
    """The registry. Two sweeps of one name are a ValueError."""

    def __init__(self, sweeps: Iterable[Sweep[Any, Any]], problems: Problems, clock: Clock) -> None:
        self._problems = problems
        self._clock = clock
        self._records: dict[str, _Record] = {}
        for sweep in sweeps:
            if sweep.name in self._records:
                raise ValueError(f"two sweeps are called {sweep.name!r}")
            self._records[sweep.name] = _Record(sweep)

    def services(self, *, mounted: bool) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """Each sweep as a service, with its part; *mounted* False: only those that need no mount."""
        sweeps = [record.sweep for record in self._records.values() if mounted or not record.sweep.mounted]
        return [("sweeps", self.watch), *((sweep.part, partial(self.repeat, sweep.name)) for sweep in sweeps)]

    def as_json(self) -> list[dict[str, Any]]:
        """The list for `recfs status` and `recfs sweep list`. Atomic."""
        return [record.as_json() for record in self._records.values()]

    async def repeat(self, name: str) -> NoReturn:
        """Run one sweep for ever, as its schedule says."""
        record = self._records[name]
        sweep = record.sweep
        pause_s = sweep.schedule.first_s()
        async with trio.open_nursery() as going_on:
            while True:
                if sweep.due is not None:
                    record.next_s = None
                    await sweep.due()
                record.next_s = trio.current_time() + pause_s
                await trio.sleep_until(record.next_s)
                failed = await self._run(record, going_on)
                pause_s = sweep.schedule.pause_s(failed.delay_s if failed is not None else None)

    async def _run(self, record: _Record, going_on: trio.Nursery) -> Problem | None:
        """One run; returns its failure."""
        sweep, failed = record.sweep, None
        record.next_s, record.began_s, record.last_ns = None, trio.current_time(), self._clock.now_ns()
        try:
            decision = sweep.decide(await sweep.look())
            record.result = NOTHING if decision is None else await sweep.act(decision, going_on) or DONE
        except* Exception as group:
            failed = self._problems.note(sweep.part, sweep.name, group, sweep.name)
            record.result = f"failed: {failed.reason}"
        else:
            self._problems.solved(sweep.part, sweep.name)
        finally:
            record.took_s, record.began_s = trio.current_time() - record.began_s, None
            self._problems.solved(sweep.part, (sweep.name, "late"))
        return failed

    async def watch(self) -> NoReturn:
        """Tell of runs that do not end, for ever."""
        while True:
            await trio.sleep(LOOK_S)
            for record in self._records.values():
                self._look_at(record)

    def _look_at(self, record: _Record) -> None:
        sweep, item = record.sweep, (record.sweep.name, "late")
        running_s = trio.current_time() - record.began_s if record.began_s is not None else 0.0
        if sweep.schedule.is_late(running_s) and not self._problems.has(sweep.part, item):
            patience = format_duration(sweep.schedule.patience_s)
            self._problems.note(sweep.part, item, TimeoutError(f"is under way for more than {patience}"), sweep.name)
