"""What somebody does to the store out of band: home files changed or removed, the whole store copied."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from .clients import need_root, pattern, recfs, run, sha256, sha256_of, state, xattr
from .harness import BASE_CONFIG, Mount, errno_is

pytestmark = pytest.mark.modes("auto")


def committed(store: Mount, path: Path, content: bytes) -> Path:
    """A committed file; returns where its bytes lie."""
    path.write_bytes(content)
    store.drain()
    return store.home(path)


def forget_pages(store: Mount) -> None:
    """A new mount: what the kernel has cached of a file is not what lies on disk."""
    store.remount()


@pytest.mark.modes("auto", "off")
def test_a_changed_home_file_is_corrupt_and_not_served(store: Mount, own_rec: Path) -> None:
    store.expect_log(r"is corrupt")
    home = committed(store, own_rec / "file", pattern(10_000))
    with home.open("ab") as stream:
        stream.write(b"appended out of band")
    forget_pages(store)
    with errno_is(errno.EIO):
        os.open(own_rec / "file", os.O_RDONLY)
    assert state(own_rec / "file") == "corrupt"
    assert store.status()["states"]["corrupt"] == 1
    with errno_is(errno.EIO):
        os.open(own_rec / "file", os.O_RDWR)
    (own_rec / "file").write_bytes(b"whole again")
    store.drain()
    assert state(own_rec / "file") == "committed"
    assert xattr(own_rec / "file", "sha256") == sha256(b"whole again") == sha256_of(own_rec / "file")
    store.assert_consistent()


@pytest.mark.modes("auto", "off")
def test_a_missing_home_file_is_an_error_with_a_reason(store: Mount, own_rec: Path) -> None:
    store.expect_log(r"bytes are missing")
    committed(store, own_rec / "file", b"here").unlink()
    (own_rec / "other").write_bytes(b"other")
    forget_pages(store)
    with errno_is(errno.EIO):
        os.open(own_rec / "file", os.O_RDONLY)
    assert "Traceback" not in store.log()
    assert (own_rec / "other").read_bytes() == b"other"
    (own_rec / "file").unlink()
    store.drain()
    store.assert_consistent()


@pytest.mark.needs("rsync")
def test_a_copied_store_works_like_the_first(store: Mount, own_rec: Path, tmp_path: Path) -> None:
    (own_rec / "dir").mkdir()
    for name in ("gone", "moved", "changed", "dir/deep"):
        committed(store, own_rec / name, name.encode())
    store.umount()
    run("rsync", "-aX", f"{store.root}/", tmp_path / "root")
    store.root = tmp_path / "root"
    store.start()
    (own_rec / "gone").unlink()
    os.rename(own_rec / "moved", own_rec / "elsewhere")
    os.rename(own_rec / "dir", own_rec / "folder")
    with (own_rec / "changed").open("ab") as stream:
        stream.write(b" again")
    store.drain()
    assert not store.home(own_rec / "gone").exists()
    assert store.home(own_rec / "elsewhere").read_bytes() == b"moved"
    assert store.home(own_rec / "folder" / "deep").read_bytes() == b"dir/deep"
    assert store.home(own_rec / "changed").read_bytes() == b"changed again"
    store.assert_consistent()
    store.remount()
    assert sorted(os.listdir(own_rec)) == ["changed", "elsewhere", "folder"]


def test_the_operator_commands_through_the_socket(store: Mount) -> None:
    need_root()
    store.start(config=f"{BASE_CONFIG}operator = 12345\n")
    socket = store.root / ".recfs" / "control.sock"
    assert (socket.stat().st_uid, stat.S_IMODE(socket.stat().st_mode)) == (12345, 0o600)
    assert (store.path / "shared").stat().st_uid == 12345, "shared/ of a new store is the operator's"
    done = subprocess.run(
        ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "mkdir", store.path / "shared" / "intros"],
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_rename_cannot_get_round_the_monthly_uploads(store: Mount) -> None:
    store.start(config=f"{BASE_CONFIG}[quota]\nmax_monthly_uploads = 1\n")
    rec = store.recording(1, 1)
    (rec / "source.mp4").write_bytes(b"first")
    (rec / "source.mp4.part").write_bytes(b"second")
    with errno_is(errno.EDQUOT):
        os.rename(rec / "source.mp4.part", rec / "source.webm")
    os.rename(rec / "source.mp4", rec / "source.mov")  # counted already
    assert recfs("quota", "show", "1", "--root", store.root).returncode == 0
    assert store.quota("1")["month_uploads"] == 1


@pytest.mark.parametrize("value", ["1_0", "+5", "-1", "", "many", "1e9"])
def test_nonsense_is_no_limit(store: Mount, own_rec: Path, value: str) -> None:
    user = own_rec.parents[1]
    with errno_is(errno.EINVAL):
        os.setxattr(user, "user.recfs.quota.max_files", value.encode())
    assert xattr(user, "quota.max_files") == "unlimited"


def test_another_program_may_look_into_the_catalogue(store: Mount, own_rec: Path) -> None:
    """A backup with sqlite3(1), as the operator's guide has it: the daemon keeps its log, and what comes after."""
    catalogue = store.root / ".recfs" / "catalogue.db"
    look = (
        "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\n"
        "db.execute('select count(*) from node').fetchall()\ndb.close()"
    )
    for round_ in range(2):
        (own_rec / f"before{round_}").write_bytes(b"before")
        store.drain()
        run("/usr/bin/env", "python3", "-c", look, catalogue)
        assert (store.root / ".recfs" / "catalogue.db-wal").exists()
        (own_rec / f"after{round_}").write_bytes(b"after")
        store.drain()
        assert recfs("ls-files", own_rec).returncode == 0
        store.kill()
        store.remount()
        assert state(own_rec / f"after{round_}") == "committed"
        assert (own_rec / f"after{round_}").read_bytes() == b"after"
    store.assert_consistent()
