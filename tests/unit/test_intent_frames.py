"""How entries of the intent log stand in a file, and are read again, by this version and by others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recfs.catalogue.intents.frames import HEAD, Reader, described, frame, frames
from recfs.core.life import Cause, Life, Status
from recfs.core.model import Kind, State
from recfs.ports.batch import Batch
from recfs.ports.intents import FIELDS, ROWS, TOTALS, applied_in, mark_of
from recfs.ports.rows import (
    AccountRow,
    EventRow,
    GarbageRow,
    JournalRow,
    LocalCopy,
    MediaRow,
    NodeRow,
    ObjectRow,
    Placement,
    RecordingRow,
    SweepRow,
    TrashRow,
    UnansweredRow,
)

EPOCH = 0x1234_5678_9ABC_DEF0
NODE = NodeRow(
    7, 1, b"\xff name", Kind.FILE, 0o644, 1, 2, 3, 0, -5, 2**62, 6, State.SEALING, b"s" * 32, None, None, 0, 1, 1,
    Placement("ab", 12, 3, 0, b"n", 1),
)  # fmt: skip
LINK = NODE._replace(ino=8, kind=Kind.SYMLINK, state=None, target=b"t", placement=Placement())
TRASH = TrashRow(3, 7, Kind.DIR, b"p", 1, None, None, 0, 0, 0, 0, 0, 1)
WHOLE: dict[str, list[Any]] = {
    "removed": [1, 2], "emptied": [(1, 2, 3)], "nodes": [NODE, LINK], TOTALS: [(1, 2**63 - 1, 9)],
    "accounts": [AccountRow("5", 1, 2, "2026-12", 0, None, 7, None, None, 1, 2, 0o700)],
    "garbage": [GarbageRow(1, 2, Kind.FILE, b"p", 3, b"x", b"y", 1, 2, 3, 4, "st", None, None, 5, 6, None, 7)],
    "purged": [4], "xattrs": [(7, b"user.a", b"1"), (7, b"user.b", None)], "whiteouts": [(1, b"n", True)],
    "views": [(9, 8)], "objects_gone": [5],
    "objects": [ObjectRow(7, "k\udcff", "e", 1, b"s", b"m", 2, "STANDARD", 3, LocalCopy(1, 2, 3, 4, 5))],
    "journal": [JournalRow(1, "upload", 7, "k", "", "", 1, 0, 0, 0, "", 0)], "journal_done": [2],
    "unanswered": [UnansweredRow("k", 1, None)], "answered": ["l"],
    "sweeps": [SweepRow(1, "temp", 1, 2, 3, "done", "", 0)], "sweeps_gone": [8],
    "recordings": [RecordingRow(9, Life(Status.EXPIRED, 1, expired_by=Cause.RULE, note="n"))],
    "media": [MediaRow(7, b"s", "video", "whole")], "trash": [TRASH], "trash_gone": [6],
    "events": [EventRow(1, 2, "committed", 7, b"p", b"w", 3, b"s", "d")], "events_gone": [3], "meta": [("a", "b")],
}  # fmt: skip


def through(entry: dict[str, list[Any]], number: int = 1) -> bytes:
    ((found, body),) = frames(b"".join(frame(EPOCH, number, entry)), EPOCH)
    assert found == number
    return body


def test_every_field_of_a_batch_comes_back_as_it_was() -> None:
    """Equal, and of the same types: enumerations and rows within rows as well."""
    assert set(WHOLE) == set(FIELDS)
    assert set(FIELDS) - {TOTALS} == set(Batch.__dataclass_fields__)
    batch, totals = Reader(described(EPOCH)).entry(through(WHOLE))
    assert list(totals) == WHOLE[TOTALS]
    for name in set(FIELDS) - {TOTALS, "meta"}:
        found = getattr(batch, name)
        assert found == WHOLE[name], name
        assert [type(each) for each in found] == [type(each) for each in WHOLE[name]]
    assert batch.meta == {"a": "b"}
    assert [type(row.kind) for row in batch.nodes] == [Kind, Kind]
    assert type(batch.nodes[0].state) is State
    assert type(batch.nodes[0].placement) is Placement
    assert type(batch.objects[0].copy) is LocalCopy
    assert (type(batch.recordings[0].life.status), type(batch.recordings[0].life.expired_by)) == (Status, Cause)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.data())
def test_whatever_the_end_of_a_file_is_what_is_whole_before_it_is_read(names: list[bytes], data: st.DataObject) -> None:
    parts = [b"".join(frame(EPOCH, number, {"removed": [name]})) for number, name in enumerate(names, 1)]
    content = b"".join(parts)
    harm = data.draw(st.integers(0, len(content) - 1))
    whole = sum(sum(map(len, parts[: n + 1])) <= harm for n in range(len(parts)))
    torn = bytearray(content)
    torn[harm] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(torn), content[:harm], content[:harm] + bytes(100)):
        found = [number for number, _ in frames(damaged, EPOCH)]
        assert found[:whole] == list(range(1, whole + 1))
        assert len(found) in (whole, whole + (damaged[:harm] + damaged[harm:] == content))


def test_entries_of_another_epoch_are_not_seen() -> None:
    content = b"".join(frame(EPOCH, 1, {"removed": [1]}))
    assert list(frames(content, EPOCH + 1)) == []
    assert list(frames(content + bytes(HEAD.size), EPOCH)) == [(1, through({"removed": [1]}))]


def test_a_column_that_came_since_has_its_default_and_one_that_went_is_left_out() -> None:
    facts = json.loads(described(EPOCH))
    facts["rows"]["events"] = ["gone", *facts["rows"]["events"][:-1]]  # `detail` came since
    body = through({"events": [("x", *WHOLE["events"][0][:-1])]})
    batch, _ = Reader(json.dumps(facts)).entry(body)
    assert batch.events == [WHOLE["events"][0]._replace(detail="")]


@pytest.mark.parametrize(
    "entry",
    [
        {"events": [(1, 2)]}, {"nodes": [NODE._replace(kind="door")]}, {"what": [1]}, {"nodes": 5}, {"meta": [1]},
        {"nodes": [NODE._replace(placement=None)]},
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_so(entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cannot be read|is not a valid|zip\(\) argument"):
        Reader(described(EPOCH)).entry(through(entry))


@pytest.mark.parametrize("text", ["", "no", "[]", "1", "{}", '{"epoch": 5, "rows": {}}', '{"epoch": "f", "rows": 1}'])
def test_a_description_that_says_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Reader(text)


@pytest.mark.parametrize("value", [1 << 64, -(1 << 64), object(), 1j])
def test_a_value_that_has_no_form_is_refused(value: Any) -> None:
    with pytest.raises((OverflowError, TypeError, ValueError)):
        frame(EPOCH, 1, {"removed": [value]})


def test_a_mark_goes_with_the_count_of_its_batch() -> None:
    facts = {"intents": "…", "generation": "7", "intents_applied": mark_of(12, {"generation": "7"})}
    assert applied_in(facts) == 12
    assert applied_in(facts | {"generation": "8"}) is None
    assert applied_in({"intents_applied": "12 0"}) is None
    assert applied_in(facts | {"intents_applied": "x 7"}) is None
    assert applied_in({}) is None


def test_each_row_of_the_port_is_in_the_log() -> None:
    assert set(ROWS) - {"placement", "copy", "life"} <= set(Batch.__dataclass_fields__)
