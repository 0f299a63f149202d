"""Paths that lead somewhere by detours: symbolic links to mount points, and working directories that are gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recfs.cli.common import where
from recfs.cli.common.where import Mount, resolve
from recfs.errors import MountError


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that the mount table calls a recfs mount."""
    point = tmp_path / "mnt"
    point.mkdir()
    monkeypatch.setattr(where, "mounts", lambda: [Mount(7, point, "", "fuse.recfs")])
    return point


def test_a_link_to_a_mount_point_is_followed(mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(mount)
    (tmp_path / "again").symlink_to("link")
    (tmp_path / "above").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("link", "again", "above/mnt", "above/again", "./link", "mnt/../link"):
        assert resolve(Path(name)) == mount, name
        assert resolve(tmp_path / name) == mount, name
        assert where.mount_on(Path(name)) is not None
    assert where.path_in_mount(where.mounts()[0], Path("again/users/5")) == "users/5"


def test_a_link_that_recfs_keeps_is_meant_itself(mount: Path) -> None:
    (mount / "kept").symlink_to("/etc/passwd")
    assert resolve(mount / "kept") == mount / "kept"


def test_a_dead_mount_point_is_not_looked_at(mount: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(mount)

    def dead(path: object, *_: object) -> None:
        raise AssertionError(f"{path} was looked at")

    monkeypatch.setattr(os, "stat", dead)
    assert resolve(tmp_path / "link") == mount


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(MountError, match="lead in a circle"):
        resolve(tmp_path / "a")


def in_a_lost_directory(tmp_path: Path, *argv: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory that is removed under its feet."""
    lost = tmp_path / "lost"
    lost.mkdir()
    command = f'cd "{lost}" && rmdir "{lost}" && exec "$@"'
    return subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, "-P", "-m", "recfs", *map(str, argv)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_command_works_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    done = in_a_lost_directory(tmp_path, "status", "--root", tmp_path / "store")
    assert (done.returncode, done.stderr) == (
        4, f"recfs: no recfs store at {tmp_path}/store; `recfs mount --root {tmp_path}/store DIR` makes one\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    "argv",
    [
        ("status", "--root", "store"),
        ("umount", "mnt"),
        ("info", "mnt/users"),
        ("mount", "--root", "/nowhere", "mnt"),
        ("mount", "--root", "/nowhere", "--log-file", "log", "/mnt"),
        ("status", "--config", "recfs.conf"),
    ],
)
@pytest.mark.table
def test_a_relative_path_leads_nowhere_there(tmp_path: Path, argv: tuple[str, ...]) -> None:
    done = in_a_lost_directory(tmp_path, *argv)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "the working directory is gone" in line
    assert "absolute path" in line
