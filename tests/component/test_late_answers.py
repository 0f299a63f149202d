"""What must hold when the catalogue's answer comes late: others go on meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.errors import Exists, NotEmpty
from recfs.fs import xattrs

from .build import OPERATOR, REC, Filesystem, filesystem, pattern
from .far import OTHER, until
from .test_tier import FILE, stored, tiered

LATE_S = 600.0


@contextlib.contextmanager
def late(name: str) -> Iterator[None]:
    """The next answer of one of its methods is of now, and comes in some minutes."""
    method: Callable[..., Awaitable[Any]] = getattr(SqliteCatalogue, name)
    is_late = True

    async def slowly(*args: Any) -> Any:
        nonlocal is_late
        first, is_late = is_late, False
        answer = await method(*args)
        if first:
            await trio.sleep(LATE_S)
        return answer

    with mock.patch.object(SqliteCatalogue, name, slowly):
        yield


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One with S3, not started."""
    made = tiered(nursery, place)
    yield made
    await made.stop()


@pytest.fixture
async def local(place: Path) -> AsyncIterator[Filesystem]:
    """One without S3, running; whole at the end."""
    async with filesystem(place) as running:
        yield running
        await running.assert_consistent()


async def test_what_local_copies_take_is_right_when_the_catalogue_says_it_late(fs: Filesystem) -> None:
    """A file that is uploaded meanwhile counts, and counts once."""
    with late("local_object_bytes"):
        await fs.start()
        await fs.mkdirs(REC)
        await fs.write(FILE, pattern(1000))
        await until(lambda: stored(fs))
        await trio.sleep(2 * LATE_S)
    await fs.drain()
    assert fs.tier.copies.used_bytes == 1000


# --- names that come and leave memory while somebody looks for them ------------------------------------------------


async def forgotten(fs: Filesystem) -> None:
    """Everything is written and settled, and nothing stays in memory that nobody has in his hands."""
    await fs.drain()
    fs.parts.tree.memory.cached_inodes = 0
    fs.parts.tree.memory.shrink()


async def test_a_name_that_is_looked_for_is_found(local: Filesystem) -> None:
    fs = local
    await fs.mkdirs(REC)
    await forgotten(fs)
    folder, found = await fs.node(REC), []

    async def look() -> None:
        found.append(await fs.parts.tree.child(folder, b"file"))

    async with trio.open_nursery() as nursery:
        with late("child"):
            nursery.start_soon(look)
            await trio.sleep(1)
            await fs.write(FILE, b"bytes")
            await forgotten(fs)
            assert not folder.children
            await trio.sleep(LATE_S)
    assert found[0] is not None
    assert await fs.read(FILE) == b"bytes"


@pytest.mark.parametrize(("act", "error"), [("make", Exists), ("rename", NotEmpty)])
async def test_a_directory_does_not_take_the_place_of_another(
    local: Filesystem, act: str, error: type[Exception]
) -> None:
    fs = local
    await fs.mkdirs("users/5/recordings")
    users = (await fs.node("users")).ino
    acts = {
        "make": partial(fs.vfs.mkdir, users, b"77", 0o755, OPERATOR),
        "rename": partial(fs.vfs.rename, users, b"5", users, b"77", OPERATOR),
    }
    refused = []

    async def try_it() -> None:
        try:
            await acts[act]()
        except error as raised:
            refused.append(raised)

    async with trio.open_nursery() as nursery:
        with late("account"):
            nursery.start_soon(try_it)
            await trio.sleep(1)
            await fs.mkdirs("users/77/recordings/1")
            await fs.write("users/77/recordings/1/file", b"bytes")
            await forgotten(fs)
            await trio.sleep(LATE_S)
    assert refused
    assert await fs.read("users/77/recordings/1/file") == b"bytes"


async def test_an_attribute_that_is_set_meanwhile_stays(local: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = local
    await fs.mkdirs(REC)
    for name in (FILE, OTHER):
        await fs.write(name, b"bytes")
        await fs.xattrs.set((await fs.node(name)).ino, b"user.before", b"y", OPERATOR)
    monkeypatch.setattr(xattrs, "LOADED_BYTES", 0)
    await forgotten(fs)
    node, own = await fs.node(FILE), fs.xattrs
    async with trio.open_nursery() as nursery:
        with late("xattrs"):
            nursery.start_soon(own.list, node.ino)
            await trio.sleep(1)
            await own.set(node.ino, b"user.note", b"x", OPERATOR)
            await fs.drain()
            await own.set((await fs.node(OTHER)).ino, b"user.note", b"other", OPERATOR)
            assert node.xattrs is None, "those of the other file have taken their place"
            await trio.sleep(LATE_S)
    assert await own.get(node.ino, b"user.note") == b"x"
