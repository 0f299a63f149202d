"""A run of a migration into a plain directory: what is copied, resumed, refused and told."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from recfs.core.migration.plan import Action
from recfs.core.migration.rsync_ends import Reach
from recfs.core.migration.steps import Brought, Step
from recfs.errors import InvalidArgument, IoFailure, MountError, NotFound, StoreError
from recfs.migration.run import hashing, rsync
from recfs.migration.run.batches import Settings
from recfs.migration.run.room import Room, room_of
from recfs.migration.run.state import opened
from recfs.migration.run.trees import Tree
from tests.helpers.migrations import LONG_AGO_NS, Migration

pytestmark = pytest.mark.needs("rsync")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root writes as others")
SOURCE = "users/4/recordings/7/source.mp4"
AUDIO = "users/4/recordings/7/audio.mp3"
OTHERS = "users/5/recordings/8/source.mp4"


@pytest.fixture
def migration(tmp_path: Path) -> Migration:
    return Migration(tmp_path)


def scripted(migration: Migration, script: str) -> rsync.Options:
    """A program in the place of rsync; "$@" are the arguments, $RSYNC is rsync itself."""
    path = migration.base / "scripted"
    path.write_text(f"#!/bin/bash\nRSYNC={shutil.which('rsync')}\nDEST=${{@: -1}}\n{script}\n")
    path.chmod(0o755)
    return rsync.Options(str(path))


def test_relative_paths_are_those_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rsync works in the store, and not where the plan's path is told from."""
    monkeypatch.chdir(tmp_path)
    migration = Migration(Path())
    migration.file("user_4/video/film.mp4", b"film", SOURCE)
    outcome = migration.run()
    assert (outcome.stopped, outcome.users) == (None, {})
    assert migration.at(SOURCE).read_bytes() == b"film"
    assert not list(tmp_path.glob("plan.state.farm*"))


def test_files_come_to_their_targets_with_time_and_mode(migration: Migration) -> None:
    migration.file("user_4/video/Перевод\n2.mp4", b"film" * 1000, SOURCE).chmod(0o640)
    migration.file(os.fsdecode(b"user_4/audio/a\xff\\#012.mp3"), b"", AUDIO)
    migration.file("user_4/x", b"odd", os.fsdecode(b"users/4/recordings/7/-x\n;\xff"))
    outcome = migration.run()
    assert (outcome.stopped, outcome.users) == (None, {})
    found = migration.at(SOURCE).stat()
    assert (migration.at(SOURCE).read_bytes(), found.st_mtime_ns) == (b"film" * 1000, LONG_AGO_NS)
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert migration.at(AUDIO).read_bytes() == b""
    assert (migration.at("users/4/recordings/7") / os.fsdecode(b"-x\n;\xff")).read_bytes() == b"odd"
    row = migration.row("user_4/video/Перевод\n2.mp4")
    assert (row.step, row.brought, row.problem) == (Step.COPIED, Brought.NEW, "")
    assert migration.meter.done == 4003
    assert not list(migration.base.glob("plan.state.farm*"))
    assert migration.report().is_clean


def test_directories_that_are_there_keep_mode_and_time(migration: Migration) -> None:
    migration.at("users/4/recordings").mkdir(parents=True)
    migration.at("users/4").chmod(0o2770)
    migration.at("users/4/recordings").chmod(0o711)
    migration.file("a", b"1", SOURCE)
    migration.run()
    assert stat.S_IMODE(migration.at("users/4").stat().st_mode) == 0o2770
    assert stat.S_IMODE(migration.at("users/4/recordings").stat().st_mode) == 0o711


def test_only_what_the_plan_moves_is_copied(migration: Migration) -> None:
    migration.file("a", b"1", SOURCE)
    migration.file("b", b"1", AUDIO, Action.ASIDE)
    migration.file("c", b"1", SOURCE, Action.DUPLICATE)
    for name, action in (("d", Action.SKIP), ("e", Action.UNMATCHED), ("f", Action.AMBIGUOUS)):
        migration.file(name, b"1", "", action)
    migration.run()
    assert set(migration.there()) == {SOURCE, AUDIO}
    found = migration.report()
    assert (found.left_files, found.is_clean) == (2, False)


def test_a_second_run_brings_only_what_changed(migration: Migration) -> None:
    migration.file("a", b"old", SOURCE)
    migration.file("b", b"same", AUDIO)
    migration.run()
    untouched = migration.at(AUDIO).stat()
    migration.file("a", b"new!", SOURCE, mtime_ns=LONG_AGO_NS + 5)
    log = migration.base / "log"
    migration.run(options=scripted(migration, f'tee {log} | $RSYNC "$@"'))
    assert migration.at(SOURCE).read_bytes() == b"new!"
    assert log.read_bytes() == os.fsencode(SOURCE) + b"\0"
    now = migration.at(AUDIO).stat()
    assert (now.st_ino, now.st_ctime_ns) == (untouched.st_ino, untouched.st_ctime_ns)


def test_other_bytes_at_a_target_stay_without_replace(migration: Migration) -> None:
    migration.file("a", b"mine", SOURCE)
    migration.at(SOURCE).parent.mkdir(parents=True)
    migration.at(SOURCE).write_bytes(b"user")
    migration.run()
    assert migration.at(SOURCE).read_bytes() == b"user"
    assert "--replace" in migration.problem("a")
    migration.settings = Settings(replace=True)
    migration.run()
    assert migration.at(SOURCE).read_bytes() == b"mine"
    assert (migration.row("a").brought, migration.problem("a")) == (Brought.REPLACED, "")


def test_a_longer_file_and_a_beginning_of_somebody_elses_stay(migration: Migration) -> None:
    migration.file("a", b"0123456789", SOURCE)
    migration.file("b", b"0123456789", AUDIO)
    migration.at(SOURCE).parent.mkdir(parents=True)
    migration.at(SOURCE).write_bytes(b"0123456789and more")
    migration.at(AUDIO).write_bytes(b"01234")
    migration.run()
    assert migration.there() == {SOURCE: b"0123456789and more", AUDIO: b"01234"}
    assert migration.report().problem_files == 2


def test_equal_bytes_at_a_target_count_as_done(migration: Migration) -> None:
    migration.file("a", b"same", SOURCE)
    migration.at(SOURCE).parent.mkdir(parents=True)
    migration.at(SOURCE).write_bytes(b"same")
    migration.run(options=scripted(migration, "exit 99"))
    row = migration.row("a")
    assert (row.step, row.brought, row.problem) == (Step.COPIED, Brought.THERE, "")
    assert migration.verify().is_clean
    assert migration.meter.done == 4  # counted, and not read again: hashed once


def test_a_file_that_somebody_changed_at_its_target_stays(migration: Migration) -> None:
    migration.file("a", b"old", SOURCE)
    migration.run()
    migration.at(SOURCE).write_bytes(b"theirs")
    migration.file("a", b"newer", SOURCE, mtime_ns=LONG_AGO_NS + 5)
    migration.run()
    assert migration.at(SOURCE).read_bytes() == b"theirs"
    assert "--replace" in migration.problem("a")


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "gone", "folder is a link"])
def test_what_came_in_the_place_of_a_source_is_not_followed(migration: Migration, kind: str) -> None:
    secret = migration.base / "secret"
    secret.mkdir()
    (secret / "a").write_bytes(b"of others")
    path = migration.file("x/a", b"1", SOURCE)
    path.unlink()
    if kind == "link":
        path.symlink_to(secret / "a")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "folder is a link":
        path.parent.rmdir()
        path.parent.symlink_to(secret)
    migration.run()
    assert migration.there() == {}
    assert migration.problem("x/a")
    assert not migration.report().is_clean


def test_a_link_planted_in_the_store_is_not_followed(migration: Migration) -> None:
    outside = migration.base / "outside"
    outside.mkdir()
    migration.at("users/4/recordings/7").mkdir(parents=True)
    migration.at("users/4/recordings/7/transcription").symlink_to(outside)
    migration.at(AUDIO).symlink_to(outside / "b")
    migration.file("a", b"1", "users/4/recordings/7/transcription/master.json")
    migration.file("b", b"1", AUDIO)
    migration.settings = Settings(replace=True)
    migration.run()
    assert list(outside.iterdir()) == []
    assert migration.report().problem_files == 2


def test_names_that_no_store_has_are_refused_one_by_one(migration: Migration) -> None:
    migration.file("a", b"1", "users/four/recordings/7/source.mp4")
    migration.file("b", b"1", "users/4/recordings/7/" + "n" * 256)
    migration.file("c", b"1", SOURCE)
    migration.run()
    assert set(migration.there()) == {SOURCE}
    assert "users/" in migration.problem("a")


def test_a_source_that_changes_while_it_is_copied_is_copied_again(migration: Migration) -> None:
    path = migration.file("a", b"old", SOURCE)
    migration.run(
        options=scripted(
            migration, f'$RSYNC "$@"; code=$?; [ -e {path}.done ] || echo newer > {path}; touch {path}.done'
        )
    )
    assert migration.at(SOURCE).read_bytes() == b"newer\n"
    assert (migration.row("a").step, migration.problem("a")) == (Step.COPIED, "")


def test_a_source_that_never_keeps_still_is_told_and_not_verified(migration: Migration) -> None:
    path = migration.file("a", b"old", SOURCE)
    migration.run(options=scripted(migration, f'$RSYNC "$@"; echo x >> {path}'))
    assert "changed while it was copied" in migration.problem("a")
    assert migration.verify().steps.keys() == {Step.BEGUN}
    migration.run()
    assert migration.at(SOURCE).read_bytes() == path.read_bytes()
    assert migration.verify().is_clean


def test_a_source_that_is_replaced_meanwhile_is_not_mixed(migration: Migration) -> None:
    path = migration.file("a", b"old", SOURCE)
    script = f"[ -e {path}.done ] || {{ echo other > {path}.done; cp {path}.done {path}.2; mv {path}.2 {path}; }}"
    migration.run(options=scripted(migration, f'{script}; $RSYNC "$@"'))
    assert migration.at(SOURCE).read_bytes() == b"other\n"
    assert migration.verify().is_clean


def test_what_a_killed_rsync_has_left_is_gone_on_with(migration: Migration) -> None:
    data = os.urandom(300_000)
    migration.file("a", data, SOURCE)
    killed = scripted(migration, f"head -c 100000 {migration.old}/a > ${{DEST}}{SOURCE}; kill -9 $$")
    outcome = migration.run(options=killed)
    assert outcome.users["4"].reach is Reach.USER
    assert migration.row("a").step is Step.BEGUN
    before = migration.at(SOURCE).stat().st_ino
    log = migration.base / "log"
    migration.run(options=scripted(migration, f'echo "$@" > {log}; $RSYNC "$@"'))
    assert "--append-verify" in log.read_text()
    assert (migration.at(SOURCE).read_bytes(), migration.at(SOURCE).stat().st_ino) == (data, before)
    assert migration.verify().is_clean


def test_a_half_that_is_no_beginning_is_not_gone_on_with(migration: Migration) -> None:
    migration.file("a", b"0123456789", SOURCE)
    migration.run(options=scripted(migration, f"echo other > ${{DEST}}{SOURCE}; kill -9 $$"))
    migration.run()
    assert migration.at(SOURCE).read_bytes() == b"other\n"
    assert "--replace" in migration.problem("a")


def test_a_half_of_which_recfs_has_no_checksum_is_read(migration: Migration) -> None:
    for name, target, half in (("a", SOURCE, "01234"), ("b", AUDIO, "other")):
        migration.file(name, b"0123456789", target)
        migration.run(options=scripted(migration, f"printf {half} > ${{DEST}}{target}; kill -9 $$"))
    migration.answer = lambda tree, target: None
    migration.run()
    assert migration.there() == {SOURCE: b"0123456789", AUDIO: b"other"}
    assert migration.row("a").brought is Brought.NEW
    assert "--replace" in migration.problem("b")


def test_the_size_of_a_half_is_that_which_its_checksum_is_of(migration: Migration) -> None:
    """Who asks for a checksum waits for whoever writes: the file may have grown since it was looked at."""
    migration.file("a", b"0123456789", SOURCE)
    migration.run(options=scripted(migration, f"printf 0123 > ${{DEST}}{SOURCE}; kill -9 $$"))

    def grown(tree: Tree, target: bytes) -> str | None:
        if migration.at(SOURCE).read_bytes() == b"0123":
            migration.at(SOURCE).write_bytes(b"012345")
        return hashing.read(tree, target)

    migration.answer = grown
    migration.run()
    assert (migration.there(), migration.problem("a")) == ({SOURCE: b"0123456789"}, "")


def test_what_users_make_at_targets_that_a_killed_run_had_not_come_to_stays(
    migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [f"users/4/recordings/7/transcription/{name}" for name in ("begun", "empty", "open", "mine")]
    for number, target in enumerate((SOURCE, *others)):
        migration.file(f"{number}", b"0123456789", target)
    made = f'(umask 077; printf 01234 > "$DEST"{SOURCE}; : > "$DEST"{others[0]})'
    migration.run(options=scripted(migration, f"{made}; kill -9 $$"))
    assert {migration.row(f"{number}").step for number in range(5)} == {Step.BEGUN, Step.PENDING}
    for target, data in zip(others[1:], (b"", b"0123", b"my own"), strict=True):
        migration.at(target).write_bytes(data)
        migration.at(target).chmod(0o644)
    with migration.state() as state:  # as when the run itself is killed, too
        for row in list(state.rows()):
            row.step, row.problem = Step.BEGUN, ""
            state.put([row])
    written = os.fsencode(others[2])
    migration.answer = lambda tree, target: None if target == written else hashing.read(tree, target)
    monkeypatch.setattr(hashing, "is_written", lambda tree, target: target == written)
    migration.run()
    assert migration.there() == {
        SOURCE: b"0123456789", others[0]: b"0123456789", others[1]: b"", others[2]: b"0123", others[3]: b"my own"
    }  # fmt: skip
    assert "somebody writes" in migration.problem("3")
    migration.undo()
    assert set(migration.there()) == set(others[1:])


def test_what_a_user_makes_while_a_batch_is_copied_stays(migration: Migration) -> None:
    migration.file("a", b"0123456789", SOURCE)
    migration.run(options=scripted(migration, f'printf "my own" > "$DEST"{SOURCE}; $RSYNC "$@"'))
    assert migration.at(SOURCE).read_bytes() == b"my own"
    assert "--replace" in migration.problem("a")


def test_files_whose_names_are_like_those_of_rsync_stay(migration: Migration) -> None:
    """What is not whole yet of a file that takes another's place lies in temp/, and nothing beside it is cleared."""
    migration.file("a", b"old", SOURCE)
    migration.run()
    migration.file("a", b"newer", SOURCE, mtime_ns=LONG_AGO_NS + 5)
    folder = migration.at(SOURCE).parent
    others = {"source.mp4.backup", "source.mp4.000001", ".source.mp4.orig01"}
    for each in others:
        (folder / each).write_bytes(b"a user's")
    log = migration.base / "log"
    migration.run(options=scripted(migration, f'echo "$@" >> {log}; kill -9 $$'))
    migration.run(options=scripted(migration, f'echo "$@" >> {log}; $RSYNC "$@"'))
    assert {path.name for path in folder.iterdir()} == {"source.mp4", *others}
    assert migration.at(SOURCE).read_bytes() == b"newer"
    assert log.read_text().count("--temp-dir=temp/4/") == 2
    assert list(migration.at("temp/4").iterdir()) == []


@AS_ROOT
def test_who_puts_a_link_in_the_way_of_rsync_gets_it_no_further_than_himself(migration: Migration) -> None:
    victim = migration.base / "victim"
    victim.mkdir(0o700)
    (victim / "zzz").write_bytes(b"root's")
    target = "users/5/recordings/7/transcription/zzz"
    migration.file("zzz", b"of a user", target)
    migration.at("users/5").mkdir(parents=True)
    os.chown(migration.at("users/5"), 20005, 20005)
    for parent in ("users/5/recordings", "users/5/recordings/7", "users/5/recordings/7/transcription"):
        migration.at(parent).mkdir()
        os.chown(migration.at(parent), 20005, 20005)
    folder = migration.at(target).parent
    migration.run(options=scripted(migration, f'mv {folder} {folder}2; ln -s {victim} {folder}; $RSYNC "$@"'))
    assert (victim / "zzz").read_bytes() == b"root's"
    assert [path.name for path in victim.iterdir()] == ["zzz"]
    assert migration.problem("zzz")
    folder.unlink()
    folder.with_name("transcription2").rename(folder)
    migration.run()
    assert migration.problem("zzz") == ""
    found = migration.at(target).stat()
    assert (migration.at(target).read_bytes(), found.st_uid, found.st_mtime_ns) == (b"of a user", 20005, LONG_AGO_NS)
    assert migration.verify().is_clean


@AS_ROOT
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_root_walks_through_no_directory_that_others_may_change(migration: Migration, mode: int) -> None:
    migration.file("a", b"data", SOURCE)
    migration.file("b", b"data", "shared/b")
    migration.at(SOURCE).parent.mkdir(parents=True)
    migration.at("users/4/recordings").chmod(mode)
    migration.run()
    assert "others than root may change users/4/recordings" in migration.problem("a")
    assert migration.there() == {"shared/b": b"data"}


def test_deep_directories_are_walked_into_once(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level from the one above: a user with thousands of levels would hold up everybody's files."""
    levels, real = 500, os.open
    opened: list[object] = []

    def counted(path: Any, *args: Any, **more: Any) -> int:
        opened.append(path)
        return real(path, *args, **more)

    path = b"users/4/recordings/7/" + b"d/" * levels + b"file"
    with Tree(os.fsencode(migration.store)) as tree:
        monkeypatch.setattr(os, "open", counted)
        assert len(tree.make_parents(path)) == levels + 4
        assert len(opened) <= levels + 4
        assert tree.make_parents(path) == []
        assert tree.look(path) is None
        monkeypatch.undo()
    shutil.rmtree(migration.store)


@pytest.mark.parametrize("target", ["d/" * 300 + "file", ("d" * 250 + "/") * 13 + "file"])
def test_paths_that_rsync_does_not_take_stop_nobody_else(migration: Migration, target: str) -> None:
    migration.file("a", b"data", SOURCE)
    migration.file("deep", b"deep", f"users/4/recordings/8/{target}")
    outcome = migration.run()
    assert (outcome.stopped, outcome.users) == (None, {})
    assert migration.there() == {SOURCE: b"data"}
    assert "more than a migration takes" in migration.problem("deep")


def test_all_had_come_and_was_not_written_down(migration: Migration) -> None:
    migration.file("a", b"0123456789", SOURCE)
    migration.run(options=scripted(migration, '$RSYNC "$@"; kill -9 $PPID'.replace("kill -9 $PPID", "exit 20")))
    migration.run(options=scripted(migration, "exit 99"))
    assert migration.row("a").step is Step.COPIED


def test_one_users_quota_stops_that_user_alone(migration: Migration) -> None:
    for number in range(3):
        migration.file(f"a{number}", b"1", f"users/4/recordings/{number}/source.mp4")
        migration.file(f"b{number}", b"1", f"users/5/recordings/{number}/source.mp4")
    migration.settings = Settings(batch_files=1)
    said = 'rsync: [receiver] write failed on \\"x\\": Disk quota exceeded (122)'
    over = scripted(
        migration,
        f"""read -d "" name
        case $name in users/4/*) echo "{said}" >&2; exit 11;; esac
        exec $RSYNC "$@" < <(printf "%s\\0" "$name")""",
    )
    outcome = migration.run(options=over)
    assert outcome.stopped is None
    assert "quota" in outcome.users["4"].reason
    assert sorted(migration.there()) == [f"users/5/recordings/{number}/source.mp4" for number in range(3)]
    assert not migration.report(outcome).is_clean
    assert migration.run().users == {}
    assert migration.report().is_clean


def test_a_full_disk_stops_all_and_the_next_run_goes_on(migration: Migration) -> None:
    migration.file("a", b"1", SOURCE)
    migration.file("b", b"1", OTHERS)
    full = scripted(
        migration, "echo 'rsync: [receiver] write failed on \"x\": No space left on device (28)' >&2; exit 11"
    )
    outcome = migration.run(options=full)
    assert outcome.stopped is not None
    assert (outcome.stopped.reason, "make room" in outcome.stopped.remedy) == ("the disk is full", True)
    with migration.state() as state:
        assert len(list(state.rows())) == 1  # the other was not tried
    assert migration.run().stopped is None
    assert migration.report().is_clean


def test_a_file_that_ends_a_batch_does_not_take_the_others_with_it(migration: Migration) -> None:
    for number in range(3):
        migration.file(f"a{number}", b"1", f"users/4/recordings/{number}/source.mp4")
    bad = "users/4/recordings/0/source.mp4"
    said = f'rsync: [receiver] write failed on \\"${{DEST}}{bad}\\": File too large (27)'
    options = scripted(
        migration,
        f"""names=$(tr "\\0" "\\n")
        case $names in *{bad}*) echo "{said}" >&2; exit 11;; esac
        echo "$names" | tr "\\n" "\\0" | $RSYNC "$@" """,
    )
    outcome = migration.run(options=options)
    assert (outcome.stopped, outcome.users) == (None, {})
    assert len(migration.there()) == 2
    assert migration.problem("a0") == "File too large (27)"


@pytest.mark.parametrize(
    ("room", "told"),
    [
        (Room(10), "the disk has room for 10 B"),
        (Room(1 << 40, 10), "the user's quota leaves 10 B"),
        (Room(1 << 40, None, 10), "the user's largest file may have 10 B"),
    ],
)
def test_a_file_that_has_no_room_is_not_begun_and_the_others_come(
    migration: Migration, monkeypatch: pytest.MonkeyPatch, room: Room, told: str
) -> None:
    monkeypatch.setattr("recfs.migration.run.running.room_of", lambda tree, target, reserve: room)
    path = migration.file("a", b"", SOURCE)
    os.truncate(path, 1 << 43)  # no block of it is on the disk
    migration.file("b", b"12345", AUDIO)
    migration.file("c", b"12345", OTHERS)
    outcome = migration.run()
    assert (outcome.stopped, outcome.users) == (None, {})
    assert set(migration.there()) == {AUDIO, OTHERS}
    assert told in migration.problem("a")
    assert migration.row("a").step is Step.PENDING
    assert not migration.report(outcome).is_clean


def test_what_was_begun_takes_room_from_what_comes_after(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recfs.migration.run.running.room_of", lambda tree, target, reserve: Room(10))
    for number in range(4):
        migration.file(f"{number}", b"1234", f"users/4/recordings/{number}/source.mp4")
    migration.run()
    assert len(migration.there()) == 2
    assert [bool(migration.problem(f"{number}")) for number in range(4)] == [False, False, True, True]
    monkeypatch.undo()
    migration.run()
    assert migration.report().is_clean


def test_the_rest_of_a_file_needs_less_room_than_all_of_it(
    migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration.file("a", b"0123456789", SOURCE)
    migration.run(options=scripted(migration, f"printf 01234567 > ${{DEST}}{SOURCE}; kill -9 $$"))
    monkeypatch.setattr("recfs.migration.run.running.room_of", lambda tree, target, reserve: Room(1))
    migration.run()
    assert migration.there() == {SOURCE: b"01234567"}
    monkeypatch.setattr("recfs.migration.run.running.room_of", lambda tree, target, reserve: Room(2))
    migration.run()
    assert migration.there() == {SOURCE: b"0123456789"}


def test_room_is_that_of_the_disk_less_the_reserve(migration: Migration) -> None:
    with Tree(os.fsencode(migration.store)) as tree:
        disk = os.statvfs(migration.store)
        found = room_of(tree, os.fsencode(SOURCE), 1 << 60)
        assert found.disk + (1 << 60) == pytest.approx(disk.f_bavail * disk.f_frsize, abs=1 << 30)
        assert (found.quota, found.file) == (None, None)
    migration.file("a", b"1", SOURCE)
    migration.destination = dataclasses.replace(migration.destination, reserve=1 << 60)
    migration.run()
    assert "the disk has room for 0 B" in migration.problem("a")


def test_holes_stay_holes(migration: Migration) -> None:
    path = migration.file("a", b"", SOURCE)
    os.truncate(path, 64 << 20)
    with path.open("r+b") as file:
        file.seek(32 << 20)
        file.write(b"data")
    migration.run()
    found = migration.at(SOURCE).stat()
    assert (found.st_size, found.st_blocks * 512 < 1 << 20) == (64 << 20, True)
    assert migration.verify().is_clean


def test_attributes_of_users_come_along_and_what_is_computed_does_not(migration: Migration) -> None:
    path = migration.file("a", b"1", SOURCE)
    os.setxattr(path, "user.comment", b"hello")
    os.setxattr(path, "user.recfs.sha256", b"of another store")
    migration.run()
    assert os.listxattr(migration.at(SOURCE)) == ["user.comment"]
    assert os.getxattr(migration.at(SOURCE), "user.comment") == b"hello"
    assert migration.report().is_clean


def test_attributes_that_do_not_come_along_are_told(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    path = migration.file("a", b"1", SOURCE)
    os.setxattr(path, "user.comment", b"hello")

    def refuse(tree: Tree, path: bytes, like: object, name: str, value: bytes) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(Tree, "set_attribute", refuse)
    migration.run()
    assert "user.comment (Operation not supported)" in migration.problem("a")
    assert migration.row("a").step is Step.COPIED
    assert not migration.report().is_clean


def test_a_mount_that_goes_away_stops_all(migration: Migration) -> None:
    migration.file("a", b"1", SOURCE)
    migration.file("b", b"1", OTHERS)
    gone = migration.base / "gone"

    def check() -> None:
        if gone.exists():
            raise MountError("it is no mount of recfs any more")

    migration.destination = dataclasses.replace(migration.destination, check=check)
    outcome = migration.run(options=scripted(migration, f"touch {gone}; exit 12"))
    assert outcome.stopped is not None
    assert "no mount" in outcome.stopped.reason
    gone.unlink()
    assert migration.run().stopped is None
    assert migration.report().is_clean


def test_ctrl_c_ends_rsync_and_what_is_done_is_known(migration: Migration) -> None:
    migration.settings = Settings(batch_files=1)
    migration.file("a", b"1", SOURCE)
    migration.file("b", b"1", AUDIO)

    def interrupt() -> None:
        if migration.at(SOURCE).exists() or migration.at(AUDIO).exists():
            raise KeyboardInterrupt

    slow = scripted(migration, '$RSYNC "$@"; trap "exit 20" TERM; touch $0.ready; while :; do sleep 0.01; done')
    with pytest.raises(KeyboardInterrupt):
        migration.run(interrupt, slow)
    assert len(migration.there()) == 1
    migration.run()
    assert migration.report().is_clean


def test_a_shown_file_gives_way_to_the_users_own(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    target = "users/4/thumbnails/x.png"
    migration.file("a", b"mine", target)
    migration.at(target).parent.mkdir(parents=True)
    migration.at(target).write_bytes(b"shown")
    for room in ("running", "arrivals"):
        monkeypatch.setattr(f"recfs.migration.run.{room}.is_shown", lambda tree, path: path == os.fsencode(target))
    migration.run()
    assert migration.at(target).read_bytes() == b"mine"
    assert migration.row("a").brought is Brought.NEW


def test_a_second_run_at_the_same_time_is_refused(migration: Migration) -> None:
    with migration.state(), pytest.raises(StoreError, match="another run"), opened(migration.base / "plan"):
        pass


def test_the_rsync_of_a_killed_run_is_waited_for(migration: Migration) -> None:
    migration.file("a", b"1", SOURCE)
    ready = migration.base / "ready"
    lives_on = f"(for _ in {{1..6000}}; do [ -e {ready} ] && break; sleep 0.01; done) >/dev/null 2>&1 & disown"
    slow = scripted(migration, f'{lives_on}; $RSYNC "$@"')
    migration.run(options=slow)
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        ready.touch()

    with opened(migration.base / "plan", wait_s=60, tell=tell):
        assert told


def test_without_rsync_or_with_an_odd_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgument, match="bandwidth"):
        rsync.found("20M --rsh=x")
    assert rsync.found("1.5M").bandwidth == "1.5M"
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NotFound, match="apt install rsync"):
        rsync.found()


def test_an_rsync_that_does_not_start_and_a_farm_without_a_disk_are_told(migration: Migration) -> None:
    migration.file("a", b"1", SOURCE)
    with pytest.raises(IoFailure, match="rsync cannot be started"):
        migration.run(options=rsync.Options("/nonexistent"))
    (migration.base / "plan.state.farm").write_bytes(b"in the way")
    with pytest.raises(IoFailure, match="cannot be made"):
        migration.run()
    (migration.base / "plan.state.farm").unlink()
    migration.run()
    assert migration.report().is_clean


def test_a_bandwidth_is_passed_through(migration: Migration) -> None:
    migration.file("a", b"1", SOURCE)
    log = migration.base / "log"
    options = scripted(migration, f'echo "$@" > {log}; $RSYNC "$@"')._replace(bandwidth="20M")
    migration.run(options=options)
    assert "--bwlimit=20M" in log.read_text()
    assert migration.report().is_clean


def test_many_files_go_in_batches(migration: Migration) -> None:
    migration.settings = Settings(jobs=2, batch_files=3)
    for number in range(20):
        migration.file(f"{number}", b"%d" % number, f"users/{number % 3}/recordings/{number}/source.mp4")
    log = migration.base / "log"
    before = len(os.listdir("/proc/self/fd"))
    migration.run(options=scripted(migration, f'echo >> {log}; $RSYNC "$@"'))
    assert len(migration.there()) == 20
    assert len(log.read_text()) >= 7
    assert len(os.listdir("/proc/self/fd")) < before + 15


def test_a_state_that_cannot_be_written_is_told(migration: Migration) -> None:
    (migration.base / "plan.state").write_bytes(b"no database, and longer than the header of one" * 100)
    with pytest.raises(Exception, match=r"plan\.state cannot be used"), migration.state():
        pass


def test_a_file_that_only_the_catalogue_knows_is_left_to_the_mount(migration: Migration) -> None:
    migration.file("a", b"1", SOURCE)
    migration.destination = dataclasses.replace(migration.destination, is_home=True, is_elsewhere=lambda path: True)
    migration.run()
    assert migration.there() == {}
    assert "into the mount" in migration.problem("a")


def test_sources_in_the_store_itself_are_refused(migration: Migration) -> None:
    migration.at(SOURCE).parent.mkdir(parents=True)
    migration.at(SOURCE).write_bytes(b"1")
    migration.file(str(migration.at(SOURCE)), b"1", AUDIO)
    migration.run()
    assert "store itself" in migration.problem(str(migration.at(SOURCE)))


def test_trees_refuse_links_and_tell_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "d" / "f").write_bytes(b"1")
    with Tree(os.fsencode(tmp_path)) as tree:
        assert tree.look(b"d/none") is None
        assert tree.look(b"none/f") is None
        with pytest.raises(Exception, match="symbolic link or a file"):
            tree.look(b"link/f")
        fd, seen = tree.open(b"d/f")
        os.close(fd)
        assert seen.size == 1
        with pytest.raises(OSError) as error, tree.named(b"d/none"):
            pass
        assert error.value.errno == errno.ENOENT
        assert not hashing.is_shown(tree, b"d/f")
