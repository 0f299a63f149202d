"""What S3 refuses for its own sake: rows that cannot succeed end, or are named, and nobody waits for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from recfs.ports.object_errors import KeyTooLong, ObjectMissing, RequestRefused
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem
from .far import ask, bucket, tick, until
from .test_tier import FILE, evict, node, stored, tiered

DEEP = REC + "".join(f"/{letter * 120}" for letter in "abcdefghij")
"""No key is as long as the paths of files in it."""
LONG = f"{DEEP}/file"
next_try = pytest.mark.expect_log("next try in")


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """A running one."""
    made = tiered(nursery, place)
    await made.start()
    await made.mkdirs(DEEP)
    yield made
    await made.stop()


async def refused(fs: Filesystem) -> list[tuple[str, str | None]]:
    """Drain, which ends; what is said to be refused."""
    with trio.fail_after(GUARD_S):
        told = await ask(fs, "drain", timeout_s=60)
    assert told["pending"] == 0
    return [(row["kind"], row["path"]) for row in told["refused"]["first"]]


def tries(fs: Filesystem, operation: str) -> int:
    """Calls of one kind so far."""
    return sum(asked == operation for asked, _ in bucket(fs).calls)


@pytest.mark.prompt_catalogue
@next_try
async def test_a_file_that_no_key_can_name_is_removed_for_good(fs: Filesystem) -> None:
    await fs.write(LONG, b"data")
    assert await refused(fs) == [("upload", LONG)]
    await fs.unlink(LONG)
    assert await refused(fs) == []
    assert fs.rows("select count(*) from journal") == [0]


@pytest.mark.prompt_catalogue
@next_try
async def test_the_deletion_of_what_cannot_be_named_keeps_no_other(fs: Filesystem) -> None:
    await fs.write(LONG, b"data")
    await fs.write(FILE, b"data")
    await refused(fs)
    await fs.unlink(LONG)
    await fs.unlink(FILE)
    assert await refused(fs) == []
    assert stored(fs) == {}


@next_try
async def test_a_file_that_is_refused_goes_as_soon_as_its_name_is_another(fs: Filesystem) -> None:
    await fs.write(LONG, b"data")
    await refused(fs)
    await fs.rename(LONG, FILE)
    assert await refused(fs) == []
    assert stored(fs) == {FILE: b"data"}


@next_try
async def test_an_object_stays_where_it_is_when_its_file_gets_too_long_a_name(fs: Filesystem) -> None:
    """And follows as soon as it can."""
    await fs.write(FILE, b"data")
    await fs.drain()
    await evict(fs)
    await fs.rename(FILE, LONG)
    assert await refused(fs) == [("move", LONG)]
    assert stored(fs) == {FILE: b"data"}
    assert await fs.read(LONG) == b"data"
    await fs.rename(LONG, f"{REC}/other")
    assert await refused(fs) == []
    assert stored(fs) == {f"{REC}/other": b"data"}


@pytest.mark.prompt_catalogue
@next_try
async def test_an_object_that_cannot_follow_makes_way(fs: Filesystem) -> None:
    """A new file of the old name is uploaded all the same."""
    await fs.write(FILE, b"old")
    await fs.drain()
    await evict(fs)
    await fs.rename(FILE, LONG)
    await refused(fs)
    await fs.write(FILE, b"new")
    async with trio.open_nursery() as ticking:
        ticking.start_soon(tick, fs)
        await until(lambda: stored(fs).get(FILE) == b"new")
        ticking.cancel_scope.cancel()
    assert await refused(fs) == [("move", LONG)]
    assert sorted(stored(fs).values()) == [b"new", b"old"]
    assert await fs.read(LONG) == b"old"
    await fs.unlink(LONG)
    await refused(fs)
    assert stored(fs) == {FILE: b"new"}


@next_try
@pytest.mark.expect_log("is gone from S3")
async def test_an_object_that_is_gone_holds_nobody_up(fs: Filesystem) -> None:
    await fs.write(FILE, b"data")
    await fs.drain()
    await evict(fs)
    bucket(fs).fail("copy", ObjectMissing("gone"), times=1000)
    await fs.rename(FILE, f"{REC}/other")
    assert await refused(fs) == [("move", f"{REC}/other")]
    assert tries(fs, "copy") == 1


@pytest.mark.expect_log("a lifecycle rule")
async def test_a_refused_abort_ends(fs: Filesystem) -> None:
    bucket(fs).fail("abort_multipart", RequestRefused("InvalidArgument"), times=1000)
    fs.tier.journal.abort(FILE, "upload-of-old")
    assert await refused(fs) == []
    assert tries(fs, "abort_multipart") == 1


async def test_the_abort_of_what_cannot_be_named_ends(fs: Filesystem) -> None:
    bucket(fs).fail("abort_multipart", KeyTooLong("too long"), times=1000)
    fs.tier.journal.abort(FILE, "upload-of-old")
    assert await refused(fs) == []


@next_try
async def test_what_is_refused_is_told_once_and_tried_when_asked(
    fs: Filesystem, caplog: pytest.LogCaptureFixture
) -> None:
    await fs.write(LONG, b"data")
    await refused(fs)
    (row_id,) = fs.tier.journal.rows
    assert (await ask(fs, "queue_retry", ids=[row_id]))["retried"] == [row_id]
    await refused(fs)
    assert fs.tier.journal.rows[row_id].attempts == 2
    assert sum("next try in" in record.getMessage() for record in caplog.records) == 1
    assert (await node(fs, LONG)).state.value == "committed"
    assert LONG in (await ask(fs, "status"))["s3"]["problem"]
