"""A file whose local copy leaves while somebody opens it: what is opened is not what has left."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest import mock

import pytest
import trio

from recfs.core.model import State
from recfs.fs.handles import Mode

from .build import Filesystem, pattern
from .test_tier import FILE, evict, tiered

DATA = pattern(300_000)


@pytest.fixture
async def fs(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Filesystem]:
    made = tiered(nursery, tmp_path / "root")
    await made.start()
    yield made
    await made.stop()


async def opened_while_it_leaves(fs: Filesystem, opens: Callable[[], object]) -> None:
    """Have a file opened, and its copy leave when a thread has been asked for it and the daemon does not know yet."""
    store, opening, go_on = fs.parts.store, trio.Event(), threading.Event()
    really, token = store.open_file, trio.lowlevel.current_trio_token()

    def slowly(path: bytes, flags: int) -> int:
        fd = really(path, flags)
        token.run_sync_soon(opening.set)
        assert go_on.wait(20)
        return fd

    with mock.patch.object(store, "open_cached", return_value=None):
        async with trio.open_nursery() as nursery:
            with mock.patch.object(store, "open_file", slowly):
                nursery.start_soon(opens)  # type: ignore[arg-type]
                await opening.wait()
                fs.tier.evictor.evict(await fs.node(FILE))
            go_on.set()


async def test_a_reader_reads_what_is_fetched(fs: Filesystem) -> None:
    """Not the copy that has left: the kernel would have that, and the next daemon knows of none."""
    await fs.write(FILE, DATA)
    await fs.drain()
    found: list[tuple[int, Mode]] = []

    async def opens() -> None:
        found.append(await fs.pass_open(FILE))

    await opened_while_it_leaves(fs, opens)
    ((number, mode),) = found
    node = await fs.node(FILE)
    assert (mode is Mode.PASS) == (node.state is State.STORED), "what the kernel has by itself is the file that is here"
    assert await fs.read_handle(number) == DATA
    await fs.close(number)


async def test_a_writer_writes_to_what_stays(fs: Filesystem) -> None:
    await fs.write(FILE, DATA)
    await fs.drain()
    found: list[int] = []

    async def opens() -> None:
        found.append(await fs.open(FILE, os.O_RDWR))

    await opened_while_it_leaves(fs, opens)
    await fs.vfs.files.write(found[0], 0, b"changed")
    await fs.close(found[0])
    await fs.drain()
    assert await fs.read(FILE) == b"changed" + DATA[7:]
    await evict(fs)
    assert await fs.read(FILE) == b"changed" + DATA[7:]
