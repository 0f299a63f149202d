"""The wall clock is put ahead or back while files go to S3 and come from there. No time is lost, and none is gained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.core.quota import month_of
from recfs.errors import QuotaExceeded
from recfs.fs.attributes import Changes
from recfs.state.nodes import FileNode
from tests.helpers.virtual_time import GUARD_S

from .build import OPERATOR, REC, Filesystem, pattern, until
from .test_tier import tiered

pytestmark = pytest.mark.slow

FILE = f"{REC}/file"
MIB = 1 << 20
HOUR = 3600.0
STEPS = pytest.mark.parametrize("put", [-2 * HOUR, 72 * HOUR])


async def started(nursery: trio.Nursery, tmp_path: Path, **settings: Any) -> Filesystem:
    fs = tiered(nursery, tmp_path / "root", **settings)
    await fs.start()
    await fs.mkdirs(REC)
    return fs


async def committed(fs: Filesystem, path: str = FILE) -> FileNode:
    node = await fs.node(path)
    assert isinstance(node, FileNode)
    with trio.fail_after(GUARD_S):
        while node.state is not State.COMMITTED:
            await fs.vfs.pipeline.progress()
    return node


def look(fs: Filesystem) -> None:
    """Have the uploader look again."""
    fs.tier.journal.wake.set()


@STEPS
@pytest.mark.parametrize("restarts", [False, True])
async def test_an_upload_waits_as_long_as_it_should(
    nursery: trio.Nursery, tmp_path: Path, put: float, restarts: bool
) -> None:
    fs = await started(nursery, tmp_path, upload={"settle": 60.0})
    await fs.write(FILE, b"data")
    await committed(fs)
    fs.clock.put(put)
    if restarts:
        await fs.stop()
        await fs.reopen()
    journal = fs.tier.journal
    fs.clock.advance(59)
    journal.due.arrive()
    assert journal.due.take(deletions=False) is None
    fs.clock.advance(1)
    look(fs)
    node = await fs.node(FILE)
    await until(lambda: node.state is State.STORED)
    await fs.stop()


async def test_what_a_wrong_clock_left_in_the_journal_waits_no_longer_than_it_was_to(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    fs = await started(nursery, tmp_path, upload={"settle": 60.0})
    await fs.write(FILE, b"data")
    await committed(fs)
    await fs.stop()
    fs.clock.passed_ns -= 1000 * 3600 * 10**9  # as if the times in the catalogue lay ahead
    await fs.reopen()
    fs.clock.advance(60)
    look(fs)
    node = await fs.node(FILE)
    await until(lambda: node.state is State.STORED)
    await fs.stop()


@STEPS
async def test_the_order_of_last_use_is_kept(nursery: trio.Nursery, tmp_path: Path, put: float) -> None:
    fs = await started(nursery, tmp_path, cache={"max_size": 10 * MIB, "read_ahead_max": MIB})
    for n in range(8):
        fs.clock.advance(100)
        if n == 4:
            fs.clock.put(put)
        await fs.write(f"{REC}/file{n}", pattern(3 * MIB, n))
        await fs.drain()
    await fs.tier.evictor.evict_excess()
    await fs.drain()
    assert [await fs.state(f"{REC}/file{n}") for n in range(8)] == ["evicted"] * 5 + ["stored"] * 3
    await fs.stop()


@STEPS
async def test_keep_local_is_kept(nursery: trio.Nursery, tmp_path: Path, put: float) -> None:
    fs = await started(
        nursery, tmp_path, cache={"max_size": MIB, "fetch_whole_below": MIB, "read_ahead_max": MIB},
        route=[{"pattern": "users/**", "to": "s3", "keep_local": "1d"}],
    )  # fmt: skip
    await fs.write(FILE, pattern(2 * MIB))
    await fs.drain()
    assert await fs.state(FILE) == "stored"
    fs.clock.put(put)
    fs.clock.advance(23.9 * HOUR)
    await fs.tier.evictor.evict_excess()
    assert await fs.state(FILE) == "stored"
    fs.clock.advance(0.1 * HOUR)
    await fs.tier.evictor.evict_excess()
    assert await fs.state(FILE) == "evicted"
    await fs.stop()


@STEPS
async def test_the_trash_is_kept_for_its_retention(nursery: trio.Nursery, tmp_path: Path, put: float) -> None:
    """And so is the object of a removed file."""
    fs = await started(nursery, tmp_path, trash={"retention": "1d"})
    await fs.write("shared/thumbnails/file", b"data")
    await fs.write(FILE, b"data")
    await fs.drain()
    await fs.unlink("shared/thumbnails/file")
    await fs.unlink(FILE)
    await fs.drain()
    assert fs.objects is not None
    fs.clock.put(put)
    fs.clock.advance(23.9 * HOUR)
    fs.parts.work.upkeep.sweeper.sweep_trash()
    look(fs)
    await fs.drain()
    assert (len(fs.leftovers("trash")), len(fs.objects.keys())) == (2, 1)
    fs.clock.advance(0.1 * HOUR)
    fs.parts.work.upkeep.sweeper.sweep_trash()
    look(fs)
    await fs.drain()
    objects = fs.objects
    await until(lambda: not objects.keys())
    assert fs.leftovers("trash") == []
    await fs.stop()


async def test_a_time_in_the_future_says_nothing_of_a_files_age(nursery: trio.Nursery, tmp_path: Path) -> None:
    """`touch -d 2100` does not keep a file from ever going where the rules want it."""
    fs = await started(nursery, tmp_path, route=[{"pattern": "users/**", "min_age": "30d", "to": "s3"}])
    await fs.write(FILE, b"data")
    await fs.drain()
    node = await fs.node(FILE)
    await fs.vfs.setattr(node.ino, Changes(mtime_ns=4_102_444_800 * 10**9), OPERATOR)
    decide = fs.tier.decide
    assert decide(node).store == "local"
    fs.clock.advance(29 * 24 * HOUR)
    assert decide(node).store == "local"
    fs.clock.advance(24 * HOUR)
    assert decide(node).store == "s3"
    answer = await fs.answers()["route_explain"]({"path": FILE})
    assert answer["decision"]["store"] == "s3"
    assert answer["age_s"] == 30 * 24 * HOUR
    await fs.stop()


async def test_a_clock_that_was_in_another_year_does_not_keep_a_month_from_ending(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    fs = await started(nursery, tmp_path)
    await fs.answers()["quota_set"]({"user": "5", "max_monthly_uploads": 1})
    fs.clock.put(400 * 86_400)
    await fs.write(f"{REC}/source.mp4", b"1")
    assert (await fs.answers()["quota_show"]({"user": "5"}))[0]["month"] == month_of(fs.clock.calendar_ns())
    fs.clock.put(-400 * 86_400)
    for (told,) in (await fs.answers()["quota_show"]({"user": "5"}), (await fs.answers()["status"]({}))["users"]):
        assert (told["month"], told["month_uploads"]) == (month_of(fs.clock.calendar_ns()), 1)
    with pytest.raises(QuotaExceeded):
        await fs.write("users/5/recordings/2/source.mp4", b"2")
    fs.clock.advance(31 * 86_400)
    await fs.write("users/5/recordings/2/source.mp4", b"2")
    await fs.stop()
