"""Backups of the catalogue that go to the bucket, too."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.upkeep.backups import BUCKET_FOLDER
from recfs.errors import BackupDamaged, NotFound
from recfs.ports.object_errors import PrefixTaken, Unreachable
from recfs.ports.objects import ObjectMeta
from recfs.rescue.backups import Backups
from tests.fake_object_store import FakeObjectStore

from .build import REC, Filesystem, filesystem, pattern
from .far import bucket, no_route
from .test_backups import make
from .test_generations import S3

SENDS: dict[str, Any] = S3 | {"backup": {"to_bucket": True, "keep": 2}}


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """A running store with a bucket, and parts small enough that a backup has several."""
    async with filesystem(place, start=False, **SENDS) as made:
        made.objects = FakeObjectStore(smallest_part=1 << 20)
        await made.start()
        yield made


def found(fs: Filesystem) -> Backups:
    """Looks at both places."""
    return Backups(fs.config, fs.objects)


def in_bucket(fs: Filesystem) -> list[str]:
    """Names of what lies there; headers are kept apart."""
    keys = bucket(fs).keys()
    return [key.removeprefix(BUCKET_FOLDER) for key in keys if key.startswith(".recfs/")]


async def sent(fs: Filesystem) -> Any:
    """One more, there too."""
    made = await make(fs)
    await fs.parts.work.upkeep.backups.send(made)
    return made


async def test_each_is_at_both_places_and_rotated_at_both(fs: Filesystem) -> None:
    made = [await sent(fs) for _ in range(3)]
    names = [each.header.name for each in made]
    assert [(each.header.name, each.in_bucket) for each in found(fs).kept()] == [
        (name, afar) for name in names[1:] for afar in (False, True)
    ]
    assert in_bucket(fs) == names[1:]
    assert all(each["damage"] is None for each in found(fs).verify([], None))
    assert (await fs.answers()["status"]({}))["backup"]["in_bucket"] == names[2]
    assert not await fs.parts.work.upkeep.backups.send(made[2]), "it is there"
    told = (await fs.answers()["bucket_owner"]({})) if "bucket_owner" in fs.answers() else {"verdict": "ours"}
    assert told["verdict"] == "ours"


async def test_a_large_one_goes_in_parts(fs: Filesystem) -> None:
    bucket(fs).hold_parts_to_minimum = False
    for number in range(3000):
        await fs.mkdirs(f"{REC}/{number:0200}")
    made = await sent(fs)
    assert made.header.size_bytes > 1 << 20
    assert [name for name, _ in bucket(fs).calls].count("upload_part") == 2
    shutil.rmtree(fs.root / ".recfs/backups")
    with found(fs).opened(found(fs).chosen(None), None) as opened:
        assert opened.contents == made.header.contents


async def test_without_the_disk_the_one_in_the_bucket_is_taken(fs: Filesystem) -> None:
    made = await sent(fs)
    assert not found(fs).chosen(None).in_bucket, "the near one first"
    shutil.rmtree(fs.root / ".recfs/backups")
    chosen = found(fs).chosen(None)
    assert chosen.in_bucket
    with found(fs).opened(chosen, None) as opened:
        assert opened.contents == made.header.contents
    data = bytearray(bucket(fs).data(BUCKET_FOLDER + made.header.name))
    data[100] ^= 1
    bucket(fs).tamper(BUCKET_FOLDER + made.header.name, bytes(data))
    assert "checksum" in found(fs).verify([], None)[0]["damage"]
    with pytest.raises(BackupDamaged, match="its checksum is another"), found(fs).opened(chosen, None):
        pass
    bucket(fs).tamper(BUCKET_FOLDER + made.header.name, b"short")
    assert "it has 5 bytes" in str(found(fs).kept()[0].damage)
    with pytest.raises(NotFound, match="1 are damaged"):
        found(fs).chosen(None)


@no_route
async def test_while_s3_is_away_it_is_made_here_and_sent_later(fs: Filesystem) -> None:
    await sent(fs)
    bucket(fs).fail("*", Unreachable("no route"), times=10_000)
    told = await fs.answers()["backup_now"]({})
    assert (told["sent"], "no route" in told["not_sent"]) == (False, True)
    looked = found(fs)
    assert [each.in_bucket for each in looked.kept()] == [False, False]
    assert "no route" in str(looked.trouble)
    assert "failed: " in await run(fs)
    assert "no route" in str([each["reason"] for each in (await fs.answers()["status"]({}))["set_aside"]])
    bucket(fs).heal()
    assert told["name"] in await run(fs)
    assert told["name"] in in_bucket(fs)
    assert await run(fs) == "nothing to do"
    assert [each for each in (await fs.answers()["status"]({}))["set_aside"] if each["part"] == "backup"] == []


async def run(fs: Filesystem) -> str:
    """One run of the sweep that sends."""
    record = fs.parts.sweeps._records["backup to bucket"]
    async with trio.open_nursery() as nursery:
        await fs.parts.sweeps._run(record, nursery)
        nursery.cancel_scope.cancel()
    return str(record.result)


@pytest.mark.parametrize("operation", ["put_file", "put_small", "start_multipart", "upload_part", "finish_multipart"])
async def test_what_is_not_sent_to_its_end_is_none_and_goes(fs: Filesystem, operation: str) -> None:
    bucket(fs).hold_parts_to_minimum = False
    if "part" in operation:
        for number in range(3000):
            await fs.mkdirs(f"{REC}/{number:0200}")
    made = await make(fs)
    await fs.parts.work.upkeep.backups._ownership.ensure()  # type: ignore[union-attr]
    bucket(fs).fail(operation, Unreachable("gone"), times=1)
    bucket(fs).fail("abort_multipart", Unreachable("gone"), times=1)
    with pytest.raises(Unreachable):
        await fs.parts.work.upkeep.backups.send(made)
    assert not any(each.in_bucket for each in found(fs).kept())
    bucket(fs).heal()
    assert await fs.parts.work.upkeep.backups.send(made)
    assert in_bucket(fs) == [made.header.name]
    assert list(bucket(fs).list_multiparts()) == []


async def test_what_somebody_keeps_there_under_another_name_stays(fs: Filesystem) -> None:
    """A copy made by hand, say, and one that is on its way there."""
    await sent(fs)
    by_hand = [f"{BUCKET_FOLDER}{name}" for name in ("before-the-upgrade.db", "older/catalogue-x.db.age")]
    for key in by_hand:
        bucket(fs).put_small(key, b"dear", only_new=True)
    upload = bucket(fs).start_multipart(f"{BUCKET_FOLDER}large.db", ObjectMeta())
    made = await sent(fs)
    assert made.header.name in in_bucket(fs)
    assert all(bucket(fs).get_small(key) == b"dear" for key in by_hand)
    assert [each.upload_id for each in bucket(fs).list_multiparts()] == [upload]


@pytest.mark.expect_log("belongs to")
async def test_in_another_stores_prefix_nothing_is_changed(fs: Filesystem, place: Path) -> None:
    await sent(fs)
    before = in_bucket(fs)
    async with filesystem(place / "other", start=False, **SENDS) as other:
        other.objects = fs.objects
        await other.start()
        made = await make(other)
        with pytest.raises(PrefixTaken):
            await other.parts.work.upkeep.backups.send(made)
        other.checked_at_end = False
    assert in_bucket(fs) == before


async def test_files_in_the_bucket_are_not_mistaken_for_any_of_it(fs: Filesystem) -> None:
    """Nor are backups for files: an upload, a removal and a claim leave them alone."""
    await fs.write(f"{REC}/file", pattern(5000))
    await fs.drain()
    made = await sent(fs)
    await fs.unlink(f"{REC}/file")
    await fs.drain()
    await fs.parts.tier.ownership.claim()  # type: ignore[union-attr]
    assert bucket(fs).keys() == [BUCKET_FOLDER + made.header.name]
    assert os.path.exists(fs.root / ".recfs/backups" / made.header.name)
