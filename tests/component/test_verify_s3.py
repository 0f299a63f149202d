"""Verification of files that S3 has, too: what is asked there, and how one copy is repaired from the other."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.errors import IoFailure
from recfs.ports.object_errors import AccessRefused, NotOffered, ObjectArchived, Unreachable
from recfs.ports.sweep import Progress
from recfs.state.events import Subscriber
from recfs.state.nodes import Node
from recfs.tier.objectchecks import LOST

from .build import Filesystem, pattern
from .far import Hold, bucket
from .test_tier import FILE, S3, evict, node, stored, tiered
from .test_verify import flip, problems, verify

DATA = pattern(3_000_001)
corrupt = pytest.mark.expect_log("is corrupt")
bad_object = pytest.mark.expect_log("S3 has no object|S3 holds")


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One file that is stored, with its copy here."""
    made = tiered(nursery, place)
    await made.start()
    await made.write(FILE, DATA)
    await made.drain()
    assert await made.state(FILE) == "stored"
    yield made
    await made.stop()


def rot(fs: Filesystem, key: str = FILE) -> None:
    """The server has other bytes than it says."""
    bucket(fs)._objects[key].data = pattern(3_000_001, seed=9)


def kept(fs: Filesystem) -> list[bytes]:
    """What lies in lost+found."""
    return [path.read_bytes() for path in sorted((fs.root / ".recfs/lost+found").iterdir())]


def kept_in_bucket(fs: Filesystem) -> list[bytes]:
    """What lies in the bucket's lost+found."""
    return [each.data for key, each in sorted(bucket(fs)._objects.items()) if key.startswith(LOST)]


def asked(fs: Filesystem) -> list[str]:
    """The calls of the object store since this was asked for last."""
    found = [operation for operation, _ in bucket(fs).calls]
    bucket(fs).calls.clear()
    return found


async def test_an_object_is_believed_by_what_the_server_says_of_it(fs: Filesystem) -> None:
    asked(fs)
    result = await verify(fs, level="hash")
    assert (result["right"], asked(fs)) == (1, [])
    result = await verify(fs, level="remote")
    assert (result["right"], result["remote_bytes"], asked(fs)) == (1, 0, ["head"])
    await evict(fs)
    asked(fs)
    result = await verify(fs, level="hash")
    assert (result["elsewhere"], asked(fs)) == (1, [])
    result = await verify(fs, level="remote")
    assert (result["right"], result["remote_bytes"], asked(fs)) == (1, 0, ["head"])


async def test_a_checksum_that_the_server_made_itself_says_all(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place)
    bucket(fs).keeps_checksums = True
    await fs.start()
    await fs.write(FILE, DATA)
    await fs.drain()
    bucket(fs)._objects[FILE].etag = "0" * 32 + "-2"  # copied by other means
    bucket(fs)._objects[FILE].metadata.clear()
    asked(fs)
    result = await verify(fs, level="remote")
    assert (result["right"], result["remote_bytes"], asked(fs)) == (1, 0, ["head"])
    await fs.stop()


@bad_object
async def test_other_bytes_of_the_same_size_are_found_by_that_checksum(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place)
    bucket(fs).keeps_checksums = True
    await fs.start()
    await fs.write(FILE, DATA)
    await fs.drain()
    bucket(fs).tamper(FILE, pattern(len(DATA), seed=3))
    asked(fs)
    result = await verify(fs, level="remote")
    assert (result["repaired"], result["remote_bytes"]) == (1, 0)
    assert "get_range" not in asked(fs)
    assert "by its own checksum" in result["found"][0]["reason"]
    await fs.drain()
    assert (stored(fs)[FILE], kept_in_bucket(fs)) == (DATA, [pattern(len(DATA), seed=3)])
    await fs.stop()


async def test_an_object_of_which_nothing_tells_is_read(fs: Filesystem) -> None:
    """Another etag, as of an object that was copied by other means, with the same bytes."""
    bucket(fs)._objects[FILE].etag = "0" * 32 + "-2"
    asked(fs)
    result = await verify(fs, level="remote")
    assert (result["right"], result["remote_bytes"], result["found"]) == (1, 3_000_001, [])
    assert set(asked(fs)) == {"head", "get_range"}


async def test_reading_from_s3_keeps_the_rate(fs: Filesystem) -> None:
    bucket(fs)._objects[FILE].etag = "0" * 32 + "-2"
    began = trio.current_time()
    result = await verify(fs, level="remote", rate=1_000_000)
    assert (result["right"], result["remote_bytes"]) == (1, 3_000_001)
    assert trio.current_time() - began > 5.6, "the disk's and S3's bytes together"


@corrupt
@pytest.mark.parametrize("damage", ["bit", "size"])
async def test_bad_local_bytes_are_replaced_by_those_of_s3_and_kept(fs: Filesystem, damage: str) -> None:
    if damage == "bit":
        flip(fs.root / FILE)
    else:
        os.truncate(fs.root / FILE, 100)
    bad = (fs.root / FILE).read_bytes()
    result = await verify(fs, level="hash")
    (found,) = result["found"]
    assert (found["verdict"], result["repaired"], result["corrupt"]) == ("repaired", 1, 0)
    assert "lost+found/corrupt-" in found["reason"]
    assert (await fs.state(FILE), problems(fs)) == ("stored", [])
    await fs.drain()
    assert await fs.read(FILE) == DATA
    assert (fs.root / FILE).read_bytes() == DATA
    assert kept(fs) == [bad]
    assert (await verify(fs, level="remote"))["right"] == 1
    assert fs.tier.copies.local_bytes == 3_000_001
    await fs.assert_consistent(lost=1)


@corrupt
async def test_a_corrupt_file_is_repaired_when_s3_answers_again(fs: Filesystem) -> None:
    flip(fs.root / FILE)
    bucket(fs).fail("*", Unreachable("no route"), times=1000)
    result = await verify(fs, level="hash")
    assert (result["corrupt"], result["found"][0]["verdict"]) == (1, "corrupt")
    assert "no route" in result["found"][0]["reason"]
    bucket(fs).heal()
    assert (await verify(fs, level="presence"))["repaired"] == 1
    await fs.drain()
    assert await fs.read(FILE) == DATA
    await fs.assert_consistent(lost=1)


@corrupt
async def test_s3_gone_in_the_middle_of_a_repair(fs: Filesystem) -> None:
    flip(fs.root / FILE)
    bucket(fs).fail("get_range", Unreachable("no route"), times=1)
    result = await verify(fs, level="hash", rate=8 << 20)
    assert (result["corrupt"], await fs.state(FILE)) == (1, "corrupt")
    assert fs.leftovers("staging") == []
    assert kept(fs) == []
    assert (await verify(fs))["repaired"] == 1


@corrupt
async def test_what_a_full_disk_does_not_let_be_repaired(fs: Filesystem) -> None:
    flip(fs.root / FILE)
    fs.vfs.files.space.min_free = 1 << 60
    result = await verify(fs)
    assert (result["corrupt"], fs.leftovers("staging")) == (1, []), result
    assert "min_free" in result["found"][0]["reason"]
    fs.vfs.files.space.min_free = 0
    assert (await verify(fs))["repaired"] == 1


@corrupt
async def test_a_file_that_is_open_is_repaired_when_it_is_closed(fs: Filesystem) -> None:
    number = await fs.open(FILE)
    flip(fs.root / FILE)
    result = await verify(fs)
    assert (result["corrupt"], "open" in result["found"][0]["reason"]) == (1, True)
    assert kept(fs) == [], "a second name of the file's bytes would keep them for ever, were it removed now"
    await fs.close(number)
    assert (await verify(fs))["repaired"] == 1
    await fs.drain()
    assert len(kept(fs)) == 1, "the bad bytes are kept once"
    await fs.assert_consistent(lost=1)


@pytest.mark.expect_log("S3 has its bytes")
@pytest.mark.parametrize("level", ["presence", "remote"])
async def test_a_missing_local_copy_comes_from_s3(fs: Filesystem, level: str) -> None:
    (fs.root / FILE).unlink()
    result = await verify(fs, level=level)
    assert (result["repaired"], await fs.state(FILE), fs.tier.copies.local_bytes) == (1, "evicted", 0)
    assert await fs.read(FILE) == DATA
    await fs.drain()
    await fs.assert_consistent()


@pytest.mark.expect_log("verification")
async def test_a_missing_local_copy_while_s3_does_not_answer_proves_nothing(fs: Filesystem) -> None:
    (fs.root / FILE).unlink()
    bucket(fs).fail("*", AccessRefused("not for you"), times=1000)
    result = await verify(fs)
    assert (result["unreadable"], await fs.state(FILE), problems(fs)) == (1, "stored", [FILE])


@bad_object
@pytest.mark.parametrize("damage", ["gone", "tampered", "short", "rotten"])
async def test_a_bad_object_is_uploaded_again(fs: Filesystem, damage: str) -> None:
    def spoil() -> None:
        if damage == "gone":
            bucket(fs).vanish(FILE)
        elif damage == "rotten":  # and the server has noticed: another etag
            rot(fs)
            bucket(fs)._objects[FILE].etag = "1" * 32
        else:
            bucket(fs).tamper(FILE, DATA[:-1] if damage == "short" else pattern(3_000_001, seed=3))

    spoil()
    bad = stored(fs).get(FILE)
    result = await verify(fs, level="hash")
    assert (result["right"], result["found"]) == (1, []), "that level does not ask"
    result = await verify(fs, level="remote")
    (found,) = result["found"]
    assert (found["verdict"], result["repaired"]) == ("repaired", 1)
    assert await fs.read(FILE) == DATA, "it is read all the while"
    await fs.drain()
    assert stored(fs)[FILE] == DATA
    assert kept_in_bucket(fs) == ([] if bad is None else [bad]), "the bad one is kept beside it"
    assert (await fs.state(FILE), problems(fs)) == ("stored", [])
    assert (await verify(fs, level="remote"))["right"] == 1
    await fs.assert_consistent()


@bad_object
@pytest.mark.expect_log("verification")
@pytest.mark.parametrize("refusal", [AccessRefused("not for you"), NotOffered("no copies"), ObjectArchived("cold")])
async def test_nothing_is_put_over_a_bad_object_that_cannot_be_kept(fs: Filesystem, refusal: Exception) -> None:
    bucket(fs).tamper(FILE, b"bad")
    bucket(fs).fail("copy", refusal, times=1)
    result = await verify(fs, level="remote")
    assert (result["unreadable"], result["repaired"], await fs.state(FILE)) == (1, 0, "stored")
    await fs.drain()
    assert stored(fs)[FILE] == b"bad"
    assert (await verify(fs, level="remote"))["repaired"] == 1
    await fs.drain()
    assert (stored(fs)[FILE], kept_in_bucket(fs)) == (DATA, [b"bad"])


@bad_object
async def test_the_sweep_of_orphans_leaves_what_is_kept_in_the_bucket_alone(fs: Filesystem) -> None:
    bucket(fs).tamper(FILE, b"bad")
    await verify(fs, level="remote")
    await fs.drain()
    far = fs.parts.work.upkeep.orphans.far
    assert far is not None
    found: list[object] = []

    async def tell(orphan: object) -> None:
        found.append(orphan)

    fs.clock.advance(10 * 86_400.0)
    await far.look(Progress(), tell, ask_all=True)
    assert found == []
    assert kept_in_bucket(fs) == [b"bad"]


@corrupt
@pytest.mark.expect_log("S3 has its bytes")
@pytest.mark.parametrize("damage", ["gone", "tampered"])
async def test_a_bad_object_of_a_file_that_is_there_alone(fs: Filesystem, damage: str) -> None:
    await evict(fs)
    good = bucket(fs)._objects[FILE]
    if damage == "gone":
        bucket(fs).vanish(FILE)
    else:
        bucket(fs).tamper(FILE, pattern(3_000_001, seed=3))
    result = await verify(fs, level="remote")
    assert (result["corrupt"], await fs.state(FILE), problems(fs)) == (1, "corrupt", [FILE])
    with pytest.raises(IoFailure):
        await fs.read(FILE)
    assert (await verify(fs, level="remote"))["corrupt"] == 1
    bucket(fs)._objects[FILE] = good  # somebody has brought the right version back
    assert (await verify(fs))["repaired"] == 1
    assert (await fs.state(FILE), problems(fs)) == ("evicted", [])
    assert await fs.read(FILE) == DATA
    await fs.assert_consistent()


@corrupt
async def test_an_overwrite_of_a_file_whose_only_copy_was_bad(fs: Filesystem) -> None:
    await evict(fs)
    bucket(fs).vanish(FILE)
    await verify(fs, level="remote")
    await fs.write(FILE, b"anew")
    await fs.drain()
    assert (await fs.state(FILE), stored(fs)) == ("stored", {FILE: b"anew"})
    assert problems(fs) == []
    await fs.assert_consistent()


@corrupt
@bad_object
async def test_both_copies_bad_are_both_kept(fs: Filesystem) -> None:
    flip(fs.root / FILE)
    bad = (fs.root / FILE).read_bytes()
    bucket(fs).tamper(FILE, pattern(3_000_001, seed=3))
    for _ in range(2):
        result = await verify(fs, level="remote")
        assert (result["corrupt"], await fs.state(FILE)) == (1, "corrupt")
    assert (fs.root / FILE).read_bytes() == bad
    assert stored(fs)[FILE] == pattern(3_000_001, seed=3)
    assert kept(fs) == []


@corrupt
async def test_an_object_that_turns_out_bad_when_it_is_fetched_repairs_nothing(fs: Filesystem) -> None:
    flip(fs.root / FILE)
    rot(fs)  # the server says what it always said
    result = await verify(fs)
    assert (result["corrupt"], await fs.state(FILE)) == (1, "corrupt")
    assert "S3 holds other bytes" in result["found"][0]["reason"]
    assert (fs.leftovers("staging"), kept(fs)) == ([], [])


@pytest.mark.expect_log("gone from S3|emptied|verification|objects of this store")
async def test_an_emptied_bucket_is_told_once_and_nothing_is_put_there(fs: Filesystem) -> None:
    bucket(fs)._objects.clear()
    bucket(fs)._small.clear()
    result = await verify(fs, level="remote")
    assert (result["unreadable"], result["corrupt"], result["repaired"]) == (1, 0, 0)
    assert (await fs.state(FILE), stored(fs)) == ("stored", {})


async def test_an_upload_under_way_goes_on(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place)
    await fs.start()
    hold = Hold(fs, "put_file")
    await fs.write(FILE, DATA)
    await hold.entered()
    assert await fs.state(FILE) == "uploading"
    assert (await verify(fs, level="remote"))["right"] == 1
    hold.let_go()
    await fs.drain()
    assert (await node(fs)).state is State.STORED
    await fs.stop()


@corrupt
@pytest.mark.expect_log("right again")
async def test_a_corrupt_file_is_not_uploaded(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place, upload={"settle": 3600.0})
    await fs.start()
    await fs.write(FILE, DATA)
    await fs.parts.work.draining.drain(uploads=False)
    flip(fs.root / FILE)
    await verify(fs)
    await fs.drain()
    assert stored(fs) == {}
    flip(fs.root / FILE)
    await verify(fs)
    await fs.drain()
    assert stored(fs) == {FILE: DATA}
    await fs.stop()


async def _repair(fs: Filesystem) -> None:
    result = await verify(fs)
    assert result["repaired"] or result["corrupt"] or result["right"]
    await fs.drain()


@pytest.mark.slow
@pytest.mark.may_log("closed database|is corrupt")
async def test_a_death_before_any_step_of_a_repair(nursery: trio.Nursery, place: Path) -> None:
    step, done = 0, False
    while not done:
        step += 1
        fs = Filesystem(nursery, place / str(step), **S3)
        fs.objects = tiered(nursery, place).objects
        await fs.start()
        await fs.write(FILE, pattern(9000))
        await fs.drain()
        flip(fs.root / FILE)
        bad = (fs.root / FILE).read_bytes()
        done = await fs.until_stopped(_repair, step)
        await fs.crash()
        await fs.start_and_die(1 + step * 5 % 13)
        await fs.reopen()
        await fs.drain()
        there = await fs.state(FILE)
        assert there in ("stored", "evicted", "corrupt"), step
        if there != "corrupt" and (await verify(fs))["repaired"] == 0:
            assert await fs.read(FILE) == pattern(9000), step
        await verify(fs)
        await fs.drain()
        assert await fs.read(FILE) == pattern(9000), step
        assert set(kept(fs)) == {bad}, step
        await fs.drain()
        await fs.assert_consistent(lost=1)
        await fs.stop()
    assert step > 5


class Heard(Subscriber):
    """What a subscriber is told of copies that went bad."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def noted(self, kind: EventKind, node: Node, detail: str = "") -> None:
        if kind in (EventKind.CORRUPT, EventKind.REPAIRED):
            self.told.append((kind.value, node.path, detail))


@corrupt
@bad_object
async def test_subscribers_hear_of_bad_copies_and_of_repairs_once(fs: Filesystem) -> None:
    heard = Heard()
    fs.parts.tree.events.subscribe(heard)
    await verify(fs)
    assert heard.told == []
    flip(fs.root / FILE)
    await verify(fs)
    assert [each[:2] for each in heard.told] == [("corrupt", FILE), ("repaired", FILE)]
    assert "another sha256" in heard.told[0][2]
    assert "brought back from S3" in heard.told[1][2]
    await fs.drain()
    heard.told.clear()
    bucket(fs).tamper(FILE, b"bad")
    await verify(fs, level="remote")
    assert [each[:2] for each in heard.told] == [("repaired", FILE)]
    assert "uploaded again; what S3 has is kept there as .recfs/lost+found/" in heard.told[0][2]
    await fs.drain()
    await verify(fs, level="remote")
    assert len(heard.told) == 1
    found = fs.parts.work.upkeep.verifications.as_json()
    assert found == {"corrupt": 1, "repaired": 2, "unreadable": 0, "flaky": 0}
