"""Keeps the count by which a start finds out whether catalogue and home tree are of one time (`core/generation.py`)."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import trio

from recfs.core.generation import AT, COUNT, ID, MARKED, Mark, count_of
from recfs.state.writebehind import BatchSubscriber, WriteBehind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recfs.ports.batch import Batch
    from recfs.stores.local import LocalStore

PART = "generation"
DURABLY_S = 60.0
"""How long changes may go on before it is certain of a count that it would survive a power cut."""
GATHER_S = 0.1
"""How long the mark of a batch waits for those of others: a backup of the catalogue that is older by less is not
noticed.
"""
MARK_S = 5.0
"""How long is waited for a disk that does not take a mark. After the last one of a run, the next start compares."""


class Folding(Protocol):
    """A catalogue with a log."""

    @property
    def folds(self) -> int:
        """How often the log was folded into the main file."""


class Generations(BatchSubscriber):
    """The count of one run: it goes on with every batch of rows."""

    def __init__(self, behind: WriteBehind, catalogue: Folding, store: LocalStore) -> None:
        self._behind = behind
        self._catalogue = catalogue
        self._store = store
        self._mark: Mark | None = None
        self._count = 0
        """Of the last batch."""
        self._written = trio.Event()
        self._seen = (0, 0)
        self._advanced_s = 0.0
        self._marking = trio.Lock()
        self._writing = threading.Lock()
        """Held by the thread that writes a mark."""
        self._is_over = False

    async def begin(self, facts: Mapping[str, str], mark: Mark | None, boot: str, next_ino: int) -> None:
        """A new run: catalogue and home tree have a count that no backup has. Raises IoFailure, OutOfSpace."""
        self._count = max(count_of(facts), mark.count if mark is not None else 0)
        self._mark = Mark(facts.get(ID) or secrets.token_hex(8), boot, self._count, 0, next_ino)
        self._behind.subscribe(self)
        await self._put()
        marked = self._store.mark_tree(self._mark.encode(), durable=True)
        if marked or count_of(facts, MARKED):  # a file system without attributes: nothing is to be looked for there
            self._behind.meta(MARKED, str(self._mark.count if marked else 0))
            await self._behind.flush()
        self._look()

    def writing(self, batch: Batch) -> None:
        """As `BatchSubscriber.writing`: it is counted."""
        self._count += 1
        batch.meta[COUNT] = str(self._count)

    def written(self) -> None:
        """As `BatchSubscriber.written`."""
        assert self._mark is not None
        self._mark = replace(self._mark, count=self._count)
        self._written.set()

    async def run(self) -> None:
        """Have the mark follow the batches, for ever."""
        while True:
            await self._written.wait()
            await self._put_mark()
            await trio.sleep(GATHER_S)

    async def _put_mark(self) -> None:
        assert self._mark is not None
        async with self._marking:
            self._written = trio.Event()
            await trio.to_thread.run_sync(self._write_mark, self._mark, abandon_on_cancel=True)

    def _write_mark(self, mark: Mark) -> None:
        """In a thread: one that was given up, and begins after the end, replaces no mark of the next run."""
        with self._writing:
            if not self._is_over:
                self._store.mark_tree(mark.encode())

    async def advance(self) -> None:
        """Let the mark say what is durable by now. Raises IoFailure or OutOfSpace; it says as much as before then."""
        await self._put()
        await self._put_mark()
        self._look()

    async def look(self, next_ino: int) -> None:
        """Advance if it is time to: after a fold at once, else a minute after the last time, if anything changed."""
        if self._mark is None:
            return
        folds, changes = self._catalogue.folds, self._behind.changes
        due = trio.current_time() - self._advanced_s >= DURABLY_S and changes != self._seen[1]
        if due or folds != self._seen[0]:
            self._mark = replace(self._mark, next_ino=next_ino)
            await self._advanced()

    async def end(self) -> None:
        """The run ends in order. Raises IoFailure or OutOfSpace."""
        if self._mark is not None and (self._written.is_set() or self._behind.changes != self._seen[1]):
            await self._advanced()

    def close(self) -> None:
        """Write no mark any more. Blocking, while one is being written."""
        self._is_over = True
        if self._writing.acquire(timeout=MARK_S):
            self._writing.release()

    async def _advanced(self) -> None:
        with trio.move_on_after(MARK_S):
            await self.advance()

    async def _put(self) -> None:
        assert self._mark is not None
        self._behind.meta(ID, self._mark.store)
        self._behind.meta(AT, str(time.time_ns()))
        await self._behind.flush()
        count = self._mark.count
        await self._behind.synced()
        self._mark = replace(self._mark, durable=count)

    def _look(self) -> None:
        self._seen = (self._catalogue.folds, self._behind.changes)
        self._advanced_s = trio.current_time()
