"""Objects of another place that the server copies, and that become files: `recfs import s3://… --rules`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.migration.places import Place
from recfs.core.model import State
from recfs.errors import InvalidArgument
from recfs.ports.object_errors import AccessRefused, ObjectChanged, Unreachable
from recfs.ports.objects import MIB, ObjectMeta
from tests.fake_object_store import FakeObjectStore

from .build import REC, Filesystem, pattern
from .far import Hold, ask, bucket, journalled, until
from .test_tier import node, stored, tiered

OTHER = "s3://sibling/old/"
TARGET = f"{REC}/source.mp4"


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """A running one, on a server that has another bucket."""
    made = tiered(nursery, place)
    await made.start()
    await made.mkdirs(REC)
    elsewhere = FakeObjectStore(smallest_part=8 * MIB)
    bucket(made).others[Place("sibling", "old/")] = elsewhere
    importing = made.parts.upkeep.work.importing
    assert importing is not None
    importing.copying._reach = bucket(made).others.__getitem__
    yield made
    await made.stop()


def there(fs: Filesystem) -> FakeObjectStore:
    return bucket(fs).others[Place("sibling", "old/")]


def put(fs: Filesystem, key: str, data: bytes = b"theirs", **known: Any) -> None:
    digests = hashlib.sha256(data).digest(), hashlib.md5(data).digest()
    meta: dict[str, Any] = {"sha256": digests[0], "md5": digests[1]} | known
    fd = os.memfd_create("object")
    try:
        os.write(fd, data)
        there(fs).put_file(fd, len(data), key, ObjectMeta(**meta))
    finally:
        os.close(fd)


async def copied(fs: Filesystem, *pairs: tuple[str, str], download: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = await ask(
        fs, "import_copies", url=OTHER, keys=[one for one, _ in pairs], targets=[to for _, to in pairs],
        download=download,
    )  # fmt: skip
    return found


def kept(found: dict[str, Any]) -> dict[str, str]:
    return {each["path"]: each["reason"] for each in found["kept"]}


async def test_an_object_is_copied_by_the_server_and_becomes_a_file(fs: Filesystem) -> None:
    data = pattern(5000)
    put(fs, "a/clip", data, mtime_ns=7_000_000_001, mode=0o600)
    found = await copied(fs, ("a/clip", TARGET))
    assert (found["files"], found["bytes"], found["kept_files"]) == (1, 5000, 0)
    file = await node(fs, TARGET)
    assert (file.state, file.mode, file.mtime_ns) == (State.EVICTED, 0o600, 7_000_000_001)
    assert await fs.read(TARGET) == data
    assert there(fs).data("a/clip") == data, "the original stays"
    info = bucket(fs).head(TARGET)
    assert info is not None
    assert info.sha256 == hashlib.sha256(data).digest(), "what recfs knows stands in the copy's metadata"
    assert not any(operation == "get_range" for operation, _ in there(fs).calls)
    await fs.crash()
    await fs.reopen()
    assert await fs.read(TARGET) == data


async def test_a_second_run_copies_nothing_again(fs: Filesystem) -> None:
    put(fs, "a")
    await copied(fs, ("a", TARGET))
    before = len(bucket(fs).calls)
    found = await copied(fs, ("a", TARGET))
    assert (found["files"], found["already"]) == (0, 1)
    assert "copy" not in [operation for operation, _ in bucket(fs).calls[before:]]


async def test_what_an_attempt_has_copied_that_died_is_taken(fs: Filesystem) -> None:
    put(fs, "a")
    put(fs, "b")
    info = there(fs).head("a")
    assert info is not None
    assert info.sha256 is not None
    meta = ObjectMeta(sha256=info.sha256, md5=info.md5)
    bucket(fs).copy("a", TARGET, 6, meta=meta, fresh=True, origin=Place("sibling", "old/"))
    bucket(fs).tamper(f"{REC}/other", b"of nobody")
    await ask(fs, "bucket_claim", force=True)
    before = len(bucket(fs).calls)
    found = await copied(fs, ("a", TARGET), ("b", f"{REC}/other"))
    assert (found["files"], kept(found)) == (1, {"b": f"{REC}/other: another object lies there"})
    assert "copy" not in [operation for operation, _ in bucket(fs).calls[before:]]
    assert stored(fs)[f"{REC}/other"] == b"of nobody"


async def test_without_a_checksum_it_is_left_or_read(fs: Filesystem) -> None:
    there(fs).tamper("a", b"by somebody")
    assert "sha256" in kept(await copied(fs, ("a", TARGET)))["a"]
    assert (await copied(fs, ("a", TARGET), download=True))["files"] == 1
    assert await fs.read(TARGET) == b"by somebody"


async def test_files_that_are_there_are_never_replaced(fs: Filesystem) -> None:
    name = f"{REC}/local.tmp"  # by such a name nothing is uploaded
    await fs.write(name, b"mine")
    put(fs, "a")
    assert "another file has its name" in kept(await copied(fs, ("a", name)))["a"]
    assert await fs.read(name) == b"mine"
    assert stored(fs) == {}


async def test_a_file_that_is_made_while_its_name_is_copied_to_wins(fs: Filesystem) -> None:
    put(fs, "a")
    hold = Hold(fs, "copy")
    found: dict[str, Any] = {}

    async def copy() -> None:
        found.update(await copied(fs, ("a", TARGET)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copy)
        await hold.entered()
        await fs.write(TARGET, b"mine")
        await journalled(fs)
        bucket(fs).before = lambda _operation, _key: None
        hold.let_go()
    assert found["files"] == 0
    await until(lambda: stored(fs) == {TARGET: b"mine"})
    assert await fs.read(TARGET) == b"mine"


async def test_limits_hold_before_anything_is_copied(fs: Filesystem) -> None:
    await ask(fs, "quota_set", user="5", max_bytes=3)
    put(fs, "a")
    assert "max_bytes = 3" in kept(await copied(fs, ("a", TARGET)))["a"]
    assert stored(fs) == {}


@pytest.mark.parametrize("error", [AccessRefused("not yours"), ObjectChanged("replaced")])
async def test_one_that_is_refused_does_not_stop_the_others(fs: Filesystem, error: Exception) -> None:
    put(fs, "a")
    put(fs, "b")
    bucket(fs).fail("copy", error, times=1)
    found = await copied(fs, ("a", TARGET), ("b", f"{REC}/b"))
    assert (found["files"], found["kept_files"]) == (1, 1)


@pytest.mark.may_log("gone|S3")
async def test_an_outage_ends_it(fs: Filesystem) -> None:
    put(fs, "a")
    there(fs).fail("head", Unreachable("gone"), times=100)
    with pytest.raises(Unreachable):
        await copied(fs, ("a", TARGET))
    there(fs).heal()
    assert (await copied(fs, ("a", TARGET)))["files"] == 1


async def test_what_cannot_be_is_said(fs: Filesystem) -> None:
    put(fs, "a")
    assert "layout" in kept(await copied(fs, ("a", "elsewhere/x")))["a"]
    assert "gone" in kept(await copied(fs, ("missing", TARGET)))["missing"]
    with pytest.raises(InvalidArgument, match="targets"):
        await ask(fs, "import_copies", url=OTHER, keys=["a"], targets=[])
    with pytest.raises(InvalidArgument, match="at most"):
        await copied(fs, *[(str(number), f"{REC}/{number}") for number in range(201)])


async def test_another_place_is_listed_in_pages(fs: Filesystem) -> None:
    for number in range(1001):
        there(fs).tamper(f"k{number:04}", b"xy")
    page = (await ask(fs, "import_list", url=OTHER))["objects"]
    assert (len(page), page[0][:2]) == (1000, ["k0000", 2])
    assert [each[0] for each in (await ask(fs, "import_list", url=OTHER, after=page[-1][0]))["objects"]] == ["k1000"]
    assert (await ask(fs, "import_list", url=OTHER, after="k1000"))["objects"] == []
