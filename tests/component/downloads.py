"""An object store whose GETs wait until the test lets them go on, and downloads from it."""

from __future__ import annotations

import inspect
import itertools
import os
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from recfs.errors import RecfsError
from recfs.ports.objects import Cancel, ObjectStore
from recfs.tier.downloads.download import BLOCK_BYTES, Download
from recfs.tier.downloads.fetchslots import FetchSlots
from tests.fake_object_store import FakeObjectStore

KEY = "users/5/recordings/142/source.mp4"
BLOCK = BLOCK_BYTES
MIB = 1 << 20
STEP = 128 << 10
"""A read of the kernel's."""


_PERIOD = 1_000_003
"""Prime, so that no two blocks of a pattern are alike."""
_noise = random.Random(5).randbytes(_PERIOD)


def pattern(size: int) -> bytes:
    """*size* bytes to fetch."""
    return (_noise * -(-size // _PERIOD))[:size]


class GatedStore(FakeObjectStore):
    """Keeps account of the ranges asked for. With *hold*, GETs stop before they are carried out."""

    def __init__(self, data: bytes = b"", *, hold: bool = False) -> None:
        super().__init__()
        self.hold = hold
        self.gets: list[tuple[int, int]] = []
        """(start, length), in the order in which they came."""
        self.held: dict[tuple[int, int], trio.Event] = {}
        self.peak = 0
        """The largest number of GETs at a time."""
        self._inside = 0
        self.tamper(KEY, data)

    @property
    def etag(self) -> str:
        """Of the object at present."""
        info = self.head(KEY)
        assert info is not None
        return info.etag

    @property
    def bytes_asked(self) -> int:
        """Sum over all GETs."""
        return sum(length for _, length in self.gets)

    def get_range(
        self,
        key: str,
        start: int,
        length: int,
        *,
        if_match: str | None,
        into: memoryview | int,
        at: int | None = None,
        cancel: Cancel | None = None,
    ) -> int:
        """As the port says, when the test lets it."""
        trio.from_thread.run(self._enter, start, length)
        try:
            return super().get_range(key, start, length, if_match=if_match, into=into, at=at, cancel=cancel)
        finally:
            trio.from_thread.run_sync(self._leave)

    async def _enter(self, start: int, length: int) -> None:
        self.gets.append((start, length))
        self._inside += 1
        self.peak = max(self.peak, self._inside)
        if self.hold:
            gate = self.held[start, length] = trio.Event()
            await gate.wait()
            del self.held[start, length]

    def _leave(self) -> None:
        self._inside -= 1

    def release(self, *ranges: tuple[int, int]) -> None:
        """Let these held GETs go on; none given: all that are held, and those to come."""
        if not ranges:
            self.hold = False
        for each in ranges or list(self.held):
            self.held[each].set()

    def assert_nothing_twice(self) -> None:
        """No byte was asked for more than once."""
        ordered = sorted(self.gets)
        for (start, length), (after, _) in itertools.pairwise(ordered):
            assert start + length <= after, ordered


@pytest.fixture(autouse=True)
def still_clock(request: pytest.FixtureRequest) -> None:
    """Time stands still unless the test moves it, so that sizes of requests do not depend on the machine.

    (pytest-trio uses a clock that the test function itself asks for, not one from a fixture.)
    """
    if inspect.iscoroutinefunction(request.function):
        request.node.add_marker(pytest.mark.trio(run=_run), append=False)


def _run(*args: Any, clock: trio.abc.Clock | None = None, **options: Any) -> Any:
    return trio.run(*args, clock=clock or MockClock(), **options)


async def settled(store: GatedStore, *downloads: Download) -> None:
    """Wait until all that can go on without the test has gone on."""
    await wait_all_tasks_blocked()
    while sum(download.running for download in downloads) != len(store.held):
        await wait_all_tasks_blocked()


def fast_slots(total: int = 16, reserved: int | None = None) -> FetchSlots:
    """Slots that have seen a connection of 100 MiB/s."""
    slots = FetchSlots(total, reserved)
    slots.learn(100 * MIB, 1.0)
    return slots


class Opened:
    """A running download and its file."""

    def __init__(self, download: Download, file: Any, data: bytes, nursery: trio.Nursery) -> None:
        self.download, self.file, self.data, self.nursery = download, file, data, nursery
        self.returned = trio.Event()
        """Set when `run` has returned."""

    async def run(self) -> None:
        """Run the download."""
        await self.download.run()
        self.returned.set()

    async def read(self, offset: int, length: int) -> bytes:
        """Read as a reader does, and compare."""
        await self.download.ensure(offset, length)
        got = os.pread(self.file.fileno(), length, offset)
        assert got == self.data[offset : offset + length], f"{length} bytes at {offset} differ"
        return got

    async def play(self, offset: int, length: int, step: int = STEP) -> None:
        """Read in sequence."""
        for position in range(offset, offset + length, step):
            await self.read(position, min(step, offset + length - position))

    def content(self) -> bytes:
        """All bytes of the file."""
        return os.pread(self.file.fileno(), len(self.data) + 1, 0)

    def assert_present_is_true(self) -> None:
        """What is said to be present has the right bytes."""
        content = self.content()
        for start in range(0, len(self.data), BLOCK):
            if self.download.has(start, BLOCK):
                assert content[start : start + BLOCK] == self.data[start : start + BLOCK]


@asynccontextmanager
async def downloading(
    store: ObjectStore,
    data: bytes,
    etag: str,
    *,
    slots: FetchSlots | None = None,
    limiter: trio.CapacityLimiter | None = None,
    file: Any = None,
    start: bool = True,
    **options: Any,
) -> AsyncIterator[Opened]:
    """A download of KEY into a file of its own (or *file*), closed at the end."""
    with tempfile.TemporaryFile() as own:
        target = own if file is None else file
        download = Download(
            store, KEY, etag, len(data), target.fileno(), limiter or trio.CapacityLimiter(16), slots or FetchSlots(16),
            **options,
        )  # fmt: skip
        async with trio.open_nursery() as nursery:
            opened = Opened(download, target, data, nursery)
            if start:
                nursery.start_soon(opened.run)
            yield opened
            if isinstance(store, GatedStore):
                store.release()
            download.close()
        opened.assert_present_is_true()


class Readers:
    """Readers in the background, and what became of each: bytes or an error."""

    def __init__(self, opened: Opened, nursery: trio.Nursery) -> None:
        self._opened, self._nursery = opened, nursery
        self.ended: dict[str, bytes | RecfsError] = {}

    def start(self, name: str, offset: int, length: int = STEP) -> None:
        self._nursery.start_soon(self._read, name, offset, length)

    async def _read(self, name: str, offset: int, length: int) -> None:
        try:
            self.ended[name] = await self._opened.read(offset, length)
        except RecfsError as error:
            self.ended[name] = error


async def expect(kind: type[RecfsError], call: Callable[[], Awaitable[None]]) -> None:
    """The awaited *call* raises this."""
    with pytest.raises(kind):
        await call()
