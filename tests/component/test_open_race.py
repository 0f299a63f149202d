"""Many open one file at the same moment: each gets its answer, after a few turns of its task."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from recfs.core.model import State
from recfs.fs.handles import Mode
from recfs.stores.local import LocalStore
from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem, until
from .turns import together

FILE = f"{REC}/file"
OTHER = f"{REC}/other"
RW = os.O_RDWR
ACTS = ("read", "write", "append", "empty")
FLAGS = {"read": os.O_RDONLY, "write": RW, "append": os.O_WRONLY | os.O_APPEND, "empty": os.O_WRONLY | os.O_TRUNC}


async def started(nursery: trio.Nursery, place: Path, kernel: str) -> Filesystem:
    """A file system, and what the kernel does by itself there."""
    fs = Filesystem(nursery, place)
    if kernel != "off":
        fs.files = FakeKernelFiles(writes=kernel == "auto")
    await fs.start()
    await fs.write(FILE, b"as it was")
    await fs.drain()
    return fs


@pytest.fixture(params=["auto", "read", "off"])
async def kernel(request: pytest.FixtureRequest) -> str:
    """How far the kernel reads and writes by itself."""
    return str(request.param)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("acts", [("write",), ("read", "write"), ("empty",), ("write", "empty"), ACTS])
@pytest.mark.table(9)
async def test_opens_at_the_same_moment_all_return(
    nursery: trio.Nursery, place: Path, kernel: str, acts: tuple[str, ...], count: int
) -> None:
    """Of a committed file, whose first writer has to wait for the catalogue and the disk."""
    fs = await started(nursery, place, kernel)
    opened: list[int] = []

    async def client(act: str) -> None:
        opened.append((await fs.pass_open(FILE, FLAGS[act]))[0])

    await together(*(partial(client, acts[number % len(acts)]) for number in range(count)))
    assert len(opened) == count
    for number in opened:
        await fs.close(number)
    await fs.assert_consistent()
    assert await fs.state(FILE) == State.COMMITTED
    assert await fs.read(FILE) == (b"" if "empty" in acts[:count] else b"as it was")
    await fs.stop()


def rename_away(fs: Filesystem) -> Callable[[], Awaitable[None]]:
    return lambda: fs.rename(FILE, OTHER)


def remove(fs: Filesystem) -> Callable[[], Awaitable[None]]:
    return lambda: fs.unlink(FILE)


def settle(fs: Filesystem) -> Callable[[], Awaitable[None]]:
    return fs.parts.publisher.publish_some


def close_a_writer(fs: Filesystem) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        (number,) = list(fs.vfs.files.handles)[:1]
        await fs.close(number)

    return close


@pytest.mark.parametrize("meanwhile", [rename_away, remove, settle, close_a_writer])
async def test_opens_return_whatever_becomes_of_the_file(
    nursery: trio.Nursery, place: Path, kernel: str, meanwhile: Callable[[Filesystem], Callable[[], Awaitable[None]]]
) -> None:
    """Moved, removed, carried home or sealed while it is being opened."""
    fs = await started(nursery, place, kernel)
    held, _ = await fs.pass_open(FILE, RW)
    node = fs.vfs.files.handles[held].node
    opened: list[int] = []

    async def client(flags: int) -> None:
        number = await fs.vfs.open(node.ino, flags, OPERATOR)
        await fs.vfs.files.modes.choose(fs.vfs.files.handles[number])
        opened.append(number)

    clients = [partial(client, flags) for flags in (RW, os.O_RDONLY, RW, os.O_WRONLY | os.O_TRUNC)]
    await together(clients[0], meanwhile(fs), *clients[1:])
    assert len(opened) == 4
    for number in [*opened, held]:
        if number in fs.vfs.files.handles:
            await fs.close(number)
    await fs.drain()
    fs.parts.tree.check_invariants()
    await fs.stop()


async def test_whoever_waits_for_the_file_lets_the_next_one_have_it(nursery: trio.Nursery, place: Path) -> None:
    """A way between home and staging that takes long: all who wait get on when it ends, in their order."""
    fs = await started(nursery, place, "auto")
    number, mode = await fs.pass_open(FILE)
    assert mode is Mode.PASS
    body = fs.vfs.files.handles[number].body
    order: list[int] = []

    async def client(name: int, flags: int) -> None:
        mine = await fs.open(FILE, flags)
        await fs.vfs.files.modes.choose(fs.vfs.files.handles[mine])
        order.append(name)
        await fs.close(mine)

    async def holder() -> None:
        async with body.lock:
            await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()

    await together(holder, *(partial(client, name, RW if name % 2 else os.O_RDONLY) for name in range(6)))
    assert sorted(order) == list(range(6))
    await fs.close(number)
    await fs.assert_consistent()
    await fs.stop()


async def test_a_second_writer_waits_for_the_row_as_the_first_does(fs: Filesystem) -> None:
    """The row must not say `committed` of bytes that somebody has begun to change, whoever it is."""
    publish_some, fs.parts.publisher.publish_some = fs.parts.publisher.publish_some, trio.sleep_forever
    await fs.write(FILE, b"committed")
    node = await fs.node(FILE)
    await until(lambda: node.state is State.COMMITTED)
    assert node.staging is not None, "not carried home yet: nothing but the row stands between writers and the bytes"
    one, two = await fs.open(FILE, RW), await fs.open(FILE, RW)
    written: list[str] = []
    synced, release = trio.Event(), trio.Event()
    real = fs.parts.behind.durable

    async def durable() -> None:
        synced.set()
        await release.wait()
        await real()
        written.append("row")

    fs.parts.behind.durable = durable

    async def writer(number: int) -> None:
        await fs.vfs.files.write(number, 0, b"x")
        written.append("bytes")

    async with trio.open_nursery() as clients:
        clients.start_soon(writer, one)
        await synced.wait()
        assert node.state is State.WRITING
        clients.start_soon(writer, two)
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    fs.parts.behind.durable = real
    fs.parts.publisher.publish_some = publish_some
    assert written == ["row", "bytes", "bytes"]
    await fs.close(one)
    await fs.close(two)
    fs.checked_at_end = False  # its publisher sleeps


@pytest.mark.parametrize("writes_first", [False, True])
@pytest.mark.parametrize("first", [os.O_RDONLY, RW], ids=["nobody has it open", "another reader has"])
async def test_a_reader_that_opens_slowly_leaves_the_writer_the_descriptor(
    nursery: trio.Nursery, place: Path, monkeypatch: pytest.MonkeyPatch, first: int, writes_first: bool
) -> None:
    """The writer came while a thread had the reader's open in hand, and is done before it."""
    fs = await started(nursery, place, "off")
    early = await fs.open(FILE) if first == RW else None
    begun, go_on = threading.Event(), threading.Event()
    open_file = LocalStore.open_file

    def slow(store: LocalStore, path: bytes, flags: int) -> int:
        if flags == first and not begun.is_set():
            begun.set()
            go_on.wait()
        return open_file(store, path, flags)

    monkeypatch.setattr(LocalStore, "open_file", slow)
    monkeypatch.setattr(LocalStore, "open_cached", lambda *_: None)
    numbers: list[int] = []

    async def opened_slowly() -> None:
        numbers.append(await fs.open(FILE, first))

    async with trio.open_nursery() as others:
        others.start_soon(opened_slowly)
        await until(begun.is_set)
        writer = await fs.open(FILE, RW)
        if writes_first:
            await fs.vfs.files.write(writer, 0, b"AS")
        go_on.set()
    if not writes_first:
        await fs.vfs.files.write(writer, 0, b"AS")
    await fs.vfs.files.write(writer, 3, b"IT")
    for number in (writer, *numbers, *([early] if early is not None else [])):
        assert await fs.read_handle(number) == b"AS IT was"
        await fs.close(number)
    await fs.assert_consistent()
    await fs.stop()
