"""kill -9 at any moment, remount: what was committed or fsynced is there, nothing is half anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .clients import pattern, sha256, sha256_of, state, wait_until, xattr
from .crashes import assert_recovered, crash, fsync_directory
from .harness import Mount

pytestmark = pytest.mark.modes("auto", "off")  # "read" writes as "off" does


@pytest.mark.smoke
def test_committed_files_survive(store: Mount, own_rec: Path) -> None:
    sizes = [0, 1, 4096, 100_000, 3_000_000] * 4
    for n, size in enumerate(sizes):
        (own_rec / f"file{n}").write_bytes(pattern(size, seed=n))
        (own_rec / f"file{n}").chmod(0o640)
        os.utime(own_rec / f"file{n}", ns=(n, 1_600_000_000_123_456_789 + n))
        os.setxattr(own_rec / f"file{n}", "user.number", b"%d" % n)
    (own_rec / "link").symlink_to("file1")
    store.drain()
    inodes = {p.name: p.lstat().st_ino for p in own_rec.iterdir()}
    crash(store)
    assert {p.name: p.lstat().st_ino for p in own_rec.iterdir()} == inodes
    for n, size in enumerate(sizes):
        file = own_rec / f"file{n}"
        assert sha256_of(file) == sha256(pattern(size, seed=n)) == xattr(file, "sha256")
        assert state(file) == "committed"
        assert (file.stat().st_mode & 0o777, file.stat().st_mtime_ns) == (
            0o640,
            1_600_000_000_123_456_789 + n,
        )
        assert os.getxattr(file, "user.number") == b"%d" % n
    assert os.readlink(own_rec / "link") == "file1"
    assert store.leftovers("staging") == []
    assert_recovered(store)


def test_fsynced_bytes_survive_in_a_file_being_written(store: Mount, own_rec: Path) -> None:
    fd = os.open(own_rec / "file", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, pattern(300_000))
    os.fsync(fd)
    os.write(fd, b"not synced")
    crash(store, fd)
    content = (own_rec / "file").read_bytes()
    assert content[:300_000] == pattern(300_000)
    assert content[300_000:] in (b"", b"not synced")
    assert state(own_rec / "file") == "incomplete"
    assert_recovered(store)


def test_files_being_written_are_kept_as_incomplete(store: Mount, own_rec: Path) -> None:
    fds = []
    for n in range(5):
        fds.append(os.open(own_rec / f"file{n}", os.O_WRONLY | os.O_CREAT, 0o644))
        os.write(fds[-1], pattern(50_000, seed=n))
    crash(store, *fds)
    for n in range(5):
        assert (own_rec / f"file{n}").read_bytes() == pattern(50_000, seed=n)
        assert state(own_rec / f"file{n}") == "incomplete"
    assert_recovered(store)
    assert xattr(own_rec, "rbytes") == "250000"


def test_an_incomplete_file_can_be_taken_up_again(store: Mount, own_rec: Path) -> None:
    fds = [os.open(own_rec / name, os.O_WRONLY | os.O_CREAT, 0o644) for name in ("append", "overwrite", "move", "drop")]
    for fd in fds:
        os.write(fd, b"begun ")
    crash(store, *fds)
    with (own_rec / "append").open("ab") as stream:
        stream.write(b"and finished")
    (own_rec / "overwrite").write_bytes(b"new")
    os.rename(own_rec / "move", own_rec / "moved")
    (own_rec / "drop").unlink()
    store.drain()
    assert (own_rec / "append").read_bytes() == b"begun and finished"
    assert xattr(own_rec / "append", "sha256") == sha256(b"begun and finished")
    assert (state(own_rec / "append"), state(own_rec / "overwrite")) == ("committed", "committed")
    assert (own_rec / "moved").read_bytes() == b"begun "
    assert state(own_rec / "moved") == "incomplete"
    assert_recovered(store)
    crash(store)
    assert sorted(os.listdir(own_rec)) == ["append", "moved", "overwrite"]
    assert (own_rec / "moved").read_bytes() == b"begun "


@pytest.mark.parametrize("size", [0, 1000, 5_000_000])
def test_a_closed_file_ends_up_committed(store: Mount, own_rec: Path, size: int) -> None:
    (own_rec / "file").write_bytes(pattern(size))
    released(own_rec / "file")
    crash(store)  # long before its row is written
    store.drain()
    assert (own_rec / "file").read_bytes() == pattern(size)
    assert state(own_rec / "file") == "committed"
    assert xattr(own_rec / "file", "sha256") == sha256(pattern(size))
    assert store.leftovers("staging") == []
    assert_recovered(store)


def released(path: Path) -> None:
    """Wait until the daemon has seen the last close: the kernel sends it after close(2) returned."""
    wait_until(lambda: state(path) != "writing", f"{path.name} is released")


def test_a_close_in_a_child_process_is_not_the_last(store: Mount, own_rec: Path) -> None:
    fd = os.open(own_rec / "file", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, b"half")
    subprocess.run(["true"], pass_fds=[fd], check=True)  # inherits the descriptor and closes it
    store.drain()
    crash(store, fd)
    assert state(own_rec / "file") == "incomplete", "its writer had not closed it"
    assert (own_rec / "file").read_bytes() == b"half"
    assert_recovered(store)


@pytest.mark.parametrize("recorded", [False, True], ids=["row lost", "row written"])
@pytest.mark.parametrize("written", [0, 500_000])
def test_an_overwrite_without_fsync_rolls_back(store: Mount, own_rec: Path, written: int, recorded: bool) -> None:
    (own_rec / "file").write_bytes(pattern(200_000))
    store.drain()
    fd = os.open(own_rec / "file", os.O_WRONLY | os.O_TRUNC)
    os.write(fd, bytes(written))
    if recorded:
        store.drain()
    crash(store, fd)
    assert sha256_of(own_rec / "file") == sha256(pattern(200_000)), "the committed bytes were not safe"
    assert state(own_rec / "file") == "committed"
    assert xattr(own_rec / "file", "sha256") == sha256(pattern(200_000))
    assert xattr(own_rec, "rbytes") == "200000"
    assert_recovered(store)


def test_an_overwrite_with_fsync_keeps_the_new_bytes(store: Mount, own_rec: Path) -> None:
    (own_rec / "file").write_bytes(pattern(200_000))
    store.drain()
    fd = os.open(own_rec / "file", os.O_WRONLY | os.O_TRUNC)
    os.write(fd, b"new and synced")
    os.fsync(fd)
    crash(store, fd)
    assert (own_rec / "file").read_bytes() == b"new and synced"
    assert state(own_rec / "file") == "incomplete"
    assert_recovered(store)


def test_an_overwrite_that_was_closed_is_committed(store: Mount, own_rec: Path) -> None:
    (own_rec / "file").write_bytes(pattern(200_000))
    store.drain()
    (own_rec / "file").write_bytes(pattern(100_000, seed=1))
    released(own_rec / "file")
    crash(store)
    store.drain()
    assert sha256_of(own_rec / "file") == sha256(pattern(100_000, seed=1)) == xattr(own_rec / "file", "sha256")
    assert_recovered(store)


def test_rewriting_in_place_keeps_what_was_written(store: Mount, own_rec: Path) -> None:
    (own_rec / "file").write_bytes(pattern(200_000))
    store.drain()
    fd = os.open(own_rec / "file", os.O_RDWR)
    os.pwrite(fd, b"CHANGED", 1000)
    os.fsync(fd)
    crash(store, fd)
    changed = pattern(200_000)[:1000] + b"CHANGED" + pattern(200_000)[1007:]
    assert sha256_of(own_rec / "file") == sha256(changed)
    assert state(own_rec / "file") == "incomplete", "its recorded checksum would be that of other bytes"
    assert_recovered(store)


def test_an_atomic_replacement_gives_old_or_new(store: Mount, own_rec: Path) -> None:
    (own_rec / "file").write_bytes(pattern(100_000))
    store.drain()
    with (own_rec / "file.tmp").open("wb") as stream:
        stream.write(pattern(50_000, seed=1))
        os.fsync(stream.fileno())
    os.rename(own_rec / "file.tmp", own_rec / "file")
    crash(store)
    store.drain()
    assert sha256_of(own_rec / "file") in (sha256(pattern(100_000)), sha256(pattern(50_000, seed=1)))
    assert state(own_rec / "file") == "committed"
    (own_rec / "file.tmp").write_bytes(pattern(20_000, seed=2))  # may be there again: the rename was not synced
    os.rename(own_rec / "file.tmp", own_rec / "file")
    fsync_directory(own_rec)
    crash(store)
    store.drain()
    assert os.listdir(own_rec) == ["file"]
    assert sha256_of(own_rec / "file") == sha256(pattern(20_000, seed=2)), (
        "fsync of the directory promised the new name"
    )
    assert_recovered(store)


def test_fsync_of_a_directory_makes_its_names_durable(store: Mount, own_rec: Path) -> None:
    for name in ("deleted", "renamed"):
        (own_rec / name).write_bytes(name.encode())
    store.drain()
    (own_rec / "dir" / "sub").mkdir(parents=True)
    (own_rec / "link").symlink_to("nowhere")
    (own_rec / "deleted").unlink()
    os.rename(own_rec / "renamed", own_rec / "dir" / "new name")
    for path in (own_rec / "dir", own_rec):
        fsync_directory(path)
    crash(store)
    assert sorted(os.listdir(own_rec)) == ["dir", "link"]
    assert sorted(os.listdir(own_rec / "dir")) == ["new name", "sub"]
    assert (own_rec / "dir" / "new name").read_bytes() == b"renamed"
    store.drain()
    assert not store.home(own_rec / "deleted").exists()
    assert_recovered(store)


def test_an_open_unlinked_file_is_gone_after_a_crash(store: Mount, own_rec: Path) -> None:
    (own_rec / "old").write_bytes(pattern(100_000))
    store.drain()
    fds = [os.open(own_rec / "old", os.O_RDWR), os.open(own_rec / "new", os.O_RDWR | os.O_CREAT, 0o644)]
    for fd in fds:
        os.pwrite(fd, pattern(50_000, seed=3), 0)
    for name in ("old", "new"):
        (own_rec / name).unlink()
    fsync_directory(own_rec)
    crash(store, *fds)
    store.drain()
    assert os.listdir(own_rec) == []
    assert store.leftovers("staging") == []
    assert list(store.home(own_rec).iterdir()) == []
    assert_recovered(store)
