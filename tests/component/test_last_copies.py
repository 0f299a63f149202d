"""Before a local copy leaves, S3 is asked whether it still has what it confirmed once: else it may be the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from recfs.core.model import State
from recfs.services.far import local_copies
from recfs.tier.link import Link

from .build import REC, Filesystem, pattern
from .far import OTHER, Hold, ask, bucket, down, fs
from .test_tier import FILE, MIB, node, tiered

if TYPE_CHECKING:
    from pathlib import Path

    import trio

__all__ = ["fs"]

GONE = "S3 does not have its object any more"
THIRD = f"{REC}/third"


async def test_a_copy_stays_whose_object_is_gone_or_another(fs: Filesystem) -> None:
    """Deleted by a rule of the bucket, say, or overwritten by somebody else: what is here are the only right bytes."""
    for path in (FILE, OTHER, THIRD):
        await fs.write(path, path.encode())
    await fs.drain()
    bucket(fs).vanish(FILE)
    bucket(fs).tamper(OTHER, b"something else altogether")
    answer = await ask(fs, "evict", path=REC, recursive=True)
    assert answer["files"] == 1
    assert sorted(each["path"] for each in answer["kept"]) == sorted([FILE, OTHER])
    assert all(GONE in each["reason"] for each in answer["kept"])
    await fs.drain()
    for path in (FILE, OTHER, THIRD):
        assert await fs.read(path) == path.encode()
    assert await fs.state(THIRD) == "stored"  # it was fetched


async def test_a_copy_stays_while_s3_does_not_answer(fs: Filesystem) -> None:
    """Who asks for it can ask again."""
    await fs.write(FILE, b"data")
    await fs.drain()
    down(fs)
    answer = await ask(fs, "evict", path=FILE)
    assert answer["files"] == 0
    assert "no route" in answer["kept"][0]["reason"]
    bucket(fs).heal()
    assert (await ask(fs, "evict", path=FILE))["files"] == 1


@pytest.mark.slow
async def test_many_copies_stay_at_once_where_s3_is_silent(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question has the patience of who waits; the others of the same command are not asked any more."""
    paths = [f"{REC}/file{number}" for number in range(3 * local_copies.ASKED_AT_ONCE)]
    for path in paths:
        await fs.write(path, b"data")
    await fs.drain()
    monkeypatch.setattr(local_copies, "ANSWER_S", 0.1)
    hold, before = Hold(fs, "head"), len(bucket(fs).calls)
    answer = await ask(fs, "evict", path=REC, recursive=True)
    assert (answer["files"], answer["kept_files"]) == (0, len(paths))
    assert all("S3 does not answer" in each["reason"] for each in answer["kept"])
    assert [name for name, _ in bucket(fs).calls[before:]].count("head") <= local_copies.ASKED_AT_ONCE
    hold.let_go()
    assert (await ask(fs, "evict", path=REC, recursive=True))["files"] == len(paths)


@pytest.mark.slow
async def test_the_first_answer_of_an_outage_is_enough(fs: Filesystem) -> None:
    paths = [f"{REC}/file{number}" for number in range(4 * local_copies.ASKED_AT_ONCE)]
    for path in paths:
        await fs.write(path, b"data")
    await fs.drain()
    down(fs)
    before = len(bucket(fs).calls)
    answer = await ask(fs, "evict", path=REC, recursive=True)
    assert (answer["files"], answer["kept_files"]) == (0, len(paths))
    assert [name for name, _ in bucket(fs).calls[before:]].count("head") <= 2 * local_copies.ASKED_AT_ONCE


async def test_s3_is_asked_also_where_it_was_down_a_moment_ago(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else may ask it, and so find out that it is back."""
    await fs.write(FILE, b"data")
    await fs.drain()
    monkeypatch.setattr(Link, "is_down", property(lambda self: True))
    assert (await ask(fs, "evict", path=FILE))["files"] == 1


async def test_an_object_that_recfs_gave_another_etag_is_still_the_files(fs: Filesystem) -> None:
    """The answer to a copy of its metadata was lost, say: the checksum that recfs put there tells."""
    await fs.write(FILE, b"data")
    await fs.drain()
    held = bucket(fs)
    info = held.head(FILE)
    assert info is not None
    held.copy(FILE, f"{FILE}.aside", 4, if_match=info.etag)
    held.vanish(FILE)
    aside = held.head(f"{FILE}.aside")
    assert aside is not None
    held.copy(f"{FILE}.aside", FILE, 4, if_match=aside.etag)
    assert (await ask(fs, "evict", path=FILE))["files"] == 1
    assert await fs.read(FILE) == b"data"


@pytest.mark.expect_log("S3 does not have its object")
async def test_the_budget_does_not_have_the_last_copy_leave(nursery: trio.Nursery, place: Path) -> None:
    """The next one leaves in its place; it is asked about again only after a while."""
    fs = tiered(nursery, place, cache={"max_size": 2 * MIB, "fetch_whole_below": MIB, "read_ahead_max": MIB})
    await fs.start()
    await fs.mkdirs(REC)
    await fs.write(FILE, pattern(900_000, 1))
    await fs.drain()
    bucket(fs).vanish(FILE)
    for path in (OTHER, THIRD):
        fs.clock.advance(100)
        await fs.write(path, pattern(900_000, 2))
        await fs.drain()
    await fs.tier.evictor.evict_excess()
    await fs.drain()
    assert await fs.state(FILE) == "stored"
    assert await fs.state(OTHER) == "evicted"
    assert await fs.read(FILE) == pattern(900_000, 1)
    asked: list[str | None] = []
    bucket(fs).before = lambda operation, key: asked.append(key) if operation == "head" else None
    await fs.write(f"{REC}/fourth", pattern(900_000, 3))
    await fs.drain()
    await fs.tier.evictor.evict_excess()
    await fs.drain()
    assert await fs.state(THIRD) == "evicted"
    assert FILE not in asked
    await fs.stop()


async def test_the_budget_is_kept_while_s3_does_not_answer(nursery: trio.Nursery, place: Path) -> None:
    """What it confirmed once leaves as before: else an outage would fill the disk with copies."""
    fs = tiered(nursery, place, cache={"max_size": MIB, "fetch_whole_below": MIB, "read_ahead_max": MIB})
    await fs.start()
    await fs.mkdirs(REC)
    await fs.write(FILE, pattern(900_000, 1))
    await fs.drain()
    down(fs, "head")
    fs.clock.advance(100)
    await fs.write(OTHER, pattern(900_000, 2))
    await fs.drain()
    await fs.tier.evictor.evict_excess()
    await fs.drain()
    assert (await node(fs)).state is State.EVICTED
    bucket(fs).heal()
    await fs.stop()
