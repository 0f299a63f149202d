"""What somebody is told who is neither root nor the user of the daemon, and names a store all the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recfs.cli.checks import Level
from recfs.cli.checks.disk import disk_checks
from tests.system.fake_daemon import run

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def hidden() -> Iterator[Path]:
    """A store's root, mode 0700 and root's, below directories that everybody may enter."""
    with tempfile.TemporaryDirectory() as made:
        above = Path(made)
        above.chmod(0o755)
        root = above / "store"
        (root / ".recfs").mkdir(parents=True)
        (root / ".recfs/catalogue.db").write_bytes(b"x")
        (root / "users").mkdir()
        root.chmod(0o700)
        yield root


@contextmanager
def nobody() -> Iterator[None]:
    """This process as nobody's."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_doctor_tells_who_may_look_at_the_store(hidden: Path) -> None:
    with nobody():
        (found,) = [each for each in disk_checks(hidden, 0) if each.name == "root"]
    assert found.level is Level.FAIL
    assert "Permission denied" in found.detail
    assert "run it as root, or as the user of the store" in found.remedy


def test_doctor_tells_so_of_a_root_below_a_directory_that_is_closed(hidden: Path) -> None:
    with nobody():
        (found,) = disk_checks(hidden / "below/it", 0)
    assert (found.name, found.level) == ("root", Level.FAIL)
    assert "run it as root, or as the user of the store" in found.remedy


@pytest.mark.parametrize("command", [("mount", "-d"), ("restore-catalogue", "--dry-run"), ("rebuild",)])
def test_who_may_not_look_into_the_store_is_told_as_whom_to_run_it(hidden: Path, command: tuple[str, ...]) -> None:
    """And neither that a disk is missing, nor to try again."""
    with tempfile.TemporaryDirectory() as made:
        os.chown(made, NOBODY, NOBODY)
        point = (made,) if command[0] == "mount" else ()
        nowhere = ("--root", hidden.parent / "nowhere", *point)
        run(*command, *nowhere, *(("--existing",) if point else ()))  # nobody may not read what would be imported now
        with nobody():
            result = run(*command, "--root", hidden, *point)
    assert result.exit_code == 4
    assert "run it as root, or as the user of the store" in result.stderr
    assert "again" not in result.stderr
    assert "is its disk mounted" not in result.stderr
