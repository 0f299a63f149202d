"""A file that loses its name while it is open for writing: what was known of its bytes holds only until the first."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs.core.model import State
from recfs.fs.attributes import Changes
from recfs.state.nodes import FileNode
from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem, filesystem

FILE = f"{REC}/file"
RW = os.O_RDWR
AGES_NS = 10**12
KEPT = {"trash": {"retention": "1h"}}


async def old_file(fs: Filesystem) -> FileNode:
    """A committed file that was left alone for long: an open for writing alone does not change what is known of it."""
    await fs.write(FILE, b"bytes")
    await fs.drain()
    long_ago = time.time_ns() - AGES_NS
    os.utime(fs.root / FILE, ns=(long_ago, long_ago))
    node = await fs.node(FILE)
    assert isinstance(node, FileNode)
    return node


async def by_write(fs: Filesystem, number: int) -> int:
    """Longer by a write."""
    await fs.vfs.files.write(number, 5, b" and more")
    return 14


async def by_truncate(fs: Filesystem, number: int) -> int:
    """Shorter by ftruncate(2)."""
    node = fs.vfs.files.handles[number].node
    await fs.vfs.files.sizes.resize(node, 2)
    return 2


async def by_write_of_as_many(fs: Filesystem, number: int) -> int:
    """Others, and as many."""
    await fs.vfs.files.write(number, 0, b"BYTES")
    return 5


@pytest.mark.parametrize("change", [by_write, by_truncate, by_write_of_as_many])
async def test_the_trash_vouches_for_nothing_that_was_written_since(
    place: Path, change: Callable[[Filesystem, int], Awaitable[int]]
) -> None:
    """It was open, and as it had been committed, when it was removed. Then it was written to."""
    async with filesystem(place, **KEPT) as fs:
        node = await old_file(fs)
        number = await fs.open(FILE, RW)
        await fs.unlink(FILE)
        assert node.remains is not None
        size = await change(fs, number)
        assert (node.remains.sha256, node.remains.md5) == (None, None)
        await fs.close(number)
        await fs.drain()
        assert node.remains.size_bytes == size
        (kept,) = fs.leftovers("trash")
        assert (fs.root / ".recfs" / "trash" / kept).stat().st_size == size


async def test_what_was_not_written_to_is_vouched_for(place: Path) -> None:
    async with filesystem(place, **KEPT) as fs:
        node = await old_file(fs)
        sha256 = node.sha256
        number = await fs.open(FILE, RW)
        await fs.unlink(FILE)
        await fs.close(number)
        await fs.drain()
        assert node.remains is not None
        assert (node.remains.sha256, node.remains.size_bytes) == (sha256, 5)


def awaits(fs: Filesystem, what: str) -> tuple[Any, str]:
    """Where the opening of a file for writing lets others go on."""
    unsealing = fs.vfs.backing_files.unsealing
    moves = fs.vfs.backing_files.moves
    return {"durable": (unsealing._behind, "durable"), "moves": (moves, "ended_soon"), "busy": (moves, "left_alone")}[
        what
    ]


@pytest.mark.parametrize("change", [b"bytes and more", b"BYTES", b""])
@pytest.mark.parametrize("when", ["durable", "moves", "busy"])
async def test_a_name_that_goes_while_the_file_is_opened_for_writing(
    nursery: trio.Nursery, place: Path, when: str, change: bytes
) -> None:
    """The kernel writes to it, and nobody hears of that; it goes all the same, and nothing is taken for somebody's."""
    fs = Filesystem(nursery, place)
    fs.files = FakeKernelFiles()
    await fs.start()
    await fs.mkdirs(REC)
    node = await old_file(fs)
    owner, name = awaits(fs, when)
    plain, busy = getattr(owner, name), [when == "busy"]
    is_busy = fs.vfs.files.modes._is_busy

    async def meanwhile(*args: Any) -> Any:
        result = await plain(*args)
        if not node.unlinked:
            busy.clear()
            await fs.unlink(FILE)
        return result

    def first(handle: Any) -> bool:
        return any(busy) or bool(is_busy(handle))

    with mock.patch.object(owner, name, meanwhile), mock.patch.object(fs.vfs.files.modes, "_is_busy", first):
        number, _ = await fs.pass_open(FILE, RW)
    assert node.unlinked
    assert node.state is State.WRITING
    body = node.body
    assert body is not None
    assert node.remains is not None
    assert node.remains.sha256 is None, "before the kernel may write"
    os.ftruncate(body.fd, len(change))
    os.pwrite(body.fd, change, 0)
    await fs.close(number)
    await fs.drain()
    assert not (fs.root / FILE).exists()
    assert not fs.leftovers("trash")
    assert not (fs.root / "lost+found").exists()
    await fs.stop()


async def test_a_name_that_goes_while_the_file_is_cut(place: Path) -> None:
    async with filesystem(place, **KEPT) as fs:
        node = await old_file(fs)
        contended = fs.vfs.backing_files.unsealing._contended
        run = contended.run

        async def meanwhile(*args: Any) -> Any:
            await fs.unlink(FILE)
            assert node.remains is not None
            assert node.remains.sha256 is None
            return await run(*args)

        with mock.patch.object(contended, "run", meanwhile):
            await fs.vfs.setattr(node.ino, Changes(size=2), OPERATOR)
        assert node.unlinked
        await fs.drain()


async def test_a_removal_under_way_does_not_meet_other_bytes(place: Path) -> None:
    """It goes by what was known of the bytes when it was planned; who writes to them waits for it."""
    async with filesystem(place) as fs:
        node = await old_file(fs)
        number = await fs.open(FILE, RW)
        synced, planned, written = fs.parts.behind.synced, trio.Event(), trio.Event()

        async def held() -> None:
            if fs.parts.publisher.is_working and not planned.is_set():
                planned.set()
                with trio.move_on_after(0.2):
                    await written.wait()
            await synced()

        async def writes() -> None:
            await planned.wait()
            await fs.vfs.files.write(number, 5, b" and more")
            written.set()

        with mock.patch.object(fs.parts.behind, "synced", held):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writes)
                await fs.unlink(FILE)
                await fs.drain()
        assert node.remains is not None
        assert await fs.read_handle(number) == b"bytes and more"
        assert not (fs.root / FILE).exists()
        await fs.close(number)
