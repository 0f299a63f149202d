"""Objects of the bucket that become files without being downloaded: `recfs import s3://…`."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.errors import Busy, InvalidArgument, NotFound
from recfs.ports.object_errors import AccessRefused, ObjectStoreError, Unreachable
from recfs.ports.objects import ObjectMeta
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, pattern
from .far import Hold, ask, bucket, fs, until
from .test_tier import node, stored

__all__ = ["fs"]

URL = "s3://bucket/"
KEY = f"{REC}/taken.mp4"


def put(fs: Filesystem, key: str, data: bytes = b"taken", **known: Any) -> str:
    """An object as another recfs left it; returns its etag."""
    digests = hashlib.sha256(data).digest(), hashlib.md5(data).digest()
    meta: dict[str, Any] = {"sha256": digests[0], "md5": digests[1], "mode": 0o640} | known
    fd = os.memfd_create("object")
    try:
        os.write(fd, data)
        return bucket(fs).put_file(fd, len(data), key, ObjectMeta(**meta)).etag
    finally:
        os.close(fd)


async def imported(fs: Filesystem, **params: Any) -> dict[str, Any]:
    """All of a run."""
    await ask(fs, "bucket_claim", force=True)
    found: dict[str, Any] = await ask(fs, "import_objects", **params)
    return found


def kept(found: dict[str, Any]) -> dict[str, str]:
    return {each["path"]: each["reason"] for each in found["kept"]}


async def test_an_object_becomes_a_file_without_being_read(fs: Filesystem) -> None:
    data = pattern(5000)
    put(fs, KEY, data, mtime_ns=7_000_000_001, owner=f"{os.getuid()}:77")
    before = len(bucket(fs).calls)
    found = await imported(fs)
    assert (found["files"], found["bytes"], found["already"], found["kept_files"]) == (1, 5000, 0, 0)
    assert (found["failed"], found["ended"], found["read_bytes"]) == (None, True, 0)
    assert "get_range" not in [operation for operation, _ in bucket(fs).calls[before:]]
    file = await node(fs, KEY)
    assert (file.state, file.mode, file.gid, file.mtime_ns) == (State.EVICTED, 0o640, 77, 7_000_000_001)
    assert fs.account() == (5000, 1)
    assert await fs.read(KEY) == data
    await fs.drain()
    await fs.assert_consistent()


async def test_a_second_run_finds_what_the_first_made_and_asks_for_nothing(fs: Filesystem) -> None:
    for number in range(3):
        put(fs, f"{REC}/{number}")
    await imported(fs)
    before = len(bucket(fs).calls)
    found = await imported(fs)
    assert (found["files"], found["already"], found["objects"]) == (0, 3, 3)
    assert "head" not in [operation for operation, _ in bucket(fs).calls[before:]]


@pytest.mark.may_log("gone|S3")
async def test_what_was_made_survives_a_death_and_the_rest_is_the_next_runs(fs: Filesystem) -> None:
    for number in range(1200):
        put(fs, f"{REC}/{number:04}")
    await ask(fs, "bucket_claim", force=True)
    bucket(fs).fail("head", Unreachable("gone"), times=10_000, skip=1100)
    found = await ask(fs, "import_objects")
    assert "gone" in found["failed"]
    bucket(fs).heal()
    made = found["files"]
    assert made < 1200
    await fs.crash()
    await fs.reopen()
    found = await imported(fs)
    assert (found["already"], found["files"], found["kept_files"]) == (made, 1200 - made, 0)
    assert fs.account() == (1200 * 5, 1200)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("elsewhere/x", "layout"),
        ("users/not an id/recordings/1/x", "layout"),
        ("users/5/x", "layout"),
        ("users/5/recordings/142/sub/../x", "layout"),
    ],
)
async def test_a_key_that_no_file_can_have_is_left(fs: Filesystem, key: str, why: str) -> None:
    put(fs, key)
    found = await imported(fs)
    assert (found["files"], found["kept_files"]) == (0, 1)
    assert why in kept(found)[key]


async def test_what_others_wrote_is_believed_where_the_server_has_its_sha256(fs: Filesystem) -> None:
    bucket(fs).keeps_checksums = True
    bucket(fs).tamper(KEY, b"put by somebody")
    found = await imported(fs)
    assert (found["files"], found["read_bytes"]) == (1, 0)
    file = await node(fs, KEY)
    assert file.sha256 == hashlib.sha256(b"put by somebody").digest()
    assert await fs.read(KEY) == b"put by somebody"


async def test_an_md5_alone_is_no_checksum_and_only_a_download_helps(fs: Filesystem) -> None:
    bucket(fs).tamper(KEY, b"put by somebody")
    found = await imported(fs)
    assert (found["files"], kept(found)) == (0, {KEY: "neither its metadata nor the server has a sha256 of it"})
    with pytest.raises(NotFound):
        await fs.node(KEY)
    found = await imported(fs, download=True)
    assert (found["files"], found["read_bytes"], found["kept_files"]) == (1, 15, 0)
    await fs.crash()
    await fs.reopen()
    assert await fs.read(KEY) == b"put by somebody"


async def test_a_checksum_in_the_metadata_is_not_asked_for_again(fs: Filesystem) -> None:
    bucket(fs).keeps_checksums = True
    put(fs, KEY)
    bucket(fs)._objects[KEY].stored_sha256 = b"x" * 32
    assert (await imported(fs))["files"] == 1
    with_md5 = put(fs, f"{REC}/parts")
    bucket(fs)._objects[f"{REC}/parts"].metadata.pop("checksum-md5")
    bucket(fs)._objects[f"{REC}/parts"].etag = f"{with_md5}-2"
    assert "nothing tells its MD5" in kept(await imported(fs))[f"{REC}/parts"]
    assert (await imported(fs, download=True))["files"] == 1


async def test_bytes_that_are_not_those_of_their_checksum_are_left(fs: Filesystem) -> None:
    bucket(fs).keeps_checksums = True
    bucket(fs).tamper(KEY, b"put by somebody")
    bucket(fs)._objects[KEY].stored_sha256 = b"x" * 32
    bucket(fs)._objects[KEY].etag = "no-md5"
    assert "not those of its checksum" in kept(await imported(fs, download=True))[KEY]


@pytest.mark.expect_log("etag")
async def test_an_object_that_was_replaced_since_is_noticed_when_it_is_read(fs: Filesystem) -> None:
    put(fs, KEY)
    assert (await imported(fs))["files"] == 1
    bucket(fs).tamper(KEY, b"other")
    with pytest.raises(ObjectStoreError, match="etag"):
        await fs.read(KEY)


@pytest.mark.may_log("no route")
async def test_an_object_whose_row_has_another_name_by_now_is_known(fs: Filesystem) -> None:
    await fs.write(KEY, b"mine")
    await fs.drain()
    bucket(fs).fail("copy", Unreachable("no route"), times=1_000)
    await fs.rename(KEY, f"{REC}/renamed")
    found = await imported(fs)
    assert (found["files"], found["already"], found["kept_files"]) == (0, 1, 0)
    bucket(fs).heal()


async def test_a_file_of_that_name_that_is_not_uploaded_stays(fs: Filesystem) -> None:
    name = f"{REC}/local.tmp"  # by such a name nothing is uploaded
    await fs.write(name, b"mine")
    await fs.parts.behind.flush()
    put(fs, name, b"theirs")
    found = await imported(fs)
    assert found["files"] == 0
    assert await fs.read(name) == b"mine"


async def test_limits_hold_and_are_told(fs: Filesystem) -> None:
    await ask(fs, "quota_set", user="5", max_bytes=12, max_files=None, max_file_size=8, max_monthly_uploads=0)
    put(fs, f"{REC}/0large", b"123456789")
    for number in range(1, 5):
        put(fs, f"{REC}/{number}", b"12345")
    put(fs, "users/6/recordings/1/source.mp4", b"123456789")
    found = await imported(fs)
    assert found["files"] == 3
    reasons = kept(found)
    assert sorted(reasons) == [f"{REC}/0large", f"{REC}/3", f"{REC}/4"]
    assert "max_bytes = 12" in reasons[f"{REC}/3"]
    assert "max_file_size = 8" in reasons[f"{REC}/0large"]
    assert fs.account() == (10, 2)


async def test_only_what_lies_below_the_given_prefix(fs: Filesystem) -> None:
    put(fs, f"{REC}/a")
    put(fs, "users/51/recordings/1/b")
    found = await imported(fs, url="s3://bucket/users/5")
    assert (found["files"], found["objects"]) == (1, 1)


@pytest.mark.parametrize("url", ["s3://other/", "s3://bucket2", "http://bucket/", "s3:///x", "s3://bucket//x"])
async def test_another_place_is_refused(fs: Filesystem, url: str) -> None:
    with pytest.raises(InvalidArgument):
        await ask(fs, "import_objects", url=url)


async def test_the_own_objects_of_a_store_are_nobodys_files(fs: Filesystem) -> None:
    with pytest.raises(InvalidArgument, match="recfs's own"):
        await ask(fs, "import_objects", url="s3://bucket/.recfs/")
    put(fs, ".recfs/backups/x")
    assert (await imported(fs))["kept_files"] == 0


async def test_a_dry_run_changes_nothing(fs: Filesystem) -> None:
    put(fs, KEY)
    bucket(fs).tamper(f"{REC}/foreign", b"x")
    found = await imported(fs, dry_run=True, download=True)
    assert (found["files"], found["kept_files"], found["read_bytes"]) == (1, 1, 0)
    with pytest.raises(NotFound):
        await fs.node(KEY)


async def test_one_refused_object_does_not_stop_the_others(fs: Filesystem) -> None:
    put(fs, f"{REC}/a")
    put(fs, f"{REC}/b")
    bucket(fs).fail("head", AccessRefused("not yours"), times=1)
    found = await imported(fs)
    assert (found["files"], found["kept_files"], found["failed"]) == (1, 1, None)


@pytest.mark.expect_log("knows nothing of")
async def test_a_prefix_of_another_store_is_not_taken_in(fs: Filesystem) -> None:
    put(fs, KEY)
    found = await ask(fs, "import_objects")
    assert "holds objects that this store knows nothing of" in found["failed"]
    assert found["files"] == 0


async def test_a_run_can_be_asked_and_ended(fs: Filesystem) -> None:
    await ask(fs, "bucket_claim", force=True)
    for number in range(1500):
        put(fs, f"{REC}/{number}", b"x")
    hold = Hold(fs, "head")
    run = (await ask(fs, "import_begin"))["run"]
    await hold.entered()
    with pytest.raises(Busy):
        await ask(fs, "import_begin")
    assert not (await ask(fs, "import_wait", run=run, timeout_s=0.01))["ended"]
    with trio.fail_after(GUARD_S):
        found = await ask(fs, "import_stop", run=run)
    hold.let_go()
    assert (found["interrupted"], found["files"], found["ended"]) == (True, 0, True)
    with pytest.raises(NotFound):
        await ask(fs, "import_wait", run=run + 1)


async def test_while_others_write_all_the_time_objects_are_taken_one_by_one(fs: Filesystem) -> None:
    for number in range(5):
        put(fs, f"{REC}/{number}")
    behind = fs.parts.behind
    far: Any = fs.parts.upkeep.work.orphans.far
    real = far.are_nobodys

    async def busy(keys: Any) -> Any:
        free = await real(keys)
        behind.written += 1  # as if a batch had been written
        return free

    far.are_nobodys = busy
    assert (await imported(fs))["files"] == 5
    await fs.drain()
    await fs.assert_consistent()


async def test_an_imported_file_behaves_like_any_other(fs: Filesystem) -> None:
    put(fs, KEY)
    await imported(fs)
    await fs.rename(KEY, f"{REC}/renamed")
    await fs.drain()
    await until(lambda: stored(fs) == {f"{REC}/renamed": b"taken"})
    assert await fs.read(f"{REC}/renamed") == b"taken"
    await fs.write(f"{REC}/renamed", b"overwritten")
    await fs.drain()
    await until(lambda: stored(fs) == {f"{REC}/renamed": b"overwritten"})
    await fs.unlink(f"{REC}/renamed")
    assert fs.account() == (0, 0)


async def test_keys_between_which_many_files_lie_are_asked_for_one_by_one(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recfs.tier.leftovers.PAGE", 3)
    for number in range(8):
        await fs.write(f"{REC}/m{number}", b"mine")
    await fs.drain()
    put(fs, f"{REC}/a")
    put(fs, f"{REC}/z")
    far = fs.parts.upkeep.work.orphans.far
    assert far is not None
    keys = [f"{REC}/a", f"{REC}/m4", f"{REC}/z"]
    assert await far.are_nobodys(keys) == {keys[0], keys[2]}
    assert await far.are_nobodys([]) == frozenset()
    assert (await imported(fs))["files"] == 2


async def test_below_a_prefix_nothing_is_asked_of_what_is_known(fs: Filesystem) -> None:
    for user in (4, 5, 6):
        put(fs, f"users/{user}/recordings/1/a")
    assert (await imported(fs))["files"] == 3
    before = len(bucket(fs).calls)
    found = await imported(fs, url="s3://bucket/users/5/")
    assert (found["objects"], found["already"], found["kept_files"]) == (1, 1, 0)
    assert "head" not in [operation for operation, _ in bucket(fs).calls[before:]]


async def test_the_kernel_hears_of_new_users_and_recordings(fs: Filesystem) -> None:
    """It keeps listings of directories: each that has a new entry is to be listed anew."""
    await fs.mkdirs(REC)
    put(fs, "users/5/recordings/200/sub/file")
    put(fs, "users/77/recordings/1/file")
    fs.kernel.inodes.clear()
    assert (await imported(fs))["files"] == 2
    changed = ["users", "users/5/recordings", "users/5/recordings/200", "users/5/recordings/200/sub"]
    changed += ["users/77", "users/77/recordings", "users/77/recordings/1"]
    for path in changed:
        assert (await fs.node(path)).ino in fs.kernel.inodes, path
