"""core/lifecycle.py: when temp jobs and trashed bytes may go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.lifecycle import job_verdict, trash_due

NS = 10**9
DAY_S = 86_400.0
DAY = 86_400 * NS
T0 = 1_790_000_000 * NS

times = st.integers(0, 2**62)


@pytest.mark.parametrize(
    ("now", "open_files", "expire", "reason"),
    [
        (T0, 0, False, "due in 1d"),
        (T0 + DAY - 1, 0, False, "due in"),
        (T0 + DAY, 0, True, "last change 1d ago, max_age 1d"),
        (T0 + 9 * DAY, 0, True, "last change 9d ago"),
        (T0 + DAY, 1, False, "but 1 file is open"),
        (T0 + 9 * DAY, 3, False, "but 3 files are open"),
        (T0 - 1, 0, False, "in the future"),
        (T0 - 400 * DAY, 0, False, "lies 400d in the future"),
    ],
)
def test_a_job(now: int, open_files: int, expire: bool, reason: str) -> None:
    verdict = job_verdict(T0, now, DAY_S, open_files)
    assert verdict.expire is expire
    assert reason in verdict.reason
    assert verdict.due_ns == T0 + DAY


@given(times, times, st.floats(0, 10**9), st.integers(1, 9))
def test_an_open_file_always_keeps_the_job(last: int, now: int, max_age_s: float, open_files: int) -> None:
    assert not job_verdict(last, now, max_age_s, open_files).expire


@given(times, times, st.floats(0, 10**9))
def test_a_last_change_in_the_future_always_keeps_the_job(last: int, ahead: int, max_age_s: float) -> None:
    assert not job_verdict(last + ahead + 1, last, max_age_s, 0).expire


@given(times, st.integers(0, 10**18), st.integers(0, 10**9))
def test_without_open_files_a_job_expires_exactly_from_its_due_time(last: int, age: int, max_age_s: int) -> None:
    verdict = job_verdict(last, last + age, float(max_age_s), 0)
    assert verdict.expire is (age >= max_age_s * NS)
    assert verdict.expire is (last + age >= verdict.due_ns)


@pytest.mark.parametrize(
    ("now", "retention_s", "due"),
    [
        (T0, 0.0, True),
        (T0 - DAY, 0.0, True),
        (T0, DAY_S, False),
        (T0 + DAY - 1, DAY_S, False),
        (T0 + DAY, DAY_S, True),
        (T0 - DAY, DAY_S, False),
        (T0 + NS // 2, 0.5, True),
    ],
)
def test_trash(now: int, retention_s: float, due: bool) -> None:
    assert trash_due(T0, now, retention_s) is due
