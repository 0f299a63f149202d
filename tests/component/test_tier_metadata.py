"""What the objects' metadata says follows the files' names and attributes, and no reader notices."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from recfs.core.model import State
from recfs.fs.attributes import Changes
from recfs.ports.object_errors import NotOffered, ObjectChanged, Unreachable
from tests.fake_object_store import FakeObjectStore
from tests.helpers.virtual_time import GUARD_S

from .build import OPERATOR, REC, Filesystem, pattern, until
from .test_tier import FILE, MIB, evict, node, tiered

FINAL = f"{REC}/final.mp4"
WANTED = {"mode": "0600", "owner": "33:34", "mtime": "981158400.000000000", "original-filename": "file"}


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """A running one."""
    made = tiered(nursery, place)
    await made.start()
    await made.mkdirs(REC)
    yield made
    await made.stop()


def objects(fs: Filesystem) -> FakeObjectStore:
    """What stands for S3."""
    assert fs.objects is not None
    return fs.objects


def metadata(fs: Filesystem, key: str = FILE) -> dict[str, str]:
    """Of an object, as far as it follows the file."""
    info = objects(fs).head(key)
    assert info is not None
    return {name: value for name, value in info.metadata.items() if name in WANTED}


def copies(fs: Filesystem) -> int:
    return sum(operation == "copy" for operation, _ in objects(fs).calls)


async def change(fs: Filesystem) -> None:
    """Touch, chmod and chown of the file, one after the other."""
    ino = (await node(fs)).ino
    for changes in (Changes(mtime_ns=981158400 * 10**9), Changes(mode=0o600), Changes(uid=33, gid=34)):
        await fs.vfs.setattr(ino, changes, OPERATOR)


async def store(fs: Filesystem, data: bytes = b"data") -> None:
    """The file, and its object."""
    await fs.write(FILE, data)
    await fs.drain()


async def test_attributes_of_a_stored_file_reach_its_object_by_one_copy(fs: Filesystem) -> None:
    """With everything else as it was."""
    await store(fs)
    before = objects(fs).head(FILE)
    await change(fs)
    assert copies(fs) == 0, "more may come"
    await fs.drain()
    assert metadata(fs) == WANTED
    assert copies(fs) == 1
    after = objects(fs).head(FILE)
    assert before is not None
    assert after is not None
    assert (after.sha256, after.md5, after.storage_class) == (before.sha256, before.md5, before.storage_class)
    assert after.metadata["upload-timestamp"] == before.metadata["upload-timestamp"]
    assert fs.rows("select count(*) from journal") == [0]
    assert fs.rows("select etag from object") == [after.etag]


async def test_looking_and_reading_cost_no_copy(fs: Filesystem) -> None:
    """Nor does what changes nothing, or the time of access alone."""
    await store(fs)
    found = await node(fs)
    for changes in (Changes(atime_ns=1), Changes(mode=found.mode), Changes(mtime_ns=found.mtime_ns)):
        await fs.vfs.setattr(found.ino, changes, OPERATOR)
    assert await fs.read(FILE) == b"data"
    await fs.drain()
    assert copies(fs) == 0


async def test_a_renamed_files_object_has_its_new_name(fs: Filesystem) -> None:
    """And the attributes that it has by then, in the same copy."""
    await store(fs)
    await change(fs)
    await fs.rename(FILE, FINAL)
    await fs.drain()
    assert metadata(fs, FINAL) == WANTED | {"original-filename": "final.mp4"}
    assert copies(fs) == 1
    assert objects(fs).keys() == [FINAL]


async def test_an_evicted_file_stays_away(fs: Filesystem) -> None:
    """Its object changes, its bytes are not fetched, and it is read afterwards."""
    await store(fs)
    found = await evict(fs)
    await change(fs)
    await fs.drain()
    assert metadata(fs) == WANTED
    assert found.state is State.EVICTED
    assert await fs.read(FILE) == b"data"
    await fs.drain()


async def test_what_changes_before_the_upload_goes_with_it(fs: Filesystem) -> None:
    """No copy is needed."""
    put = objects(fs).put_file
    entered, token = trio.Event(), trio.lowlevel.current_trio_token()
    go_on = trio.Event()

    def slowly(*args: object, **kwargs: object) -> object:
        trio.from_thread.run_sync(entered.set, trio_token=token)
        trio.from_thread.run(go_on.wait, trio_token=token)
        return put(*args, **kwargs)  # type: ignore[arg-type]

    objects(fs).put_file = slowly  # type: ignore[assignment, method-assign]
    await fs.write(FILE, b"data")
    await entered.wait()
    await change(fs)
    go_on.set()
    await fs.drain()
    assert metadata(fs) == WANTED
    assert copies(fs) == 1, "the upload had begun"


@pytest.mark.slow
async def test_a_reader_goes_on_over_the_change(fs: Filesystem) -> None:
    """Of a file in parts, whose object gets another etag."""
    data = pattern(64 * MIB)
    await store(fs, data)
    found = await evict(fs)
    assert found.object is not None
    etag = found.object.etag
    number = await fs.open(FILE)
    assert bytes(await fs.vfs.files.read(number, 0, 1000)) == data[:1000]
    await change(fs)
    await fs.drain()
    assert metadata(fs) == WANTED
    assert found.object.etag != etag
    for offset in range(0, len(data), MIB):
        assert bytes(await fs.vfs.files.read(number, offset, MIB)) == data[offset : offset + MIB]
    await fs.close(number)
    await fs.drain()


@pytest.mark.slow
async def test_a_copy_whose_answer_was_lost_is_known_again(fs: Filesystem, expect_log: Callable[[str], None]) -> None:
    """By the next daemon: the object has an etag that nobody recorded, and is read all the same."""
    expect_log("next try in")
    data = pattern(20 * MIB)
    await store(fs, data)
    await evict(fs)
    objects(fs).fail("copy", Unreachable("reset"), times=1000, after=True)
    await change(fs)
    journal = fs.tier.journal
    (row,) = journal.rows.values()
    journal.retry(row.id)
    while not any(each.attempts for each in journal.rows.values()):
        await journal.progress()
    await fs.crash()
    objects(fs).heal()
    before = copies(fs)
    await fs.reopen()
    assert await fs.read(FILE) == data
    await fs.drain()
    assert metadata(fs) == WANTED
    assert copies(fs) == before + 1


@pytest.mark.parametrize("error", [NotOffered("copy onto itself"), ObjectChanged("another etag")])
async def test_metadata_that_cannot_be_changed_holds_nothing_up(
    fs: Filesystem, error: Exception, expect_log: Callable[[str], None]
) -> None:
    """It is told, and that is all."""
    expect_log("its metadata in S3 stays as it is")
    await store(fs)
    objects(fs).fail("copy", error)
    await change(fs)
    await fs.drain()
    assert fs.rows("select count(*) from journal") == [0]


async def test_attributes_that_change_while_it_is_open_for_writing(fs: Filesystem) -> None:
    """As touch(1) has it: nothing is written, and the object follows once that is known."""
    await store(fs)
    number = await fs.open(FILE, os.O_RDWR)
    await fs.vfs.files.write(number, 0, b"data")
    await change(fs)
    await fs.close(number)
    found = await node(fs)
    await fs.drain()
    assert found.state is State.STORED
    assert metadata(fs) == WANTED
    assert copies(fs) == 1
    assert sum(operation == "put_file" for operation, _ in objects(fs).calls) == 1


@pytest.mark.parametrize("end", ["a limit", "a death"])
async def test_what_waits_for_a_writer_is_done_with_when_its_file_stays_incomplete(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """No commit comes that would tell."""
    await store(fs)
    number = await fs.open(FILE, os.O_RDWR)
    await fs.vfs.files.write(number, 0, b"D")
    await change(fs)
    await fs.drain()
    assert fs.rows("select count(*) from journal where kind = 'move'") == [1]
    if end == "a death":
        await fs.crash()
        await fs.reopen()
    else:
        monkeypatch.setattr(fs.parts.backing_files.stops, "thaw", lambda _: True)
        await fs.close(number)
    assert await fs.state(FILE) == "incomplete"
    with trio.fail_after(GUARD_S):
        await until(lambda: not fs.tier.journal.rows)


@pytest.mark.parametrize("goes", ["to S3", "nowhere"])
async def test_what_waits_for_a_writer_is_done_with_when_its_file_was_changed(fs: Filesystem, goes: str) -> None:
    """Its upload says all of it; of a file that belongs here now there is no object to be told."""
    await store(fs)
    number = await fs.open(FILE, os.O_RDWR)
    await fs.vfs.files.write(number, 0, b"other")
    await change(fs)
    await fs.drain()
    assert fs.rows("select count(*) from journal where kind = 'move'") == [1]
    if goes == "nowhere":
        settings = fs.tier.settings
        fs.tier.copies.settings = dataclasses.replace(settings, rules=())
    await fs.close(number)
    await fs.drain()
    assert copies(fs) == 0
    if goes == "to S3":
        assert metadata(fs)["mode"] == WANTED["mode"]
    assert fs.rows("select kind from journal where kind <> 'delete'") == []


async def test_a_file_renamed_in_the_moment_of_its_commit(fs: Filesystem) -> None:
    """Its object moves while nobody knows yet whether it was changed; the time follows."""
    await store(fs)
    number = await fs.open(FILE, os.O_RDWR)
    await fs.vfs.files.write(number, 0, b"data")
    await change(fs)
    await fs.rename(FILE, FINAL)
    journal = fs.tier.journal
    while journal.rows:
        await journal.progress()
    assert metadata(fs, FINAL)["mtime"] != WANTED["mtime"]
    await fs.close(number)
    await fs.drain()
    assert metadata(fs, FINAL) == WANTED | {"original-filename": "final.mp4"}


async def test_an_archived_object_is_left_alone(fs: Filesystem) -> None:
    """A copy onto itself would end its restore, and cost."""
    await store(fs)
    found = await node(fs)
    assert found.object is not None
    tier = fs.tier
    tier.copies.remember(found, found.object._replace(storage_class="GLACIER"))
    await change(fs)
    await fs.drain()
    assert copies(fs) == 0
