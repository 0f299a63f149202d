"""Cursors, and the lines in which events and acts are told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.observing.cursors import Cursor, parse_since
from recfs.core.observing.lines import line_of, moment, named

NOW_NS = 1_793_880_000_000_000_000


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0123abcd-17", Cursor("0123abcd", 17)),
        (" 0123ABCD-0 ", Cursor("0123abcd", 0)),
        ("oldest", "oldest"),
        ("Now", "now"),
        ("2h", NOW_NS - 7200 * 10**9),
        ("36500d", 0),
        ("1970-01-01T00:00:01Z", 10**9),
        (str(NOW_NS), NOW_NS),
    ],
)
def test_where_to_begin(text: str, wanted: object) -> None:
    assert parse_since(text, NOW_NS) == wanted


@pytest.mark.parametrize("text", ["", "yesterday", "0123abcd-", "123-17", "0123abcd-1x", "never", "-5h"])
def test_what_is_no_beginning_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write a date"):
        parse_since(text, NOW_NS)


def test_a_cursor_is_what_it_was_read_from() -> None:
    cursor = Cursor("00ff00ff", 123456789012345678)
    assert parse_since(str(cursor), NOW_NS) == cursor


@given(st.binary(max_size=300))
def test_no_name_makes_two_lines_of_one_nor_gets_lost(name: bytes) -> None:
    line = line_of({"event": "committed", **named("path", name)})
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    exact = bytes.fromhex(told["path_hex"]) if "path_hex" in told else told["path"].encode("utf-8")
    assert exact == name
    assert set(told) <= {"event", "path", "path_hex"}


def test_times_are_told_to_the_microsecond() -> None:
    assert moment(NOW_NS + 123_456_789) == "2026-11-05T12:00:00.123456Z"
    assert moment(-1) == "1969-12-31T23:59:59.999999Z"
    assert moment(1 << 80) == f"{1 << 80} ns"
