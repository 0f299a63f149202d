"""The table of mounts (proc_pid_mountinfo(5)), whatever somebody has named a mount point."""

from __future__ import annotations

from pathlib import Path

import pytest

from recfs.cli.common import where
from recfs.client import places
from recfs.fuse import mounting
from recfs.stores import mounted

ODD = b"/media/a\rb\rc\x0b\x1c\xc2\x85d\\040e"
"""The kernel writes a blank, a tab, a line feed and a backslash in octal, and nothing else."""
TABLE = b"".join(
    b"%d 2 0:%d / %b rw,relatime shared:1 - %b none rw\n" % line
    for line in (
        (30, 40, ODD, b"tmpfs"),
        (31, 41, b"/mnt/re\rcordings", b"fuse.recfs"),
        (32, 42, b"/srv/store/users/5\rf", b"tmpfs"),
    )
)


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with such mounts."""
    table = tmp_path / "mountinfo"
    table.write_bytes(TABLE)
    for module, name in ((where, "MOUNTINFO"), (places, "_MOUNTINFO"), (mounting, "MOUNTINFO"), (mounted, "TABLE")):
        monkeypatch.setattr(module, name, table)
    return table


def test_a_command_finds_its_mount() -> None:
    assert [(each.mount_id, each.fstype) for each in where.mounts()] == [
        (30, "tmpfs"), (31, "fuse.recfs"), (32, "tmpfs"),
    ]  # fmt: skip
    assert str(where.mounts()[0].mount_point).encode() == ODD.replace(b"\\040", b" ")


def test_a_daemon_finds_its_mount() -> None:
    assert mounting.mounted_type(Path("/mnt/re\rcordings")) == "fuse.recfs"


def test_a_program_finds_the_only_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(places.ENV, raising=False)
    assert places.default_root() == Path("/mnt/re\rcordings")


def test_what_is_mounted_in_the_home_tree_is_told_whole() -> None:
    assert mounted.mounted_in(Path("/srv/store")) == {b"users/5\rf"}
