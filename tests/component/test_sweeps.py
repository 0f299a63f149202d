"""The registry of sweeps: each runs, fails and hangs by itself, and is told. Time is virtual."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from recfs.core.sweeping import KEPT_RUNS, Schedule
from recfs.errors import IoFailure, NotFound
from recfs.ports.rows import SweepRow
from recfs.ports.sweep import Progress, Sweep, always
from recfs.services.run_history import CUT_OFF, RunHistory
from recfs.services.sweeps import CUT_SHORT, DONE, LOOK_S, NOTHING, Sweeps
from recfs.state.problems import Problems, forever
from tests.fakes import FakeClock

from .build import Filesystem

ExpectLog = Callable[[str], None]
PERIOD_S = 10.0
PATIENCE_S = 60.0


class Counting:
    """A sweep that counts its runs."""

    def __init__(self, name: str, act: Callable[[], Any] | None = None, **schedule: Any) -> None:
        self.name = name
        self.runs: list[float] = []
        self._act = act
        self._schedule = Schedule(**({"period_s": PERIOD_S, "patience_s": PATIENCE_S} | schedule))

    @property
    def sweep(self) -> Sweep[int, int]:
        """For the registry."""
        return Sweep(self.name, "sweeping", self._schedule, self._look, always, self._run)

    async def _look(self) -> int:
        return len(self.runs)

    async def _run(self, decision: int, going_on: trio.Nursery) -> str | None:
        self.runs.append(trio.current_time())
        if self._act is not None:
            await self._act()
        return None


async def raises() -> None:
    raise IoFailure("the disk said no")


def started(nursery: trio.Nursery, problems: Problems, *sweeps: Counting) -> Sweeps:
    made = Sweeps([each.sweep for each in sweeps], problems, FakeClock())
    for part, run in made.services(mounted=True):
        nursery.start_soon(forever, part, run, problems)
    return made


def told(sweeps: Sweeps, name: str) -> dict[str, Any]:
    return next(each for each in sweeps.as_json() if each["name"] == name)


async def test_a_failing_and_a_hanging_sweep_stop_no_other(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, expect_log: ExpectLog
) -> None:
    expect_log("sweeping: failing: the disk said no|sweeping: hanging: is under way for more than 1m")
    problems, released = Problems(), trio.Event()
    failing, hanging, healthy = Counting("failing", raises), Counting("hanging", released.wait), Counting("healthy")
    began_s = trio.current_time()
    sweeps = started(nursery, problems, failing, hanging, healthy)
    await trio.sleep(10 * PERIOD_S + 1)
    assert [moment - began_s for moment in healthy.runs] == pytest.approx([PERIOD_S * n for n in range(1, 11)])
    assert (len(failing.runs), len(hanging.runs)) == (10, 1)
    assert {(each["part"], each["path"], each["reason"]) for each in problems.as_json()} == {
        ("sweeping", "failing", "the disk said no"),
        ("sweeping", "hanging", "is under way for more than 1m"),
    }
    assert told(sweeps, "failing")["result"] == "failed: the disk said no"
    assert told(sweeps, "healthy") | {"last_ns": 0, "next_s": 0.0} == {
        "name": "healthy", "every_s": PERIOD_S, "last_ns": 0, "took_s": 0.0, "result": DONE, "running_s": None,
        "next_s": 0.0, "outcome": "done", "done": None, "total": None, "stopping": False, "late": False,
    }  # fmt: skip
    assert told(sweeps, "healthy")["next_s"] == pytest.approx(PERIOD_S - 1)
    assert told(sweeps, "hanging")["running_s"] == pytest.approx(9 * PERIOD_S + 1)
    released.set()
    await trio.sleep(2 * PERIOD_S)
    assert len(hanging.runs) > 1
    assert [each["path"] for each in problems.as_json()] == ["failing"]


@pytest.mark.expect_log("sweeping: hanging: is under way")
async def test_a_run_that_hangs_is_told_soon_after_its_patience_and_once(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    problems = Problems()
    started(nursery, problems, Counting("hanging", trio.sleep_forever))
    await trio.sleep(PERIOD_S + PATIENCE_S)
    assert problems.as_json() == []
    await trio.sleep(LOOK_S + 0.1)
    assert [each["tries"] for each in problems.as_json()] == [1]
    await trio.sleep(10 * PATIENCE_S)
    assert [each["tries"] for each in problems.as_json()] == [1]


@pytest.mark.expect_log("sweeping: often: the disk said no")
async def test_what_looks_often_is_left_alone_after_failures_and_forgotten_when_it_succeeds(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    problems, broken = Problems(), True

    async def act() -> None:
        if broken:
            await raises()

    often = Counting("often", act, period_s=0.05)
    sweeps = started(nursery, problems, often)
    await trio.sleep(10.0)
    assert [round(late - soon) for soon, late in zip(often.runs, often.runs[1:], strict=False)] == [1, 2, 4]
    broken = False
    await trio.sleep(10.0)
    assert problems.as_json() == []
    assert told(sweeps, "often")["result"] == DONE
    assert len(often.runs) > 20


async def test_what_is_not_due_does_not_look(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    due, looked = trio.Event(), Counting("writers")
    sweep = Sweep("writers", "metering", Schedule(0.05), looked._look, always, looked._run, due=due.wait)
    sweeps = Sweeps([sweep], Problems(), FakeClock())
    nursery.start_soon(sweeps.repeat, "writers")
    await trio.sleep(100.0)
    assert (looked.runs, told(sweeps, "writers")["next_s"], told(sweeps, "writers")["result"]) == ([], None, None)
    due.set()
    await trio.sleep(1.0)
    assert len(looked.runs) > 10


async def test_nothing_to_do_is_a_result_and_what_only_a_mount_needs_waits_for_one(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def nothing() -> None:
        """Finds nothing."""

    async def never(decision: None, going_on: trio.Nursery) -> None:
        raise AssertionError

    idle = Sweep("idle", "sweeping", Schedule(PERIOD_S, at_once=True), nothing, always, never)
    sweeps = Sweeps([idle, Sweep("far", "sweeping", Schedule(1.0), nothing, always, never, mounted=True)], Problems(),
                    FakeClock())  # fmt: skip
    for _, run in sweeps.services(mounted=False):
        nursery.start_soon(run)
    await trio.sleep(5.0)
    assert (told(sweeps, "idle")["result"], told(sweeps, "far")["result"]) == (NOTHING, None)


@pytest.mark.expect_log("sweeping: the disk said no")
async def test_what_a_sweep_leaves_going_on_fails_with_it_and_no_other(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def act(decision: int, going_on: trio.Nursery) -> None:
        going_on.start_soon(raises)

    leaving, healthy = Counting("leaving"), Counting("healthy")
    problems = Problems()
    sweep = Sweep("leaving", "sweeping", Schedule(PERIOD_S), leaving._look, always, act)
    sweeps = Sweeps([sweep, healthy.sweep], problems, FakeClock())
    for part, run in sweeps.services(mounted=True):
        nursery.start_soon(partial(forever, part, run, problems))
    await trio.sleep(10 * PERIOD_S + 1)
    assert len(healthy.runs) == 10
    assert [each["reason"] for each in problems.as_json()] == ["the disk said no"]


def test_no_two_sweeps_have_one_name() -> None:
    with pytest.raises(ValueError, match="two sweeps are called 'twice'"):
        Sweeps([Counting("twice").sweep, Counting("twice").sweep], Problems(), FakeClock())


async def test_the_stores_own_sweeps(fs: Filesystem) -> None:
    names = [each["name"] for each in fs.parts.sweeps.as_json()]
    assert names == [
        "memory",
        "emergency reserve",
        "checkpoint",
        "free pages",
        "generation",
        "usage",
        "clock",
        "temp",
        "trash",
        "expired",
        "backup",
        "orphans",
        "orphans-adopt",
        "orphans-delete",
        "versions",
        "catalogue",
        "derive",
        "events",
        "processing",
        "counters",
        "days",
        "survey",
    ]


# --- asked for, stopped, remembered --------------------------------------------------------------------------------


class Slow:
    """A sweep of ten items, each of which waits until it is let through."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.through = trio.Semaphore(0)
        self.acts = 0
        self.sweep = Sweep(
            "slow", "sweeping", Schedule(1000.0), self._look, always, self._act, progress=self.progress
        )  # fmt: skip

    async def _look(self) -> int:
        return 10

    async def _act(self, items: int, going_on: trio.Nursery) -> str:
        self.acts += 1
        self.progress.total = items
        for _ in range(items):
            await self.through.acquire()
            self.progress.done += 1
            if self.progress.is_stopping:
                break
        return f"{self.progress.done} done"

    def let(self, items: int) -> None:
        for _ in range(items):
            self.through.release()


async def test_a_run_is_asked_for_joined_and_told_how_far_it_is(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    slow = Slow()
    sweeps = Sweeps([slow.sweep], Problems(), FakeClock())
    nursery.start_soon(sweeps.repeat, "slow")
    await trio.testing.wait_all_tasks_blocked()
    number = sweeps.ask("slow")
    assert sweeps.ask("slow") == number
    slow.let(3)
    await trio.sleep(1.0)
    assert sweeps.ask("slow") == number  # a second operator gets the run under way
    found = await sweeps.wait("slow", number, 5.0)
    assert (found["ended"], found["done"], found["total"], found["running_s"]) == (False, 3, 10, pytest.approx(6.0))
    slow.let(7)
    found = await sweeps.wait("slow", number, 5.0)
    assert (found["ended"], found["result"], found["outcome"], found["done"]) == (True, "10 done", "done", None)
    await trio.sleep(10.0)
    assert slow.acts == 1
    assert told(sweeps, "slow")["next_s"] == pytest.approx(990.0)  # its schedule goes by the last run


async def test_a_run_is_stopped_after_what_it_is_at_and_the_next_one_is_not(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    slow = Slow()
    sweeps = Sweeps([slow.sweep], Problems(), FakeClock())
    nursery.start_soon(sweeps.repeat, "slow")
    await trio.testing.wait_all_tasks_blocked()
    assert not sweeps.stop("slow")
    number = sweeps.ask("slow")
    await trio.sleep(0.0)
    slow.let(3)
    await trio.sleep(1.0)
    assert sweeps.stop("slow")
    assert told(sweeps, "slow")["stopping"]
    slow.let(1)
    found = await sweeps.wait("slow", number, 5.0)
    assert (found["ended"], found["outcome"], found["result"]) == (True, "stopped", "4 done")
    slow.let(10)
    found = await sweeps.wait("slow", sweeps.ask("slow"), 5.0)
    assert (found["outcome"], found["result"]) == ("done", "10 done")


async def test_what_is_not_due_runs_when_it_is_asked_for(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    counting = Counting("writers")
    sweep = Sweep(
        "writers", "metering", Schedule(5.0), counting._look, always, counting._run, due=trio.sleep_forever
    )  # fmt: skip
    sweeps = Sweeps([sweep], Problems(), FakeClock())
    nursery.start_soon(sweeps.repeat, "writers")
    await trio.sleep(100.0)
    assert (await sweeps.wait("writers", sweeps.ask("writers"), 1.0))["ended"]
    assert len(counting.runs) == 1


def test_an_unknown_sweep_is_refused_with_those_there_are() -> None:
    sweeps = Sweeps([Counting("one").sweep, Counting("two").sweep], Problems(), FakeClock())
    for ask in (sweeps.ask, sweeps.stop):
        with pytest.raises(NotFound, match="there is no sweep 'three'; there are one, two"):
            ask("three")


async def remembered(fs: Filesystem) -> list[SweepRow]:
    await fs.parts.behind.flush()
    return list(await fs.parts.catalogue.sweeps())


def gist(row: SweepRow) -> tuple[str, str, str, int, int]:
    return row.name, row.outcome, row.result, row.asked, row.times


@pytest.mark.expect_log("sweeping: failing: the disk said no")
async def test_runs_are_remembered_and_idle_ones_counted(
    fs: Filesystem, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    found: int | None = None

    async def look() -> int | None:
        return found

    async def act(decision: int, going_on: trio.Nursery) -> str:
        if decision < 0:
            await raises()
        return f"{decision} removed"

    history = RunHistory(fs.parts.behind, fs.clock)
    await history.load(fs.parts.catalogue)
    own = Sweep("own", "sweeping", Schedule(1e6), look, always, act)
    failing = Sweep("failing", "sweeping", Schedule(1e6), look, always, act)
    quiet = Sweep("quiet", "sweeping", Schedule(1e6), look, always, act, recorded=False)
    sweeps = Sweeps([own, failing, quiet], fs.parts.problems, fs.clock, history)
    for name in ("own", "failing", "quiet"):
        nursery.start_soon(sweeps.repeat, name)

    async def run(name: str) -> None:
        assert (await sweeps.wait(name, sweeps.ask(name), 5.0))["ended"]

    for _ in range(3):
        await run("own")
    found = 4
    await run("own")
    await run("quiet")
    found = None
    await run("own")
    found = -1
    await run("failing")
    mine = [row for row in await remembered(fs) if row.name in ("own", "failing", "quiet")]
    assert [gist(row) for row in mine] == [
        ("own", "nothing", NOTHING, 1, 3),
        ("own", "done", "4 removed", 1, 1),
        ("own", "nothing", NOTHING, 1, 1),
        ("failing", "failed", "failed: the disk said no", 1, 1),
    ]
    found = 1
    for _ in range(KEPT_RUNS + 5):
        await run("own")
    assert [gist(row)[1] for row in await remembered(fs) if row.name == "own"] == ["done"] * KEPT_RUNS


async def test_a_run_that_was_cut_off_is_told_by_the_next_daemon_and_a_weekly_one_is_not_put_off(
    fs: Filesystem, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    week_s = 7 * 86_400.0
    history = RunHistory(fs.parts.behind, fs.clock)
    await history.load(fs.parts.catalogue)
    row = history.begun("weekly", fs.clock.now_ns(), asked=False)
    assert (await remembered(fs))[-1] == row
    assert row.outcome == "running"

    fs.clock.advance(week_s - 60.0)
    again = RunHistory(fs.parts.behind, fs.clock)
    await again.load(fs.parts.catalogue)
    assert gist((await remembered(fs))[-1]) == ("weekly", "stopped", CUT_OFF, 0, 1)
    weekly = Counting("weekly", period_s=week_s)
    began_s = trio.current_time()
    sweeps = Sweeps([weekly.sweep], fs.parts.problems, fs.clock, again)
    assert (told(sweeps, "weekly")["result"], told(sweeps, "weekly")["outcome"]) == (CUT_OFF, "stopped")
    nursery.start_soon(sweeps.repeat, "weekly")
    await trio.sleep(61.0)
    assert [moment - began_s for moment in weekly.runs] == pytest.approx([60.0])


async def test_a_run_that_the_daemons_end_cuts_short_is_recorded_so(
    fs: Filesystem, autojump_clock: trio.testing.MockClock
) -> None:
    history, slow = RunHistory(fs.parts.behind, fs.clock), Slow()
    await history.load(fs.parts.catalogue)
    sweeps = Sweeps([slow.sweep], fs.parts.problems, fs.clock, history)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sweeps.repeat, "slow")
        await trio.testing.wait_all_tasks_blocked()
        sweeps.ask("slow")
        slow.let(2)
        await trio.sleep(1.0)
        nursery.cancel_scope.cancel()
    assert gist((await remembered(fs))[-1]) == ("slow", "stopped", CUT_SHORT, 1, 1)


async def test_another_schedule_holds_at_once_and_counts_from_the_last_run(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A shorter one, a longer one, none, and one again; a run that was not due is not made."""
    one = Counting("one", at_once=True)
    began = trio.current_time()
    sweeps = started(nursery, Problems(), one)

    def every(period_s: float) -> None:
        other = Counting("one", period_s=period_s)
        sweeps.reschedule([other.sweep, Counting("unknown").sweep])

    def runs() -> list[float]:
        return [round(each - began, 3) for each in one.runs]

    await trio.sleep(13)
    every(5.0)
    await trio.sleep(3)  # 16: the last was at 10, so the next is at 15
    assert (runs(), sweeps.as_json()[0]["every_s"], sweeps.as_json()[0]["next_s"]) == ([0, 10, 15], 5.0, 4.0)
    every(100.0)
    await trio.sleep(94)  # 110
    assert runs() == [0, 10, 15]
    await trio.sleep(6)
    assert runs() == [0, 10, 15, 115]
    every(math.inf)
    await trio.sleep(10_000)
    assert (runs(), sweeps.as_json()[0]["every_s"]) == ([0, 10, 15, 115], None)
    every(50.0)  # long overdue
    await trio.sleep(1)
    assert len(runs()) == 5
    sweeps.ask("one")
    await trio.sleep(1)
    assert len(runs()) == 6
