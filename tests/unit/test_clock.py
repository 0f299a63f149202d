"""clock.py: what stays true whatever is done to the wall clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.clock import AHEAD_S, BACK_S, FACT, SystemClock, boot_id
from recfs.core.lifecycle import job_verdict

NS = 10**9
HOUR, DAY = 3600.0, 86_400.0
BEGAN_NS = 1_793_880_000 * NS


class Machine:
    """A wall clock that is put ahead and back, and the time since the boot."""

    def __init__(self) -> None:
        self.wall_ns = BEGAN_NS
        self.up_ns = 777 * NS
        self.boots = 1

    def clock(self, facts: dict[str, str] | None = None) -> SystemClock:
        return SystemClock(
            facts or {}, f"boot {self.boots}", wall_ns=lambda: self.wall_ns, boottime_ns=lambda: self.up_ns
        )

    def passes(self, seconds: float) -> None:
        self.wall_ns += round(seconds * NS)
        self.up_ns += round(seconds * NS)

    def put(self, seconds: float) -> None:
        self.wall_ns += round(seconds * NS)

    def reboots(self, off_s: float) -> None:
        self.boots += 1
        self.wall_ns += round(off_s * NS)
        self.up_ns = 3 * NS


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_it_begins_as_the_wall_clock(machine: Machine) -> None:
    clock = machine.clock()
    assert clock.now_ns() == clock.steady_ns() == clock.calendar_ns() == BEGAN_NS
    machine.passes(5)
    assert clock.now_ns() == clock.steady_ns() == clock.calendar_ns() == BEGAN_NS + 5 * NS
    assert not clock.look()
    assert clock.step is None


@pytest.mark.parametrize(("step_s", "told"), [(-2 * HOUR, "put back by 2h"), (3 * DAY, "put ahead by 3d")])
def test_a_step_is_seen_once_and_does_not_count(machine: Machine, step_s: float, told: str) -> None:
    clock = machine.clock()
    machine.put(step_s)
    machine.passes(10)
    assert clock.steady_ns() == clock.calendar_ns() == BEGAN_NS + 10 * NS
    assert [clock.look(), clock.look()] == [True, False]
    assert str(clock.step) == told
    assert clock.now_ns() == BEGAN_NS + round((10 + step_s) * NS)


def test_slewing_is_no_step_and_the_calendar_follows_it(machine: Machine) -> None:
    clock = machine.clock()
    for _ in range(10):
        machine.passes(2)
        machine.put(1)
        assert not clock.look()
    assert clock.steady_ns() == BEGAN_NS + 20 * NS
    assert clock.calendar_ns() == clock.now_ns()


@pytest.mark.parametrize("step_s", [-2 * HOUR, 3 * DAY])
def test_a_step_while_no_daemon_ran_is_seen_at_the_start(machine: Machine, step_s: float) -> None:
    facts = machine.clock().facts()
    machine.put(step_s)
    machine.passes(60)
    clock = machine.clock(facts)
    assert clock.step is not None
    assert clock.step.step_ns == round(step_s * NS)
    assert clock.steady_ns() == BEGAN_NS + 60 * NS


@pytest.mark.parametrize("off_s", [-40 * DAY, 0, 3 * DAY])
def test_the_time_in_which_the_machine_is_off_does_not_count(machine: Machine, off_s: float) -> None:
    before = machine.clock()
    machine.passes(100)
    facts = before.facts()
    machine.reboots(off_s)
    clock = machine.clock(facts)
    assert clock.steady_ns() == BEGAN_NS + 100 * NS
    machine.passes(10)
    assert clock.steady_ns() == BEGAN_NS + 110 * NS
    assert clock.step is None


@pytest.mark.parametrize("facts", ["", "null", "{}", '{"boot": 1}', '{"boot": "boot 1", "steady_ahead": "x"}'])
def test_facts_that_cannot_be_understood_count_as_none(machine: Machine, facts: str) -> None:
    assert machine.clock({FACT: facts}).steady_ns() == BEGAN_NS


@pytest.mark.parametrize(("step_s", "lasts_s"), [(40 * DAY, AHEAD_S), (-40 * DAY, BACK_S)])
def test_the_calendar_follows_a_step_that_lasts(machine: Machine, step_s: float, lasts_s: float) -> None:
    clock = machine.clock()
    machine.put(step_s)
    assert clock.look()
    machine.passes(lasts_s - 1)
    clock.look()
    assert clock.calendar_ns() == BEGAN_NS + round((lasts_s - 1) * NS)
    machine.passes(1)
    clock.look()
    assert clock.calendar_ns() == clock.now_ns()


def test_the_calendar_does_not_follow_a_step_that_is_taken_back(machine: Machine) -> None:
    clock = machine.clock()
    for _ in range(5):
        machine.put(400 * DAY)
        clock.look()
        machine.passes(HOUR / 2)
        clock.look()
        assert datetime.fromtimestamp(clock.calendar_ns() / NS, UTC).year == 2026
        machine.put(-400 * DAY)
        clock.look()
        machine.passes(HOUR / 2)
        clock.look()
        assert clock.calendar_ns() == clock.now_ns()


def test_after_a_reboot_the_calendar_follows_when_the_clock_has_had_time_to_be_put_right(machine: Machine) -> None:
    facts = machine.clock().facts()
    machine.reboots(400 * DAY)
    clock = machine.clock(facts)
    assert clock.calendar_ns() == BEGAN_NS
    machine.passes(AHEAD_S)
    clock.look()
    assert clock.calendar_ns() == clock.now_ns()


def test_the_machines_own_clock() -> None:
    clock = SystemClock({}, boot_id())
    again = SystemClock(clock.facts(), boot_id())
    first, second, third = clock.steady_ns(), again.steady_ns(), clock.steady_ns()
    assert first <= second <= third
    assert abs(clock.now_ns() - second) < 5 * NS


seconds = st.floats(0, 5 * DAY)
events = st.lists(
    st.one_of(
        st.tuples(st.just("passes"), seconds),
        st.tuples(st.just("put"), st.floats(-500 * DAY, 500 * DAY)),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("reboot"), st.floats(-500 * DAY, 500 * DAY)),
        st.tuples(st.just("change"), st.none()),
    ),
    max_size=25,
)


@given(events, st.integers(0, 4 * 86_400))
def test_nothing_expires_early_or_late_whatever_is_done_to_the_clock(
    happens: list[tuple[str, float | None]], max_age_s: int
) -> None:
    """An age is the time that passed while the machine ran, to the nanosecond."""
    machine = Machine()
    clock = machine.clock()
    changed_ns, age_ns = clock.steady_ns(), 0
    last_ns = changed_ns
    for what, value in happens:
        if what == "passes":
            assert value is not None
            machine.passes(value)
            age_ns += round(value * NS)
        elif what == "put":
            assert value is not None
            machine.put(value)
        elif what == "change":
            changed_ns, age_ns = clock.steady_ns(), 0
        else:
            facts = clock.facts()
            if value is not None:
                machine.reboots(value)
            clock = machine.clock(facts)
        clock.look()
        assert clock.steady_ns() >= last_ns
        last_ns = clock.steady_ns()
        assert job_verdict(changed_ns, last_ns, float(max_age_s), 0).expire is (age_ns >= max_age_s * NS)
