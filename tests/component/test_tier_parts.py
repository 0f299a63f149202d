"""Multipart uploads that a crash, or a server of its own kind, cut off: they end with the object, once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recfs.core.model import State
from recfs.ports.object_errors import (
    AccessRefused,
    BadAnswer,
    ChecksumMismatch,
    RequestRefused,
    ServerFault,
    Unreachable,
    UploadInvalid,
)
from tests.fake_object_store import FakeObjectStore

from .build import REC, Filesystem, pattern
from .test_tier import FILE, MIB, node, stored, tiered

if TYPE_CHECKING:
    import trio

DATA = pattern(20 * MIB)

pytestmark = pytest.mark.slow


@pytest.fixture
async def fs(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Filesystem]:
    """A running one."""
    made = tiered(nursery, tmp_path / "root")
    await made.start()
    await made.mkdirs(REC)
    yield made
    await made.stop()


def objects(fs: Filesystem) -> FakeObjectStore:
    """What stands for S3."""
    assert fs.objects is not None
    return fs.objects


async def failed(fs: Filesystem) -> None:
    """Until the upload has failed once."""
    journal = fs.tier.journal
    while not any(row.attempts for row in journal.rows.values()):
        await journal.progress()


async def again(fs: Filesystem) -> None:
    """What failed has its next try, and everything is done."""
    journal = fs.tier.journal
    for row in list(journal.rows.values()):
        journal.retry(row.id)
    await fs.drain()


async def once_more(fs: Filesystem, attempts: int) -> None:
    """The upload is tried again, and has failed *attempts* times then."""
    journal = fs.tier.journal
    while True:
        (row,) = (row for row in journal.rows.values() if row.kind == "upload")
        if row.attempts >= attempts:
            return
        if row.id not in journal.running:
            journal.retry(row.id)
        await journal.progress()


def sent(fs: Filesystem) -> int:
    return sum(operation == "upload_part" for operation, _ in objects(fs).calls)


async def test_a_finished_upload_whose_answer_was_lost_is_not_sent_again(
    fs: Filesystem, expect_log: Callable[[str], None]
) -> None:
    """The object is there, the upload is gone."""
    expect_log("next try in")
    objects(fs).fail("finish_multipart", Unreachable("reset"), after=True)
    await fs.write(FILE, DATA)
    await failed(fs)
    await again(fs)
    assert stored(fs) == {FILE: DATA}
    assert (await node(fs)).state is State.STORED
    assert sent(fs) == 3


async def test_a_finished_upload_that_the_daemon_did_not_live_to_record(
    fs: Filesystem, expect_log: Callable[[str], None]
) -> None:
    """As before, with another daemon."""
    expect_log("next try in")
    objects(fs).fail("finish_multipart", Unreachable("reset"), times=1000, after=True)
    await fs.write(FILE, DATA)
    await failed(fs)
    await fs.parts.behind.flush()  # what was not written yet would be sent once more
    await fs.crash()
    objects(fs).heal()
    await fs.reopen()
    await fs.drain()
    assert stored(fs) == {FILE: DATA}
    assert sent(fs) == 3
    assert objects(fs).list_multiparts() == []


@pytest.mark.parametrize("error", [RequestRefused("InvalidRequest"), UploadInvalid("InvalidPart")])
async def test_parts_that_make_no_object_are_sent_anew(
    fs: Filesystem, error: Exception, expect_log: Callable[[str], None]
) -> None:
    """Not offered to the server again and again as they are."""
    expect_log("next try in")
    objects(fs).fail("finish_multipart", error)
    await fs.write(FILE, DATA)
    await failed(fs)
    for row in list(fs.tier.journal.rows.values()):
        assert not row.upload_id or row.kind == "abort"
    await again(fs)
    assert stored(fs) == {FILE: DATA}
    assert objects(fs).list_multiparts() == []


def uploads(fs: Filesystem) -> set[str]:
    """Ids of the multipart uploads that recfs goes on with."""
    return {row.upload_id for row in fs.tier.journal.rows.values() if row.kind == "upload"}


@pytest.mark.parametrize("error", [ServerFault("InternalError"), BadAnswer("a page"), ChecksumMismatch("another etag")])
@pytest.mark.parametrize("broken", ["finish_multipart", "list_parts"])
async def test_an_upload_that_never_ends_is_begun_anew(
    fs: Filesystem, error: Exception, broken: str, expect_log: Callable[[str], None]
) -> None:
    """After some tries, over restarts, and not while the server is away."""
    expect_log("next try in")
    expect_log("is begun anew: after 4 tries")
    objects(fs).fail("finish_multipart", error, times=1)
    await fs.write(FILE, DATA)
    await failed(fs)
    first = uploads(fs)
    objects(fs).fail(broken, error, times=1_000)
    objects(fs).fail("head", Unreachable("reset"), times=4)  # of the eight tries, four find the server away
    for attempts in range(2, 9):
        assert uploads(fs) == first
        if attempts == 4:
            await fs.parts.behind.flush()
            await fs.crash()
            await fs.reopen()
        await once_more(fs, attempts)
    assert uploads(fs) == {""}
    assert sent(fs) == 3, "nothing was sent a second time so far"
    objects(fs).heal()
    await again(fs)
    assert stored(fs) == {FILE: DATA}
    assert objects(fs).list_multiparts() == []
    assert sent(fs) == 3, "now it went in one request"


async def test_an_upload_that_ends_neither_in_parts_nor_in_one_is_tried_in_turns(
    fs: Filesystem, expect_log: Callable[[str], None]
) -> None:
    expect_log("next try in")
    expect_log("is begun anew")
    objects(fs).fail("finish_multipart", ServerFault("InternalError"), times=4)
    objects(fs).fail("put_file", ServerFault("InternalError"), times=1)
    await fs.write(FILE, DATA)
    await failed(fs)
    await once_more(fs, 5)
    await again(fs)
    assert stored(fs) == {FILE: DATA}
    assert objects(fs).list_multiparts() == []
    assert sent(fs) == 6


async def test_an_upload_whose_parts_nobody_may_list_is_begun_anew(
    fs: Filesystem, expect_log: Callable[[str], None]
) -> None:
    expect_log("next try in")
    objects(fs).fail("finish_multipart", Unreachable("reset"))
    objects(fs).fail("list_parts", AccessRefused("not to you"), times=1_000)
    await fs.write(FILE, DATA)
    await failed(fs)
    await again(fs)
    assert stored(fs) == {FILE: DATA}
    assert objects(fs).list_multiparts() == []


async def test_an_upload_that_fails_and_is_there_is_not_sent_again(fs: Filesystem) -> None:
    objects(fs).fail("finish_multipart", ServerFault("InternalError"), after=True)
    await fs.write(FILE, DATA)
    await fs.drain()
    assert stored(fs) == {FILE: DATA}
    assert (await node(fs)).state is State.STORED
    assert sent(fs) == 3


async def test_a_part_that_is_refused_again_and_again(fs: Filesystem, expect_log: Callable[[str], None]) -> None:
    expect_log("next try in")
    expect_log("is begun anew")
    objects(fs).fail("upload_part", RequestRefused("InvalidRequest"), times=1_000, skip=1)
    await fs.write(FILE, DATA)
    await failed(fs)
    first = uploads(fs)
    await once_more(fs, 3)
    assert uploads(fs) == first != {""}
    await once_more(fs, 4)
    assert uploads(fs) == {""}
    objects(fs).heal()
    await again(fs)
    assert stored(fs) == {FILE: DATA}
    assert objects(fs).list_multiparts() == []


async def test_what_an_upload_may_have_begun_is_looked_for_by_the_next_one(fs: Filesystem) -> None:
    """Though the row that began it was dropped in between: its file was being written again."""
    journal = fs.tier.journal
    await fs.write(FILE, b"bytes")
    file = await node(fs)
    journal.upload(file, 3600.0)
    row = journal.upload_of(file.ino)
    assert row is not None
    assert not journal.was_tried(row.id)
    journal.update(row._replace(attempts=1))
    journal.cancel(row.id)
    assert journal.upload_of(file.ino) is None
    journal.upload(file, 3600.0)
    another = journal.upload_of(file.ino)
    assert another is not None
    assert journal.was_tried(another.id)
