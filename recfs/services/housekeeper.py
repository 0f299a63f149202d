"""Keeps memory and the catalogue's log within their bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import trio

from recfs.core.sweeping import Schedule
from recfs.ports.sweep import Sweep, always

if TYPE_CHECKING:
    from recfs.disk.staging import DiskReserve
    from recfs.state.generations import Generations
    from recfs.state.tree import Tree

PART = "housekeeping"
INTERVAL_S = 1.0
GIVEN_BACK_SLICES = 8
"""A second: some MiB, so that the log is folded in as fast."""
SHORT_LOG_PAGES = 256
"""How long (in pages of 4 KiB) the log may grow while the disk's reserve is used up."""


class Log(Protocol):
    """A catalogue whose log can be folded into its main file."""

    async def checkpoint(self, *, at_least_pages: int = ...) -> None:
        """Fold the log in if it has grown long. Raises IoFailure or OutOfSpace; the log then stays as it is."""

    def excess_pages(self) -> int:
        """How many free pages are to be given back to the disk. Raises IoFailure."""

    def give_back(self) -> None:
        """Give a few of them back. Atomic. Raises IoFailure or OutOfSpace."""


class Housekeeper:
    """Unloads inodes beyond the cache's bound, folds the catalogue's log in, and puts room aside for it."""

    def __init__(self, tree: Tree, catalogue: Log, space: DiskReserve, generations: Generations) -> None:
        self._tree = tree
        self._space = space
        self._catalogue = catalogue
        self._generations = generations

    def sweeps(self) -> list[Sweep[Any, Any]]:
        """What it looks at every second; all looks cost microseconds when nothing is due."""
        every = Schedule(INTERVAL_S)
        return [
            Sweep("memory", PART, every, self._excess, positive, self._shrink, recorded=False),
            Sweep("emergency reserve", PART, every, self._left, positive, self._keep_emergency_reserve, recorded=False),
            Sweep("checkpoint", PART, every, self._left, log_limit, self._checkpoint, recorded=False),
            Sweep("free pages", PART, every, self._free_pages, positive, self._give_back, recorded=False),
            Sweep("generation", PART, every, self._next_ino, always, self._advance, recorded=False),
        ]

    async def _excess(self) -> int:
        return len(self._tree.nodes) - self._tree.memory.cached_inodes

    async def _shrink(self, excess: int, going_on: trio.Nursery) -> str:
        return f"{self._tree.memory.shrink():,} inodes unloaded"

    async def _left(self) -> int:
        return self._space.left()

    async def _keep_emergency_reserve(self, left_bytes: int, going_on: trio.Nursery) -> None:
        self._space.keep_emergency_reserve()

    async def _checkpoint(self, limit: dict[str, int], going_on: trio.Nursery) -> None:
        await self._catalogue.checkpoint(**limit)

    async def _free_pages(self) -> int:
        return self._catalogue.excess_pages()

    async def _give_back(self, excess: int, going_on: trio.Nursery) -> None:
        for _ in range(GIVEN_BACK_SLICES):
            self._catalogue.give_back()
            await trio.lowlevel.checkpoint()  # requests come first

    async def _next_ino(self) -> int:
        return self._tree.next_ino

    async def _advance(self, next_ino: int, going_on: trio.Nursery) -> None:
        await self._generations.look(next_ino)


def positive(number: int) -> int | None:
    """Return *number* if there is any of it, else None."""
    return number if number > 0 else None


def log_limit(left_bytes: int) -> dict[str, int]:
    """Return how long the log may be, in the words of `Log.checkpoint`, with *left_bytes* above the disk's reserve.

    A log that is folded in is written anew from its beginning, and does not grow.
    """
    return {} if left_bytes > 0 else {"at_least_pages": SHORT_LOG_PAGES}
