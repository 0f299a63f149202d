"""Keeps the count by which a start finds out whether catalogue and home tree are of one time (`core/generation.py`)."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import trio

from recfs.core.generation import AT, COUNT, ID, MARKED, Mark, count_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recfs.fs.writebehind import WriteBehind
    from recfs.stores.local import LocalStore

EVERY_S = 60.0
"""How long changes may go on under one count: a backup of the catalogue that is older by less is not noticed."""


class Folding(Protocol):
    """A catalogue with a log."""

    @property
    def folds(self) -> int:
        """How often the log was folded into the main file."""


class Generations:
    """The count of one run."""

    def __init__(self, behind: WriteBehind, catalogue: Folding, store: LocalStore) -> None:
        self._behind = behind
        self._catalogue = catalogue
        self._store = store
        self._mark: Mark | None = None
        self._seen = (0, 0)
        self._advanced_s = 0.0

    async def begin(self, facts: Mapping[str, str], mark: Mark | None, boot: str, next_ino: int) -> None:
        """A new run: catalogue and home tree have a count that no backup has. Raises IoFailure, OutOfSpace."""
        count = max(count_of(facts), mark.count if mark is not None else 0) + 1
        self._mark = Mark(facts.get(ID) or secrets.token_hex(8), boot, count, 0, next_ino)
        await self._put()
        marked = self._store.mark_tree(self._mark.encode(), durable=True)
        if marked or count_of(facts, MARKED):  # a file system without attributes: nothing is to be looked for there
            self._behind.meta(MARKED, str(count if marked else 0))
            await self._behind.flush()
        self._look()

    async def advance(self) -> None:
        """Go on to the next count. Raises IoFailure or OutOfSpace; the mark is not ahead of the catalogue then."""
        assert self._mark is not None
        self._mark = replace(self._mark, count=self._mark.count + 1)
        await self._put()
        await trio.to_thread.run_sync(self._store.mark_tree, self._mark.encode())
        self._look()

    async def look(self, next_ino: int) -> None:
        """Go on if it is time to: after a fold at once, else a minute after the last time, if anything changed."""
        if self._mark is None:
            return
        folds, changes = self._catalogue.folds, self._behind.changes
        due = trio.current_time() - self._advanced_s >= EVERY_S and changes != self._seen[1]
        if due or folds != self._seen[0]:
            self._mark = replace(self._mark, next_ino=next_ino)
            await self.advance()

    async def end(self) -> None:
        """The run ends in order. Raises IoFailure or OutOfSpace."""
        if self._mark is not None and self._behind.changes != self._seen[1]:
            await self.advance()

    async def _put(self) -> None:
        assert self._mark is not None
        self._behind.meta(ID, self._mark.store)
        self._behind.meta(COUNT, str(self._mark.count))
        self._behind.meta(AT, str(time.time_ns()))
        await self._behind.durable()
        self._mark = replace(self._mark, durable=self._mark.count)

    def _look(self) -> None:
        self._seen = (self._catalogue.folds, self._behind.changes)
        self._advanced_s = trio.current_time()
