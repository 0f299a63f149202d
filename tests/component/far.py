"""What the tests of the S3 tier's control methods have in common: a running tier on a fake store, and ways to ask."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from recfs.ports.object_errors import Unreachable
from tests.helpers.virtual_time import GUARD_S
from tests.helpers.watch import bystander

from .build import REC, Filesystem
from .test_tier import tiered

if TYPE_CHECKING:
    from tests.fake_object_store import FakeObjectStore

OTHER = f"{REC}/other"
TICK_S = 0.05
no_route = pytest.mark.expect_log("no route")


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """A running one."""
    made = tiered(nursery, place)
    await made.start()
    await made.mkdirs(REC)
    yield made
    await made.stop()


async def ask(fs: Filesystem, method: str, **params: Any) -> Any:
    """Call a control method."""
    return await fs.answers()[method](params)


def bucket(fs: Filesystem) -> FakeObjectStore:
    """What stands for S3."""
    assert fs.objects is not None
    return fs.objects


async def tick(fs: Filesystem, times: float = 10.0, stands: Callable[[], bool] = lambda: False) -> None:
    """Time goes by, so many times as fast, but not while it *stands*."""
    with bystander():
        while True:
            await trio.sleep(TICK_S)
            if not stands():
                fs.clock.advance(times * TICK_S)


@contextlib.asynccontextmanager
async def ticking(
    fs: Filesystem, *, times: float = 100.0, stands: Callable[[], bool] = lambda: False
) -> AsyncIterator[None]:
    """Start it, and let time go by so many times as fast, until it is stopped."""
    await fs.start()
    await fs.mkdirs(REC)
    async with trio.open_nursery() as ticks:
        ticks.start_soon(tick, fs, times, stands)
        yield
        await fs.stop()
        ticks.cancel_scope.cancel()


class Hold:
    """Holds one kind of call up, in the thread that makes it, until let go."""

    def __init__(self, fs: Filesystem, operation: str) -> None:
        self._gate = threading.Event()
        self._entered = threading.Event()
        bucket(fs).before = lambda asked, _key: self._wait() if asked == operation else None

    def _wait(self) -> None:
        self._entered.set()
        assert self._gate.wait(10)

    async def entered(self) -> None:
        """Until such a call was made."""
        await until(self._entered.is_set)

    def let_go(self) -> None:
        """Go on."""
        self._gate.set()


async def until(condition: Callable[[], object]) -> None:
    """Let the file system's tasks run until something holds."""
    with trio.fail_after(GUARD_S), bystander():
        while not condition():  # noqa: ASYNC110  # conditions of threads and catalogue files announce nothing
            await trio.sleep(0.01)


async def journalled(fs: Filesystem, count: int = 1) -> None:
    """Until so many rows are in the journal's file."""
    await until(lambda: fs.rows("select count(*) from journal") == [count])


def down(fs: Filesystem, operation: str = "*") -> None:
    """Let S3 be away from now on."""
    bucket(fs).fail(operation, Unreachable("no route"), times=10_000)


async def failing(fs: Filesystem) -> None:
    """Until something in the journal has failed."""
    await until(lambda: fs.rows("select count(*) from journal where attempts > 0") == [1])
