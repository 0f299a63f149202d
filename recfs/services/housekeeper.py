"""Keeps memory and the catalogue's log within their bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from recfs.fs.tree import Tree

INTERVAL_S = 1.0


class Log(Protocol):
    """A catalogue whose log can be folded into its main file."""

    async def checkpoint(self) -> None:
        """Fold the log in if it has grown long."""


class Housekeeper:
    """Unloads inodes beyond the cache's bound, and folds the catalogue's log in."""

    def __init__(self, tree: Tree, catalogue: Log) -> None:
        self._tree = tree
        self._catalogue = catalogue

    async def run(self) -> None:
        """Look every second; both looks cost microseconds when nothing is due."""
        while True:
            await trio.sleep(INTERVAL_S)
            self._tree.shrink()
            await self._catalogue.checkpoint()
