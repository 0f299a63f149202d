"""Threads for file calls: how many of each kind run at once. No file call is made anywhere else.

What may take long has threads of its own: who reads what has to come from S3 holds up others who do, and nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

from recfs.web.settings import Settings

T = TypeVar("T")
WHOLES_OF_USER: Final = 2
"""So many lists and removals of one user run at once: whoever else asks for one has the next thread that is free."""


class Turns:
    """So many things of each user at once; the others of that user wait. For one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def turn(self, user: str) -> AsyncIterator[None]:
        """Be one of the few of a user, for a block."""
        turns, users = self._of.get(user, (asyncio.Semaphore(self._most), 0))
        self._of[user] = (turns, users + 1)
        try:
            async with turns:
                yield
        finally:
            users = self._of[user][1] - 1
            if users:
                self._of[user] = (turns, users)
            else:
                del self._of[user]


class Limiters:
    """The gateway's limiters by name; to be made in the event loop."""

    def __init__(self, settings: Settings) -> None:
        self.calls = CapacityLimiter(settings.calls)
        """Short calls: open, stat, attributes that the catalogue has."""
        self.wholes = CapacityLimiter(settings.wholes)
        """Whole directories: a page of a list, the removal of a recording."""
        self.reads = CapacityLimiter(settings.reads)
        """Bytes that are here."""
        self.copies = CapacityLimiter(max(2, settings.reads // 2))
        """Bytes that are here, from files into connections: downloads of large files are in nobody's way."""
        self.slow_reads = CapacityLimiter(settings.slow_reads)
        """Bytes that may have to come from S3."""
        self.waits = CapacityLimiter(settings.waits)
        """Calls that wait for the daemon."""
        self.writes = CapacityLimiter(settings.writes)
        """Bytes that come, and fsync."""
        self._turns = Turns(WHOLES_OF_USER)

    def figures(self) -> dict[str, tuple[int, int, int]]:
        """Give of each by name: how many run, how many may, how many wait."""
        return {
            name: (int(each.borrowed_tokens), int(each.total_tokens), each.statistics().tasks_waiting)
            for name, each in vars(self).items()
            if isinstance(each, CapacityLimiter)
        }

    async def of_whole(self, user: str, call: Callable[[], T]) -> T:
        """Run a call on a whole directory of a user in a thread, when it is that user's turn. Raises what it raises."""
        async with self._turns.turn(user):
            return await in_thread(self.wholes, call)


async def in_thread(limiter: CapacityLimiter, call: Callable[[], T]) -> T:
    """Run a call in a thread, and wait for its end even when cancelled: descriptors stay with whoever closes them."""
    return await anyio.to_thread.run_sync(call, limiter=limiter)


__all__ = ["Limiters", "Turns", "in_thread"]
