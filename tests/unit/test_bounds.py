"""The ranges of integers."""

from __future__ import annotations

import pytest

from recfs.core import bounds
from recfs.core.bounds import MAX_INT, MAX_TIME_NS, MIN_INT, MIN_TIME_NS
from recfs.errors import FileTooLarge, InvalidArgument

S = 10**9
TIMES = [
    MIN_TIME_NS, MIN_TIME_NS + 1, -S - 1, -S // 2, -1, 0, 1, 1_793_880_000_123_456_789, MAX_INT - 1, MAX_INT,
    MAX_INT + 1, 10_413_792_000 * S + 7, MAX_TIME_NS - 1, MAX_TIME_NS,
]  # fmt: skip


@pytest.mark.parametrize("ns", TIMES)
def test_times_of_the_range_are_kept_to_the_nanosecond(ns: int) -> None:
    assert bounds.time_ns(ns) == ns
    assert MIN_INT <= bounds.stored_time(ns) <= MAX_INT
    assert bounds.loaded_time(bounds.stored_time(ns)) == ns


def test_no_two_times_are_stored_alike() -> None:
    assert len({bounds.stored_time(ns) for ns in TIMES}) == len(TIMES)


@pytest.mark.parametrize(
    ("ns", "kept"),
    [
        (MIN_TIME_NS - 1, MIN_TIME_NS),
        (-11_644_473_600 * S, MIN_TIME_NS),  # 1601-01-01
        (MAX_TIME_NS + 1, MAX_TIME_NS),
        (253_402_300_799 * S + 5, MAX_TIME_NS),  # 9999-12-31
        (2**63 * S, MAX_TIME_NS),
        (-(2**63) * S, MIN_TIME_NS),
    ],
)
def test_times_beyond_are_clamped_as_ext4_does(ns: int, kept: int) -> None:
    assert bounds.time_ns(ns) == kept
    assert bounds.loaded_time(bounds.stored_time(ns)) == kept


@pytest.mark.parametrize("stored", [MIN_INT, MIN_TIME_NS - 1, MIN_TIME_NS, 0, MAX_INT])
def test_whatever_is_stored_is_loaded_within_the_range(stored: int) -> None:
    assert MIN_TIME_NS <= bounds.loaded_time(stored) <= MAX_TIME_NS


@pytest.mark.parametrize(("number", "kept"), [(-1, 0), (0, 0), (MAX_INT, MAX_INT), (MAX_INT + 1, MAX_INT)])
def test_totals_saturate(number: int, kept: int) -> None:
    assert bounds.total(number) == kept


def test_ranges_of_files() -> None:
    assert bounds.end_of(MAX_INT - 1, 1) == MAX_INT
    with pytest.raises(FileTooLarge):
        bounds.end_of(MAX_INT, 1)
    for offset, length in ((-1, 5), (5, -1)):
        with pytest.raises(InvalidArgument):
            bounds.end_of(offset, length)
