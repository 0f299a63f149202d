"""Recordings that have come of age for the archive: which objects are stored anew, and what is left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.errors import InvalidArgument

from .build import REC, Filesystem, pattern
from .test_recordings import DAY, OTHER, ask
from .test_tier import evict, tiered

VIDEO, AUDIO = f"{REC}/video.mp4", f"{REC}/sub/audio"
CLASS = "GLACIER_IR"
RULES: dict[str, Any] = {"retention": [{"archive_threshold": "30d", "archive_storage_class": CLASS}]}


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One that archives after 30 days, with a recording in S3."""
    made = tiered(nursery, place, **RULES)
    await made.start()
    for path in (VIDEO, AUDIO, f"{OTHER}/young"):
        await made.write(path, pattern(9000))
    await made.drain()
    yield made
    await made.stop()


def classes(fs: Filesystem) -> dict[str, str]:
    """The storage class of each object that is not as the bucket has it by itself."""
    rows = fs.rows("select key, storage_class from object")
    return {key: name for key, name in rows if name != "STANDARD"}


async def archive(fs: Filesystem) -> str:
    """Run the sweep, to the end of its uploads."""
    (sweep,) = [each for each in fs.parts.upkeep.sweeps() if each.name == "archive"]
    decision = sweep.decide(await sweep.look())
    if decision is None:
        return "nothing"
    async with trio.open_nursery() as nursery:
        told = await sweep.act(decision, nursery)
    await fs.drain()
    assert told is not None
    return told


async def test_objects_of_old_recordings_get_the_class_and_keep_it(fs: Filesystem) -> None:
    await evict(fs, AUDIO)
    fs.clock.advance(20 * DAY)
    await fs.write(f"{OTHER}/young", b"changed")
    await fs.drain()
    assert await archive(fs) == "nothing"
    fs.clock.advance(10.1 * DAY)
    told = await ask(fs, "sweep_archive")
    assert sorted(each["path"] for each in told["moved"]) == [AUDIO, VIDEO]
    assert "its recording is older than archive_threshold 30d (rule 1)" in told["moved"][0]["reason"]
    assert classes(fs) == {}
    assert (await ask(fs, "route_explain", path=VIDEO))["move"]["step"] == "store anew"
    assert await archive(fs) == "2 of 2 stored anew"
    assert classes(fs) == {VIDEO: CLASS, AUDIO: CLASS}
    assert await archive(fs) == "0 of 2 stored anew"
    told = await ask(fs, "tier_run", dry_run=True)
    assert told["moved"] == [], "it does not bring them back"
    for path in (VIDEO, AUDIO):
        assert await fs.read(path) == pattern(9000)
    await fs.assert_consistent()


async def test_a_change_makes_the_recording_young_and_leaves_the_others_where_they_are(fs: Filesystem) -> None:
    fs.clock.advance(31 * DAY)
    await archive(fs)
    await fs.write(VIDEO, b"new")
    await fs.drain()
    assert classes(fs) == {AUDIO: CLASS, f"{OTHER}/young": CLASS}
    assert (await ask(fs, "tier_run", dry_run=True))["moved"] == []
    assert (await ask(fs, "route_explain", path=AUDIO))["decision"]["storage_class"] == CLASS
    assert (await ask(fs, "route_explain", path=VIDEO))["decision"]["storage_class"] is None


async def test_what_is_kept_is_left_alone(fs: Filesystem) -> None:
    fs.clock.advance(31 * DAY)
    await ask(fs, "recording_keep", path=REC)
    assert await archive(fs) == "1 of 1 stored anew"
    assert classes(fs) == {f"{OTHER}/young": CLASS}
    assert (await ask(fs, "tier_run", dry_run=True))["moved"] == []


async def test_without_such_a_rule_there_is_no_such_sweep(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place / "other", retention=[{"retention": "30d"}])
    await fs.start()
    assert "archive" not in {each.name for each in fs.parts.upkeep.sweeps()}
    with pytest.raises(InvalidArgument, match="archive_storage_class"):
        await ask(fs, "sweep_archive")
    await fs.stop()
