"""What a daemon writes down of its mount, and what others make of that when it has died."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from recfs.fuse import mounting
from recfs.fuse.mounting import KIND, Line, OwnMount, left_by

MOUNT = Line(71, b"0:39", b"/mnt/a b", KIND)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> list[Line]:
    """The mount table, and a kernel whose unique numbers are those of the table."""
    lines = [Line(30, b"8:1", b"/", "ext4"), MOUNT]
    monkeypatch.setattr(mounting, "_lines", lambda: lines)
    monkeypatch.setattr(mounting, "_unique_id", lambda point: 4711 if point.startswith(b"/mnt") else None)
    return lines


@pytest.fixture
def note(table: list[Line], tmp_path: Path) -> Path:
    own = OwnMount(Path("/mnt/a b"))
    own.identify()
    own.note(tmp_path / "mounted")
    return tmp_path / "mounted"


def test_it_is_found_where_it_is_by_now(note: Path, table: list[Line]) -> None:
    assert left_by(note) == Path("/mnt/a b")
    table[1] = MOUNT._replace(point=b"/mnt/renamed")
    assert left_by(note) == Path("/mnt/renamed")
    table[1] = MOUNT._replace(point=b"/elsewhere")  # the numbers of the table are another's by now
    assert left_by(note) is None
    del table[1]
    assert left_by(note) is None


def test_after_a_reboot_the_numbers_are_anothers(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting, "boot_id", lambda: "another")
    assert left_by(note) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"point": 1}', b"\xff"])
def test_a_note_that_makes_no_sense_is_none(note: Path, content: bytes) -> None:
    note.write_bytes(content)
    assert left_by(note) is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)])
def test_what_stands_in_its_place_is_left_alone(
    table: list[Line], tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "mounted")
    before = os.lstat(tmp_path / "mounted")
    own = OwnMount(Path("/mnt/a b"))
    own.identify()
    own.note(tmp_path / "mounted")
    assert left_by(tmp_path / "mounted") is None
    assert os.path.samestat(os.lstat(tmp_path / "mounted"), before)
