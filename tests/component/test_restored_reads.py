"""Files of an archive class that S3 has restored: whoever reads them first has S3 asked, which takes its time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from recfs.core.model import State
from recfs.errors import Stale
from recfs.ports.object_errors import ObjectArchived
from tests.fake_object_store import FakeObjectStore

from .build import REC, Filesystem, filesystem, pattern
from .far import bucket, until
from .test_generations import S3, evict

OLD, NEW = pattern(300_000, seed=1), pattern(9000, seed=2)
PATH = f"{REC}/file"


@pytest.fixture
async def fs(place: Path, any_log: None) -> AsyncIterator[Filesystem]:
    """A store with a file that was in an archive class, and can be read again."""
    async with filesystem(place / "store", start=False, **S3) as made:
        made.objects = FakeObjectStore()
        await made.start()
        await made.write(PATH, OLD)
        await made.drain()
        await evict(made, PATH)
        bucket(made).archive(PATH)
        with pytest.raises(ObjectArchived):
            await made.read(PATH)
        node = await made.node(PATH)
        await until(lambda: node.state is State.ARCHIVED)
        bucket(made).finish_restore(PATH)
        yield made


class Held:
    """S3 does not say what an object is, until it is let go."""

    def __init__(self, fs: Filesystem) -> None:
        self.asked = 0
        self._gate = threading.Event()
        bucket(fs).before = lambda asked, _key: self._wait() if asked == "head" else None

    def _wait(self) -> None:
        self.asked += 1
        assert self._gate.wait(10)

    def let_go(self) -> None:
        """It answers all of them."""
        self._gate.set()


async def test_several_who_read_at_once(fs: Filesystem) -> None:
    held, found = Held(fs), list[bytes]()

    async def read() -> None:
        found.append(await fs.read(PATH))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
        await until(lambda: held.asked == 3)
        held.let_go()
    assert found == [OLD, OLD, OLD]
    await fs.drain()
    assert (await fs.node(PATH)).state is State.STORED
    assert await fs.read(PATH) == OLD
    await fs.assert_consistent()


async def _written(fs: Filesystem) -> None:
    await fs.write(PATH, NEW)
    await fs.drain()


async def _moved(fs: Filesystem) -> None:
    await fs.rename(PATH, f"{REC}/other")
    await fs.drain()
    await fs.write(PATH, NEW)
    await fs.drain()


async def _removed(fs: Filesystem) -> None:
    await fs.unlink(PATH)
    await fs.write(PATH, NEW)
    await fs.drain()


@pytest.mark.parametrize("meanwhile", [_written, _moved, _removed])
async def test_what_becomes_of_it_while_s3_has_not_answered(
    fs: Filesystem, meanwhile: Callable[[Filesystem], Awaitable[None]]
) -> None:
    """Whoever waits is given what is there then, or told that it was removed."""
    held = Held(fs)

    async def read() -> None:
        with contextlib.suppress(Stale):
            assert await fs.read(PATH) in (OLD, NEW)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await until(lambda: held.asked)
        await meanwhile(fs)
        held.let_go()
    await fs.drain()
    assert await fs.read(PATH) == NEW
    assert bucket(fs).data(PATH) == NEW
    assert (await fs.node(PATH)).state is State.STORED
    await fs.assert_consistent()


async def test_one_who_writes_it_anew_meanwhile_goes_on(fs: Filesystem) -> None:
    held = Held(fs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.read, PATH)
        await until(lambda: held.asked)
        number = await fs.open(PATH, os.O_WRONLY | os.O_TRUNC)
        await fs.vfs.files.write(number, 0, NEW[:5000])
        held.let_go()
    assert (await fs.node(PATH)).state is State.WRITING
    await fs.vfs.files.write(number, 5000, NEW[5000:])
    await fs.close(number)
    await fs.drain()
    assert await fs.read(PATH) == bucket(fs).data(PATH) == NEW
    await fs.assert_consistent()
