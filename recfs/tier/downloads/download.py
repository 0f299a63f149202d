"""Bytes of a file that only the object store has, on their way into a sparse local file.

One `Download` per inode, shared by all its readers; nothing is fetched twice. `ensure` is called before a read of the
local file. What a reader waits for goes before anybody's read-ahead, over all downloads that share `FetchSlots`.

Guarantees
- Bytes count as present only after the GET that brought them returned: the right length, of the etag asked for. One
  local file holds bytes of one version only.
- An error that asking again cannot cure (object changed, missing, archived, access refused …) ends the download: all
  waiting readers get it at once, later ones, too, even for bytes that are here. Any other (the network, the local
  disk) fails those who wait for these very bytes; the next `ensure` asks again. Trying again in between is done by
  the store (`stores/wrap.py`).
- What is present may be given up again (`trim`), but not what is being read (`reading`) or about to be.
- Memory does not depend on the size: bytes go from the socket into the file, one block of a few hundred KiB per GET.
- After `close` returned nothing is written to the file any more, but for a pwrite(2) the kernel is just carrying out;
  after `run` returned, not even that, unless `run` was cancelled.

All state belongs to the trio thread. A worker thread gets immutable arguments and the descriptor.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from recfs.disk.diskio import punch_hole
from recfs.errors import IoFailure, RecfsError
from recfs.ports.object_errors import (
    ObjectChanged,
    ObjectMissing,
    ObjectStoreError,
    Stalled,
    StoreOutage,
    TransferCancelled,
)
from recfs.ports.objects import MIB, ObjectStore
from recfs.state.problems import reason_of
from recfs.tier.downloads.extents import NEAR_BYTES, Blocks, ReadAhead
from recfs.tier.downloads.fetchslots import FetchSlots
from recfs.tier.downloads.requests import RequestPlan
from recfs.tier.downloads.revocable import RevocableFd
from recfs.tier.downloads.waiters import Waiter, Waiters

log = logging.getLogger("recfs.fs")

BLOCK_BYTES = 256 << 10
"""The smallest request, and what is kept account of."""
READ_AHEAD_MAX = 64 * MIB
PARALLEL = 8
"""GETs of one download under way …"""
PARALLEL_AHEAD = 6
"""… and above so many none that nobody waits for."""
DEADLINE_S = 60.0


class Watcher:
    """Hears what becomes of a download. This one does not care."""

    def grown(self) -> None:
        """More is in the file."""

    def missed(self, error: RecfsError) -> None:
        """Bytes that somebody waits for did not come, or none will."""

    async def renewed(self, key: str, etag: str) -> str | None:
        """The object under *key* has another etag than this: the one by which the same bytes go on; None where they are
        others, or are somewhere else by now.
        """
        return None


class Download:
    """Fetches what is asked for, and what will be, of one version of one object into one file.

    *fd* is writable, of any length, and duplicated: the caller may close it. *deadline_s*: after so long without any of
    the wanted bytes `ensure` gives up.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        etag: str,
        size: int,
        fd: int,
        limiter: trio.CapacityLimiter,
        slots: FetchSlots,
        *,
        block_bytes: int = BLOCK_BYTES,
        read_ahead_max: int = READ_AHEAD_MAX,
        deadline_s: float = DEADLINE_S,
        watcher: Watcher | None = None,
    ) -> None:
        self._store, self._key, self._etag = store, key, etag
        self._limiter, self._slots = limiter, slots
        self._deadline_s = deadline_s
        self._blocks = Blocks(size, block_bytes)
        self._ahead = ReadAhead(read_ahead_max)
        self._waiters = Waiters()
        self._plan = RequestPlan(self._blocks, self._ahead, self._waiters, slots)
        self.running = 0
        """GETs under way."""
        self._nursery: trio.Nursery | None = None
        """While requests may be started."""
        self._done = trio.Event()
        self._target = RevocableFd(os.dup(fd))
        self.received_bytes = 0
        """Brought by this download's GETs, all of them different."""
        self.requests = 0
        """GETs started so far."""
        self.error: RecfsError | None = None
        """The last trouble; None again after the next success."""
        self.failed: RecfsError | None = None
        """What ended the download for good."""
        self._watcher = watcher or Watcher()
        self._reads: dict[object, tuple[int, int]] = {}
        """Blocks that are being read from the file."""
        if self.complete:
            self._end()

    # --- what is here --------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether every byte is in the file."""
        return self._blocks.complete

    @property
    def present_bytes(self) -> int:
        """How much is in the file."""
        return self._blocks.present_bytes

    def has(self, offset: int, length: int) -> bool:
        """Whether `ensure` would return at once."""
        return (self.complete or not self._done.is_set()) and self._blocks.has(*self._blocks.covering(offset, length))

    # --- giving up what was read -----------------------------------------------------------------------------------

    @contextmanager
    def reading(self, offset: int, length: int) -> Iterator[None]:
        """What `ensure` brings of this range stays until the end of the block."""
        token = object()
        self._reads[token] = self._blocks.covering(offset, length)
        try:
            yield
        finally:
            del self._reads[token]

    def trim(self, wanted_bytes: int) -> int:
        """Free up to so many bytes that nobody reads and no reader is near; tells how many. Atomic.

        Those from the beginning of the file first. Nothing once the download is complete, failed or closed.
        """
        freed = 0
        if self._done.is_set():
            return freed
        spared = [(waiter.first, waiter.stop) for waiter in self._waiters.reading()]
        spared += self._reads.values()
        for stream in self._ahead:
            near = self._ahead.window(stream) + 2 * NEAR_BYTES
            spared.append(self._blocks.covering(max(0, stream.position - NEAR_BYTES), near))
        at = 0
        for first, stop in [*sorted(spared), (self._blocks.count, self._blocks.count)]:
            while freed < wanted_bytes and (start := self._blocks.first_present(at, max(at, first))) is not None:
                most = start + max(1, (wanted_bytes - freed) // self._blocks.block_bytes)
                at = self._blocks.present_end(start, min(first, most))
                freed += self._free(start, at)
            at = max(at, stop)
        return freed

    def _free(self, first: int, stop: int) -> int:
        offset, length = self._blocks.span(first, stop)
        with self._target.lent() as fd:
            punch_hole(fd, offset, length)
        self._blocks.dropped(first, stop)
        return length

    # --- readers -------------------------------------------------------------------------------------------------

    async def ensure(self, offset: int, length: int) -> None:
        """Return when these bytes are in the file; what lies beyond the end is none. Not a checkpoint if they are.

        Raises the ObjectStoreError, OutOfSpace or IoFailure that kept them away, Stalled after the deadline, and
        TransferCancelled once closed (unless complete).
        """
        first, stop = self._blocks.covering(offset, length)
        if self.complete:
            return
        self._check()
        if first == stop:
            return
        stream = self._ahead.note(offset, min(offset + length, self._blocks.size))
        if self._blocks.has(first, stop):
            self._pump()
        else:
            await self._wait(Waiter(first, stop, stream))

    async def whole(self) -> None:
        """Return when everything is in the file. In the background: `ensure(0, size)` is for those in a hurry.

        Raises as `ensure` does.
        """
        if not self.complete:
            self._check()
            await self._wait(Waiter(0, self._blocks.count))

    async def _wait(self, waiter: Waiter) -> None:
        with self._waiters.entered(waiter):  # what it waits for is not asked for any more when it is gone
            self._pump()
            while True:
                with trio.move_on_after(self._deadline_s) as scope:
                    await waiter.woken.wait()
                if waiter.error is not None:
                    # A copy: each reader's traceback would otherwise be added to the one object.
                    raise copy.copy(waiter.error) from waiter.error
                if self._blocks.has(waiter.first, waiter.stop):
                    return
                if scope.cancelled_caught and not (waiter.stream is None and self._out_of_turn()):
                    late = self._too_late(waiter)
                    self._watcher.missed(late)
                    raise late
                waiter.woken = trio.Event()

    def _out_of_turn(self) -> bool:
        """Whether others' requests take all slots: no reason to think that anything is wrong."""
        return not self.running and self._slots.waits(self._pump)

    def _too_late(self, waiter: Waiter) -> RecfsError:
        offset, length = self._blocks.span(waiter.first, waiter.stop)
        last = f"; the last error was: {self.error}" if self.error is not None else ""
        return Stalled(
            f"{self._key}: nothing of bytes {offset} to {offset + length - 1} came for {self._deadline_s:.0f} s; "
            f"look at the network and the server{last}"
        )

    def _check(self) -> None:
        if self.failed is not None:
            raise copy.copy(self.failed) from self.failed
        if self._done.is_set():
            raise self._closed()

    def _closed(self) -> RecfsError:
        return TransferCancelled(f"{self._key}: the download was closed")

    # --- the task ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Fetch until complete, failed or closed; raises nothing. To be run once.

        Returns when no thread uses the file any more, which after `close` may take as long as one call of the store
        goes without asking whether it is cancelled. Being cancelled itself, it closes the download and does not wait.
        """
        async with trio.open_nursery() as nursery:
            try:
                if not self._done.is_set():
                    self._nursery = nursery
                    self._pump()
                    await self._done.wait()
            finally:
                self.close()

    def follow(self, key: str, etag: str) -> None:
        """The same bytes are there from now on: what is under way is asked for again if it does not come any more."""
        self._key, self._etag = key, etag

    def close(self) -> None:
        """Stop: GETs are cancelled and what they still bring is ignored, waiting readers get TransferCancelled.

        May be called at any time, and again.
        """
        if not self._done.is_set():
            self._end()
            self._waiters.fail(self._closed())

    def _end(self) -> None:
        self._done.set()
        self._nursery = None
        self._slots.forget(self._pump)
        self._target.revoke()

    # Called whenever something changed: starts requests while there is something to ask for and a slot for it.
    def _pump(self) -> None:
        while self._nursery is not None:
            wanted = self._plan.urgent()
            urgent = wanted is not None
            if wanted is None and self.running < PARALLEL_AHEAD:
                wanted = self._plan.at_leisure()
            if wanted is None or self.running >= PARALLEL:
                self._slots.forget(self._pump)
                return
            if not self._slots.take(self._pump, urgent=urgent):
                return
            self._blocks.coming(*wanted)
            self.running += 1
            self._nursery.start_soon(self._fetch, *wanted)

    async def _fetch(self, first: int, stop: int) -> None:
        offset, length = self._blocks.span(first, stop)
        started = trio.current_time()
        error: RecfsError | None = self._closed()
        self.requests += 1
        key, etag = asked = self._key, self._etag
        again = False
        try:
            try:
                await trio.to_thread.run_sync(
                    _get, self._store, key, etag, offset, length, self._target,
                    limiter=self._limiter, abandon_on_cancel=True,
                )  # fmt: skip
            except (ObjectChanged, ObjectMissing) as caught:
                # recfs itself may have rewritten the object's metadata: the same bytes, another etag.
                renewed = await self._watcher.renewed(key, etag) if isinstance(caught, ObjectChanged) else None
                again = renewed is not None or asked != (self._key, self._etag)
                if not again:
                    raise
                if renewed is not None and self._key == key:
                    self._etag = renewed
            error = None
        except trio.Cancelled:
            self.close()
            raise
        except RecfsError as caught:
            error = caught
        except Exception as caught:
            unexpected = None if isinstance(caught, OSError) else caught
            what = f"{self._key}: fetching bytes {offset} to {offset + length - 1}: {reason_of(caught)}"
            log.error("%s", what, exc_info=unexpected)
            error = IoFailure(what)
            error.__cause__ = caught
        finally:
            self.running -= 1
            if self._done.is_set() or (again and error is None):
                self._blocks.lost(first, stop)  # the latter are asked for again
            elif error is None:
                self._received(first, stop, trio.current_time() - started)
            else:
                self._missed(first, stop, error)
            self._slots.give_back()
            self._pump()

    def _received(self, first: int, stop: int, took_s: float) -> None:
        self._blocks.arrived(first, stop)
        length = self._blocks.span(first, stop)[1]
        self.received_bytes += length
        self.error = None
        self._slots.learn(length, took_s)
        if self.complete:
            self._end()
        self._watcher.grown()
        self._waiters.wake(first, stop)

    def _missed(self, first: int, stop: int, error: RecfsError) -> None:
        self._blocks.lost(first, stop)
        self.error = error
        lasting = _lasting(error)
        if lasting or self._waiters.any_of(first, stop):
            self._watcher.missed(error)
        if lasting:
            self.failed = error
            self._end()
            self._waiters.fail(error)
            return
        # Read-ahead goes on with the next reads only, else it would knock at a dead server's door without a pause.
        self._ahead.forget()
        self._waiters.fail(error, first, stop)


def _lasting(error: RecfsError) -> bool:
    """Whether asking again would bring the same answer."""
    passing = isinstance(error, (StoreOutage, TransferCancelled))
    return isinstance(error, ObjectStoreError) and not (error.retryable or passing)


def _get(store: ObjectStore, key: str, etag: str, offset: int, length: int, target: RevocableFd) -> None:
    with target.lent() as fd:
        store.get_range(key, offset, length, if_match=etag, into=fd, cancel=target.revoked)
