"""Recordings that expire, on a real mount: errnos, attributes as other users see them, and commands with no daemon."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from .clients import as_user, errno_as_user, need_root, recfs, wait_until, xattr
from .harness import BASE_CONFIG, Mount, errno_is

pytestmark = pytest.mark.modeless

USER = 1005
# The background sweep looks at the start; the tests call for it themselves.
EXPIRING = f'{BASE_CONFIG}[recordings]\ngrace = "1ms"\n'


@pytest.fixture
def expiring(store: Mount) -> Mount:
    """A store whose expired recordings go at the next look."""
    return store.start(config=EXPIRING)


def recording(store: Mount, name: str = "142") -> Path:
    """One with some files, of a user that is not the operator."""
    path = store.path / "users/5/recordings" / name
    (path / "sub").mkdir(parents=True)
    (path / "file").write_bytes(b"bytes")
    (path / "sub" / "deep").write_bytes(b"deep")
    for each in (path, path / "sub", path / "file"):
        os.chown(each, USER, USER)
    return path


def actions(store: Mount, *, dry_run: bool = False) -> dict[str, str]:
    """Sweep; what became of each."""
    return {each["path"]: each["action"] for each in store.call("sweep_expired", dry_run=dry_run)["recordings"]}


def test_an_expired_recording_is_read_only(expiring: Mount) -> None:
    path, other = recording(expiring), recording(expiring, "143")
    with (path / "file").open("r+b") as writing, (path / "sub/deep").open("rb") as reading:
        refused = recfs("recording", "expire", path, check=False)
        assert refused.returncode == 7
        assert b"1 file is open for writing" in refused.stderr
        writing.close()
        recfs("recording", "expire", path, "--note", "over")
        for change in (
            lambda: (path / "new").write_bytes(b""),
            lambda: (path / "file").open("r+b"),
            lambda: os.truncate(path / "file", 1),
            lambda: (path / "sub/new").mkdir(),
            lambda: (path / "sub/new").symlink_to("target"),
            lambda: (other / "file").rename(path / "file"),
            lambda: (other / "sub").rename(path / "sub/sub"),
        ):
            with errno_is(errno.EROFS):
                change()
        assert (path / "file").read_bytes() == b"bytes"
        assert reading.read() == b"deep"
        wait_until(lambda: actions(expiring) == {"users/5/recordings/142": "none"}, "the open file holds it up")
    wait_until(lambda: actions(expiring) == {"users/5/recordings/142": "remove"}, "it goes")
    assert not path.exists()
    assert sorted(each.name for each in path.parent.iterdir()) == ["143"]
    expiring.drain()
    assert not expiring.home(path).exists()
    expiring.assert_consistent()


def test_attributes_as_another_user(expiring: Mount) -> None:
    need_root()
    path = recording(expiring)
    assert as_user(USER, ["getfattr", "--only-values", "-n", "user.recfs.status", path]).stdout == b"active"
    for name, value in (("expires_at", "2027-01-31"), ("keep", "1"), ("status", "active")):
        code = f"os.setxattr({str(path)!r}, 'user.recfs.{name}', b'{value}')"
        assert errno_as_user(USER, code) == errno.EPERM
    os.setxattr(path, "user.recfs.expires_at", b"2027-01-31")
    os.setxattr(path, "user.recfs.keep", b"1")
    assert as_user(USER, ["getfattr", "--only-values", "-n", "user.recfs.keep", path]).stdout == b"1"
    os.removexattr(path, "user.recfs.keep")
    shown = as_user(USER, ["getfattr", "--only-values", "-n", "user.recfs.expires_at", path]).stdout
    assert shown == b"2027-01-31T00:00:00Z"
    with errno_is(errno.EINVAL):
        os.setxattr(path, "user.recfs.expires_at", b"soon")
    expiring.umount()
    expiring.remount()
    assert xattr(path, "expires_at") == "2027-01-31T00:00:00Z"


def test_without_a_daemon(expiring: Mount) -> None:
    path, config = recording(expiring), expiring.base / "recfs.conf"
    recording(expiring, "143")
    inside = "users/5/recordings/142"
    expiring.umount()
    assert (
        json.loads(recfs("recording", "expire", inside, "--json", "--config", config).stdout)[0]["status"] == "expired"
    )
    found = json.loads(recfs("recording", "list", "--json", "--config", config).stdout)
    assert {each["path"]: each["status"] for each in found} == {inside: "expired", "users/5/recordings/143": "active"}
    assert json.loads(recfs("recording", "show", inside, "--json", "--config", config).stdout)["rbytes"] == 9
    dry = json.loads(recfs("sweep", "expired", "--dry-run", "--json", "--config", config).stdout)
    assert [each["action"] for each in dry["recordings"]] == ["remove"]
    swept = recfs("sweep", "expired", "--config", config).stdout
    assert b"0 expired, 1 removed, 0 active again" in swept
    expiring.remount()
    assert not path.exists()
    expiring.assert_consistent()


def test_the_daemon_looks_at_its_start_and_goes_on_after_a_death(expiring: Mount) -> None:
    path = recording(expiring)
    recfs("recording", "expire", path)
    expiring.kill()
    expiring.start(config=EXPIRING)
    wait_until(lambda: not path.exists(), "the sweep of the start removed it")
    expiring.drain()
    expiring.assert_consistent()
