"""Backups of the catalogue: headers, when one is due, and which may go."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.core.upkeep.backups import (
    Contents,
    Header,
    Kept,
    header_of,
    is_due,
    newest,
    overdue,
    read_header,
    rotated,
    stem_of,
)  # fmt: skip

DAY = 86_400.0
DAY_NS = 86_400 * 10**9


def kept(generation: int, *, steady_ns: int = 0, damage: str | None = None) -> Kept:
    contents = Contents("0123456789abcdef", generation, "0006_placement", {"node": 9})
    header = Header(f"catalogue-01234567-{generation}.db", steady_ns, steady_ns, contents, 10, "aa", 10, "aa")
    return Kept(header, "/backup", damage)


def test_a_header_is_read_as_it_was_written() -> None:
    header = dataclasses.replace(kept(7).header, recipients=("age1x",), version="1.2")
    assert read_header(header.to_json()) == header
    assert header.is_sealed
    assert not kept(7).header.is_sealed


@given(st.binary())
def test_what_is_no_header_is_none(data: bytes) -> None:
    assert read_header(data) is None


@pytest.mark.parametrize("key", ["recfs_backup", "name", "contents", "size_bytes", "sha256", "recipients"])
def test_a_header_without_a_field_is_none(key: str) -> None:
    known = json.loads(kept(7).header.to_json())
    del known[key]
    assert read_header(json.dumps(known).encode()) is None


def test_a_header_of_another_format_is_none() -> None:
    known = json.loads(kept(7).header.to_json())
    assert read_header(json.dumps(known | {"recfs_backup": 2}).encode()) is None
    assert read_header(json.dumps([1]).encode()) is None


@pytest.mark.parametrize(
    "value", ["[" * 100_000, "Infinity", "1" * 5000, "1" * 30], ids=["deep", "infinite", "long", "large"]
)
@pytest.mark.parametrize("key", ["generation", "made_ns", "size_bytes"])
def test_a_header_with_a_value_that_nobody_wrote_is_none(key: str, value: str) -> None:
    text = kept(7).header.to_json().decode()
    odd = re.sub(rf'"{key}": \d+', f'"{key}": {value}', text)
    assert odd != text
    assert read_header(odd.encode()) is None


def test_names_sort_by_time_and_say_whose_they_are() -> None:
    assert stem_of("0123456789", 1_795_959_697 * 10**9) == "catalogue-01234567-20261129T134137Z"
    assert stem_of("", -5, 3) == "catalogue-new-19700101T000000Z-3"
    assert header_of("catalogue-a.db.age") == header_of("catalogue-a.db") == "catalogue-a.json"


def test_the_first_is_due_and_then_one_in_each_period() -> None:
    assert is_due(DAY, 5 * DAY_NS, [])
    assert not is_due(DAY, 5 * DAY_NS - 1, [kept(1, steady_ns=4 * DAY_NS)])
    assert is_due(DAY, 5 * DAY_NS, [kept(1, steady_ns=4 * DAY_NS)])
    assert is_due(DAY, 4 * DAY_NS, [kept(1, steady_ns=4 * DAY_NS, damage="gone")])
    assert not is_due(0, 5 * DAY_NS, []), "it is off"


def test_one_from_the_future_holds_nothing_up() -> None:
    """The catalogue was put back, and its clock with it."""
    assert not is_due(DAY, 4 * DAY_NS, [kept(1, steady_ns=4 * DAY_NS + 7)])
    assert is_due(DAY, 4 * DAY_NS, [kept(1, steady_ns=5 * DAY_NS)])


def test_it_is_told_when_two_periods_have_passed_without_a_good_one() -> None:
    assert overdue(DAY, 3 * DAY_NS, kept(1, steady_ns=DAY_NS)) is None
    told = overdue(DAY, 4 * DAY_NS, kept(1, steady_ns=DAY_NS))
    assert told is not None
    assert "is 3d old" in told
    assert overdue(0, 4 * DAY_NS, kept(1)) is None
    assert overdue(DAY, 4 * DAY_NS, None) is None


def test_the_newest_is_by_the_catalogues_own_count_and_not_by_a_clock() -> None:
    assert newest([kept(2, steady_ns=1), kept(1, steady_ns=5)]) == kept(2, steady_ns=1)
    assert newest([kept(2, damage="it has 1 byte"), kept(1)]) == kept(1)
    assert newest([]) is None


def test_those_beyond_the_newest_go() -> None:
    assert rotated([kept(n) for n in (3, 1, 2, 5, 4)], 2) == [kept(3), kept(1), kept(2)]
    assert rotated([kept(1), kept(2)], 7) == []


def test_damaged_ones_go_only_behind_enough_good_ones() -> None:
    bad = kept(2, damage="its file cannot be read")
    assert rotated([kept(1), bad, kept(3), kept(4)], 2) == [kept(1), bad]
    assert rotated([bad, kept(3)], 2) == [], "there are not enough good ones yet"
    assert rotated([kept(1), kept(9, damage="x")], 1) == []


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), unique_by=lambda each: each[0]), st.integers(1, 9))
def test_the_newest_good_one_never_goes(made: list[tuple[int, bool]], keep: int) -> None:
    all_of_them = [kept(n, damage=None if good else "damaged") for n, good in made]
    gone = rotated(all_of_them, keep)
    assert newest(all_of_them) not in gone
    left = [each for each in all_of_them if each not in gone and each.damage is None]
    assert len(left) == min(keep, sum(good for _, good in made))
