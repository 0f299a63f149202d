"""Requests that wait: the kernel's FUSE_INTERRUPT ends it, and so does the limit; nothing is left half done."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing

from recfs.core.model import State
from recfs.errors import Interrupted, TryAgain
from recfs.fs.attributes import Changes
from recfs.fuse.loop import MAX_TASKS
from recfs.state import waits
from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem

FILE = f"{REC}/file"
NUMBER = 4711


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """No interrupt of one test is for another's request; and no request stays registered."""
    waits._remembered.clear()
    yield
    assert not waits._waiting


class Client:
    """A request with a number."""

    def __init__(self, nursery: trio.Nursery, number: int = NUMBER) -> None:
        self._nursery = nursery
        self._number = number
        self.outcome: Any = None

    def start(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Begin it."""
        self._nursery.start_soon(self._run, work)

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> None:
        waits.ticket.set(self._number)
        try:
            self.outcome = await work()
        except (Interrupted, TryAgain) as error:
            self.outcome = type(error)


async def wait(limit_s: float = waits.LIMIT_S) -> str:
    with waits.bounded("the test", limit_s):
        await trio.sleep_forever()
    raise AssertionError


async def test_an_interrupt_ends_the_wait(nursery: trio.Nursery) -> None:
    one, other = Client(nursery), Client(nursery, 12)
    one.start(wait)
    other.start(wait)
    await trio.testing.wait_all_tasks_blocked()
    waits.interrupted(NUMBER)
    await trio.testing.wait_all_tasks_blocked()
    assert (one.outcome, other.outcome) == (Interrupted, None)
    waits.interrupted(12)
    await trio.testing.wait_all_tasks_blocked()


async def test_an_interrupt_that_came_before_the_wait(nursery: trio.Nursery) -> None:
    """And one that came between two waits of one request."""
    waits.interrupted(NUMBER)
    client = Client(nursery)
    client.start(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert client.outcome is Interrupted

    async def twice() -> str:
        with pytest.raises(Interrupted):
            await wait()
        return await wait()

    client = Client(nursery, 13)
    client.start(twice)
    await trio.testing.wait_all_tasks_blocked()
    waits.interrupted(13)
    await trio.testing.wait_all_tasks_blocked()
    assert client.outcome is Interrupted


async def test_the_limit_ends_the_wait(
    nursery: trio.Nursery, autojump_clock: object, expect_log: Callable[[str], None]
) -> None:
    expect_log(r"a request waited 30 s for the test and was told to try again \(EAGAIN\)")
    client = Client(nursery)
    client.start(wait)
    await trio.sleep(29)
    assert client.outcome is None
    await trio.sleep(2)
    assert client.outcome is TryAgain


async def test_what_says_itself_when_nothing_comes_has_no_limit(nursery: trio.Nursery, autojump_clock: object) -> None:
    async def bytes_of_s3() -> None:
        with waits.interruptible("the test"):
            await trio.sleep_forever()

    client = Client(nursery)
    client.start(bytes_of_s3)
    await trio.sleep(10_000)
    assert client.outcome is None
    waits.interrupted(NUMBER)
    await trio.testing.wait_all_tasks_blocked()
    assert client.outcome is Interrupted


async def test_interrupts_of_requests_that_are_over_do_not_pile_up() -> None:
    for number in range(1, 5000):
        waits.interrupted(number)
    assert len(waits._remembered) == waits.REMEMBERED


async def test_one_user_does_not_take_all_places(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log(r"3 requests of user 1000 wait already; one more, for the test, was told to try again \(EAGAIN\)")
    expect_log(r"5 requests of all users wait already")
    monkeypatch.setattr(waits, "USER_WAITS", 3)
    monkeypatch.setattr(waits, "WAITS", 5)
    monkeypatch.setattr(waits, "sender", lambda number: number // 100)
    theirs = [Client(nursery, 1000 * 100 + number) for number in range(4)]
    others = [Client(nursery, uid * 100) for uid in (1, 2, 3)]
    for client in (*theirs, *others):
        client.start(wait)
        await trio.testing.wait_all_tasks_blocked()
    assert [client.outcome for client in theirs] == [None, None, None, TryAgain]
    assert [client.outcome for client in others] == [None, None, TryAgain]
    for number in list(waits._waiting):
        waits.interrupted(number)
    await trio.testing.wait_all_tasks_blocked()
    assert not waits._by_user
    again = Client(nursery, 1000 * 100 + 50)
    again.start(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert again.outcome is None
    waits.interrupted(1000 * 100 + 50)
    await trio.testing.wait_all_tasks_blocked()


def test_the_loop_has_more_tasks_than_may_wait() -> None:
    assert MAX_TASKS > waits.WAITS + waits.USER_WAITS


async def test_a_lock_is_not_taken_by_whoever_was_interrupted(nursery: trio.Nursery) -> None:
    lock = trio.Lock()

    async def hold() -> None:
        async with waits.Held(lock, SimpleNamespace(path="the test")):  # type: ignore[arg-type]
            pass

    client = Client(nursery)
    async with lock:
        client.start(hold)
        await trio.testing.wait_all_tasks_blocked()
        waits.interrupted(NUMBER)
        await trio.testing.wait_all_tasks_blocked()
        assert client.outcome is Interrupted
    assert not lock.locked()


# --- what requests wait for ------------------------------------------------------------------------------------------


class Moving:
    """The publisher carries the file home, and does not come to an end."""

    def __init__(self, fs: Filesystem) -> None:
        self._publisher = fs.parts.publisher
        self._done = trio.Event()
        self._publisher.__dict__["touches"] = lambda inos: not self._done.is_set()
        self._publisher.__dict__["batch_done"] = self._done.wait
        self._moves = mock.patch.object(type(self._publisher), "is_moving", True)
        self._moves.start()

    def end(self) -> None:
        """It does."""
        self._done.set()
        self._moves.stop()
        del self._publisher.__dict__["touches"], self._publisher.__dict__["batch_done"]


class Slow:
    """The catalogue's log is not synced."""

    def __init__(self, fs: Filesystem) -> None:
        self._behind = fs.parts.behind
        self._done = trio.Event()
        real = self._behind.durable

        async def durable() -> None:
            await self._done.wait()
            await real()

        self._behind.__dict__["durable"] = durable

    def end(self) -> None:
        """It is."""
        self._done.set()
        del self._behind.__dict__["durable"]


class Held:
    """Somebody else moves the file between home and staging."""

    def __init__(self, fs: Filesystem) -> None:
        self._lock = fs.parts.tree.nodes[max(fs.vfs.files.handles.values(), key=id).node.ino].body.lock
        self._lock.acquire_nowait()

    def end(self) -> None:
        """No more."""
        self._lock.release()


async def opened(fs: Filesystem, flags: int) -> None:
    """OPEN and RELEASE."""
    number = await fs.open(FILE, flags)
    try:
        await fs.vfs.files.modes.choose(fs.vfs.files.handles[number])
    finally:
        await fs.close(number)


async def written(fs: Filesystem) -> None:
    """The first WRITE of an open file."""
    await fs.vfs.files.write(next(iter(fs.vfs.files.handles)), 0, b"N")


WAITING = {
    Moving: {"open", "empty", "write", "truncate"},
    Slow: {"open", "write", "truncate", "fsync"},
    Held: {"open", "empty", "write", "truncate"},
}
"""What waits for what: an open only where nobody would tell of the first write."""


@pytest.mark.parametrize("kernel", ["auto", "off"])
@pytest.mark.parametrize("reason", [Moving, Slow, Held])
@pytest.mark.parametrize("act", ["open", "empty", "write", "truncate", "fsync"])
@pytest.mark.table(5)
@pytest.mark.prompt_catalogue
async def test_a_killed_caller_leaves_nothing_half_done(
    nursery: trio.Nursery, place: Path, reason: type[Any], act: str, kernel: str
) -> None:
    """Interrupted wherever it may wait; afterwards the same does what it should."""
    fs = Filesystem(nursery, place)
    if kernel == "auto":
        fs.files = FakeKernelFiles()
    await fs.start()
    await fs.write(FILE, b"Old bytes")
    await fs.drain()
    node = await fs.node(FILE)
    held = await fs.open(FILE, os.O_RDWR)
    acts: dict[str, Callable[[], Awaitable[Any]]] = {
        "open": lambda: opened(fs, os.O_RDWR),
        "empty": lambda: opened(fs, os.O_WRONLY | os.O_TRUNC),
        "write": lambda: written(fs),
        "truncate": lambda: fs.vfs.setattr(node.ino, Changes(size=3), OPERATOR),
        "fsync": lambda: fs.vfs.files.fsync(held),
    }
    must_wait = act in WAITING[reason] and (act != "open" or kernel == "auto")
    cause = reason(fs)
    for number in (NUMBER, NUMBER + 1):
        client = Client(nursery, number)
        client.start(acts[act])
        await trio.testing.wait_all_tasks_blocked(0.01)
        waits.interrupted(number)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert (client.outcome is Interrupted) is must_wait, client.outcome
    cause.end()
    await acts[act]()
    await fs.close(held)
    wanted = {"open": b"Old bytes", "empty": b"", "write": b"Nld bytes", "truncate": b"Old", "fsync": b"Old bytes"}
    await fs.assert_consistent()
    assert await fs.read(FILE) == wanted[act]
    assert await fs.state(FILE) == State.COMMITTED
    await fs.stop()
