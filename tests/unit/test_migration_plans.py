"""The file of a plan: whole or not at all, for its owner alone, and nothing that people or runs made of it is lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from recfs.core.migration.plan import Action, Entry, Plan
from recfs.errors import Exists, InvalidArgument, IoFailure, NotFound
from recfs.migration.plans import is_edited, load, save, state_of

PLAN = Plan(
    {"old": "/srv/media", "recording users/4/recordings/7": '{"row": "7"}'},
    [
        Entry(Action.COPY, 5, b"users/4/recordings/7/source.mp4", b"user_4/video/unprocessed/\xff \t.mp4", "database"),
        Entry(Action.UNMATCHED, 1, b"", "user_4/x\u2028y.mp4".encode(), "no row names it"),
    ],
)


def test_a_plan_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    save(PLAN, path)
    found = load(path)
    assert found.entries == PLAN.entries
    assert {key: found.made_of[key] for key in PLAN.made_of} == PLAN.made_of
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["plan"]
    save(found, path)  # what was loaded may be saved again
    assert load(path).made_of == found.made_of


def test_a_plan_that_nobody_edited_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    save(PLAN, path)
    save(Plan({"old": "/srv"}, []), path)
    assert load(path).entries == []


def test_what_people_edited_is_not_overwritten_unless_they_say_so(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    save(PLAN, path)
    assert not is_edited(path)
    path.write_bytes(path.read_bytes().replace(b"unmatched", b"skip"))
    assert is_edited(path)
    edited = path.read_bytes()
    with pytest.raises(Exists, match=f"{path} was edited"):
        save(PLAN, path)
    assert path.read_bytes() == edited
    save(PLAN, path, force=True)
    assert load(path).entries == PLAN.entries


def test_a_plan_whose_run_has_begun_is_not_overwritten_and_its_state_stays(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    save(PLAN, path)
    state_of(path).write_bytes(b"how far it is")
    with pytest.raises(Exists, match=r"has begun \(plan\.state\)"):
        save(Plan(), path)
    assert load(path).entries == PLAN.entries
    save(Plan(), path, force=True)
    assert load(path).entries == []
    assert state_of(path).read_bytes() == b"how far it is"


def test_the_state_of_a_plan_that_is_gone_is_not_another_plans(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    save(PLAN, path)
    state_of(path).write_bytes(b"how far it is")
    path.unlink()
    with pytest.raises(Exists, match=r"has begun \(plan\.state\)"):
        save(Plan(), path)
    assert not path.exists()
    save(Plan(), path, force=True)


def test_a_pipe_in_the_place_of_a_plan_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan")
    with pytest.raises(InvalidArgument, match="plan is no regular file"):
        load(tmp_path / "plan")
    with pytest.raises(InvalidArgument, match="plan is no regular file"):
        save(PLAN, tmp_path / "plan", force=True)


def test_what_is_no_plan_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    path.write_bytes(b"SQLite format 3\0")
    with pytest.raises(Exists, match="no plan of a migration"):
        save(PLAN, path, force=True)
    assert path.read_bytes() == b"SQLite format 3\0"


def test_a_plan_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan"
    save(PLAN, path)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IoFailure, match="No space left"):
        save(Plan(), path)
    assert load(path).entries == PLAN.entries
    assert os.listdir(tmp_path) == ["plan"]


def test_errors_name_the_file_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    with pytest.raises(NotFound, match=f"{path}: there is no plan"):
        load(path)
    with pytest.raises(IoFailure, match=f"{tmp_path}: .*Is a directory"):
        load(tmp_path)
    save(PLAN, path)
    lines = path.read_bytes().split(b"\n")
    number = 1 + next(at for at, line in enumerate(lines) if line.startswith(b"copy"))
    good = lines[number - 1]
    for bad, told in (
        (good.replace(b"copy", b"move"), "'move' is no action"),
        (good.replace(b"\t", b"    "), "there are 1 fields"),
        ("copy\t1\tа\tб\tпо".encode("cp1251"), "byte 8 is no UTF-8"),
        (b"# " + b"x" * (5 << 20), "bytes"),
    ):
        lines[number - 1] = bad
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(InvalidArgument, match=f"{path}: line {number}: .*{told}"):
            load(path)


def test_what_editors_of_other_systems_make_of_a_plan_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    save(PLAN, path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load(path).entries == PLAN.entries
    with pytest.raises(Exists, match="was edited"):
        save(PLAN, path)
