"""What comes to a target between a run's look at it and its rsync, which spares what is there."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest

from recfs.core.migration.steps import Step
from recfs.migration.run import rsync
from recfs.migration.run.trees import Tree
from tests.helpers.migrations import Migration

pytestmark = pytest.mark.needs("rsync")

TARGET = "users/4/thumbnails/x.png"
SOURCE, OTHERS = "users/4/recordings/7/source.mp4", "users/5/recordings/8/source.mp4"


def meanwhile(migration: Migration, content: bytes, *, same_time: bool) -> rsync.Options:
    """An rsync before which something of that content comes to the target, once."""
    came = migration.base / "came"
    came.write_bytes(content)
    source = migration.base / "old" / "a"
    os.utime(came, ns=(source.stat().st_mtime_ns,) * 2 if same_time else (10**18, 10**18))
    path = migration.base / "scripted"
    path.write_text(
        f"#!/bin/bash\n[ -e {came} ] && cp -p {came} {migration.at(TARGET)} && rm {came}\n"
        f'exec {shutil.which("rsync")} "$@"\n'
    )
    path.chmod(0o755)
    return rsync.Options(str(path))


def test_a_shared_file_that_is_shown_since_is_not_taken_for_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same size and time, as a template and what a user made of it may be."""
    migration = Migration(tmp_path)
    migration.file("a", b"mine!", TARGET)
    migration.at(TARGET).parent.mkdir(parents=True)
    for room in ("running", "arrivals"):
        monkeypatch.setattr(
            f"recfs.migration.run.{room}.is_shown", lambda tree, path: migration.at(TARGET).read_bytes() == b"shown"
        )
    migration.run(options=meanwhile(migration, b"shown", same_time=True))
    assert migration.at(TARGET).read_bytes() == b"mine!"
    assert migration.row("a").step is Step.COPIED
    assert migration.report().is_clean


@pytest.mark.parametrize("theirs", [b"other", b"mine!"])
def test_what_a_user_made_there_since_is_not_taken_for_a_copy_unread(tmp_path: Path, theirs: bytes) -> None:
    """Of the same size: other bytes stay, and that is told; the same ones are all there is to be copied."""
    migration = Migration(tmp_path)
    migration.file("a", b"mine!", TARGET)
    migration.at(TARGET).parent.mkdir(parents=True)
    migration.run(options=meanwhile(migration, theirs, same_time=False))
    assert migration.at(TARGET).read_bytes() == theirs
    row = migration.row("a")
    if theirs == b"mine!":
        assert row.step is Step.COPIED
    else:
        assert "other bytes are at the target" in row.problem


def test_a_directory_stays_whose_files_were_moved_past_the_daemon_and_are_not_known_to_it_yet(tmp_path: Path) -> None:
    """Through the mount it looks empty for a moment: its removal would put them into lost+found."""
    migration = Migration(tmp_path)
    migration.at_home()
    migration.file("a", b"film", TARGET)
    migration.move()
    folder = migration.at(TARGET).parent
    migration.at(TARGET).rename(tmp_path / "not shown yet")
    migration.destination = dataclasses.replace(migration.destination, is_home=False)
    migration.undo()
    assert "with --home" in migration.problem("a")
    assert folder.is_dir()


@pytest.mark.parametrize("moved", [False, True], ids=["run", "move"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_hard_link_that_came_since_the_plan_to_what_its_user_may_not_read_is_not_brought(
    tmp_path: Path, moved: bool
) -> None:
    migration = Migration(tmp_path)
    migration.at_home()
    path = migration.file("user_4/a", b"mine", TARGET)
    os.chown(path.parent, 20004, 20004)
    secret = tmp_path / "shadow"
    secret.write_bytes(b"root's alone")
    secret.chmod(0o640)
    path.unlink()
    os.link(secret, path)
    (migration.move if moved else migration.run)()
    assert (migration.there(), secret.stat().st_nlink) == ({}, 2)
    assert "may not read it" in migration.problem("user_4/a")
    secret.unlink()
    (migration.move if moved else migration.run)()
    assert migration.there() == {TARGET: b"root's alone"}


def test_what_comes_to_a_source_while_it_is_moved_gets_no_name_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = Migration(tmp_path)
    migration.at_home()
    path = migration.file("a", b"mine", TARGET)
    other = tmp_path / "other"
    other.write_bytes(b"somebody else's")
    link_from = Tree.link_from

    def swapped(self: Tree, sources: Tree, source: bytes, target: bytes) -> None:
        path.unlink()
        os.link(other, path)
        link_from(self, sources, source, target)

    monkeypatch.setattr(Tree, "link_from", swapped)
    migration.move()
    assert migration.there() == {}
    assert "another file came" in migration.problem("a")
    assert path.read_bytes() == other.read_bytes()
    assert other.stat().st_nlink == 2


@pytest.mark.parametrize("seconds", [-(1 << 31), 10_413_792_000, 15_032_385_535, 253_402_300_799])
def test_files_with_times_of_any_year_come_and_go(tmp_path: Path, seconds: int) -> None:
    """Nanoseconds since 1970 have more than 64 bits from 2262 on; the last of these is of 9999, as tmpfs keeps it."""
    migration = Migration(tmp_path)
    source = migration.file("film.mp4", b"film", SOURCE, mtime_ns=seconds * 10**9)
    migration.file("other.mp4", b"other", OTHERS)
    for _ in range(2):
        assert migration.run().stopped is None
        assert migration.report().is_clean
    assert migration.at(SOURCE).stat().st_mtime_ns == source.stat().st_mtime_ns
    assert migration.verify().is_clean
    migration.undo()
    assert migration.there() == {}
    migration.at_home()
    migration.move()
    assert migration.at(SOURCE).read_bytes() == b"film"
    assert migration.verify().is_clean
    migration.undo()
    assert source.read_bytes() == b"film"


@pytest.mark.parametrize("by_rename", [False, True])
def test_directories_that_a_killed_run_had_just_made_go_with_the_rollback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_rename: bool
) -> None:
    migration = Migration(tmp_path)
    migration.file("film.mp4", b"film", SOURCE)
    if by_rename:
        migration.at_home()
    (migration.store / "users").mkdir()
    really = Tree.make_parents

    def killed(tree: Tree, path: bytes, owner: tuple[int, int] | None = None) -> list[bytes]:
        really(tree, path, owner)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Tree, "make_parents", killed)
        with pytest.raises(KeyboardInterrupt):
            migration.move() if by_rename else migration.run()
    assert migration.at(SOURCE).parent.is_dir()
    migration.undo()
    assert list(migration.store.rglob("*")) == [migration.store / "users"]
