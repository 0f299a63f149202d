"""core/generation.py: how catalogue and home tree stand to each other."""

from __future__ import annotations

import pytest

from recfs.core.generation import COUNT, ID, MARKED, Age, Mark, age_of

BOOT, OTHER_BOOT = "this", "another"
MARK = Mark("store", BOOT, count=7, durable=5, next_ino=100)


def facts(count: int, *, marked: int = 4, store: str = "store") -> dict[str, str]:
    return {ID: store, COUNT: str(count), MARKED: str(marked)}


@pytest.mark.parametrize(
    ("known", "mark", "boot", "age"),
    [
        (facts(7), MARK, BOOT, Age.SAME),
        (facts(8), MARK, BOOT, Age.SAME),  # died before the mark was set
        (facts(6), MARK, BOOT, Age.CATALOGUE_OLDER),
        (facts(6), MARK, OTHER_BOOT, Age.SAME),  # a power cut took the last of the catalogue's log
        (facts(4), MARK, OTHER_BOOT, Age.CATALOGUE_OLDER),
        ({}, MARK, BOOT, Age.CATALOGUE_OLDER),  # a backup by an earlier version
        (facts(9, marked=8), MARK, BOOT, Age.TREE_OLDER),
        (facts(7, store="other"), MARK, BOOT, Age.FOREIGN),
        (facts(7), None, BOOT, Age.UNKNOWN),
        ({ID: "store", COUNT: "7"}, None, BOOT, Age.SAME),  # no attributes on this file system
        ({}, None, BOOT, Age.SAME),
        ({COUNT: "nonsense"}, None, BOOT, Age.SAME),
    ],
)
def test_who_is_older(known: dict[str, str], mark: Mark | None, boot: str, age: Age) -> None:
    assert age_of(known, mark, boot) is age


def test_a_mark_is_read_as_it_was_written_and_anything_else_is_none() -> None:
    assert Mark.decode(MARK.encode()) == MARK
    for value in (None, b"", b"{}", b"7", b"[1]", b"\xff", b'{"store": 1}', MARK.encode().replace(b"7", b'"7"')):
        assert Mark.decode(value) is None
