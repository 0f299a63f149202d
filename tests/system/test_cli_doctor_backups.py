"""What `recfs doctor` says of the directories that backups of the catalogue, and the audit log, go to."""

import os
from pathlib import Path

import pytest

from recfs.cli.checks import Level
from recfs.cli.checks.disk import check_backups
from tests.system.fake_daemon import run

SHM = Path("/dev/shm")


def test_backups_on_the_disk_of_the_store_are_told_of(tmp_path: Path) -> None:
    """They are lost with it, which whoever set the directory did not mean."""
    (tmp_path / "backups").mkdir()
    (tmp_path / "store").mkdir()
    config = tmp_path / "recfs.conf"
    config.write_text(f'root = "{tmp_path}/store"\n[backup]\ndirectory = "{tmp_path}/backups"\n')
    assert f"{tmp_path}/backups is on the disk of the store" in run("doctor", "--config", config).stdout
    assert check_backups(tmp_path / "store", None) == []


def test_a_directory_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    (found,) = check_backups(tmp_path, tmp_path / "absent")
    assert (found.level, "No such file or directory" in found.detail) == (Level.WARN, True)
    assert "recfs does not" in found.remedy


@pytest.mark.skipif(not os.access(SHM, os.W_OK), reason="there is no second disk")
def test_one_on_another_disk_is_right(tmp_path: Path) -> None:
    other = SHM if tmp_path.stat().st_dev != SHM.stat().st_dev else Path("/proc")
    (found,) = check_backups(tmp_path, other)
    assert found.level is Level.OK


@pytest.mark.parametrize("made", ["nothing", "a file", "a directory"])
def test_a_directory_of_the_audit_log_that_is_missing_is_told(tmp_path: Path, made: str) -> None:
    (tmp_path / "store").mkdir()
    place = tmp_path / "audit"
    if made == "a file":
        place.touch()
    elif made == "a directory":
        place.mkdir()
    config = tmp_path / "recfs.conf"
    config.write_text(f'root = "{tmp_path}/store"\n[audit]\nenabled = true\ndirectory = "{place}"\n')
    told = " ".join(run("doctor", "--config", config).stdout.split())
    assert (f"{place} cannot be used" in told) == (made != "a directory")
    assert (f"{place} is there" in told) == (made == "a directory")
    config.write_text(f'root = "{tmp_path}/store"\n[audit]\ndirectory = "{place}"\n')
    assert str(place) not in run("doctor", "--config", config).stdout


@pytest.mark.parametrize("what", ["file", "refused"])
def test_one_that_nothing_can_be_written_to_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    where = tmp_path / "backups"
    if what == "file":
        where.touch()
    else:
        where.mkdir()
        monkeypatch.setattr(os, "access", lambda *_, **__: False)  # a disk that is mounted read-only, say
    (found,) = check_backups(tmp_path, where)
    assert found.level is Level.WARN
    assert ("is no directory" if what == "file" else "nothing can be written there") in found.detail
