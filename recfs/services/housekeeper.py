"""Keeps memory and the catalogue's log within their bounds."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import trio

from recfs.errors import RecfsError

if TYPE_CHECKING:
    from recfs.fs.staging import Space
    from recfs.fs.tree import Tree

log = logging.getLogger("recfs.catalogue")

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
        self.problem: str | None = None

    async def run(self) -> None:
        """Look every second; all looks cost microseconds when nothing is due."""
        while True:
            await trio.sleep(INTERVAL_S)
            self._tree.shrink()
            self._space.keep_ballast()
            try:
                await self._catalogue.checkpoint()
            except RecfsError as error:
                if self.problem is None:
                    log.error("checkpoint: %s; trying again every %g s", error, INTERVAL_S)
                self.problem = str(error)
            else:
                self.problem = None
