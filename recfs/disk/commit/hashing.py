"""Hashing of what takes a while: each size class in threads of its own, its owners in turns, a slice of time each.

A pass that has had its slice makes room if others of its lane wait, and goes on from where it was when its turn comes
again. So a file of any size disturbs nobody, and nobody's many files hold up another's one for longer than a slice.
Small files are hashed many at a time, in threads of their own (`disk/commit/batches.py`);
`disk/commit/lanes.py` has the classes.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from recfs.disk.commit.digests import Digest, Pass, Source
from recfs.disk.commit.lanes import MEDIUM_BYTES, Lane, Turns

if TYPE_CHECKING:
    from recfs.state.nodes import FileNode
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.commit")

SLICE_S = 2.0
"""How long a pass may go on while others of its lane wait, in seconds."""
ASSUMED_RATE = 300e6
"""Bytes a second that a pass is taken to hash before one has been measured."""
RATE_SHARE = 0.3
"""How much the latest measurement counts."""
MEASURED_BYTES = 16 << 20
"""A slice shorter than this says nothing of the rate."""


@dataclass(eq=False, slots=True)
class Work:
    """A pass on its way."""

    passing: Pass
    owner: Hashable
    what: str
    """Its path, for people."""
    done: Callable[[Digest | None], None] = lambda found: None
    """Called once, on the trio thread: with None if it was stopped."""
    source: Callable[[], Source] | None = None
    """Asked before each slice, on the trio thread: the file may lie elsewhere by then."""
    began_s: float = 0.0
    began_bytes: int = 0

    def progress(self, rate: float) -> dict[str, object]:
        """What `recfs status` tells of it."""
        passing, now = self.passing, time.monotonic()
        done, spent_s = passing.done_bytes, now - self.began_s
        own = (passing.hashed_bytes - self.began_bytes) / spent_s if self.began_s and spent_s > 0.2 else rate
        return {
            "path": self.what,
            "done_bytes": done,
            "total_bytes": passing.total_bytes,
            "bytes_per_s": round(own),
            "eta_s": round(passing.left_bytes / own, 1) if own >= 1 else None,
        }


class _Queue:
    """What waits and what runs in one lane."""

    def __init__(self) -> None:
        self.turns: Turns[Work] = Turns()
        self.running: dict[Work, None] = {}
        self.idle = trio.lowlevel.ParkingLot()

    def others_wait(self) -> bool:
        """Asked by the threads."""
        return len(self.turns) > 0


class Hashing:
    """The medium and the large lane."""

    def __init__(self, store: LocalStore, threads: int) -> None:
        self._store = store
        self._threads = threads
        self._lanes = {Lane.MEDIUM: _Queue(), Lane.LARGE: _Queue()}
        self.rate = ASSUMED_RATE
        """Bytes a second of one pass, lately."""

    async def run(self) -> None:
        """Hash for ever."""
        async with trio.open_nursery() as nursery:
            try:
                for lane in self._lanes.values():
                    for _ in range(self._threads):
                        nursery.start_soon(self._work, lane)
                await trio.sleep_forever()
            finally:
                for lane in self._lanes.values():
                    for work in lane.running:
                        work.passing.stop()  # a thread is waited for, however long it takes

    async def _work(self, lane: _Queue) -> None:
        while True:
            work = lane.turns.take()
            if work is None:
                await lane.idle.park()
                continue
            lane.running[work] = None
            passing = work.passing
            work.began_s, work.began_bytes = time.monotonic(), passing.hashed_bytes
            try:
                if work.source is not None:
                    passing.source = work.source()
                # The lane's workers are its limit; this one only keeps trio from counting the thread elsewhere.
                found = await trio.to_thread.run_sync(
                    passing.run, self._store, SLICE_S, lane.others_wait, limiter=trio.CapacityLimiter(1)
                )
            except Exception as error:
                log.exception("%s: hashing failed", work.what)
                found = Digest(error=OSError(errno.EIO, f"hashing failed: {error!r}"))
            finally:
                del lane.running[work]
            self._measure(work)
            if found is None and not passing.stopped:
                self._enqueue(work)
            else:
                work.done(found if not passing.stopped else None)

    def _measure(self, work: Work) -> None:
        done, spent_s = work.passing.hashed_bytes - work.began_bytes, time.monotonic() - work.began_s
        if done >= MEASURED_BYTES and spent_s > 0:
            self.rate += RATE_SHARE * (done / spent_s - self.rate)

    def _enqueue(self, work: Work) -> None:
        passing = work.passing
        lane = self._lanes[Lane.MEDIUM if passing.total_bytes <= MEDIUM_BYTES else Lane.LARGE]
        lane.turns.put(work.owner, work, passing.left_bytes)
        lane.idle.unpark()

    def submit(self, work: Work) -> None:
        """Queue a pass. One that is under way is not begun twice: it is `done` once, for whoever asked."""
        if not any(work in lane.running for lane in self._lanes.values()):
            self._enqueue(work)

    def stop(self, work: Work) -> None:
        """Have a pass end now; it is `done` at once if it waits, else within a moment. Atomic."""
        if work.passing.stopped:
            return
        work.passing.stop()
        if any(lane.turns.discard(work) for lane in self._lanes.values()):
            work.done(None)

    async def digest(self, work: Work) -> Digest | None:
        """Hash one file, and wait for that; None if it was stopped. Ends the pass when it is cancelled."""
        ended = trio.Event()
        result: Digest | None = None

        def done(found: Digest | None) -> None:
            nonlocal result
            result = found
            ended.set()

        work.done = done
        self.submit(work)
        try:
            await ended.wait()
        finally:
            self.stop(work)
        return result

    # --- for people ----------------------------------------------------------------------------------------------

    def waiting(self, lane: Lane) -> int:
        """Passes that wait for their turn."""
        return len(self._lanes[lane].turns)

    def running(self, lane: Lane) -> list[Work]:
        """Passes under way."""
        return list(self._lanes[lane].running)


def owner_of(node: FileNode) -> Hashable:
    """Whose turn a file is hashed in: the user's, or for what is no user's the temp job's or the area's."""
    folder = node.parent
    if folder.account is not None:
        return folder.account.user
    return folder.job.ino if folder.job is not None else folder.role


__all__ = ["Hashing", "Work", "owner_of"]
