"""Hashing of small files: as many at a time as fit a batch, so that they share threads and syncs.

The third lane beside the two of `disk/commit/hashing.py`; its owners take turns as they do there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from recfs.disk.commit.digests import Digest, Source
from recfs.disk.commit.hashing import owner_of
from recfs.disk.commit.lanes import Turns
from recfs.disk.commit.small import digest_files
from recfs.state.problems import reason_of

if TYPE_CHECKING:
    from recfs.disk.commit.tickets import Ticket
    from recfs.stores.local import LocalStore

BATCH_FILES = 512
BATCH_BYTES = 32 << 20


class Batches:
    """The small lane."""

    def __init__(
        self, store: LocalStore, source: Callable[[Ticket], Source], is_wanted: Callable[[Ticket], bool]
    ) -> None:
        self._store = store
        self._source = source
        self._is_wanted = is_wanted
        """Asked of each file as its turn comes; one that is not is left out."""
        self._turns: Turns[Ticket] = Turns()
        self._idle = trio.lowlevel.ParkingLot()
        self.running = 0
        """Batches in threads now."""

    @property
    def waiting(self) -> int:
        """Files that wait for their turn."""
        return len(self._turns)

    def put(self, ticket: Ticket) -> None:
        """Queue a file, once."""
        self._turns.put(owner_of(ticket.node), ticket)
        self._idle.unpark()

    def discard(self, ticket: Ticket) -> None:
        """Forget a file that waits."""
        self._turns.discard(ticket)

    async def hash_next(self, done: Callable[[list[Ticket], list[Digest]], object]) -> None:
        """Hash as many files as fit a batch and hand them to *done*; when none wait, wait for some and do nothing."""
        batch = self._take()
        if not batch:
            await self._idle.park()
            return
        if len(self._turns):
            self._idle.unpark()
        self.running += 1
        try:
            found = await self._hash(batch)
        finally:
            self.running -= 1
        done(batch, found)

    def _take(self) -> list[Ticket]:
        batch: list[Ticket] = []
        total = 0
        while len(batch) < BATCH_FILES and total < BATCH_BYTES and (ticket := self._turns.take()) is not None:
            if self._is_wanted(ticket):
                batch.append(ticket)
                total += ticket.node.bytes
        return batch

    async def _hash(self, batch: list[Ticket]) -> list[Digest]:
        """Hash a batch; when it fails as a whole, each file by itself: nobody knows whose fault it was."""
        try:
            sources = [self._source(ticket) for ticket in batch]
            # The tasks that do this are its limit; this one only keeps trio from counting the thread elsewhere.
            return await trio.to_thread.run_sync(digest_files, sources, self._store, limiter=trio.CapacityLimiter(1))
        except Exception as error:
            if len(batch) == 1:
                if not isinstance(error, OSError):
                    error = OSError(errno.EIO, f"hashing failed: {reason_of(error)}")
                return [Digest(error=error)]
        return [found for ticket in batch for found in await self._hash([ticket])]


__all__ = ["BATCH_FILES", "Batches"]
