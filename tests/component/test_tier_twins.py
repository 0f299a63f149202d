"""Bytes that S3 has already, as another file's object, are copied there, or sent where that cannot be."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.fs.attributes import Changes
from recfs.ports.object_errors import (
    AccessRefused,
    ChecksumMismatch,
    NotOffered,
    ObjectArchived,
    ObjectStoreError,
    RequestRefused,
    ServerFault,
    Unreachable,
)
from recfs.ports.objects import ObjectInfo, ObjectMeta
from recfs.state.nodes import FileNode

from .build import OPERATOR, REC, Filesystem, pattern
from .far import Hold, bucket, tick
from .test_tier import MIB, evict, stored, tiered

A, B, C = (f"users/{user}/recordings/1/video.mp4" for user in (5, 6, 7))
DATA = pattern(2 * MIB)


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One in which a file of DATA is stored, as A."""
    made = tiered(nursery, place)
    await made.start()
    await made.mkdirs(REC)
    await made.write(A, DATA)
    await made.drain()
    yield made
    await made.stop()


def calls(fs: Filesystem) -> list[str]:
    return [operation for operation, key in bucket(fs).calls if operation in ("copy", "put_file", "start_multipart")]


async def written(fs: Filesystem, path: str = B, data: bytes = DATA) -> list[str]:
    """Write and drain; by which calls that went to S3."""
    bucket(fs).calls.clear()
    await fs.write(path, data)
    await fs.drain()
    assert bucket(fs).data(path) == data
    assert await fs.state(path) == "stored"
    return calls(fs)


async def test_the_same_bytes_are_copied_and_described_as_if_they_were_sent(fs: Filesystem) -> None:
    objects = bucket(fs)
    objects._objects[A].metadata["somebody"] = "else"
    objects._objects[A].tags["somebody"] = "else"
    assert await written(fs) == ["copy"]
    assert await written(fs, C, DATA + b"!") == ["put_file"]
    copied, sent, node = objects._objects[B], objects._objects[C], await fs.node(B)
    assert copied.metadata.keys() == sent.metadata.keys()
    assert (copied.tags, copied.storage_class) == (sent.tags, sent.storage_class)
    info = objects.head(B)
    assert info is not None
    assert (info.sha256, info.md5) == (hashlib.sha256(DATA).digest(), hashlib.md5(DATA).digest())
    assert (node.object.key, node.object.etag, node.object.size_bytes) == (B, info.etag, len(DATA))
    assert fs.rows("select count(*) from journal") == [0]
    await evict(fs, B)
    await fs.unlink(A)
    await fs.drain()
    assert await fs.read(B) == DATA  # on its own
    assert sorted(stored(fs)) == [B, C]


async def test_many_at_once_are_copied_from_one(fs: Filesystem) -> None:
    names = [f"{REC}/{number}" for number in range(12)]
    bucket(fs).calls.clear()
    for name in names:
        await fs.write(name, DATA)
    await fs.drain()
    assert calls(fs) == ["copy"] * len(names)
    assert [stored(fs)[name] for name in names] == [DATA] * len(names)


async def test_a_file_that_is_overwritten_with_bytes_of_another(fs: Filesystem) -> None:
    await written(fs, B, b"x" * MIB + b"something else")
    assert await written(fs, B, DATA) == ["copy"]
    assert await written(fs, A, b"y" * MIB) == ["put_file"]
    assert stored(fs) == {A: b"y" * MIB, B: DATA}


async def test_what_is_small_is_sent(nursery: trio.Nursery, place: Path) -> None:
    made = tiered(nursery, place, upload={"settle": 0, "copy_min_size": len(DATA) + 1})
    await made.start()
    await made.write(A, DATA)
    await made.drain()
    assert await written(made, B) == ["put_file"]
    assert await written(made, A, DATA + b"1") == ["put_file"]
    assert await written(made, B, DATA + b"1") == ["copy"]
    await made.stop()


async def test_nothing_is_copied_where_that_is_turned_off(nursery: trio.Nursery, place: Path) -> None:
    made = tiered(nursery, place, upload={"settle": 0, "copy_identical": False})
    await made.start()
    await made.write(A, DATA)
    await made.drain()
    assert await written(made, B) == ["put_file"]
    await made.stop()


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE", "STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"])
async def test_what_costs_something_to_be_read_is_not_copied(fs: Filesystem, storage_class: str) -> None:
    node = await fs.node(A)
    assert isinstance(node, FileNode)
    assert node.object is not None
    node.object = node.object._replace(storage_class=storage_class)
    assert await written(fs) == ["put_file"]


@pytest.mark.parametrize(
    "error",
    [AccessRefused, NotOffered, ObjectArchived, RequestRefused, ChecksumMismatch],
)
async def test_whatever_is_refused_is_sent(fs: Filesystem, error: type[ObjectStoreError]) -> None:
    bucket(fs).fail("copy", error("not here"), times=10)
    assert await written(fs) == ["copy", "put_file"]


async def test_an_object_that_others_have_changed_or_removed_is_not_copied(fs: Filesystem) -> None:
    bucket(fs).tamper(A, b"z" * len(DATA))
    assert await written(fs) == ["copy", "put_file"]
    bucket(fs).vanish(B)
    assert await written(fs, C) == ["copy", "put_file"]  # of one of the two, of which neither is there


async def test_a_copy_of_other_bytes_is_not_believed(fs: Filesystem, expect_log: Any, monkeypatch: Any) -> None:
    """From a server that copies whatever is there by then."""
    expect_log("may have other bytes: it is sent")
    objects = bucket(fs)
    copy = objects.copy

    def late(src: str, dst: str, size: int, **more: Any) -> ObjectInfo:
        objects.tamper(src, b"z" * size)
        return copy(src, dst, size, **(more | {"if_match": None}))

    monkeypatch.setattr(objects, "copy", late)
    assert await written(fs) == ["copy", "put_file"]


@pytest.mark.parametrize("tells", ["a checksum", "that the source stayed", "nothing"])
async def test_a_copy_whose_etag_says_nothing_is_proven_otherwise(
    fs: Filesystem, tells: str, expect_log: Any, monkeypatch: Any
) -> None:
    objects = bucket(fs)
    objects.keeps_checksums = tells == "a checksum"
    copy = objects.copy

    def other_etag(src: str, dst: str, size: int, **more: Any) -> ObjectInfo:
        made = copy(src, dst, size, **more)
        objects._objects[dst].etag = "kms-of-some-kind"
        if tells == "nothing":
            objects._objects[src].etag = "changed meanwhile"
        return ObjectInfo(dst, size, "kms-of-some-kind", made.storage_class, made.sha256, made.md5, made.metadata)

    monkeypatch.setattr(objects, "copy", other_etag)
    if tells == "nothing":
        expect_log("may have other bytes: it is sent")
    assert await written(fs) == (["copy", "put_file"] if tells == "nothing" else ["copy"])


async def test_without_an_answer_it_is_tried_again_by_sending(fs: Filesystem, expect_log: Any) -> None:
    """Whether S3 did it or not, and may yet do it or not."""
    expect_log("next try in 1 s")
    for after, error in ((True, Unreachable("lost")), (False, Unreachable("lost")), (False, ServerFault("500"))):
        path = f"{REC}/{after} {error}"
        error.unanswered = True
        bucket(fs).fail("copy", error, after=after)
        bucket(fs).calls.clear()
        await fs.write(path, DATA)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick, fs, 1000.0)
            await fs.drain()
            nursery.cancel_scope.cancel()
        assert calls(fs) == ["copy", "put_file"]
        assert stored(fs)[path] == DATA
        assert fs.rows("select count(*) from journal") == [0]


async def test_a_file_that_changes_while_it_is_copied(fs: Filesystem) -> None:
    hold = Hold(fs, "copy")
    await fs.write(B, DATA)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.drain)
        await hold.entered()
        await fs.write(B, b"changed")
        hold.let_go()
    await fs.drain()
    assert stored(fs) == {A: DATA, B: b"changed"}


async def test_a_file_that_is_copied_from_may_change_and_go(fs: Filesystem) -> None:
    hold = Hold(fs, "copy")
    await fs.write(B, DATA)
    await fs.mkdirs(C.rpartition("/")[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.drain)
        await hold.entered()
        await fs.write(A, b"changed")
        await fs.rename(A, C)
        await fs.unlink(C)
        assert bucket(fs).data(A) == DATA  # until it is copied
        hold.let_go()
    await fs.drain()
    assert stored(fs) == {B: DATA}


async def test_a_file_that_is_renamed_while_it_is_copied(fs: Filesystem) -> None:
    hold = Hold(fs, "copy")
    await fs.write(B, DATA)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.drain)
        await hold.entered()
        await fs.mkdirs(C.rpartition("/")[0])
        await fs.rename(B, C)
        await fs.vfs.setattr((await fs.node(C)).ino, Changes(mode=0o600), OPERATOR)
        hold.let_go()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick, fs, 1000.0)
        await fs.drain()
        nursery.cancel_scope.cancel()
    assert stored(fs) == {A: DATA, C: DATA}
    info = bucket(fs).head(C)
    assert info is not None
    assert info.metadata["original-filename"] == "video.mp4"


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_death_at_the_copy_leaves_nothing_behind(
    nursery: trio.Nursery, place: Path, carried_out: bool, monkeypatch: Any
) -> None:
    made = tiered(nursery, place)
    await made.start()
    await made.write(A, DATA)
    await made.drain()
    objects = bucket(made)
    copy = objects.copy

    def dies(*args: Any, **more: Any) -> Any:
        answer = copy(*args, **more) if carried_out else None
        made.faults.die()
        if answer is None:
            raise AccessRefused("nobody hears of it any more")
        return answer

    monkeypatch.setattr(objects, "copy", dies)

    async def write(fs: Filesystem) -> None:
        await fs.write(B, DATA)
        await fs.drain()

    await made.until_stopped(write, None)
    await made.crash()
    monkeypatch.setattr(objects, "copy", copy)
    await made.reopen()
    if not await made.exists(B):
        await made.write(B, DATA)
    await made.drain()
    assert stored(made) == {A: DATA, B: DATA}
    assert objects.list_multiparts() == []
    await made.unlink(A)
    await made.unlink(B)
    await made.drain()
    assert stored(made) == {}
    await made.stop()


def test_meta_of_a_copy_is_whole() -> None:
    """The fields of ObjectMeta that an upload sets; a new one has to be copied, too."""
    assert set(ObjectMeta.__dataclass_fields__) == {
        "sha256", "md5", "original_filename", "uploaded_ns", "mode", "owner", "mtime_ns", "content_type",
        "storage_class", "tags",
    }  # fmt: skip
