"""A run of a migration, into a plain directory: what is copied, resumed, refused and told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recfs.core.migration.steps import Brought, Step
from tests.component.migrations import LONG_AGO_NS, Migration

pytestmark = pytest.mark.needs("rsync")
SOURCE = "users/4/recordings/7/source.mp4"


@pytest.fixture
def migration(tmp_path: Path) -> Migration:
    return Migration(tmp_path)


def test_files_come_to_their_targets_with_time_and_mode(migration: Migration) -> None:
    path = migration.file("user_4/video/Перевод\n2.mp4", b"film" * 1000, SOURCE)
    path.chmod(0o640)
    odd = os.fsdecode(b"user_4/audio/a\xff.mp3")
    migration.file(odd, b"", "users/4/recordings/7/audio.mp3")
    outcome = migration.run()
    assert (outcome.stopped, outcome.users) == (None, {})
    found = migration.at(SOURCE).stat()
    assert (migration.at(SOURCE).read_bytes(), found.st_mtime_ns) == (b"film" * 1000, LONG_AGO_NS)
    assert found.st_mode & 0o777 == 0o640
    assert migration.at("users/4/recordings/7/audio.mp3").read_bytes() == b""
    row = migration.row("user_4/video/Перевод\n2.mp4")
    assert (row.step, row.brought, row.problem) == (Step.COPIED, Brought.NEW, "")
    assert migration.meter.done == 4000
    assert not list(migration.base.glob("plan.state.farm*"))
