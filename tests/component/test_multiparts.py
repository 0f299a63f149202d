"""Uploads in parts that nobody goes on with: which of them are aborted, and what is in the way of that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.errors import InvalidArgument
from recfs.ports.object_errors import ServerFault
from recfs.ports.objects import ObjectMeta
from tests.fake_object_store import FakeObjectStore

from .build import REC, Filesystem, filesystem
from .sweeping import running, swept
from .test_tier import tiered

DAY_S = 86_400.0
OURS = f"{REC}/ours"


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One with an S3 of which nothing is known yet."""
    made = tiered(nursery, place)
    await made.start()
    yield made
    await made.stop()


def begin(fs: Filesystem, *keys: str) -> list[str]:
    """Uploads that are begun now; their ids."""
    return [bucket(fs).start_multipart(key, ObjectMeta()) for key in keys]


def bucket(fs: Filesystem) -> FakeObjectStore:
    assert fs.objects is not None
    return fs.objects


def left(fs: Filesystem) -> set[str]:
    return {each.key for each in bucket(fs).list_multiparts()}


async def preview(fs: Filesystem) -> list[dict[str, Any]]:
    uploads: list[dict[str, Any]] = (await fs.answers()["sweep_multiparts"]({}))["uploads"]
    return uploads


async def test_only_old_ones_that_the_journal_does_not_know_are_aborted(fs: Filesystem) -> None:
    (theirs, ours) = begin(fs, f"{REC}/theirs", OURS)
    fs.clock.advance(8 * DAY_S)
    (begun,) = (each for each in bucket(fs).list_multiparts() if each.upload_id == ours)
    young_s = (fs.clock.now_ns() - begun.initiated_ns) / 1e9 - 6 * DAY_S
    fs.tier.journal.abort(OURS, ours)
    (row,) = fs.tier.journal.rows.values()
    fs.tier.journal.update(row._replace(next_try_ns=fs.clock.steady_ns() + 10**18))  # it waits
    assert [(each["key"], each["upload_id"]) for each in await preview(fs)] == [(f"{REC}/theirs", theirs)]
    assert left(fs) == {f"{REC}/theirs", OURS}
    ended = await swept(fs, "multiparts")
    assert (ended["outcome"], ended["result"]) == ("done", "1 aborted")
    assert left(fs) == {OURS}
    assert (await swept(fs, "multiparts"))["outcome"] == "nothing"
    fs.clock.advance(-young_s)
    begin(fs, f"{REC}/young")
    assert (await swept(fs, "multiparts"))["outcome"] == "nothing"
    assert left(fs) == {OURS, f"{REC}/young"}


@pytest.mark.parametrize("put_s", [30 * DAY_S, -30 * DAY_S])
async def test_a_clock_that_was_just_put_ahead_or_back_aborts_nothing(fs: Filesystem, put_s: float) -> None:
    fs.clock.advance(DAY_S)
    begin(fs, f"{REC}/young")
    calendar = fs.clock.calendar_ns()
    fs.clock.put(put_s)
    fs.clock.calendar_ns = lambda: calendar  # type: ignore[method-assign]
    assert (await swept(fs, "multiparts"))["outcome"] == "nothing"
    assert left(fs) == {f"{REC}/young"}


@pytest.mark.expect_log("unfinished uploads: .*/b: ")
async def test_one_that_cannot_be_aborted_keeps_no_other_and_is_tried_by_the_next_run(fs: Filesystem) -> None:
    begin(fs, *(f"{REC}/{name}" for name in "abc"))
    fs.clock.advance(8 * DAY_S)
    bucket(fs).fail("abort_multipart", ServerFault("no"), skip=1)
    assert (await swept(fs, "multiparts"))["result"] == "2 of 3 aborted"
    assert left(fs) == {f"{REC}/b"}
    assert [each["path"] for each in fs.parts.problems.as_json()] == [f"{REC}/b"]
    assert (await swept(fs, "multiparts"))["result"] == "1 aborted"
    assert fs.parts.problems.as_json() == []


@pytest.mark.expect_log("unfinished uploads: multiparts: ")
async def test_a_bucket_that_does_not_answer_or_is_anothers_is_a_failed_run_and_nothing_is_aborted(
    fs: Filesystem,
) -> None:
    begin(fs, f"{REC}/theirs")
    fs.clock.advance(8 * DAY_S)
    bucket(fs).fail("list_multiparts", ServerFault("no"))
    assert (await swept(fs, "multiparts"))["outcome"] == "failed"
    assert left(fs) == {f"{REC}/theirs"}


@pytest.mark.expect_log("belongs to|unfinished uploads: multiparts: ")
async def test_in_anothers_prefix_nothing_is_aborted(fs: Filesystem) -> None:
    begin(fs, f"{REC}/theirs")
    fs.clock.advance(8 * DAY_S)
    bucket(fs).put_small(".recfs/store.json", b"{}", only_new=True)
    assert (await swept(fs, "multiparts"))["outcome"] == "failed"
    assert left(fs) == {f"{REC}/theirs"}


async def test_a_run_is_stopped_after_the_one_it_is_at(fs: Filesystem) -> None:
    begin(fs, *(f"{REC}/{name}" for name in "abc"))
    fs.clock.advance(8 * DAY_S)
    async with running(fs, "multiparts") as sweeps:

        def stop(operation: str, key: str | None) -> None:
            if operation == "abort_multipart":
                trio.from_thread.run_sync(sweeps.stop, "multiparts")

        bucket(fs).before = stop
        number = sweeps.ask("multiparts")
        assert sweeps.ask("multiparts") == number  # a second operator gets the same run
        ended = await sweeps.wait("multiparts", number, 60.0)
    assert (ended["outcome"], ended["result"]) == ("stopped", "1 of 3 aborted")
    assert len(left(fs)) == 2


async def test_without_s3_there_is_no_such_sweep(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        names = {each["name"] for each in fs.parts.sweeps.as_json()}
        assert not names & {"multiparts", "tier"}
        with pytest.raises(InvalidArgument):
            await preview(fs)


# --- tier, by schedule ---------------------------------------------------------------------------------------------


async def test_the_tier_run_is_a_sweep_that_waits_for_no_command(fs: Filesystem) -> None:
    (told,) = (each for each in fs.parts.sweeps.as_json() if each["name"] == "tier")
    assert (told["every_s"], told["next_s"]) == (None, None)  # off by default
    await fs.write(f"{REC}/file", b"data")
    await fs.drain()
    ended = await swept(fs, "tier")
    assert (ended["outcome"], ended["result"]) == ("done", "1 files, all where they belong")
    tier_run = fs.parts.work.far.tier_run  # type: ignore[union-attr]
    tier_run._under_way = object()  # type: ignore[assignment]
    assert (await swept(fs, "tier"))["outcome"] == "nothing"
