"""What follows a run: verification, the end of the old tree, the way back, and the report. In a plain directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from recfs.core.migration.plan import Action, Entry, Plan
from recfs.core.migration.steps import Brought, Step
from recfs.errors import AccessDenied, DaemonNotRunning, InvalidArgument, MountError, NotFound, StoreError, TryAgain
from recfs.migration.run import hashing, html, recordings, rsync
from recfs.migration.run.batches import Settings
from recfs.migration.run.hashing import Meter, read
from recfs.migration.run.moving import Moving
from recfs.migration.run.report import Report, reported
from recfs.migration.run.state import seen
from recfs.migration.run.trees import Tree, seen_of
from tests.helpers.migrations import LONG_AGO_NS, Migration

if TYPE_CHECKING:
    from recfs.core.migration.steps import Seen

pytestmark = pytest.mark.needs("rsync")
SOURCE = "users/4/recordings/7/source.mp4"
AUDIO = "users/4/recordings/7/audio.mp3"


@pytest.fixture
def migration(tmp_path: Path) -> Migration:
    return Migration(tmp_path)


def brought(migration: Migration) -> Migration:
    """Two files and a duplicate, of which the files have come."""
    migration.file("x/film.mp4", b"film", SOURCE)
    migration.file("x/y/sound.mp3", b"sound", AUDIO)
    migration.file("z/sound.mp3", b"sound", AUDIO, Action.DUPLICATE)
    migration.run()
    return migration


# -- verification ---


def test_every_byte_is_compared_and_nothing_is_hashed_twice(
    migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = brought(migration).verify()
    assert (found.is_clean, found.saved.files, found.saved.size) == (True, 1, 5)
    assert migration.meter.done == 14
    read_again: list[bytes] = []

    def hashed(tree: Tree, path: bytes, meter: Meter) -> tuple[str, Seen]:
        read_again.append(path)
        return hashing.hashed(tree, path, meter)

    monkeypatch.setattr("recfs.migration.run.verifying.hashed", hashed)
    assert migration.verify().is_clean
    assert read_again == []
    (migration.old / "x/film.mp4").chmod(0o600)  # which changes its ctime alone
    assert migration.verify().is_clean
    assert read_again == [b"x/film.mp4"]


def rewritten(path: Path, data: bytes) -> None:
    """Other bytes of the same size, in place, with the time of before."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def test_a_source_that_was_rewritten_with_its_old_time_is_seen(migration: Migration) -> None:
    path = migration.old / "x/film.mp4"
    brought(migration).verify()
    rewritten(path, b"FILM")
    found = migration.clean()
    assert (found.is_clean, path.read_bytes()) == (False, b"FILM")
    migration.verify()
    assert "the source changed" in migration.problem("x/film.mp4")
    migration.run()
    assert migration.at(SOURCE).read_bytes() == b"FILM"
    rewritten(path, b"film")
    migration.run()
    assert migration.at(SOURCE).read_bytes() == b"film"
    migration.verify()
    assert migration.clean().is_clean


def test_rollback_leaves_what_has_a_source_that_was_rewritten(migration: Migration) -> None:
    brought(migration).verify()
    rewritten(migration.old / "x/film.mp4", b"FILM")
    (migration.old / "x/y/sound.mp3").chmod(0o600)
    assert not migration.undo().is_clean
    assert migration.there() == {SOURCE: b"film"}


def test_names_of_one_file_are_all_deleted(migration: Migration) -> None:
    """The end of one name changes the ctime of the others."""
    first = migration.file("a/film", b"film", SOURCE)
    for name, target, action in (("b", AUDIO, Action.COPY), ("c", SOURCE, Action.DUPLICATE)):
        os.link(first, migration.old / name)
        entry = Entry(action, 4, os.fsencode(target), os.fsencode(name), "another name")
        migration.plan.entries.append(entry)
    migration.run()
    migration.verify()
    assert migration.clean().is_clean
    assert migration.left() == set()


def test_a_state_of_before_ctimes_were_kept_goes_on(migration: Migration) -> None:
    brought(migration).verify()
    path = migration.base / "plan.state"
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executescript("ALTER TABLE files DROP COLUMN ctime_ns; PRAGMA user_version = 1;")
    migration.run()
    assert migration.verify().is_clean
    row = migration.row("x/film.mp4")
    assert row.seen == seen_of((migration.old / "x/film.mp4").stat())
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 3")
    with pytest.raises(StoreError, match="newer version"):
        migration.run()


def test_the_size_is_looked_at_before_any_byte_of_a_duplicate(migration: Migration) -> None:
    brought(migration)
    os.truncate(migration.old / "z/sound.mp3", 1 << 42)
    found = migration.verify()
    assert (found.is_clean, found.problem_files) == (False, 1)
    assert "others" in migration.problem("z/sound.mp3")


def test_a_file_that_grows_without_end_is_read_as_far_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "grows"
    path.write_bytes(b"1234")

    class Growing(Meter):
        def add(self, size: int) -> None:
            super().add(size)
            with path.open("ab") as file:
                file.write(b"x" * size)

    meter = Growing()
    with Tree(os.fsencode(tmp_path)) as tree, pytest.raises(TryAgain):
        hashing.hashed(tree, b"grows", meter)
    assert meter.done == 4


def test_bytes_that_differ_are_never_verified(migration: Migration) -> None:
    brought(migration)
    migration.answer = lambda tree, target: "0" * 64 if target.endswith(b"mp4") else read(tree, target)
    found = migration.verify()
    assert not found.is_clean
    assert migration.row("x/film.mp4").step is Step.COPIED
    assert "others" in migration.problem("x/film.mp4")
    assert migration.row("x/y/sound.mp3").step is Step.VERIFIED
    migration.answer = read
    assert migration.verify().is_clean
    migration.answer = lambda tree, target: "0" * 64
    migration.verify()
    assert migration.row("x/film.mp4").step is Step.COPIED


def test_bytes_that_were_found_to_differ_are_compared_by_the_next_run(migration: Migration) -> None:
    brought(migration)
    path = migration.at(SOURCE)
    path.write_bytes(b"FILM")
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    migration.run()
    assert not migration.verify().is_clean
    migration.run()
    assert (path.read_bytes(), "--replace" in migration.problem("x/film.mp4")) == (b"FILM", True)
    migration.settings = Settings(replace=True)
    migration.run()
    assert migration.verify().is_clean


def test_a_target_of_which_recfs_has_no_checksum_is_not_verified(migration: Migration) -> None:
    brought(migration).answer = lambda tree, target: None
    assert migration.verify().problem_files == 3
    assert migration.row("x/film.mp4").step is Step.COPIED


def test_a_source_that_changed_since_is_not_verified(migration: Migration) -> None:
    brought(migration)
    migration.file("x/film.mp4", b"FILM", SOURCE, mtime_ns=LONG_AGO_NS + 1)
    assert not migration.verify().is_clean
    assert "run it again" in migration.problem("x/film.mp4")
    migration.run()
    assert migration.verify().is_clean


def test_a_duplicate_that_differs_is_told(migration: Migration) -> None:
    brought(migration)
    migration.file("z/sound.mp3", b"other", AUDIO)
    found = migration.verify()
    assert (found.is_clean, found.saved.files) == (False, 0)
    migration.clean()
    assert (migration.old / "z/sound.mp3").read_bytes() == b"other"


def test_a_duplicate_without_its_file_is_not_verified(migration: Migration) -> None:
    brought(migration)
    migration.plan.entries = [entry for entry in migration.plan.entries if entry.action is not Action.COPY]
    assert not migration.verify().is_clean
    migration.clean()
    assert (migration.old / "z/sound.mp3").exists()


def test_a_mount_that_is_gone_ends_a_verification(migration: Migration) -> None:
    brought(migration)

    def check() -> None:
        raise MountError("gone")

    def ask(tree: object, target: bytes) -> str:
        raise OSError(107, "not connected")

    migration.destination = dataclasses.replace(migration.destination, ask=ask)
    assert migration.verify().problem_files == 3
    migration.destination = dataclasses.replace(migration.destination, check=check)
    with pytest.raises(MountError):
        migration.verify()


# -- cleanup ---


def test_cleanup_deletes_what_was_verified_and_directories_left_empty(migration: Migration) -> None:
    brought(migration).verify()
    (migration.old / "z" / "mine").write_bytes(b"1")
    (migration.old / "empty").mkdir()
    found = migration.clean()
    assert (found.is_clean, migration.left()) == (True, {"z", "z/mine", "empty"})
    assert set(migration.there()) == {SOURCE, AUDIO}
    assert migration.clean().is_clean
    assert migration.verify().is_clean
    assert migration.run().stopped is None


def test_cleanup_leaves_what_was_not_verified(migration: Migration) -> None:
    brought(migration)
    found = migration.clean()
    assert not found.is_clean
    assert {"x/film.mp4", "x/y/sound.mp3", "z/sound.mp3"} <= migration.left()


@pytest.mark.parametrize("how", ["bytes", "time", "inode", "link", "directory link"])
def test_cleanup_looks_at_each_source_once_more(migration: Migration, how: str) -> None:
    brought(migration).verify()
    path, beside = migration.old / "x/film.mp4", migration.base / "beside"
    if how == "bytes":
        path.write_bytes(b"longer than before")
    elif how == "time":
        os.utime(path, ns=(1, 1))
    elif how == "inode":
        shutil.copy2(path, beside)
        beside.rename(path)
    elif how == "link":
        path.rename(beside)
        path.symlink_to(beside)
    else:
        (migration.old / "x").rename(beside)
        (migration.old / "x").symlink_to(beside)
    found = migration.clean()
    assert not found.is_clean
    assert os.path.lexists(path)
    assert how not in ("link", "directory link") or beside.exists()
    assert how != "directory link" or (beside / "y/sound.mp3").exists()


def test_cleanup_asks_each_target_once_more(migration: Migration) -> None:
    brought(migration).verify()
    migration.at(SOURCE).write_bytes(b"gone bad")
    migration.at(AUDIO).unlink()
    assert migration.clean().problem_files == 3
    assert {"x/film.mp4", "x/y/sound.mp3", "z/sound.mp3"} <= migration.left()


def test_cleanup_never_touches_what_was_taken_out_of_the_plan(migration: Migration) -> None:
    brought(migration).verify()
    migration.plan.entries = [entry for entry in migration.plan.entries if entry.source != b"x/film.mp4"]
    assert migration.clean().is_clean
    assert migration.left() == {"x", "x/film.mp4"}


def test_a_cleanup_that_was_killed_goes_on(migration: Migration) -> None:
    brought(migration).verify()
    (migration.old / "x/film.mp4").unlink()  # and nothing was written down
    found = migration.clean()
    assert (found.is_clean, migration.left()) == (True, set())


def test_a_disk_below_the_old_tree_that_is_not_mounted_is_not_taken_for_deleted(migration: Migration) -> None:
    brought(migration).verify()
    (migration.old / "x").rename(migration.base / "unmounted")
    found = migration.clean()
    assert (found.is_clean, migration.row("x/film.mp4").step) == (False, Step.COPIED)
    (migration.base / "unmounted").rename(migration.old / "x")
    migration.verify()
    assert migration.clean().is_clean


def test_what_comes_to_the_path_of_a_deleted_source_is_a_new_file(migration: Migration) -> None:
    brought(migration).verify()
    assert migration.clean().is_clean
    migration.file("x/film.mp4", b"new film", SOURCE)
    migration.file("x/y/sound.mp3", b"sound", AUDIO)
    migration.file("z/sound.mp3", b"no sound", AUDIO, Action.DUPLICATE)
    found = migration.clean()
    assert (found.is_clean, found.problem_files) == (False, 3)
    assert "run it again" in migration.problem("x/film.mp4")
    migration.run()
    assert "--replace" in migration.problem("x/film.mp4")
    assert migration.there() == {SOURCE: b"film", AUDIO: b"sound"}
    assert not migration.verify().is_clean
    assert "others" in migration.problem("z/sound.mp3")
    migration.clean()
    assert migration.left() >= {"x/film.mp4", "z/sound.mp3"}
    migration.settings = Settings(replace=True)
    migration.run()
    assert migration.at(SOURCE).read_bytes() == b"new film"


def test_verify_and_run_see_by_themselves_what_came_to_a_deleted_source(migration: Migration) -> None:
    brought(migration).verify()
    migration.clean()
    migration.file("x/film.mp4", b"new film", SOURCE)
    assert not migration.verify().is_clean
    assert "not copied yet" in migration.problem("x/film.mp4")
    migration.at(SOURCE).unlink()
    assert migration.run().stopped is None
    assert migration.at(SOURCE).read_bytes() == b"new film"
    assert migration.report().is_clean


def test_a_run_misses_the_only_copy(migration: Migration) -> None:
    brought(migration).verify()
    migration.clean()
    migration.at(AUDIO).unlink()
    migration.run()
    assert "nothing is at the target any more" in migration.problem("x/y/sound.mp3")
    migration.verify()
    migration.at(AUDIO).write_bytes(b"sound")
    migration.run()
    assert migration.report().is_clean
    assert migration.verify().is_clean


def test_a_target_that_is_gone_at_cleanup_is_brought_again(migration: Migration) -> None:
    brought(migration).verify()
    migration.at(SOURCE).unlink()
    found = migration.clean()
    assert (found.is_clean, migration.row("x/film.mp4").step) == (False, Step.COPIED)
    migration.run()
    assert migration.verify().is_clean
    assert migration.clean().is_clean
    assert migration.there() == {SOURCE: b"film", AUDIO: b"sound"}


def test_a_target_that_goes_while_it_is_asked_for_is_not_taken_for_a_deleted_source(migration: Migration) -> None:
    brought(migration).verify()

    def gone(tree: Tree, target: bytes) -> str | None:
        raise FileNotFoundError(2, "No such file or directory")

    migration.answer = gone
    assert not migration.clean().is_clean
    assert {"x/film.mp4", "x/y/sound.mp3", "z/sound.mp3"} <= migration.left()
    assert {row.step for row in map(migration.row, ("x/film.mp4", "x/y/sound.mp3"))} == {Step.VERIFIED}


@pytest.mark.parametrize("is_mount", [True, False])
def test_a_source_that_is_the_target_by_another_way_is_never_deleted(migration: Migration, is_mount: bool) -> None:
    """As a bind mount of the store in the old tree has it; by the device of a mount, or by the file itself."""
    brought(migration).verify()
    path = migration.old / "x/film.mp4"
    if is_mount:
        device = path.stat().st_dev
        migration.destination = dataclasses.replace(migration.destination, device=device)
    else:
        path.unlink()
        os.link(migration.at(SOURCE), path)
        with migration.state() as state:
            row = state.row(b"x/film.mp4", os.fsencode(SOURCE))
            row.seen = seen_of(path.stat())
            state.put([row])
    for command in (migration.clean, migration.verify, migration.run, migration.clean):
        command()
        assert "in the store itself" in migration.problem("x/film.mp4"), command
    assert path.read_bytes() == migration.at(SOURCE).read_bytes() == b"film"


# -- rollback ---


def test_rollback_takes_back_what_was_brought_and_nothing_else(migration: Migration) -> None:
    migration.at("users/4/recordings/7").mkdir(parents=True)
    migration.at("users/4/recordings/7/audio.mp3").write_bytes(b"sound")
    migration.file("deep", b"1", "users/4/recordings/8/transcription/a/master.json")
    brought(migration).verify()
    found = migration.undo()
    assert found.is_clean
    assert migration.there() == {AUDIO: b"sound"}
    assert not migration.at("users/4/recordings/8").exists()
    assert {"x/film.mp4", "x/y/sound.mp3", "z/sound.mp3", "deep"} <= migration.left()
    assert (found.saved.files, migration.undo().is_clean) == (1, True)
    migration.run()
    assert migration.verify().is_clean


def test_rollback_leaves_what_somebody_changed(migration: Migration) -> None:
    brought(migration).verify()
    migration.at(SOURCE).write_bytes(b"edited")
    (migration.at(SOURCE).parent / "notes").write_bytes(b"1")
    found = migration.undo()
    assert (found.is_clean, found.problem_files) == (False, 1)
    assert set(migration.there()) == {SOURCE, "users/4/recordings/7/notes"}


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_rollback_leaves_what_has_no_source_any_more(migration: Migration, how: str) -> None:
    brought(migration)
    if how == "gone":
        (migration.old / "x/film.mp4").unlink()
    else:
        migration.file("x/film.mp4", b"FILM", SOURCE, mtime_ns=LONG_AGO_NS + 1)
    assert not migration.undo().is_clean
    assert set(migration.there()) == {SOURCE}


def test_rollback_leaves_what_was_cleaned_and_what_was_replaced(migration: Migration) -> None:
    migration.settings = Settings(replace=True)
    migration.at(SOURCE).parent.mkdir(parents=True)
    migration.at(SOURCE).write_bytes(b"before")
    brought(migration)
    migration.plan.entries = [entry for entry in migration.plan.entries if entry.source != b"x/film.mp4"]
    migration.verify()
    migration.clean()
    found = migration.undo()
    assert (found.is_clean, set(migration.there())) == (False, {SOURCE, AUDIO})
    assert "another file" in migration.problem("x/film.mp4")
    assert "deleted" in migration.problem("x/y/sound.mp3")


def test_rollback_takes_back_the_beginning_of_a_file(migration: Migration) -> None:
    migration.file("a", b"0123456789", SOURCE)
    script = migration.base / "scripted"
    script.write_text('#!/bin/bash\nprintf 01234 > "${@: -1}"' + SOURCE + "\nkill -9 $$\n")
    script.chmod(0o755)
    migration.run(options=rsync.Options(str(script)))
    assert migration.there() == {SOURCE: b"01234"}
    assert migration.undo().is_clean
    assert list(migration.store.iterdir()) == []


# -- moving ---


def test_moved_files_are_the_sources_themselves_and_come_back(migration: Migration) -> None:
    migration.at_home()
    path = migration.file("x/film.mp4", b"film", SOURCE)
    duplicate = migration.file("z/film.mp4", b"", SOURCE, Action.DUPLICATE)
    duplicate.unlink()
    os.link(path, duplicate)
    inode = path.stat().st_ino
    migration.move()
    found = migration.at(SOURCE).stat()
    assert (found.st_ino, found.st_nlink, migration.left()) == (inode, 1, {"x", "z"})
    assert migration.row("x/film.mp4").brought is Brought.MOVED
    migration.move()
    assert migration.verify().is_clean
    assert migration.undo().is_clean
    assert (path.stat().st_ino, duplicate.stat().st_ino, path.stat().st_nlink) == (inode, inode, 2)
    assert migration.there() == {}


def test_moved_files_are_cleaned_by_their_directories(migration: Migration) -> None:
    migration.at_home()
    migration.file("x/film.mp4", b"film", SOURCE)
    migration.move()
    migration.verify()
    assert migration.clean().is_clean
    assert (migration.left(), migration.there()) == (set(), {SOURCE: b"film"})


def test_a_move_replaces_nothing(migration: Migration) -> None:
    migration.at_home()
    migration.file("a", b"mine", SOURCE)
    migration.file("b", b"same", AUDIO)
    migration.at(SOURCE).parent.mkdir(parents=True)
    migration.at(SOURCE).write_bytes(b"user")
    migration.at(AUDIO).write_bytes(b"same")
    migration.move()
    assert migration.there() == {SOURCE: b"user", AUDIO: b"same"}
    assert migration.left() == {"a", "b"}
    assert "other bytes" in migration.problem("a")
    assert migration.row("b").brought is Brought.THERE


def test_what_comes_to_the_path_of_a_moved_source_stays_and_is_told(migration: Migration) -> None:
    migration.at_home()
    migration.file("a", b"film", SOURCE)
    migration.move()
    path = migration.file("a", b"other", SOURCE)
    for command in (migration.move, migration.run, migration.verify):
        command()
        assert "came to the path" in migration.problem("a"), command
        assert (path.read_bytes(), migration.there()) == (b"other", {SOURCE: b"film"})
    assert not migration.clean().is_clean
    path.unlink()
    migration.move()
    assert migration.report().is_clean
    migration.file("a", b"other", SOURCE)
    migration.run()
    path.unlink()
    migration.run()
    assert migration.report().is_clean
    assert migration.undo().is_clean
    assert path.read_bytes() == b"film"


@pytest.mark.parametrize("died", ["before", "between", "after"])
def test_a_move_that_was_killed_goes_on(migration: Migration, died: str) -> None:
    migration.at_home()
    path = migration.file("a", b"film", SOURCE)
    inode = path.stat().st_ino
    with migration.state() as state:
        row = state.row(b"a", os.fsencode(SOURCE))
        found = path.stat()
        row.step, row.brought = Step.BEGUN, Brought.MOVED
        row.seen = seen_of(found)
        state.put([row])
    migration.at(SOURCE).parent.mkdir(parents=True)
    if died != "before":
        os.link(path, migration.at(SOURCE))
    if died == "after":
        path.unlink()
    migration.move()
    assert (migration.at(SOURCE).stat().st_ino, migration.left()) == (inode, set())
    assert (migration.row("a").step, migration.problem("a")) == (Step.COPIED, "")


def test_a_moved_file_with_other_names_is_told(migration: Migration) -> None:
    migration.at_home()
    path = migration.file("a", b"film", SOURCE)
    os.link(path, migration.base / "another")
    migration.move()
    assert "hard links" in migration.problem("a")
    (migration.base / "another").unlink()
    migration.move()
    assert migration.problem("a") == ""


def test_a_move_takes_one_file_system_and_a_home_tree(migration: Migration) -> None:
    with migration.state() as state, pytest.raises(InvalidArgument, match="--home"):
        Moving(Plan(), os.fsencode(migration.old), state, migration.destination, Meter())
    migration.at_home()
    other = next((path for path in ("/dev/shm", "/run") if os.stat(path).st_dev != migration.base.stat().st_dev), None)
    assert other is not None
    with migration.state() as state, pytest.raises(InvalidArgument, match="different file systems"):
        Moving(Plan(), os.fsencode(other), state, migration.destination, Meter())


def test_what_is_moved_back_is_what_was_moved(migration: Migration) -> None:
    migration.at_home()
    migration.file("a", b"film", SOURCE)
    migration.file("b", b"sound", AUDIO)
    migration.move()
    migration.at(SOURCE).write_bytes(b"edited")
    migration.file("b", b"new", AUDIO)
    found = migration.undo()
    assert (found.problem_files, migration.there()) == (2, {SOURCE: b"edited", AUDIO: b"sound"})
    migration.destination = dataclasses.replace(migration.destination, is_home=False)
    migration.undo()
    assert "--home" in migration.problem("a")


# -- recordings ---


def test_expiry_is_carried_over_once_all_files_are_there(migration: Migration) -> None:
    migration.file("a", b"1", SOURCE)
    (migration.file("b", b"1", AUDIO)).unlink()
    told = {"row": 7, "expires": "2031-01-01T00:00:00Z"}
    migration.plan.made_of["recording users/4/recordings/7"] = json.dumps(told)
    migration.plan.made_of["recording users/4/recordings/9"] = json.dumps({"row": 9, "expires": "2031-01-01"})
    set_: list[tuple[str, str]] = []

    def carry() -> int:
        with migration.state() as state:
            return recordings.carry_expiry(migration.plan, state, lambda path, date: set_.append((path, date)))

    migration.run()
    assert carry() == 0
    migration.file("b", b"1", AUDIO)
    migration.run()
    assert (carry(), carry()) == (1, 0)
    assert set_ == [("users/4/recordings/7", "2031-01-01T00:00:00Z")]
    migration.verify()
    migration.undo()
    migration.run()
    assert carry() == 1


def test_a_recording_that_has_expired_at_no_date_expires_now() -> None:
    facts = {"row": 7, "status": "EXPIRED", "columns": {}}
    (found,) = recordings.told(Plan({"recording users/4/recordings/7": json.dumps(facts)}))
    assert found.expires == recordings.NOW
    facts["expires"] = "2031-01-01T00:00:00Z"
    (found,) = recordings.told(Plan({"recording users/4/recordings/7": json.dumps(facts)}))
    assert found.expires == facts["expires"]


def test_an_expiry_that_is_refused_is_told(migration: Migration) -> None:
    migration.file("a", b"1", SOURCE)
    migration.plan.made_of["recording users/4/recordings/7"] = json.dumps({"expires": "2031-01-01"})
    migration.run()

    def refuse(path: str, date: str) -> None:
        raise NotFound(f"{path}: there is no recording")

    with migration.state() as state:
        assert recordings.carry_expiry(migration.plan, state, refuse) == 0
    found = migration.report()
    assert (found.is_clean, len(found.recordings)) == (False, 1)

    def stopped(path: str, date: str) -> None:
        raise DaemonNotRunning("none")

    with migration.state() as state, pytest.raises(DaemonNotRunning):
        recordings.carry_expiry(migration.plan, state, stopped)


def test_a_line_of_a_recording_that_was_broken_is_named() -> None:
    for value in ("{", "[]", '{"columns": 3}'):
        with pytest.raises(InvalidArgument, match="recording users/4/recordings/7"):
            recordings.told(Plan({"recording users/4/recordings/7": value}))


# -- the report ---


def test_a_report_is_had_while_a_run_goes_on_and_begins_none(migration: Migration) -> None:
    with seen(migration.base / "plan") as state:
        assert list(state.rows()) == []
    assert not (migration.base / "plan.state").exists()
    brought(migration)
    with migration.state(), seen(migration.base / "plan") as state:
        assert reported("report", migration.plan, state).after.files == 2


def test_the_page_is_whole_by_itself_and_shows_odd_names(migration: Migration) -> None:
    brought(migration).verify()
    migration.file(os.fsdecode(b"<script>alert(1)</script>\xff"), b"1" * 50, "", Action.UNMATCHED)
    found = migration.report()
    text = html.page(found, "media.plan", "2026-11-30 09:00 UTC")
    assert "<script" not in text
    assert not re.search(r"(src|href)=|https?://|@import", text)
    svg = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    bars = [each for each in svg.iter("rect") if each.get("height") == "34"]
    widths = [float(each.get("width", "0")) for each in bars]
    # 9 bytes to be migrated, 5 of a duplicate, 50 unmatched; then 9 at their targets.
    assert [round(width / widths[0], 2) for width in widths] == [1.0, round(5 / 9, 2), round(50 / 9, 2), 1.0]
    assert sum(widths[:3]) == pytest.approx(710, abs=0.1)
    assert "duplicates saved" in text
    json.dumps(found.plain())


def test_the_page_of_nothing_is_a_page() -> None:
    assert html.page(Report("run"), "plan", "now").count("<svg") == 1


def test_what_lies_elsewhere_is_reached_by_no_link(migration: Migration) -> None:
    """Below what `--elsewhere` named when the plan was made, and no other; a link there leads nowhere."""
    top = migration.base / "else"
    for name in ("film", "mine"):
        (top / name).mkdir(parents=True)
        (top / name / "a").write_bytes(b"data")
        entry = Entry(Action.COPY, 4, b"users/4/recordings/7/" + name.encode(), os.fsencode(top / name / "a"), "row")
        migration.plan.entries.append(entry)
    secret = migration.base / "secret"
    secret.mkdir()
    (secret / "a").write_bytes(b"root's")
    migration.run()
    assert "below no --elsewhere" in migration.problem(str(top / "film/a"))
    migration.plan.made_of["elsewhere"] = json.dumps([str(top)])
    (top / "mine").rename(top / "mine.old")
    (top / "mine").symlink_to(secret)
    migration.run()
    assert migration.there() == {"users/4/recordings/7/film": b"data"}
    assert "symbolic link" in migration.problem(str(top / "mine/a"))
    migration.verify()
    migration.clean()
    assert not (top / "film/a").exists()
    assert (secret / "a").read_bytes() == b"root's"


@pytest.mark.parametrize("told", ["{}", "[1]", '["a"]', "[", '["\\\\q"]'])
def test_a_plan_whose_elsewhere_was_edited_away_is_refused(migration: Migration, told: str) -> None:
    migration.plan.made_of["elsewhere"] = told
    with pytest.raises(InvalidArgument, match="elsewhere"):
        migration.run()


def test_the_only_copy_is_missed(migration: Migration) -> None:
    migration.file("a", b"data", SOURCE)
    migration.run()
    assert migration.verify().is_clean
    assert migration.clean().is_clean
    assert migration.verify().is_clean
    migration.at(SOURCE).unlink()
    assert not migration.verify().is_clean
    assert "nothing is at the target any more" in migration.problem("a")
    assert not migration.report().is_clean
    migration.at(SOURCE).write_bytes(b"put back")
    assert migration.verify().is_clean


@pytest.mark.parametrize("name", ["plan.state", "plan.state.lock"])
@pytest.mark.parametrize(("mode", "uid"), [(0o666, 0), (0o620, 0), (0o600, 4711)])
def test_a_state_that_others_may_write_decides_nothing(migration: Migration, name: str, mode: int, uid: int) -> None:
    migration.file("a", b"data", SOURCE)
    with migration.state():
        path = migration.base / name
    path.chmod(mode)
    if uid and os.geteuid():
        pytest.skip("only root gives files away")
    if uid:
        os.chown(path, uid, uid)
    with pytest.raises(AccessDenied, match="decides what is copied"):
        migration.run()
    assert migration.there() == {}
