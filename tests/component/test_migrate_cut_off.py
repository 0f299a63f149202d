"""What a run makes of a copy that was cut off at its very end, and of what an earlier verification had said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recfs.core.migration.plan import Action
from recfs.core.migration.steps import Step
from recfs.migration.run.hashing import Meter
from recfs.migration.run.report import reported
from recfs.migration.run.verifying import Verification
from tests.helpers.migrations import LONG_AGO_NS, Migration

pytestmark = pytest.mark.needs("rsync")

TARGET = "users/1/recordings/1/audio.mp3"


@pytest.mark.parametrize("is_new", [True, False], ids=["its time is not set", "its mode is not set"])
def test_a_copy_that_was_cut_off_behind_its_last_byte_gets_time_and_mode(tmp_path: Path, is_new: bool) -> None:
    migration = Migration(tmp_path)
    source = migration.file("a.mp3", b"bytes" * 1000, TARGET)
    source.chmod(0o640)
    migration.run()
    target = migration.at(TARGET)
    with migration.state() as state:
        row = state.row(b"a.mp3", os.fsencode(TARGET))
        row.step, row.left = Step.BEGUN, None
        state.put([row])
    target.chmod(0o600)
    if is_new:
        os.utime(target)
    inode = target.stat().st_ino
    migration.run()
    found = target.stat()
    assert migration.row("a.mp3").step is Step.COPIED
    assert (found.st_mtime_ns, found.st_mode & 0o777) == (LONG_AGO_NS, 0o640)
    assert found.st_ino == inode, "no byte is copied again"


@pytest.mark.parametrize("theirs", [False, True], ids=["as the run left it", "a user changed it since"])
def test_a_whole_copy_that_was_not_written_down_gives_way_to_a_newer_source(tmp_path: Path, theirs: bool) -> None:
    """A live tree: many of a batch had come when all was killed, and their sources change before the next run."""
    migration = Migration(tmp_path)
    migration.file("a.mp3", b"older bytes", TARGET)
    migration.run()
    with migration.state() as state:
        row = state.row(b"a.mp3", os.fsencode(TARGET))
        row.step, row.left = Step.BEGUN, None
        state.put([row])
    migration.file("a.mp3", b"newer bytes", TARGET, mtime_ns=LONG_AGO_NS + 5)
    if theirs:
        migration.at(TARGET).write_bytes(b"bytes of us")
    migration.run()
    assert migration.at(TARGET).read_bytes() == (b"bytes of us" if theirs else b"newer bytes")
    assert ("--replace" in migration.problem("a.mp3")) is theirs
    assert migration.row("a.mp3").step is (Step.BEGUN if theirs else Step.COPIED)


def test_a_run_is_not_blamed_for_duplicates_that_were_verified_too_soon(tmp_path: Path) -> None:
    migration = Migration(tmp_path)
    migration.file("a.mp3", b"bytes", TARGET)
    migration.file("b.mp3", b"bytes", TARGET, Action.DUPLICATE)
    with migration.state() as state:
        Verification(migration.plan, os.fsencode(migration.old), state, migration.destination, Meter()).run()
        assert reported("verify", migration.plan, state).problem_files == 2
    migration.run()
    with migration.state() as state:
        found = reported("run", migration.plan, state)
        assert (found.problem_files, found.is_clean) == (0, True)
