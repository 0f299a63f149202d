"""What sweeps decide: when they run, and what is due. No I/O, no time."""

import math

import pytest

from recfs.core.lifecycle import Aging, expired_jobs, expired_trash
from recfs.core.sweeping import RETRY_S, Schedule
from recfs.services.housekeeper import SHORT_LOG_PAGES, log_limit, positive
from recfs.services.timekeeper import KEPT_EVERY_S, is_to_keep

NS = 10**9
NOW = 1_790_000_000 * NS


def test_the_first_run_is_a_period_after_the_start_or_at_once() -> None:
    assert Schedule(300.0).first_s() == 300.0
    assert Schedule(300.0, at_once=True).first_s() == 0.0


@pytest.mark.parametrize(
    ("since_last_s", "first_s"), [(None, 300.0), (0.0, 300.0), (299.0, 1.0), (300.0, 0.0), (1e9, 0.0), (-5.0, 300.0)]
)
def test_a_start_does_not_put_off_what_was_due(since_last_s: float | None, first_s: float) -> None:
    assert Schedule(300.0).first_s(since_last_s) == first_s
    assert Schedule(300.0, at_once=True).first_s(since_last_s) == 0.0


@pytest.mark.parametrize(
    ("period_s", "failed_delay_s", "pause_s"),
    [
        (300.0, None, 300.0),
        (300.0, 60.0, 300.0),  # what looks rarely is not tried sooner
        (1.0, 60.0, 1.0),
        (0.05, None, 0.05),
        (0.05, 1.0, 1.0),  # what looks often is left alone for a while, which grows
        (0.05, 32.0, 32.0),
        (0.05, 0.1, 1.0),
        (7 * 86_400.0, 60.0, RETRY_S),  # … but what looks once a week is
        (7 * 86_400.0, None, 7 * 86_400.0),
        (math.inf, None, math.inf),  # what nobody asks for does not run
        (math.inf, 60.0, math.inf),
    ],
)
def test_the_pause_after_a_run(period_s: float, failed_delay_s: float | None, pause_s: float) -> None:
    assert Schedule(period_s).pause_s(failed_delay_s) == pause_s


def test_a_run_is_late_when_it_has_taken_more_than_the_patience() -> None:
    schedule = Schedule(1.0, patience_s=60.0)
    assert [schedule.is_late(running_s) for running_s in (0.0, 60.0, 60.1)] == [False, False, True]


def test_jobs_go_at_their_age_unless_somebody_has_a_file_open() -> None:
    items = [("old", NOW - 60 * NS, 0), ("open", NOW - 60 * NS, 1), ("young", NOW - 59 * NS, 0), ("ahead", NOW + 1, 0)]
    assert expired_jobs(Aging(NOW, 60.0, items)) == ["old"]
    assert expired_jobs(Aging(NOW, 61.0, items)) is None
    assert expired_jobs(Aging(NOW, 60.0, items[:0])) is None


def test_trash_goes_after_its_retention() -> None:
    items = [("old", NOW - 60 * NS, 0), ("young", NOW - 59 * NS, 0), ("ahead", NOW + 1, 0)]
    assert expired_trash(Aging(NOW, 60.0, items)) == ["old"]
    assert expired_trash(Aging(NOW, 61.0, items)) is None
    assert expired_trash(Aging(NOW, 0.0, items)) == ["old", "young", "ahead"]


def test_housekeeping_acts_on_what_is_too_much() -> None:
    assert [positive(number) for number in (-5, 0, 5)] == [None, None, 5]


def test_the_log_is_kept_short_while_the_reserve_is_used_up() -> None:
    assert log_limit(1) == {}
    assert log_limit(0) == log_limit(-1) == {"at_least_pages": SHORT_LOG_PAGES}


def test_the_clocks_facts_are_kept_now_and_then() -> None:
    assert is_to_keep(KEPT_EVERY_S - 0.1) is None
    assert is_to_keep(KEPT_EVERY_S) is True
