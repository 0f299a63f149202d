"""core/quota.py: exact to the byte, and shrinking is always allowed."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recfs.core.quota import (
    UNLIMITED,
    Limits,
    Reason,
    add_file,
    exceeded,
    grow,
    grow_reason,
    may_write_unchecked,
    merge,
    month_of,
)

sizes = st.integers(0, 2**62)
small = st.integers(0, 40)
limit_values = st.none() | small
limits_all = st.builds(Limits, limit_values, limit_values, limit_values, limit_values)


@given(limits_all, small, small, small)
def test_growing_never_passes_a_limit_and_stops_only_at_one(
    limits: Limits, others_bytes: int, file_size: int, wanted: int
) -> None:
    assume(wanted > file_size)
    allowed = grow(limits, others_bytes + file_size, file_size, wanted)

    def fits(size: int) -> bool:
        return (limits.max_bytes is None or others_bytes + size <= limits.max_bytes) and (
            limits.max_file_size is None or size <= limits.max_file_size
        )

    assert file_size <= allowed <= wanted
    assert allowed == file_size or fits(allowed)
    assert allowed == wanted or not fits(allowed + 1)


@given(limits_all, st.integers(0, 100), small, small)
def test_the_reason_is_a_limit_that_refuses_the_next_byte(
    limits: Limits, others_bytes: int, file_size: int, wanted: int
) -> None:
    used = others_bytes + file_size
    allowed = grow(limits, used, file_size, wanted)
    reason = grow_reason(limits, used, file_size, wanted)
    if allowed == wanted:
        assert reason is None
    elif reason is Reason.FILE_SIZE:
        assert limits.max_file_size is not None
        assert allowed + 1 > limits.max_file_size
    else:
        assert reason is Reason.QUOTA_BYTES
        assert limits.max_bytes is not None
        assert others_bytes + allowed + 1 > limits.max_bytes


@given(limits_all, sizes, sizes, sizes)
def test_shrinking_is_always_allowed(limits: Limits, used: int, file_size: int, wanted: int) -> None:
    assume(wanted <= file_size)
    assert grow(limits, used, file_size, wanted) == wanted
    assert grow_reason(limits, used, file_size, wanted) is None


@given(sizes, sizes, sizes)
def test_without_limits_everything_is_allowed(used: int, file_size: int, wanted: int) -> None:
    assert grow(Limits(), used, file_size, wanted) == wanted


@pytest.mark.parametrize(
    ("limits", "used", "size", "wanted", "allowed", "reason"),
    [
        (Limits(max_bytes=100), 90, 10, 20, 20, None),
        (Limits(max_bytes=100), 90, 10, 21, 20, Reason.QUOTA_BYTES),
        (Limits(max_bytes=100), 100, 10, 11, 10, Reason.QUOTA_BYTES),
        (Limits(max_bytes=100), 150, 60, 61, 60, Reason.QUOTA_BYTES),
        (Limits(max_bytes=100), 150, 60, 59, 59, None),
        (Limits(max_bytes=0), 0, 0, 1, 0, Reason.QUOTA_BYTES),
        (Limits(max_file_size=50), 90, 10, 50, 50, None),
        (Limits(max_file_size=50), 90, 10, 51, 50, Reason.FILE_SIZE),
        (Limits(max_file_size=5), 90, 10, 11, 10, Reason.FILE_SIZE),
        (Limits(max_bytes=100, max_file_size=30), 90, 10, 40, 20, Reason.QUOTA_BYTES),
        (Limits(max_bytes=200, max_file_size=30), 90, 10, 40, 30, Reason.FILE_SIZE),
        (Limits(max_bytes=100, max_file_size=20), 90, 10, 40, 20, Reason.FILE_SIZE),  # both: the file's own
        # Past both limits: within the quota the file could have 10 bytes, by its own limit 15 or 8.
        (Limits(max_bytes=40, max_file_size=15), 90, 60, 61, 60, Reason.QUOTA_BYTES),
        (Limits(max_bytes=40, max_file_size=8), 90, 60, 61, 60, Reason.FILE_SIZE),
    ],
)
def test_which_limit_bites_first(
    limits: Limits, used: int, size: int, wanted: int, allowed: int, reason: Reason | None
) -> None:
    assert grow(limits, used, size, wanted) == allowed
    assert grow_reason(limits, used, size, wanted) is reason


@pytest.mark.parametrize(
    ("limits", "files", "uploads", "upload", "reason"),
    [
        (Limits(), 10**9, 10**9, True, None),
        (Limits(max_files=3), 2, 0, False, None),
        (Limits(max_files=3), 3, 0, False, Reason.QUOTA_FILES),
        (Limits(max_files=0), 0, 0, False, Reason.QUOTA_FILES),
        (Limits(max_monthly_uploads=2), 9, 1, True, None),
        (Limits(max_monthly_uploads=2), 9, 2, True, Reason.MONTHLY_UPLOADS),
        (Limits(max_monthly_uploads=2), 9, 2, False, None),
        (Limits(max_files=3, max_monthly_uploads=0), 3, 5, True, Reason.QUOTA_FILES),
    ],
)
def test_one_more_file(limits: Limits, files: int, uploads: int, upload: bool, reason: Reason | None) -> None:
    assert add_file(limits, files, uploads, upload=upload) is reason


def test_own_limits_go_before_defaults_and_unlimited_lifts_them() -> None:
    own = Limits(max_bytes=5, max_files=UNLIMITED, max_monthly_uploads=0)
    defaults = Limits(max_bytes=9, max_files=9, max_file_size=9, max_monthly_uploads=9)
    assert merge(own, defaults) == Limits(max_bytes=5, max_files=None, max_file_size=9, max_monthly_uploads=0)


@given(limits_all)
def test_merging_with_nothing_changes_nothing(limits: Limits) -> None:
    assert merge(limits, Limits()) == limits
    assert merge(Limits(), limits) == limits


@pytest.mark.parametrize("name", ["max_bytes", "max_files", "max_file_size", "max_monthly_uploads"])
@pytest.mark.parametrize("value", [-1, 1.5, "10", True])
def test_a_limit_that_makes_no_sense_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} is a whole number"):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_reasons_are_the_names_of_the_limits() -> None:
    assert {reason.value for reason in Reason} == set(Limits.__dataclass_fields__)


def ns(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("now_ns", "month"),
    [
        (ns(2026, 11, 1), "2026-11"),
        (ns(2026, 11, 1) - 1, "2026-10"),
        (ns(2026, 12, 31, 23, 59, 59) + 999_999_999, "2026-12"),
        (ns(2027, 1, 1), "2027-01"),
        (0, "1970-01"),
        (-1, "1969-12"),
    ],
)
def test_the_month_is_utc(now_ns: int, month: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-14")
    time.tzset()
    try:
        assert month_of(now_ns) == month
    finally:
        monkeypatch.undo()
        time.tzset()


GIB = 1 << 30


@pytest.mark.parametrize(
    ("limits", "used", "size", "writers", "headroom", "allowed"),
    [
        (Limits(), 0, 0, 1000, None, True),
        (Limits(max_files=1, max_monthly_uploads=1), 0, 0, 1000, None, True),
        (Limits(max_bytes=10 * GIB), 0, 0, 0, None, True),
        (Limits(max_bytes=10 * GIB), 1, 0, 0, None, False),
        (Limits(max_bytes=20 * GIB), 0, 0, 1, None, True),
        (Limits(max_bytes=20 * GIB), 0, 0, 2, None, False),
        (Limits(max_bytes=1000 * GIB), 900 * GIB, 0, 0, None, True),
        (Limits(max_bytes=1000 * GIB), 900 * GIB + 1, 0, 0, None, False),
        (Limits(max_bytes=100), 0, 0, 0, 100, True),
        (Limits(max_bytes=100), 1, 0, 0, 100, False),
        (Limits(max_bytes=100), 200, 0, 0, 0, False),
        (Limits(max_file_size=10 * GIB), 500 * GIB, 0, 5, None, True),
        (Limits(max_file_size=10 * GIB), 500 * GIB, 1, 0, None, False),
        (Limits(max_bytes=100, max_file_size=50), 0, 40, 0, 10, True),
        (Limits(max_bytes=100, max_file_size=50), 0, 41, 0, 10, False),
    ],
)
def test_who_may_write_without_being_checked_each_time(
    limits: Limits, used: int, size: int, writers: int, headroom: int | None, allowed: bool
) -> None:
    """10 GiB or a tenth of the limit, for each writer; the configured room instead."""
    assert may_write_unchecked(limits, used, size, writers, headroom) is allowed


def test_a_limit_is_passed_by_the_first_byte_beyond_it() -> None:
    """Reaching it is allowed."""
    limits = Limits(max_bytes=100, max_file_size=50)
    assert exceeded(limits, 100, 50) is None
    assert exceeded(limits, 101, 50) is Reason.QUOTA_BYTES
    assert exceeded(limits, 101, 51) is Reason.FILE_SIZE
    assert exceeded(Limits(), 2**60, 2**60) is None
