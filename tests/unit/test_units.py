"""core/units.py: sizes and durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.units import (
    MAX_DURATION_S,
    MAX_SIZE_BYTES,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10 GiB", 10 * 1024**3),
        ("500MB", 500_000_000),
        ("1kB", 1000),
        ("1 kib", 1024),
        ("2 TB", 2 * 10**12),
        ("3PiB", 3 * 1024**5),
        ("0", 0),
        ("4096", 4096),
        (" 7 B ", 7),
        ("0.5 KiB", 512),
        ("1.4 GiB", 1_503_238_553),  # 1503238553.6, rounded down
        (0, 0),
        (MAX_SIZE_BYTES, MAX_SIZE_BYTES),
        (str(MAX_SIZE_BYTES), MAX_SIZE_BYTES),
    ],
)
def test_parse_size(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10 GiX", "unknown unit of size 'GiX'.*GiB"),
        ("10 Gb/s", "not a size"),
        ("ten GiB", "not a size"),
        ("", "not a size"),
        ("-1 GiB", "not a size"),
        ("1e9", "unknown unit of size 'e'|not a size"),
        ("1,5 GiB", "not a size"),
        ("1.5", "whole number"),
        ("0.1 B", "whole number"),
        ("٣ GiB", "not a size"),
        ("9" * 5000, "not a size"),
        (-1, "negative"),
        (MAX_SIZE_BYTES + 1, "larger than any file"),
        ("9000 PiB", "larger than any file"),
        (True, "not True"),
        (1.5, "not 1.5"),
        (None, "not None"),
        (["1"], "such as"),
    ],
)
def test_parse_size_refuses_and_says_what_it_takes(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_size(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("24h", 86_400.0),
        ("100ms", 0.1),
        ("1d", 86_400.0),
        ("2 w", 1_209_600.0),
        ("5m", 300.0),
        ("5 min", 300.0),
        ("1h 30m", 5400.0),
        ("1h30m5.006s", 5405.006),
        ("0.5s", 0.5),
        ("30S", 30.0),
        ("90", 90.0),
        ("0s", 0.0),
        (0, 0.0),
        (1.5, 1.5),
        (MAX_DURATION_S, MAX_DURATION_S),
    ],
)
def test_parse_duration(value: str | float, seconds: float) -> None:
    result = parse_duration(value)
    assert result == seconds
    assert type(result) is float


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("5 fortnights", "unknown unit of time 'fortnights'.*ms, s, m, h"),
        ("1h 30", "no unit after 30"),
        ("30 1h", "no unit after 30"),
        ("5µs", "unknown unit"),
        ("soon", "not a duration"),
        ("", "not a duration"),
        ("-5s", "not a duration"),
        ("1h, 5m", "not a duration"),
        ("9" * 5000 + "s", "not a duration"),
        ("36501d", "longer than 36500d"),
        (10**400, "longer than"),
        (-0.1, "negative"),
        (float("nan"), "undefined"),
        (float("inf"), "longer than"),
        (True, "not True"),
        (None, "not None"),
    ],
)
def test_parse_duration_refuses_and_says_what_it_takes(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_duration(value)


@pytest.mark.parametrize(
    ("size", "text", "exact"),
    [
        (0, "0 B", "0 B"),
        (1023, "1023 B", "1023 B"),
        (1024, "1 KiB", "1 KiB"),
        (1536, "1.5 KiB", "1536 B"),
        (1024**2 - 1, "1 MiB", "1048575 B"),
        (10 * 1024**3, "10 GiB", "10 GiB"),
        (100 * 1024**3, "100 GiB", "100 GiB"),
        (2 * 1024**6, "2048 PiB", "2048 PiB"),
        (-1536, "-1.5 KiB", "-1536 B"),
    ],
)
def test_format_size(size: int, text: str, exact: str) -> None:
    assert format_size(size) == text
    assert format_size(size, exact=True) == exact


@pytest.mark.parametrize(
    ("seconds", "text", "exact"),
    [
        (0, "0s", "0s"),
        (0.0004, "0.4ms", "0ms"),
        (0.1, "100ms", "100ms"),
        (0.9999, "1s", "1s"),
        (5.26, "5.2s", "5.26s"),
        (59.97, "59.9s", "59.97s"),
        (60, "1m", "1m"),
        (3725, "1h 2m", "1h 2m 5s"),
        (86_400 + 5, "1d", "1d 5s"),
        (93_605.006, "1d 2h", "1d 2h 5.006s"),
        (-90, "-1m 30s", "-1m 30s"),
        (1_209_600, "14d", "14d"),
    ],
)
def test_format_duration(seconds: float, text: str, exact: str) -> None:
    assert format_duration(seconds) == text
    assert format_duration(seconds, exact=True) == exact


@given(st.integers(0, MAX_SIZE_BYTES))
def test_an_exact_size_comes_back(size: int) -> None:
    assert parse_size(format_size(size, exact=True)) == size


@given(st.integers(0, MAX_SIZE_BYTES - 1024**5))
def test_a_size_for_people_is_within_a_twentieth(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= size / 20 + 1


@given(st.integers(0, int(MAX_DURATION_S) * 1000))
def test_an_exact_duration_comes_back_to_the_millisecond(total_ms: int) -> None:
    assert round(parse_duration(format_duration(total_ms / 1000, exact=True)) * 1000) == total_ms


@given(st.floats(0.001, MAX_DURATION_S))
def test_a_duration_for_people_is_never_longer_and_within_a_tenth(seconds: float) -> None:
    shown = parse_duration(format_duration(seconds))
    assert seconds * 0.9 - 0.001 <= shown <= seconds + 0.001


@given(st.text() | st.integers() | st.floats() | st.none() | st.binary() | st.booleans())
def test_parsers_return_a_value_in_range_or_raise_value_error(value: object) -> None:
    for parse, top in ((parse_size, MAX_SIZE_BYTES), (parse_duration, MAX_DURATION_S)):
        try:
            result = parse(value)
        except ValueError:
            continue
        assert 0 <= result <= top
