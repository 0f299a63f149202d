"""The request loop: pyfuse3's own, under trio, with most of trio's part in a request taken out.

Why
---
A request costs pyfuse3 two rounds of trio's scheduler: `trio.Lock` makes a checkpoint even when nobody holds
it, and `trio.lowlevel.wait_readable` always goes to epoll, even when the next request is already queued.
Worse, epoll puts the thread to sleep, and waking it again is, on a virtual machine, the larger part of a
round trip. But a program that works on files (stat, open, write, close ...) sends its next request a few
microseconds after the last answer. Looking at the descriptor first, and for a moment more before going to
sleep, meets most requests without leaving the task.

How
---
pyfuse3 finds `trio.Lock`, `trio.lowlevel.wait_readable` and the rest through the global name `trio` of its
module (`pyfuse3.asyncio` lives by replacing it). `serve` puts an object there that is trio but for those two.
What it relies on, in pyfuse3's `internal.pxi` (3.5):

1. Workers run `async with read_lock: await trio.lowlevel.wait_readable(fd)` and then, without a checkpoint in
   between, read one request; that read blocks the whole process if there is none. So "readable" must be true
   when `wait_readable` returns, and nobody else may read meanwhile. The lock sees to that, here as there.
2. A worker that has read a request starts another one if none is inside that block; a worker ends if more
   than `min_tasks` are. So a standby waits at the lock while another worker is busy. Each release wakes it,
   and it runs, and becomes the reader, exactly when the busy worker's handler waits for something. A worker
   just started is a runnable task, and so gets its turn to become that standby (see Fairness).
3. After `terminate` or an unmount each worker in turn gets the lock, sees that the session is over, and ends.

If a pyfuse3 has no such global, `serve` says so and runs `pyfuse3.main` as it is: slower, equally right.

Fairness
--------
While requests flow, trio's loop does not run. `Pacer` bounds that: before its next request a worker makes a
real checkpoint if another task is runnable or `RUN_S` have passed, so timers, signals, cancellation and
results from threads are late by `RUN_S` and one request at most; and by another `RUN_S` where that request and
those after it are answered by the C extension (_fuse_memory.c), which makes no task runnable. Looking at the
descriptor releases the GIL, on purpose: holding it meanwhile starved hashing threads (a fifteenth of what plain
pyfuse3 leaves them).
"""

import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import pyfuse3
import trio

from recfs.fuse.standstill.gate import GATE
from recfs.state.waits import WAITS

Clock = Callable[[], float]
Look = Callable[[int, float], bool]
"""Tells whether a descriptor is readable, now or within some seconds."""
log = logging.getLogger(__name__)

RUN_S: Final = 0.000_5
"""Longest stretch of requests without a checkpoint, which costs some 10 µs: 2 % of the time at most."""

SPIN_S: Final = 0.000_030
"""How long to look for the next request after an answer: about what a client needs to send it. Longer gains
nothing measurable. Off on a single CPU, where it would only keep the client from running."""

MAX_TASKS: Final = 2 * WAITS
"""How many requests are worked on at a time. More than may wait for something (state/waits.py): with fewer, those that
wait would keep everybody's requests from being read, and the interrupts that would end their waiting, too."""

MAX_BARGES: Final = 16
"""How often in a row a woken waiter may find the lock taken before it is handed over."""


@dataclass(slots=True)
class LoopStats:
    """Counters since the process started; `ready / (ready + epoll_waits)` of the requests were met awake."""

    ready: int = 0
    """Requests found without going to epoll."""
    epoll_waits: int = 0
    """Times the loop went to sleep in trio's epoll."""
    checkpoints: int = 0
    """Checkpoints made for the sake of other tasks."""
    spins: int = 0
    """Times the loop was ready to keep looking for up to `SPIN_S`."""


STATS: Final = LoopStats()


class Pacer:
    """Decide when a worker has to let the rest of the program run."""

    __slots__ = ("_clock", "_deadline", "_run_s", "_runq", "answered", "stats")

    def __init__(self, stats: LoopStats, *, run_s: float = RUN_S, clock: Clock = time.perf_counter) -> None:
        self.stats = stats
        self.answered = False
        """The worker that reads has just answered a request, so its client may soon send the next."""
        self._run_s = run_s
        self._clock = clock
        self._runq: deque[trio.lowlevel.Task] | None = None
        self.restart()

    def bind(self) -> None:
        """Look at the current trio run from now on. Call from a task of it."""
        # trio's public count of runnable tasks costs 2 µs, a tenth of a request; its queue is private. If
        # that is not found, or is something else, the public count does.
        runq = getattr(getattr(trio.lowlevel.current_task(), "_runner", None), "runq", None)
        matches = isinstance(runq, deque) and len(runq) == trio.lowlevel.current_statistics().tasks_runnable
        self._runq = runq if matches else None
        self.restart()

    def restart(self) -> None:
        """Start a new stretch: other tasks have just had their turn."""
        self._deadline = self._clock() + self._run_s

    def due(self, standby: trio.lowlevel.Task | None) -> bool:
        """Tell whether a checkpoint is due. *standby* is a runnable task that does not count."""
        runq = self._runq
        if runq is None:
            others = trio.lowlevel.current_statistics().tasks_runnable > (standby is not None)
        else:
            # Not a bare count: trio takes whole batches off the queue, so the standby need not be in it.
            others = len(runq) > 1 or (len(runq) == 1 and runq[0] is not standby)
        return others or self._clock() >= self._deadline

    async def checkpoint(self) -> None:
        """Let the other tasks run. Raises trio.Cancelled like any checkpoint."""
        self.stats.checkpoints += 1
        await trio.lowlevel.checkpoint()
        self.restart()


class BargingLock:
    """A lock that is taken without a checkpoint when it is free, unless the pacer asks for one.

    Unlike trio.Lock, `release` does not hand it over: it wakes the longest waiter, and whoever asks first has
    it, as a rule the task that has just released it. A woken waiter that comes too late waits again; after
    `max_barges` such disappointments in a row the next release does hand over, so nobody waits for ever.

    Invariants:
    1. While the lock is free and tasks wait for it, one waiter is awake (`_woken`): no wake-up is lost.
    2. At most one waiter is awake at a time. `_woken` is cleared by that waiter itself, first thing.
    """

    __slots__ = ("_barges", "_granted", "_locked", "_lot", "_max_barges", "_pacer", "_woken")

    def __init__(self, pacer: Pacer, *, max_barges: int = MAX_BARGES) -> None:
        self._pacer = pacer
        self._max_barges = max_barges
        self._lot = trio.lowlevel.ParkingLot()
        self._locked = False
        self._granted = False
        self._woken: trio.lowlevel.Task | None = None
        self._barges = 0

    async def acquire(self) -> None:
        """Take the lock, waiting if it is held. Cancellation leaves the lock as it was."""
        pacer = self._pacer
        pacer.answered = True
        if not self._locked and pacer.due(self._woken):
            await pacer.checkpoint()
        while self._locked:
            await self._lot.park()
            self._woken = None
            if self._granted or not self._locked:
                self._granted = False
                self._barges = 0
                pacer.answered = False
                pacer.restart()
                break
            self._barges += 1
        self._locked = True

    def release(self) -> None:
        """Free the lock and wake a waiter, or hand it over if waiters were passed over too often."""
        if not self._locked:
            raise RuntimeError("release of a lock that nobody holds")
        self._locked = False
        if self._woken is None and self._lot:
            self._granted = self._locked = self._barges >= self._max_barges
            (self._woken,) = self._lot.unpark(count=1)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_exc: object) -> None:
        self.release()


class Polled:
    """Looks whether a descriptor is readable. The C extension has a faster one."""

    __slots__ = ("_fd", "_poll")

    def __init__(self) -> None:
        self._fd = -1
        self._poll = select.poll()

    def look(self, fd: int, spin_s: float) -> bool:
        """Tell whether *fd* is readable or hung up, now or within *spin_s* seconds."""
        if fd != self._fd:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
            self._fd = fd
        poll = self._poll.poll
        if poll(0):
            return True
        if spin_s:
            end = time.perf_counter() + spin_s
            while time.perf_counter() < end:
                if poll(0):
                    return True
        return False


class RequestWait:
    """`trio.lowlevel.wait_readable` that looks before it sleeps. For the holder of the read lock only."""

    __slots__ = ("_look", "_pacer", "_spin_s")

    def __init__(self, pacer: Pacer, *, spin_s: float = SPIN_S, look: Look | None = None) -> None:
        self._pacer = pacer
        self._spin_s = spin_s
        self._look = look if look is not None else Polled().look

    async def wait_readable(self, fd: int) -> None:
        """Return when *fd* is readable or hung up, and the gate open.

        Raises trio.ClosedResourceError on `notify_closing(fd)`, unless the gate is closed: then when that ends.
        """
        while not await self._met(fd):
            await GATE.passed()

    async def _met(self, fd: int) -> bool:
        """Wait once; False where the gate was closed meanwhile."""
        if GATE.closed:
            return False
        stats = self._pacer.stats
        spin_s = self._spin_s if self._pacer.answered else 0.0
        if spin_s:
            stats.spins += 1
        if self._look(fd, spin_s):
            stats.ready += 1
            return True
        stats.epoll_waits += 1
        try:
            await trio.lowlevel.wait_readable(fd)
        except trio.ClosedResourceError:
            if not GATE.closed:
                raise
        self._pacer.restart()
        return not GATE.closed


class _Overlay:
    """Another module with some names replaced."""

    def __init__(self, module: object, **replaced: object) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


_PACER: Final = Pacer(STATS)  # not one for each `serve`: the lock that pyfuse3 keeps holds on to it


async def serve(*, min_tasks: int = 1, max_tasks: int = MAX_TASKS, extension: ModuleType | None = None) -> None:
    """Run `pyfuse3.main` until the file system is unmounted or terminated, with the faster loop if it fits.

    *extension*: the C extension, which looks for requests faster, and goes on by itself with those that it answers.

    Call after `pyfuse3.init`; the other arguments, and errors, are those of `pyfuse3.main`. A session run in two stages
    (INIT handshake, then for good) should use `serve` for both, as pyfuse3 keeps the lock of the first.
    """
    names = vars(pyfuse3)
    if names.get("trio") is not trio:
        log.info("pyfuse3 %s: no global `trio` to replace, using its own request loop", pyfuse3.__version__)
        await pyfuse3.main(min_tasks, max_tasks)
        return
    _PACER.bind()
    spin_s = SPIN_S if len(os.sched_getaffinity(0)) > 1 else 0.0
    wait = RequestWait(_PACER, spin_s=spin_s, look=extension.look if extension is not None else None)
    if extension is not None:
        extension.pace(RUN_S, spin_s)
    names["trio"] = _Overlay(
        trio,
        Lock=lambda: BargingLock(_PACER),
        lowlevel=_Overlay(trio.lowlevel, wait_readable=wait.wait_readable),
    )
    try:
        await pyfuse3.main(min_tasks, max_tasks)
    finally:
        names["trio"] = trio
