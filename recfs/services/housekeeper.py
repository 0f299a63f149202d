"""Keeps memory and the catalogue's log within their bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from recfs.fs.problems import forever

if TYPE_CHECKING:
    from recfs.fs.staging import Space
    from recfs.fs.tree import Tree

PART = "housekeeping"
INTERVAL_S = 1.0


class Log(Protocol):
    """A catalogue whose log can be folded into its main file."""

    async def checkpoint(self) -> None:
        """Fold the log in if it has grown long. Raises IoFailure or OutOfSpace; the log then stays as it is."""


class Housekeeper:
    """Unloads inodes beyond the cache's bound, folds the catalogue's log in, and puts room aside for it."""

    def __init__(self, tree: Tree, catalogue: Log, space: Space) -> None:
        self._tree = tree
        self._space = space
        self._catalogue = catalogue
        self._problems = tree.behind.problems

    async def run(self) -> None:
        """Look every second; all looks cost microseconds when nothing is due."""
        await forever(PART, self._look, self._problems)

    async def _look(self) -> None:
        await trio.sleep(INTERVAL_S)
        with self._problems.aside(PART, "memory"):
            self._tree.shrink()
        with self._problems.aside(PART, "ballast"):
            self._space.keep_ballast()
        with self._problems.aside(PART, "checkpoint", "checkpoint"):
            await self._catalogue.checkpoint()
