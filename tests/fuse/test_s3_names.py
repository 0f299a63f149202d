"""Names and objects: write-then-rename costs one upload, objects follow their files, and go with them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.syscalls import RENAME_EXCHANGE, renameat2

from .clients import pattern, run, snapshot, state, wait_until, xattr
from .harness import Mount
from .s3 import COPY, DELETE, GET, MIB, S3, UPLOAD, evict, settle, standing
from .s3 import s3 as own_s3
from .s3 import shared_far as far
from .s3 import shared_s3 as s3

__all__ = ["far", "own_s3", "s3", "standing"]

pytestmark = [pytest.mark.modeless]


def make_tree(top: Path, count: int) -> dict[str, bytes]:
    """Files in directories below *top*: relative path → bytes."""
    made = {}
    for number in range(count):
        name = f"d{number % 3}/file{number}"
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(pattern(number * 777, seed=number))
        made[name] = pattern(number * 777, seed=number)
    return made


# --- one upload each ----------------------------------------------------------------------------------------------


@pytest.mark.needs("rsync")
def test_rsync_costs_one_upload_per_file(s3: S3, far: Mount, outside: Path) -> None:
    made = make_tree(outside / "src", 30)
    rec = far.recording()
    for _ in range(2):
        run("rsync", "-a", f"{outside}/src/", rec)
        far.drain()
    assert {path: s3.data(far.inner(rec / path)) for path in made} == made
    assert s3.paths() == {far.inner(rec / path) for path in made}
    assert len(s3.asked(UPLOAD)) == len(made), sorted(each.target for each in s3.asked(UPLOAD))
    assert snapshot(rec) == snapshot(outside / "src")


@pytest.mark.parametrize("temporary", [".file.AbC123", "file.tmp", "file.part", "file~"])
def test_a_temporary_name_is_not_uploaded_and_the_final_one_without_being_asked(
    s3: S3, far: Mount, temporary: str
) -> None:
    rec = far.recording()
    (rec / temporary).write_bytes(b"data")
    wait_until(lambda: state(rec / temporary) == "committed", "it is committed")
    (rec / "marker").write_bytes(b"other")
    wait_until(lambda: state(rec / "marker") == "stored", "a file that came later is uploaded")
    assert s3.paths() == {far.inner(rec / "marker")}
    (rec / temporary).rename(rec / "file")
    wait_until(lambda: state(rec / "file") == "stored", "it is uploaded under its name")  # nobody drains
    assert s3.data(far.inner(rec / "file")) == b"data"
    assert len(s3.asked(UPLOAD)) == 2
    assert s3.asked(COPY) == []


def test_a_file_rewritten_while_it_waits_is_uploaded_once(own_s3: S3, store: Mount) -> None:
    s3 = own_s3
    store.start(config=s3.config(upload={"settle": 600.0}))
    path = store.recording() / "file"
    for number in range(3):
        path.write_bytes(pattern(1000 + number, seed=number))
        wait_until(lambda: state(path) == "committed", "it is committed")
    assert s3.asked(UPLOAD) == []
    store.drain()
    assert s3.data(store.inner(path)) == pattern(1002, seed=2)
    assert len(s3.asked(UPLOAD)) == 1


def test_a_file_rewritten_while_it_is_uploaded_ends_right(s3: S3, far: Mount) -> None:
    path = far.recording() / "file"
    with s3.holding(UPLOAD) as gate:
        path.write_bytes(pattern(50_000, seed=1))
        wait_until(lambda: gate.waiting, "the upload is under way")
        path.write_bytes(pattern(40_000, seed=2))
        assert path.read_bytes() == pattern(40_000, seed=2)
    far.drain()
    assert s3.data(far.inner(path)) == pattern(40_000, seed=2)
    assert state(path) == "stored"


def test_temp_and_shared_stay_here(s3: S3, far: Mount) -> None:
    (far.path / "temp/1/2").mkdir(parents=True)
    (far.path / "temp/1/2/file").write_bytes(b"temp")
    (far.path / "shared/intros").mkdir(exist_ok=True)
    (far.path / "shared/intros/file").write_bytes(b"shared")
    far.drain()
    assert s3.asked() == []
    shutil.rmtree(far.path / "temp/1")
    shutil.rmtree(far.path / "shared/intros")


# --- renaming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3000, 12 * MIB], ids=["small", "large"])
def test_a_renamed_file_reads_right_at_every_moment(s3: S3, far: Mount, size: int) -> None:
    rec, content = far.recording(), pattern(size, seed=1)
    old, new = rec / "old", rec / "new"
    old.write_bytes(content)
    settle(far)
    with s3.holding(COPY) as copying:
        old.rename(new)
        wait_until(lambda: copying.waiting, "the object is being copied")
        assert new.read_bytes() == content
        assert not old.exists()
        evict(far, new, drained=False)
        assert new.read_bytes() == content
        evict(far, new, drained=False)
    with s3.holding(DELETE) as deleting:
        assert new.read_bytes() == content  # whatever step it has come to
        wait_until(lambda: deleting.waiting or far.inner(old) not in s3.paths(), "the old object goes")
        evict(far, new, drained=False)
        assert new.read_bytes() == content
    wait_until(lambda: s3.paths() == {far.inner(new)}, "only the new object is there")
    settle(far)
    assert xattr(new, "object_key") == far.inner(new)
    assert new.read_bytes() == content


def test_an_open_reader_is_not_disturbed_by_a_rename(own_s3: S3, store: Mount) -> None:
    """The old object stays as long as somebody is filling a copy from it."""
    content, s3 = pattern(30 * MIB, seed=1), own_s3
    far = store.start(config=s3.config(cache={"read_ahead_max": MIB}))
    rec = far.recording()
    (rec / "old").write_bytes(content)
    settle(far)
    with (rec / "old").open("rb") as file:
        assert file.read(1000) == content[:1000]
        (rec / "old").rename(rec / "new")
        wait_until(lambda: far.inner(rec / "new") in s3.paths(), "the object was copied")
        assert file.read() == content[1000:]
    wait_until(lambda: s3.paths() == {far.inner(rec / "new")}, "the old object is gone")


def test_a_renamed_directory_takes_its_objects_along(s3: S3, far: Mount) -> None:
    rec = far.recording()
    made = make_tree(rec / "old", 20)
    far.drain()
    evict(far, rec / "old/d1")
    (rec / "old").rename(rec / "new")
    for path, content in made.items():
        assert (rec / "new" / path).read_bytes() == content
    far.drain()
    assert s3.paths() == {far.inner(rec / "new" / path) for path in made}
    evict(far)
    for path, content in made.items():
        assert (rec / "new" / path).read_bytes() == content
    assert len(s3.asked(UPLOAD)) == len(made), "a rename uploads nothing"


def test_a_recording_renamed_twice_and_back(s3: S3, far: Mount) -> None:
    rec = far.recording(recording=1)
    made = make_tree(rec, 12)
    settle(far)
    for name in ("2", "3", "1"):
        rec = rec.rename(rec.parent / name)
    assert {path: (rec / path).read_bytes() for path in made} == made
    far.drain()
    assert {path: s3.data(far.inner(rec / path)) for path in made} == made
    assert s3.paths() == {far.inner(rec / path) for path in made}


def test_names_that_change_places(s3: S3, far: Mount) -> None:
    rec = far.recording()
    (rec / "a").write_bytes(b"was a")
    (rec / "b").write_bytes(b"was b")
    settle(far)
    renameat2(rec / "a", rec / "b", RENAME_EXCHANGE)
    assert ((rec / "a").read_bytes(), (rec / "b").read_bytes()) == (b"was b", b"was a")
    settle(far)
    assert (s3.data(far.inner(rec / "a")), s3.data(far.inner(rec / "b"))) == (b"was b", b"was a")
    assert ((rec / "a").read_bytes(), (rec / "b").read_bytes()) == (b"was b", b"was a")
    assert s3.paths() == {far.inner(rec / name) for name in "ab"}


def test_a_name_taken_over_by_another_file(s3: S3, far: Mount) -> None:
    """mv a b; write a new a: each object ends as the file of its name."""
    rec = far.recording()
    (rec / "a").write_bytes(b"first")
    settle(far)
    (rec / "a").rename(rec / "b")
    (rec / "a").write_bytes(b"second")
    far.drain()
    assert {name: s3.data(far.inner(rec / name)) for name in "ab"} == {"a": b"second", "b": b"first"}
    evict(far)
    assert ((rec / "a").read_bytes(), (rec / "b").read_bytes()) == (b"second", b"first")


# --- changing and deleting ----------------------------------------------------------------------------------------


def test_deleting_takes_the_objects_along_in_few_requests(s3: S3, far: Mount) -> None:
    rec = far.recording()
    make_tree(rec / "some", 100)
    (rec / "kept").write_bytes(b"kept")
    settle(far, rec / "some/d0")
    shutil.rmtree(rec / "some")
    far.drain()
    assert s3.paths() == {far.inner(rec / "kept")}
    assert len(s3.asked(DELETE)) <= 20, len(s3.asked(DELETE))
    assert s3.asked(GET) == []
    far.assert_consistent()


def test_an_evicted_file_is_overwritten_without_being_fetched(s3: S3, far: Mount) -> None:
    path = far.recording() / "file"
    path.write_bytes(pattern(9 * MIB, seed=1))
    settle(far)
    with s3.holding(UPLOAD) as gate:
        path.write_bytes(b"new")
        wait_until(lambda: gate.waiting, "the new version is being uploaded")
        assert path.read_bytes() == b"new"
    far.drain()
    assert s3.asked(GET) == []
    assert s3.data(far.inner(path)) == b"new"
    evict(far)
    assert path.read_bytes() == b"new"
    far.assert_consistent()


@pytest.mark.parametrize("size", [3000, 9 * MIB], ids=["small", "large"])
def test_an_evicted_file_is_appended_to_changed_and_truncated(s3: S3, far: Mount, size: int) -> None:
    path, content = far.recording() / "file", bytearray(pattern(size, seed=1))
    path.write_bytes(content)
    settle(far)
    with path.open("ab") as file:
        file.write(b"tail")
    content += b"tail"
    settle(far)
    assert s3.data(far.inner(path)) == content
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"middle")
    content[1000:1006] = b"middle"
    settle(far)
    assert s3.data(far.inner(path)) == content
    os.truncate(path, 2000)
    settle(far)
    assert s3.data(far.inner(path)) == content[:2000]
    assert path.read_bytes() == content[:2000]
    far.assert_consistent()


def test_touch_chmod_and_xattrs_of_an_evicted_file_fetch_nothing(s3: S3, far: Mount) -> None:
    path = far.recording() / "file"
    path.write_bytes(pattern(5000))
    settle(far)
    os.utime(path, ns=(10**18, 10**18))
    path.chmod(0o600)
    os.setxattr(path, "user.note", b"mine")
    far.drain()
    assert s3.asked(GET) == []
    assert (path.stat().st_mtime_ns, path.stat().st_mode & 0o777) == (10**18, 0o600)
    assert path.read_bytes() == pattern(5000)
    far.drain()
    assert far.home(path).stat().st_mode & 0o777 == 0o600
