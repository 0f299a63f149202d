"""What values of the platform's database mean."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from recfs.core.migration.oldtree import Slot
from recfs.core.migration.rows import Value, date_of, row_of, told_as
from recfs.errors import InvalidArgument

WHEN = datetime(2031, 5, 9, 12, tzinfo=UTC)
SECONDS = 1_936_094_400
JULIAN = 2_462_996.0
"""select julianday('2031-05-09 12:00:00')"""


@pytest.mark.parametrize(
    "value",
    [
        SECONDS,
        float(SECONDS),
        str(SECONDS),
        SECONDS * 1000,
        SECONDS * 1_000_000,
        SECONDS * 1_000_000_000,
        JULIAN,
        int(JULIAN),
        str(JULIAN),
        "2031-05-09 15:00:00+03:00",
    ],
)
def test_a_date_is_understood_however_it_is_written(value: Value) -> None:
    assert date_of(value) == WHEN


@pytest.mark.parametrize(
    "value", [0, 1, -SECONDS, 946_684_799, "20310509", 2031, 2_451_544.0, float("nan"), -1e300, float("-inf")]
)
def test_a_number_of_a_moment_before_2000_is_no_date(value: Value) -> None:
    with pytest.raises(ValueError, match="no date"):
        date_of(value)
    with pytest.raises(InvalidArgument, match=r"expire_at: .* is no date"):
        row_of({"id": 7, "user_id": 4, "expire_at": value})


def test_the_first_moments_that_numbers_mean() -> None:
    first = datetime(2000, 1, 1, tzinfo=UTC)
    assert date_of(946_684_800) == date_of(946_684_800_000) == date_of(2_451_544.5) == first
    assert date_of("1969-01-01") == datetime(1969, 1, 1, tzinfo=UTC)  # who writes a date means one


@pytest.mark.parametrize("value", [float("inf"), "infinity", "NULL", "null", "None"])
def test_what_expires_at_infinity_or_at_no_date_never_does(value: Value) -> None:
    assert date_of(value) is None


def test_a_text_that_is_longer_than_any_path_is_none() -> None:
    longest = "%D0" * 4_095
    assert row_of({"id": 7, "user_id": 4, "local_video_path": longest}).paths == {Slot.SOURCE: longest}
    with pytest.raises(InvalidArgument, match="local_video_path has 10,000,000 characters, more than any path: 'a/a/"):
        row_of({"id": 7, "user_id": 4, "local_video_path": "a/" * 5_000_000})


def test_an_id_is_told_as_one_text_whatever_type_it_has() -> None:
    assert [told_as(value) for value in (7, 7.0, "7", b"\x00\xff", None)] == ["7", "7", "7", "00ff", "None"]
