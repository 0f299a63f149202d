"""Runs the sweeps, each by itself: one that raises, hangs or is slow stops no other.

A sweep is registered by `parts.py`. What fails is set aside (`state/problems.py`) under the sweep's name until a run
succeeds, and so is a run that does not end in time. A run may be asked for before it is due, and be stopped; whoever
asks for one that is under way gets that one's result.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import trio

from recfs.core.sweeping import RunOutcome, Schedule
from recfs.core.units import format_duration
from recfs.errors import NotFound
from recfs.state.events import acting, acting_for, own

if TYPE_CHECKING:
    from recfs.ports.clock import Clock
    from recfs.ports.rows import SweepRow
    from recfs.ports.sweep import History, Sweep
    from recfs.state.events import Acting
    from recfs.state.problems import Problem, Problems

LOOK_S = 5.0
"""How often it is looked whether a run has taken too long."""
NOTHING = "nothing to do"
DONE = "done"
CUT_SHORT = "stopped when the daemon was"


@dataclass(slots=True)
class _Record:
    """What became of a sweep so far; `began_s` and `next_s` are trio's time."""

    sweep: Sweep[Any, Any]
    schedule: Schedule
    """The sweep's, or another since."""
    began_s: float | None = None
    """Since when a run is under way."""
    next_s: float | None = None
    last_ns: int | None = None
    took_s: float | None = None
    result: str | None = None
    outcome: RunOutcome | None = None
    asked: bool = False
    """Somebody wants a run now …"""
    asked_by: Acting | None = None
    """… and who."""
    woken: trio.Event = field(default_factory=trio.Event)
    """Set when somebody asks, or the schedule is another; replaced before it is waited for again."""
    runs: int = 0
    """How many have begun …"""
    ended: int = 0
    """… and which has ended last."""
    changed: trio.Event = field(default_factory=trio.Event)
    """Set, and replaced, when a run ends."""

    def as_json(self) -> dict[str, Any]:
        """As JSON."""
        now_s, progress = trio.current_time(), self.sweep.progress
        is_running = self.began_s is not None
        return {
            "name": self.sweep.name,
            "every_s": self.schedule.period_s if self.schedule.is_periodic else None,
            "last_ns": self.last_ns,
            "took_s": self.took_s,
            "result": self.result,
            "outcome": self.outcome.value if self.outcome is not None else None,
            "running_s": None if self.began_s is None else now_s - self.began_s,
            "done": progress.done if is_running else None,
            "total": progress.total if is_running else None,
            "stopping": is_running and progress.is_stopping,
            "late": self.began_s is not None and self.schedule.is_late(now_s - self.began_s),
            "next_s": None if self.next_s in (None, math.inf) else max(0.0, self.next_s - now_s),
        }


class Sweeps:
    """The registry. Two sweeps of one name are a ValueError."""

    def __init__(
        self, sweeps: Iterable[Sweep[Any, Any]], problems: Problems, clock: Clock, history: History | None = None
    ) -> None:
        """*history*: where runs are remembered."""
        self._problems = problems
        self._clock = clock
        self._history = history
        self._records: dict[str, _Record] = {}
        for sweep in sweeps:
            if sweep.name in self._records:
                raise ValueError(f"two sweeps are called {sweep.name!r}")
            record = self._records[sweep.name] = _Record(sweep, sweep.schedule)
            last = history.last(sweep.name) if history is not None else None
            if last is not None:
                record.last_ns, record.took_s = last.began_ns, last.took_ms / 1000
                record.result, record.outcome = last.result, RunOutcome(last.outcome)

    def services(self, *, mounted: bool) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """Each sweep as a service, with its part; *mounted* False: only those that need no mount."""
        sweeps = [record.sweep for record in self._records.values() if mounted or not record.sweep.mounted]
        return [("sweeps", self.watch), *((sweep.part, partial(self.repeat, sweep.name)) for sweep in sweeps)]

    def as_json(self) -> list[dict[str, Any]]:
        """The list for `recfs status` and `recfs sweep list`. Atomic."""
        return [record.as_json() for record in self._records.values()]

    def _known(self, name: str) -> _Record:
        record = self._records.get(name)
        if record is None:
            raise NotFound(f"there is no sweep {name!r}; there are {', '.join(self._records)}")
        return record

    # --- asked for (atomic but for `wait`) -----------------------------------------------------------------------

    def ask(self, name: str) -> int:
        """Have a sweep run now, if it does not already; returns the number of that run. Raises NotFound."""
        record = self._known(name)
        if record.began_s is not None:
            return record.runs
        record.asked, record.asked_by = True, acting()
        record.woken.set()
        return record.runs + 1

    def reschedule(self, sweeps: Iterable[Sweep[Any, Any]]) -> None:
        """Have the sweeps of these names go by their schedules from now on: the time since the last run counts."""
        for sweep in sweeps:
            record = self._records.get(sweep.name)
            if record is not None and record.schedule != sweep.schedule:
                record.schedule = sweep.schedule
                record.woken.set()

    def stop(self, name: str) -> bool:
        """Have the run under way end after what it is at; False: none is. Raises NotFound."""
        record = self._known(name)
        record.sweep.progress.is_stopping = record.began_s is not None
        return record.began_s is not None

    async def wait(self, name: str, run: int, timeout_s: float) -> dict[str, Any]:
        """Wait until a run has ended, or for *timeout_s*; returns the sweep as JSON, and whether that run has ended."""
        record = self._known(name)
        with trio.move_on_after(timeout_s):
            while record.ended < run:
                await record.changed.wait()
        return record.as_json() | {"ended": record.ended >= run}

    # --- running -------------------------------------------------------------------------------------------------

    async def repeat(self, name: str) -> NoReturn:
        """Run one sweep for ever, as its schedule says."""
        record = self._records[name]
        sweep = record.sweep
        since_s = self._history.since_last_s(name) if self._history is not None and sweep.recorded else None
        pause = partial(Schedule.first_s, since_last_s=since_s)
        async with trio.open_nursery() as going_on:
            while True:
                if sweep.due is not None:
                    record.next_s = None
                    await _either(sweep.due, record.woken.wait)
                await _until_next(record, pause)
                failed = await self._run(record, going_on)
                pause = partial(Schedule.pause_s, failed_delay_s=failed.delay_s if failed is not None else None)

    async def _run(self, record: _Record, going_on: trio.Nursery) -> Problem | None:
        """One run; returns its failure."""
        sweep, failed, row = record.sweep, None, None
        asked, record.asked = record.asked, False
        record.runs += 1
        record.next_s, record.began_s, record.last_ns = None, trio.current_time(), self._clock.now_ns()
        sweep.progress.begin()
        outcome, result = RunOutcome.STOPPED, CUT_SHORT
        who, record.asked_by = record.asked_by or own(f"sweep {sweep.name}"), None
        try:
            decision = sweep.decide(await sweep.look())
            if decision is None:
                outcome, result = RunOutcome.NOTHING, NOTHING
            else:
                if self._history is not None and sweep.recorded:
                    row = self._history.begun(sweep.name, record.last_ns, asked=asked)
                with acting_for(who):
                    result = await sweep.act(decision, going_on) or DONE
                outcome = RunOutcome.STOPPED if sweep.progress.is_stopping else RunOutcome.DONE
        except* Exception as group:
            failed = self._problems.note(sweep.part, sweep.name, group, sweep.name)
            outcome, result = RunOutcome.FAILED, f"failed: {failed.reason}"
        else:
            self._problems.solved(sweep.part, sweep.name)
        finally:
            record.took_s, record.began_s = trio.current_time() - record.began_s, None
            record.outcome, record.result, record.ended = outcome, result, record.runs
            self._problems.solved(sweep.part, (sweep.name, "late"))
            self._remember(record, row, asked=asked)
            record.changed.set()
            record.changed = trio.Event()
        return failed

    def _remember(self, record: _Record, row: SweepRow | None, *, asked: bool) -> None:
        if self._history is None or not record.sweep.recorded:
            return
        if record.outcome is RunOutcome.STOPPED and row is None:
            return  # the daemon ended before it was known whether there is anything to do
        assert record.last_ns is not None
        assert record.took_s is not None
        assert record.outcome is not None
        self._history.ended(
            row, record.sweep.name, record.last_ns, record.outcome, record.result or "", record.took_s, asked=asked
        )

    async def watch(self) -> NoReturn:
        """Tell of runs that do not end, for ever."""
        while True:
            await trio.sleep(LOOK_S)
            for record in self._records.values():
                self._look_at(record)

    def _look_at(self, record: _Record) -> None:
        sweep, item = record.sweep, (record.sweep.name, "late")
        running_s = trio.current_time() - record.began_s if record.began_s is not None else 0.0
        if record.schedule.is_late(running_s) and not self._problems.has(sweep.part, item):
            patience = format_duration(record.schedule.patience_s)
            self._problems.note(sweep.part, item, TimeoutError(f"is under way for more than {patience}"), sweep.name)


async def _until_next(record: _Record, pause: Callable[[Schedule], float]) -> None:
    """Wait for the time of the next run, by the schedule that holds meanwhile, or until somebody wants one."""
    since_s = trio.current_time()
    while not record.asked:
        record.woken = trio.Event()
        record.next_s = since_s + pause(record.schedule)
        with trio.move_on_at(record.next_s):
            await record.woken.wait()
            continue
        return


async def _either(*waits: Callable[[], Awaitable[object]]) -> None:
    """Wait for the first of them."""
    async with trio.open_nursery() as nursery:

        async def first(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(first, wait)
