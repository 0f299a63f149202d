"""The daemon killed in the middle of what it does to objects: the old version or the new one, never a mix."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from .clients import pattern, sha256_of, state, wait_until
from .harness import Mount
from .s3 import COPY, DELETE, GET, MIB, PUT, S3, UPLOAD, evict, far, s3, settle

__all__ = ["far", "s3"]

pytestmark = [pytest.mark.modeless]

OLD, NEW = pattern(11 * MIB, seed=1), pattern(12 * MIB, seed=2)


def restart(store: Mount) -> None:
    """Kill it, and start again."""
    store.kill()
    store.remount()


@pytest.mark.parametrize("reaches", [True, False], ids=["copied", "not-copied"])
def test_killed_while_an_object_follows_its_name(s3: S3, far: Mount, reaches: bool) -> None:
    rec = far.recording()
    (rec / "old").write_bytes(OLD)
    settle(far)
    with s3.holding(COPY, reaches=reaches) as gate:
        (rec / "old").rename(rec / "new")
        wait_until(lambda: gate.waiting, "the object is being copied")
        restart(far)
    assert os.listdir(rec) == ["new"]
    assert (rec / "new").read_bytes() == OLD
    # The old object stays as long as a copy is being filled from it.
    wait_until(lambda: s3.paths() == {far.inner(rec / "new")}, "only the new object is there")
    far.drain()
    evict(far)
    assert (rec / "new").read_bytes() == OLD
    far.assert_consistent()


@pytest.mark.parametrize("reaches", [True, False], ids=["deleted", "not-deleted"])
def test_killed_while_the_old_object_goes(s3: S3, far: Mount, reaches: bool) -> None:
    rec = far.recording()
    (rec / "old").write_bytes(OLD)
    settle(far)
    with s3.holding(DELETE, reaches=reaches) as gate:
        (rec / "old").rename(rec / "new")
        wait_until(lambda: gate.waiting, "the old object is being deleted")
        restart(far)
    assert (rec / "new").read_bytes() == OLD
    # The old object stays as long as a copy is being filled from it.
    wait_until(lambda: s3.paths() == {far.inner(rec / "new")}, "only the new object is there")
    far.drain()


def test_killed_while_a_directory_moves(s3: S3, far: Mount) -> None:
    rec = far.recording()
    (rec / "old").mkdir()
    made = {f"file{number}": pattern(1000 * number, seed=number) for number in range(20)}
    for name, content in made.items():
        (rec / "old" / name).write_bytes(content)
    settle(far)
    seen = iter(range(100))
    with s3.holding(lambda request: COPY(request) and next(seen) >= 7) as gate:
        (rec / "old").rename(rec / "new")
        wait_until(lambda: gate.waiting, "some objects have moved")
        restart(far)
    assert {name: (rec / "new" / name).read_bytes() for name in made} == made
    far.drain()
    assert {path: s3.data(path) for path in s3.paths()} == {
        far.inner(rec / "new" / name): content for name, content in made.items()
    }
    evict(far)
    assert {name: (rec / "new" / name).read_bytes() for name in made} == made


def test_killed_while_objects_are_deleted(s3: S3, far: Mount) -> None:
    rec = far.recording()
    (rec / "some").mkdir()
    for number in range(30):
        (rec / "some" / f"file{number}").write_bytes(b"%d" % number)
    (rec / "kept").write_bytes(b"kept")
    settle(far)
    with s3.holding(DELETE) as gate:
        shutil.rmtree(rec / "some")
        wait_until(lambda: gate.waiting, "deletions are under way")
        restart(far)
    # The last removals may not have been written down yet: such files are there, and so are their bytes.
    for path in (rec / "some").glob("*"):
        assert path.read_bytes() == path.name.removeprefix("file").encode()
    if (rec / "some").exists():
        shutil.rmtree(rec / "some")
    far.drain()
    assert os.listdir(rec) == ["kept"]
    assert s3.paths() == {far.inner(rec / "kept")}
    assert (rec / "kept").read_bytes() == b"kept"


@pytest.mark.parametrize("reaches", [True, False], ids=["arrived", "not-arrived"])
def test_killed_while_a_new_version_is_uploaded(s3: S3, far: Mount, reaches: bool) -> None:
    """The new version was closed: it is what counts, and S3 has one or the other until then."""
    path = far.recording() / "file"
    path.write_bytes(OLD)
    settle(far)
    with s3.holding(PUT, reaches=reaches) as gate:
        path.write_bytes(NEW)
        wait_until(lambda: gate.waiting, "the upload is under way")
        restart(far)
        assert s3.data(far.inner(path)) in (OLD, NEW)
    assert path.read_bytes() == NEW
    far.drain()
    assert s3.data(far.inner(path)) == NEW
    assert s3.unfinished() == []
    evict(far)
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("size", [3000, 11 * MIB], ids=["small", "large"])
def test_killed_while_an_evicted_file_is_overwritten(s3: S3, far: Mount, size: int) -> None:
    """Nobody closed the new version, and S3 has the old one."""
    path = far.recording() / "file"
    path.write_bytes(OLD[:size])
    settle(far)
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, NEW[:1000])
    far.status()  # the metadata is written, as they are after 0.1 s
    far.kill()
    os.close(fd)
    far.remount()
    assert path.read_bytes() == OLD[:size]
    far.drain()
    assert s3.data(far.inner(path)) == OLD[:size]
    far.assert_consistent()


def test_killed_while_an_evicted_file_is_fetched_to_be_changed(s3: S3, far: Mount) -> None:
    path = far.recording() / "file"
    path.write_bytes(OLD)
    settle(far)
    with s3.holding(GET) as gate:
        writer = subprocess.Popen(["sh", "-c", 'printf more >>"$0"', path], stderr=subprocess.DEVNULL)
        wait_until(lambda: gate.waiting, "it is being fetched")
        far.kill(unmount=False)
        assert writer.wait(20) != 0
        far.clear()
        far.remount()
    assert path.read_bytes() == OLD
    assert far.leftovers("lost+found") == []
    far.drain()
    assert s3.data(far.inner(path)) == OLD


def test_killed_while_an_evicted_file_is_appended_to(s3: S3, far: Mount) -> None:
    """As with any file: what was appended may be missing or cut, what was there is there. S3 keeps the old version."""
    path = far.recording() / "file"
    path.write_bytes(OLD)
    settle(far)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, NEW[:5000])
    far.status()
    far.kill()
    os.close(fd)
    far.remount()
    found = path.read_bytes()
    assert (OLD + NEW[:5000]).startswith(found)
    assert len(found) >= len(OLD)
    assert state(path) in ("incomplete", "evicted", "stored")
    assert s3.data(far.inner(path)) == OLD
    far.assert_consistent()


def test_killed_while_readers_fetch(s3: S3, far: Mount) -> None:
    """A partial copy is worth nothing after that, and leaves nothing behind."""
    path = far.recording() / "file"
    path.write_bytes(OLD)
    settle(far)
    fd = os.open(path, os.O_RDONLY)
    assert os.pread(fd, 1000, 5 * MIB) == OLD[5 * MIB : 5 * MIB + 1000]
    far.kill()
    os.close(fd)
    far.remount()
    assert state(path) == "evicted"
    assert far.leftovers("staging") == []
    assert path.read_bytes() == OLD
    wait_until(lambda: state(path) == "stored", "it is here")
    restart(far)
    assert path.read_bytes() == OLD
    wait_until(lambda: state(path) == "stored", "it is here")
    far.drain()
    assert sha256_of(path) == sha256_of(far.home(path))


def test_killed_before_local_copies_are_gone(s3: S3, far: Mount) -> None:
    """Eviction is a row first, then the bytes: whatever is found, the file reads right, and the budget is right."""
    rec = far.recording()
    made = {f"file{number}": pattern(100_000, seed=number) for number in range(20)}
    for name, content in made.items():
        (rec / name).write_bytes(content)
    far.drain()
    far.call("evict", path=far.inner(rec), recursive=True)
    restart(far)
    assert {state(rec / name) for name in made} <= {"evicted", "stored"}
    far.drain()
    stored = [name for name in made if state(rec / name) == "stored"]
    assert far.status()["s3"]["local_bytes"] == 100_000 * len(stored)
    assert sorted(path.name for path in far.home(rec).iterdir()) == sorted(stored)
    assert {name: (rec / name).read_bytes() for name in made} == made
    assert len(s3.asked(UPLOAD)) == len(made)
