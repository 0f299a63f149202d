"""A file that the kernel has open is emptied where it lies: a death before that leaves it as it was, and no more."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from recfs.fs.recovery import overwrites
from tests.fakes import FakeKernelFiles

from .build import REC, Filesystem, filesystem, pattern

FILE = f"{REC}/file"
OLD = pattern(70_000, seed=1)
Before = Callable[[Filesystem], Awaitable[None]]


async def committed(fs: Filesystem) -> None:
    await fs.write(FILE, OLD)
    await fs.drain()
    await fs.pass_open(FILE)


async def closed(fs: Filesystem) -> None:
    """Closed a moment ago, and not hashed yet; somebody reads it."""
    number, _ = await fs.pass_open(FILE, os.O_RDWR | os.O_CREAT)
    fs.pass_write(number, OLD)
    await fs.pass_open(FILE)
    await fs.close(number)
    await fs.parts.behind.flush()


async def fsynced(fs: Filesystem) -> None:
    """Still open for writing."""
    number, _ = await fs.pass_open(FILE, os.O_RDWR | os.O_CREAT)
    fs.pass_write(number, OLD)
    await fs.vfs.files.fsync(number)


async def written_on(fs: Filesystem) -> None:
    """Committed, then written to and fsynced by somebody who has it open still."""
    await fs.write(FILE, OLD[:60_000])
    await fs.drain()
    number, _ = await fs.pass_open(FILE, os.O_RDWR)
    fs.pass_write(number, OLD[60_000:], 60_000)
    await fs.vfs.files.fsync(number)


async def _empty(fs: Filesystem) -> None:
    await fs.pass_open(FILE, os.O_RDWR | os.O_TRUNC)


@pytest.mark.slow
@pytest.mark.parametrize("before", [committed, closed, fsynced, written_on])
async def test_a_death_before_a_file_was_emptied_leaves_it_as_it_was(place: Path, before: Before) -> None:
    step, emptied = 0, False
    while not emptied:
        step += 1
        async with filesystem(place / str(step), start=False) as fs:
            fs.files = FakeKernelFiles()
            await fs.start()
            await fs.mkdirs(REC)
            await before(fs)
            emptied = await fs.until_stopped(_empty, step)
            await fs.crash()
            fs.files = FakeKernelFiles()
            await fs.start_and_die(1 + step * 5 % 13)
            await fs.reopen()
            await fs.drain()
            assert await fs.read(FILE) == OLD, step
            assert await fs.state(FILE) == ("committed" if before in (committed, closed) else "incomplete"), step
            assert not os.listdir(fs.root / ".recfs/lost+found"), step
            await fs.assert_consistent()
    assert step > 5


async def _overwritten(place: Path, new: bytes, faults: Callable[[Filesystem], object] = lambda _: None) -> list[bytes]:
    """What is kept in lost+found of an overwrite that was cut off, beside a reader."""
    async with filesystem(place / "root", start=False) as fs:
        fs.files = FakeKernelFiles()
        await fs.start()
        await committed(fs)
        number, _ = await fs.pass_open(FILE, os.O_RDWR | os.O_TRUNC)
        fs.pass_write(number, new)
        await fs.parts.behind.flush()
        await fs.crash()
        fs.files = FakeKernelFiles()
        faults(fs)
        await fs.reopen()
        fs.faults.heal()
        await fs.drain()
        assert await fs.read(FILE) == OLD
        return [path.read_bytes() for path in (fs.root / ".recfs/lost+found").iterdir()]


async def test_what_was_written_over_it_with_as_many_bytes_is_kept(place: Path) -> None:
    new = OLD[:-1] + b"!"
    assert await _overwritten(place, new) == [new]
    assert await _overwritten(place / "same", OLD) == []


async def test_what_is_too_large_to_be_compared_at_a_start_is_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overwrites, "MOST_COMPARED_BYTES", len(OLD) - 1)
    assert await _overwritten(place, OLD) == [OLD]


async def test_what_cannot_be_read_at_a_start_is_kept(place: Path) -> None:
    def unreadable(fs: Filesystem) -> None:
        fs.faults.fail("pread", errno.EIO, ".recfs/staging", times=1 << 30)

    assert await _overwritten(place, OLD, unreadable) == [OLD]
