"""The trash: what is in it, how it comes back, and what may happen meanwhile."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recfs.core.model import State
from recfs.errors import InvalidArgument, InvalidPath, NotFound
from recfs.fs.attributes import Changes
from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem, filesystem, pattern
from .test_tier import stored, tiered

if TYPE_CHECKING:
    import trio

HOUR = 3600.0
FILE, OTHER = f"{REC}/file", f"{REC}/sub/other"
KEEPS: dict[str, Any] = {"trash": {"retention": HOUR}}


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """One whose trash keeps everything for an hour."""
    async with filesystem(place / "root", **KEEPS) as made:
        yield made


async def ask(fs: Filesystem, method: str, **params: Any) -> Any:
    """A control method."""
    return await fs.answers()[method](params)


async def listed(fs: Filesystem, **params: Any) -> list[dict[str, Any]]:
    """What is in the trash."""
    entries: list[dict[str, Any]] = (await ask(fs, "trash_list", **params))["entries"]
    return entries


async def removed(fs: Filesystem, path: str, data: bytes) -> dict[str, Any]:
    """Write a file and remove it; its entry."""
    await fs.write(path, data)
    await fs.drain()
    await fs.unlink(path)
    (entry,) = await listed(fs, path=path)
    return entry


async def kept(fs: Filesystem, **params: Any) -> dict[str, str]:
    """What a restore leaves where it is, and why."""
    result = await ask(fs, "trash_restore", **params)
    assert result["kept_files"] == len(result["kept"])
    return {each["path"]: each["reason"] for each in result["kept"]}


async def test_a_removed_file_comes_back_as_it_was(fs: Filesystem) -> None:
    await fs.write(FILE, pattern(70_000))
    await fs.drain()
    before = await fs.node(FILE)
    await fs.vfs.setattr(
        before.ino, Changes(mode=0o640, uid=1005, gid=1006, mtime_ns=1_700_000_000_123_456_789), OPERATOR
    )
    await fs.drain()
    was = _facts(before)
    await fs.unlink(FILE)
    assert fs.account() == (0, 0)
    assert await kept(fs, path=FILE) == {}
    found = await fs.node(FILE)
    assert _facts(found) == was
    assert found.state is State.COMMITTED
    assert await fs.read(FILE) == pattern(70_000)
    assert fs.account() == (70_000, 1)
    assert await listed(fs) == []
    await fs.drain()
    await fs.assert_consistent()
    assert (fs.root / FILE).read_bytes() == pattern(70_000)


def _facts(node: Any) -> tuple[object, ...]:
    return node.bytes, node.mode, node.uid, node.gid, node.mtime_ns, node.sha256, node.md5


async def test_what_is_listed(fs: Filesystem) -> None:
    await fs.write(FILE, b"first")
    await fs.drain()
    await fs.write(FILE, b"second!")
    await fs.write(OTHER, b"other")
    await fs.drain()
    fs.clock.advance(600)
    await fs.unlink(FILE)
    await fs.unlink(OTHER)
    entries = await listed(fs)
    assert [(each["path"], each["size_bytes"]) for each in entries] == [(FILE, 5), (FILE, 7), (OTHER, 5)]
    assert [each["age_s"] // 600 for each in entries] == [1, 0, 0]
    assert all(each["age_s"] + each["left_s"] == pytest.approx(HOUR) for each in entries)
    assert [each["path"] for each in await listed(fs, path=f"{REC}/sub")] == [OTHER]
    assert [each["size_bytes"] for each in await listed(fs, older_s=300)] == [5]
    assert await listed(fs, path=f"{REC}/fil") == []


async def test_a_recording_comes_back_whole_in_its_last_versions(fs: Filesystem) -> None:
    for version in (b"first", b"second!"):
        await fs.write(FILE, version)
        await fs.write(OTHER, version)
        await fs.drain()
    await fs.unlink(FILE)
    await fs.unlink(OTHER)
    await fs.rmdir(f"{REC}/sub")
    await fs.rmdir(REC)
    result = await ask(fs, "trash_restore", path="users/5")
    assert (result["files"], result["kept"]) == (2, [])
    assert await fs.tree(REC) == {FILE: b"second!", f"{REC}/sub": None, OTHER: b"second!"}
    assert [each["size_bytes"] for each in await listed(fs)] == [5, 5]


async def test_an_older_version_goes_to_another_name(fs: Filesystem) -> None:
    await fs.write(FILE, b"first")
    await fs.drain()
    await fs.write(FILE, b"second!")
    await fs.drain()
    (entry,) = await listed(fs)
    assert await kept(fs, ids=[entry["number"]], to=f"{REC}/new/first") == {}
    assert await fs.read(f"{REC}/new/first") == b"first"
    assert await fs.read(FILE) == b"second!"


async def test_what_is_there_is_replaced_by_force_only(fs: Filesystem) -> None:
    entry = await removed(fs, FILE, b"old")
    await fs.write(FILE, b"new one")
    await fs.drain()
    assert await kept(fs, ids=[entry["number"]]) == {
        FILE: f"{FILE} exists by now; --force replaces it, --to PATH gives another name"
    }
    assert await fs.read(FILE) == b"new one"
    assert await kept(fs, ids=[entry["number"]], force=True) == {}
    assert await fs.read(FILE) == b"old"
    assert [each["size_bytes"] for each in await listed(fs)] == [len(b"new one")]
    await fs.drain()
    await fs.assert_consistent(trash=1)


async def test_a_directory_or_a_link_in_the_way(fs: Filesystem) -> None:
    entry = await removed(fs, FILE, b"old")
    await fs.mkdirs(FILE)
    assert await kept(fs, ids=[entry["number"]], force=True) == {FILE: f"{FILE} is a directory"}
    await fs.rmdir(FILE)
    await fs.vfs.symlink((await fs.node(REC)).ino, b"away", b"/etc", OPERATOR)
    refused = await kept(fs, ids=[entry["number"]], to=f"{REC}/away/passwd")
    assert refused == {FILE: f"{REC}/away is not a directory"}
    assert [each["kind"] for each in await listed(fs)] == ["file", "dir"]


@pytest.mark.parametrize("limit", ["max_bytes", "max_files", "max_file_size"])
async def test_the_quota_has_to_have_room(fs: Filesystem, limit: str) -> None:
    entry = await removed(fs, FILE, pattern(5000))
    await fs.write(OTHER, b"there")
    await ask(fs, "quota_set", user="5", **{limit: 1 if limit == "max_files" else 4000})
    refused = await kept(fs, ids=[entry["number"]])
    assert list(refused) == [FILE]
    assert not await fs.exists(FILE)
    assert fs.account() == (5, 1)
    assert len(await listed(fs)) == 1
    await fs.drain()
    await fs.assert_consistent(trash=1)


async def test_a_file_that_was_never_committed_is_sealed(fs: Filesystem) -> None:
    await fs.write(FILE, b"closed")
    await fs.unlink(FILE)
    (entry,) = await listed(fs)
    assert entry["sha256"] is None
    assert await kept(fs, path=FILE) == {}
    await fs.drain()
    found = await fs.node(FILE)
    assert (found.state, await fs.read(FILE)) == (State.COMMITTED, b"closed")


async def test_bytes_that_are_gone_or_others(fs: Filesystem) -> None:
    entry = await removed(fs, FILE, b"bytes")
    await fs.drain()
    path = fs.root / ".recfs/trash" / str(entry["number"])
    path.write_bytes(b"other bytes")
    assert "something else" in (await kept(fs, path=FILE))[FILE]
    path.unlink()
    assert "gone" in (await kept(fs, path=FILE))[FILE]
    assert not await fs.exists(FILE)


async def test_purged_versions_are_gone(fs: Filesystem) -> None:
    await removed(fs, FILE, b"bytes")
    await removed(fs, OTHER, b"other")
    fs.clock.advance(60)
    await removed(fs, f"{REC}/third", b"third")
    with pytest.raises(InvalidArgument):
        await ask(fs, "trash_purge")
    assert (await ask(fs, "trash_purge", path=OTHER))["files"] == 1
    assert (await ask(fs, "trash_purge", older_s=30))["files"] == 1
    assert [each["path"] for each in await listed(fs)] == [f"{REC}/third"]
    assert (await ask(fs, "trash_purge", all=True))["files"] == 1
    assert await listed(fs) == []
    await fs.drain()
    assert os.listdir(fs.root / ".recfs/trash") == []
    await fs.assert_consistent()


async def test_what_cannot_be_meant(fs: Filesystem) -> None:
    await removed(fs, FILE, b"bytes")
    await removed(fs, OTHER, b"other")
    with pytest.raises(NotFound, match="no number 99"):
        await ask(fs, "trash_restore", ids=[99])
    with pytest.raises(InvalidArgument):
        await ask(fs, "trash_restore")
    with pytest.raises(InvalidArgument, match="not 2"):
        await ask(fs, "trash_restore", path=REC, to=FILE)
    for path in ("", "users/../etc", "."):
        with pytest.raises(InvalidPath):
            await ask(fs, "trash_restore", path=path)
    assert len(await listed(fs)) == 2


async def test_its_time_may_be_over_meanwhile(fs: Filesystem) -> None:
    entry = await removed(fs, FILE, b"bytes")
    await fs.drain()
    fs.clock.advance(HOUR + 1)
    fs.parts.work.upkeep.sweeper.sweep_trash()
    with pytest.raises(NotFound):
        await ask(fs, "trash_restore", ids=[entry["number"]])
    await fs.drain()
    await fs.assert_consistent()


async def test_what_is_not_in_the_trash_any_more_is_forgotten_at_the_start(fs: Filesystem) -> None:
    entry = await removed(fs, FILE, b"bytes")
    await removed(fs, OTHER, b"other")
    await fs.drain()
    await fs.stop()
    (fs.root / ".recfs/trash" / str(entry["number"])).unlink()
    await fs.reopen()
    assert [each["path"] for each in await listed(fs)] == [OTHER]
    await fs.drain()
    await fs.assert_consistent(trash=1)


async def test_without_a_retention_nothing_is_there(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        await fs.write(FILE, b"bytes")
        await fs.unlink(FILE)
        assert await ask(fs, "trash_list") == {"retention_s": 0.0, "entries": []}


async def test_what_was_written_on_after_its_removal_is_sealed_as_it_is(fs: Filesystem) -> None:
    await fs.write(FILE, b"first")
    number = await fs.open(FILE, os.O_WRONLY)
    await fs.vfs.files.write(number, 5, b" and more")
    await fs.unlink(FILE)
    await fs.vfs.files.write(number, 14, b" and still more")
    await fs.close(number)
    await fs.drain()
    assert await kept(fs, path=FILE) == {}
    await fs.drain()
    assert await fs.read(FILE) == b"first and more and still more"
    assert fs.account() == (29, 1)
    await fs.assert_consistent()


async def test_what_lay_in_s3_too_is_sent_there_again(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place, **KEEPS)
    await fs.start()
    await fs.write(FILE, b"stored")
    await fs.drain()
    assert (await fs.node(FILE)).state is State.STORED
    await fs.unlink(FILE)
    assert await kept(fs, path=FILE) == {}
    await fs.drain()
    assert (await fs.node(FILE)).state is State.STORED
    fs.clock.advance(2 * HOUR)
    await fs.drain()
    assert stored(fs) == {FILE: b"stored"}
    await fs.stop()


@pytest.mark.slow
@pytest.mark.parametrize("committed", [True, False], ids=["committed", "closed"])
@pytest.mark.may_log("closed database")
async def test_a_death_before_any_step_loses_nothing(place: Path, committed: bool) -> None:
    step, done = 0, False
    while not done:
        step += 1
        async with filesystem(place / str(step), start=False, **KEEPS) as fs:
            await fs.start()
            await fs.write(FILE, pattern(9000))
            if committed:
                await fs.drain()
            await fs.unlink(FILE)
            await fs.drain()
            done = await fs.until_stopped(_restore, step)
            await fs.crash()
            await fs.start_and_die(1 + step * 5 % 13)
            await fs.reopen()
            await fs.drain()
            there = await fs.exists(FILE)
            if there:
                assert await fs.read(FILE) == pattern(9000), step
                assert (await fs.node(FILE)).state is State.COMMITTED
            else:
                assert not done
                assert await kept(fs, path=FILE) == {}
                assert await fs.read(FILE) == pattern(9000), step
            await fs.drain()
            await fs.assert_consistent(trash=len(await listed(fs)))
    assert step > 5


async def _restore(fs: Filesystem) -> None:
    await ask(fs, "trash_restore", path=FILE)
    await fs.drain()


async def test_what_was_changed_for_the_first_time_after_its_removal_is_sealed_as_it_is(fs: Filesystem) -> None:
    """It was committed when it lost its name."""
    await fs.write(FILE, b"first")
    await fs.drain()
    number = await fs.open(FILE, os.O_WRONLY)
    await fs.unlink(FILE)
    await fs.drain()
    await fs.vfs.files.write(number, 5, b" and more")
    await fs.close(number)
    await fs.drain()
    (entry,) = await listed(fs)
    assert (entry["sha256"], entry["size_bytes"]) == (None, 14)
    assert await kept(fs, path=FILE) == {}
    await fs.drain()
    assert await fs.read(FILE) == b"first and more"
    assert fs.account() == (14, 1)
    await fs.assert_consistent()


@pytest.mark.parametrize("written", [b"", b"FIRST"], ids=["left alone", "changed"])
async def test_a_death_finds_what_was_changed_after_its_removal_not_committed(fs: Filesystem, written: bytes) -> None:
    """Of the same size: nothing but the row tells."""
    await fs.write(FILE, b"first")
    await fs.drain()
    number = await fs.open(FILE, os.O_WRONLY)
    await fs.unlink(FILE)
    await fs.drain()
    if written:
        await fs.vfs.files.write(number, 0, written)
    await fs.crash()
    await fs.reopen()
    (entry,) = await listed(fs)
    assert (entry["sha256"] is None) == bool(written)
    assert await kept(fs, path=FILE) == {}
    await fs.drain()
    assert await fs.read(FILE) == (written or b"first")
    await fs.assert_consistent()


async def test_who_opens_it_after_its_removal_writes_to_a_copy(fs: Filesystem) -> None:
    await fs.write(FILE, b"first")
    await fs.drain()
    node = await fs.node(FILE)
    reader = await fs.open(FILE)
    await fs.unlink(FILE)
    await fs.drain()
    number = int(await fs.vfs.open(node.ino, os.O_WRONLY, OPERATOR))
    await fs.vfs.files.write(number, 0, b"other and more")
    await fs.close(number)
    await fs.close(reader)
    await fs.drain()
    (entry,) = await listed(fs)
    assert (entry["sha256"] is None, entry["size_bytes"]) == (False, 5)
    assert await kept(fs, path=FILE) == {}
    assert await fs.read(FILE) == b"first"
    await fs.assert_consistent()


@pytest.mark.may_log("Input/output error")
async def test_what_was_purged_does_not_come_back_after_a_death(place: Path) -> None:
    """The bytes may still be there, if it comes before the publisher."""
    async with filesystem(place / "root", trash={"retention": 3600.0}) as fs:
        for number in range(3):
            await fs.write(f"{REC}/{number}", b"bytes")
        await fs.drain()
        for number in range(3):
            await fs.unlink(f"{REC}/{number}")
        await fs.drain()
        fs.faults.fail("unlink", 5, "trash", times=100)
        assert (await ask(fs, "trash_purge", path=f"{REC}/1"))["files"] == 1
        await fs.crash()
        fs.faults.heal()
        await fs.reopen()
        await fs.drain()
        assert [each["path"] for each in await listed(fs)] == [f"{REC}/0", f"{REC}/2"]
        await fs.assert_consistent(trash=2)


async def test_what_the_kernel_writes_after_a_removal_is_sealed_as_it_is(place: Path) -> None:
    """It has the file open by itself, and nobody hears of the write."""
    async with filesystem(place / "root", start=False, trash={"retention": 3600.0}) as fs:
        fs.files = FakeKernelFiles()
        await fs.start()
        await fs.write(FILE, b"first")
        await fs.drain()
        number, _ = await fs.pass_open(FILE, os.O_RDWR)
        await fs.unlink(FILE)
        await fs.drain()
        fs.pass_write(number, b"FIRST")
        await fs.close(number)
        await fs.drain()
        assert await kept(fs, path=FILE) == {}
        await fs.drain()
        assert await fs.read(FILE) == b"FIRST"
        await fs.assert_consistent()


async def test_a_path_of_which_the_trash_has_nothing_is_named(fs: Filesystem) -> None:
    """Who mistyped it would else take it for restored."""
    await fs.write(FILE, b"data")
    await fs.unlink(FILE)
    for extra in ({}, {"to": OTHER}, {"user": "5"}):
        result = await ask(fs, "trash_restore", path=f"{FILE}x", **extra)
        assert (result["files"], result["restored"]) == (0, [])
        assert result["kept"] == [{"path": f"{FILE}x", "reason": "the trash has nothing of it"}]
    assert (await ask(fs, "trash_restore", user="77"))["kept"] == []
