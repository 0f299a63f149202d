"""Files that are overwritten while their old bytes are still being fetched: who waits gets what is there by then."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from .build import REC, Filesystem, pattern
from .far import Hold, until
from .test_tier import FILE, MIB, evict, tiered


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One that fetches files of more than a MiB while they are read, smaller ones when they are opened."""
    made = tiered(nursery, place, cache={"fetch_whole_below": MIB, "read_ahead_max": MIB})
    await made.start()
    await made.mkdirs(REC)
    yield made
    await made.stop()


async def evicted(fs: Filesystem, data: bytes) -> None:
    """The file, in S3 only."""
    await fs.write(FILE, data)
    await fs.drain()
    await evict(fs)


async def while_it_waits(fs: Filesystem, waits: Callable[[], Awaitable[bytes]], overwrite: bytes) -> bytes:
    """What *waits* gets whose GET is held up, and whose file is overwritten meanwhile."""
    held, found = Hold(fs, "get_range"), []

    async def wait() -> None:
        found.append(await waits())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await held.entered()
        await fs.write(FILE, overwrite)
        await until(lambda: bool(found))
        held.let_go()
    await fs.drain()
    return found[0]


@pytest.mark.parametrize("overwrite", [b"newer", b""])
async def test_an_open_that_fetches_the_file(fs: Filesystem, overwrite: bytes) -> None:
    await evicted(fs, b"old")
    assert await while_it_waits(fs, lambda: fs.read(FILE), overwrite) == overwrite


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [b"newer", b""])
async def test_a_read_of_a_file_that_is_being_fetched(fs: Filesystem, overwrite: bytes) -> None:
    """The file may be empty for a moment, as on any file system."""
    await evicted(fs, pattern(4 * MIB))
    number = await fs.open(FILE)

    async def read() -> bytes:
        return bytes(await fs.vfs.files.read(number, 0, 100))

    assert await while_it_waits(fs, read, overwrite) in (overwrite, b"")
    assert await read() == overwrite
    await fs.close(number)


@pytest.mark.slow
async def test_a_copy_of_a_file_that_is_being_fetched(fs: Filesystem) -> None:
    """By copy_file_range(2)."""
    await evicted(fs, pattern(4 * MIB))
    source, target = await fs.open(FILE), await fs.open(f"{REC}/copy", os.O_WRONLY | os.O_CREAT)

    async def copy() -> bytes:
        return b"%d" % await fs.vfs.ranges.copy(source, 0, target, 0, MIB)

    assert await while_it_waits(fs, copy, b"newer") in (b"5", b"0")
    await fs.close(source)
    await fs.close(target)
