"""The read lock and the wait of the request loop, under trio and without a mount."""

import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from recfs.fuse.loop import BargingLock, LoopStats, Pacer, RequestWait
from tests.helpers.virtual_time import GUARD_S


class ManualClock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def pacer(clock: ManualClock) -> Pacer:
    bound = Pacer(LoopStats(), run_s=1.0, clock=clock)
    bound.bind()
    return bound


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


# --- the lock -------------------------------------------------------------------------------------


async def test_a_free_lock_is_taken_without_a_checkpoint(pacer: Pacer) -> None:
    lock = BargingLock(pacer)
    for _ in range(3):
        with assert_no_checkpoints():
            async with lock:
                pass


async def test_only_one_task_is_inside(pacer: Pacer) -> None:
    lock = BargingLock(pacer)
    inside = most = turns = 0

    async def worker() -> None:
        nonlocal inside, most, turns
        for _ in range(20):
            async with lock:
                inside += 1
                most = max(most, inside)
                await trio.lowlevel.checkpoint()
                inside -= 1
                turns += 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(worker)
    assert (most, turns) == (1, 100)


async def test_the_releaser_may_take_it_again_before_a_woken_waiter(pacer: Pacer) -> None:
    lock = BargingLock(pacer)
    order: list[str] = []

    async def standby() -> None:
        async with lock:
            order.append("standby")

    async with trio.open_nursery() as nursery:
        await lock.acquire()
        nursery.start_soon(standby)
        await wait_all_tasks_blocked()
        lock.release()
        with assert_no_checkpoints():
            await lock.acquire()
        order.append("again")
        lock.release()
    assert order == ["again", "standby"]


async def test_a_standby_takes_over_as_soon_as_the_busy_task_really_waits(pacer: Pacer) -> None:
    lock = BargingLock(pacer)
    took_over = trio.Event()

    async def standby() -> None:
        async with lock:
            took_over.set()

    async with trio.open_nursery() as nursery:
        await lock.acquire()
        nursery.start_soon(standby)
        await wait_all_tasks_blocked()
        lock.release()
        with trio.fail_after(GUARD_S):
            await took_over.wait()


@pytest.mark.parametrize("waiters", [1, 3])
async def test_no_waiter_is_passed_over_for_ever(pacer: Pacer, waiters: int) -> None:
    """The holder always waits inside and takes the lock again at once: woken waiters never find it free."""
    lock = BargingLock(pacer, max_barges=4)
    served: list[int] = []
    rounds = 0

    async def waiter(number: int) -> None:
        async with lock:
            served.append(number)

    async with trio.open_nursery() as nursery:
        await lock.acquire()
        for number in range(waiters):
            nursery.start_soon(waiter, number)
        await wait_all_tasks_blocked()
        while len(served) < waiters and rounds < 100:
            rounds += 1
            lock.release()
            await lock.acquire()
            await trio.lowlevel.checkpoint()
        lock.release()
    assert sorted(served) == list(range(waiters))
    assert 4 < rounds <= 4 * 3 * waiters


async def test_a_cancelled_waiter_leaves_the_others_their_turn(pacer: Pacer) -> None:
    lock = BargingLock(pacer)
    taken: list[str] = []

    async def waiter(name: str, scope: trio.CancelScope) -> None:
        with scope:
            async with lock:
                taken.append(name)

    first, second = trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        await lock.acquire()
        nursery.start_soon(waiter, "first", first)
        await wait_all_tasks_blocked()
        nursery.start_soon(waiter, "second", second)
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        lock.release()
    assert taken == ["second"]
    assert first.cancelled_caught


async def test_cancelling_the_woken_waiter_loses_no_wake_up(pacer: Pacer) -> None:
    """Cancelled after release has woken it, it either takes the lock and passes it on, or never had it."""
    lock = BargingLock(pacer)
    scope = trio.CancelScope()
    reached = trio.Event()

    async def woken() -> None:
        with scope:
            async with lock:
                await trio.lowlevel.checkpoint()

    async def last() -> None:
        async with lock:
            reached.set()

    async with trio.open_nursery() as nursery:
        await lock.acquire()
        nursery.start_soon(woken)
        await wait_all_tasks_blocked()
        nursery.start_soon(last)
        await wait_all_tasks_blocked()
        lock.release()
        scope.cancel()
        with trio.fail_after(GUARD_S):
            await reached.wait()
    assert scope.cancelled_caught


async def test_cancellation_at_the_pacer_s_checkpoint_leaves_the_lock_free(pacer: Pacer, clock: ManualClock) -> None:
    lock = BargingLock(pacer)
    clock.now = 2.0
    with trio.CancelScope() as scope:
        scope.cancel()
        await lock.acquire()
    assert scope.cancelled_caught
    with assert_checkpoints():
        await lock.acquire()  # still overdue, and free
    lock.release()


async def test_release_of_a_free_lock_is_refused(pacer: Pacer) -> None:
    with pytest.raises(RuntimeError, match="nobody holds"):
        BargingLock(pacer).release()


# --- the pacer ------------------------------------------------------------------------------------


async def test_a_checkpoint_is_made_when_the_stretch_is_over(pacer: Pacer, clock: ManualClock) -> None:
    lock = BargingLock(pacer)
    clock.now = 0.999
    with assert_no_checkpoints():
        await lock.acquire()
    lock.release()
    clock.now = 1.0
    with assert_checkpoints():
        await lock.acquire()
    lock.release()
    with assert_no_checkpoints():
        await lock.acquire()  # a new stretch has begun
    assert pacer.stats.checkpoints == 1


@pytest.mark.parametrize("public", [False, True], ids=["queue", "public count"])
async def test_a_checkpoint_is_made_when_another_task_is_runnable(pacer: Pacer, public: bool) -> None:
    if public:
        pacer._runq = None
    else:
        assert pacer._runq is not None, "trio's queue was not found: the public count is used, at 2 µs a request"
    lock = BargingLock(pacer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)
        with assert_checkpoints():
            await lock.acquire()
        lock.release()


@pytest.mark.parametrize("public", [False, True], ids=["queue", "public count"])
async def test_the_standby_woken_by_release_is_no_reason_for_a_checkpoint(pacer: Pacer, public: bool) -> None:
    if public:
        pacer._runq = None
    lock = BargingLock(pacer)

    async def standby() -> None:
        async with lock:
            pass

    async with trio.open_nursery() as nursery:
        await lock.acquire()
        nursery.start_soon(standby)
        await wait_all_tasks_blocked()
        lock.release()
        with assert_no_checkpoints():
            await lock.acquire()
        lock.release()


# --- waiting for a request --------------------------------------------------------------------------


async def test_a_readable_descriptor_costs_no_checkpoint(
    pacer: Pacer, sockets: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = sockets
    wait = RequestWait(pacer)
    theirs.send(b"x")
    with assert_no_checkpoints():
        await wait.wait_readable(ours.fileno())
    assert (pacer.stats.ready, pacer.stats.epoll_waits) == (1, 0)


@pytest.mark.parametrize("spin_s", [0.0, 0.000_01])
async def test_a_quiet_descriptor_is_waited_for_in_epoll(
    pacer: Pacer, sockets: tuple[socket.socket, socket.socket], spin_s: float
) -> None:
    ours, theirs = sockets
    pacer.answered = True
    wait = RequestWait(pacer, spin_s=spin_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait.wait_readable, ours.fileno())
        await wait_all_tasks_blocked()
        theirs.send(b"x")
    assert (pacer.stats.ready, pacer.stats.epoll_waits) == (0, 1)
    assert pacer.stats.spins == (spin_s > 0)


async def test_it_spins_only_after_an_answer(pacer: Pacer, sockets: tuple[socket.socket, socket.socket]) -> None:
    """A standby that takes over has answered nobody, and the busy handler's thread wants the GIL."""
    ours, theirs = sockets
    lock, wait = BargingLock(pacer), RequestWait(pacer, spin_s=60.0)

    async def standby() -> None:
        async with lock:
            await wait.wait_readable(ours.fileno())

    async with trio.open_nursery() as nursery:
        await lock.acquire()
        nursery.start_soon(standby)
        await wait_all_tasks_blocked()
        lock.release()
        await wait_all_tasks_blocked()
        theirs.send(b"x")
    assert pacer.stats.spins == 0


async def test_waiting_follows_another_descriptor_and_a_hang_up(
    pacer: Pacer, sockets: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = sockets
    wait = RequestWait(pacer)
    theirs.send(b"x")
    await wait.wait_readable(ours.fileno())
    ours.close()
    with assert_no_checkpoints():
        await wait.wait_readable(theirs.fileno())
    assert pacer.stats.ready == 2


async def test_notify_closing_ends_the_wait(pacer: Pacer, sockets: tuple[socket.socket, socket.socket]) -> None:
    wait = RequestWait(pacer)

    async def waiting() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wait.wait_readable(sockets[0].fileno())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiting)
        await wait_all_tasks_blocked()
        trio.lowlevel.notify_closing(sockets[0].fileno())


async def test_cancellation_ends_the_wait(pacer: Pacer, sockets: tuple[socket.socket, socket.socket]) -> None:
    wait = RequestWait(pacer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait.wait_readable, sockets[0].fileno())
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    theirs = sockets[1]
    theirs.send(b"x")
    with assert_no_checkpoints():
        await wait.wait_readable(sockets[0].fileno())
