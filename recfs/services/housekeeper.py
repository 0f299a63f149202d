"""Keeps memory and the catalogue's log within their bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from recfs.state.problems import forever

if TYPE_CHECKING:
    from recfs.disk.staging import DiskReserve
    from recfs.state.generations import Generations
    from recfs.state.tree import Tree

PART = "housekeeping"
INTERVAL_S = 1.0
SHORT_LOG_PAGES = 256
"""How long (in pages of 4 KiB) the log may grow while the disk's reserve is used up."""


class Log(Protocol):
    """A catalogue whose log can be folded into its main file."""

    async def checkpoint(self, *, at_least_pages: int = ...) -> None:
        """Fold the log in if it has grown long. Raises IoFailure or OutOfSpace; the log then stays as it is."""


class Housekeeper:
    """Unloads inodes beyond the cache's bound, folds the catalogue's log in, and puts room aside for it."""

    def __init__(self, tree: Tree, catalogue: Log, space: DiskReserve, generations: Generations) -> None:
        self._tree = tree
        self._space = space
        self._catalogue = catalogue
        self._generations = generations
        self._problems = tree.behind.problems

    async def run(self) -> None:
        """Look every second; all looks cost microseconds when nothing is due."""
        await forever(PART, self._look, self._problems)

    async def _look(self) -> None:
        await trio.sleep(INTERVAL_S)
        with self._problems.aside(PART, "memory"):
            self._tree.memory.shrink()
        with self._problems.aside(PART, "ballast"):
            self._space.keep_ballast()
        with self._problems.aside(PART, "checkpoint", "checkpoint"):
            if self._space.left() > 0:
                await self._catalogue.checkpoint()
            else:  # a log that is folded in is written anew from its beginning, and does not grow
                await self._catalogue.checkpoint(at_least_pages=SHORT_LOG_PAGES)
        with self._problems.aside(PART, "generation", "generation"):
            await self._generations.look(self._tree.next_ino)
