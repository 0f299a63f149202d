"""Changes on their way to the catalogue: collected in memory, written together, at the latest after the flush interval.

A batch is everything that is dirty at one instant, so rows and the counters that count them always travel together.
What waits for a row to be written (the publisher moves bytes only once the catalogue says so) is handed on after its
batch.

A row that the catalogue does not take is set aside (`refusals.py`). Whoever waits for that very row (`durable`) gets
the refusal.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio

from recfs.errors import OutOfSpace, RowRefused
from recfs.ports.batch import Batch
from recfs.state.changes import Changes
from recfs.state.problems import Problems, forever, reason_of
from recfs.state.refusals import PART, UNSURE, Refusals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from recfs.ports.catalogue import Catalogue
    from recfs.state.nodes import Garbage, Node
    from recfs.stores.removals import Removals

log = logging.getLogger("recfs.catalogue")

RETRY_S = 1.0


async def _no_room() -> bool:
    return False


class BatchSubscriber:
    """Base class of a subscriber to what is written to the catalogue: overrides what it wants to know. Atomic."""

    def writing(self, batch: Batch) -> None:
        """A batch is about to be written; may be added to."""

    def written(self) -> None:
        """It is written."""

    def unpublished(self, ino: int) -> None:
        """An inode's row with pending bits is written."""

    def discarded(self, entry: Garbage) -> None:
        """A garbage entry is written."""


class WriteBehind(Changes):
    """The one writer of the catalogue."""

    def __init__(
        self, catalogue: Catalogue, interval_s: float, make_room: Callable[[], Awaitable[bool]] = _no_room
    ) -> None:
        """*make_room* is called when the disk is full, and true if it made some for the catalogue."""
        self._catalogue = catalogue
        self._interval_s = interval_s
        self.problems = Problems()
        """What is set aside, in any part of recfs."""
        self._refusals = Refusals(catalogue, self.problems)
        super().__init__(self._refusals.renewed)
        self._writing: frozenset[int] = frozenset()
        self._unsure = False
        self._lock = trio.Lock()
        """Held while a batch is written. The innermost: nothing but the catalogue is waited for under it."""
        self.problem: str | None = None
        self.written = 0
        """Counts the batches: tells whether a row that was read meanwhile may be outdated, and no longer dirty."""
        self._make_room = make_room
        self._subscribers: tuple[BatchSubscriber, ...] = ()
        self.removals: Removals | None = None
        """Notes of removals that have returned before their batch was written."""

    def subscribe(self, subscriber: BatchSubscriber) -> None:
        """Tell *subscriber* of all that is written from now on."""
        self._subscribers = (*self._subscribers, subscriber)

    # --- asking (atomic) -----------------------------------------------------------------------------------------

    def returned(self, removed: Node) -> None:
        """The removal of a node is about to return to who asked for it: the daemon's death may not undo it."""
        if self.removals is not None:
            self.removals.note(removed.ino)

    def is_dirty(self, ino: int) -> bool:
        """Whether memory knows more about *ino* than the catalogue."""
        return ino in self._nodes or ino in self._removed or ino in self._writing or self._refusals.is_of(ino)

    def is_refused(self, ino: int) -> bool:
        """Whether the catalogue did not take the last row of *ino*."""
        return self._refusals.is_of(ino)

    @property
    def is_writing(self) -> bool:
        """Whether a batch is being written: its rows are neither in the catalogue for certain nor dirty."""
        return self._lock.locked()

    @property
    def depth(self) -> int:
        """Rows waiting to be written."""
        return len(self._nodes) + len(self._removed) + len(self._garbage) + len(self._purged) + len(self._refusals)

    @property
    def aside(self) -> int:
        """How many of them the catalogue does not take."""
        return len(self._refusals)

    # --- writing -------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write everything dirty at this moment. Raises IoFailure or OutOfSpace; nothing is forgotten then.

        Raises nothing for the sake of single rows that are refused: they are set aside.
        """
        async with self._lock:
            if not self._wake.is_set():
                return
            batch, undo = self._take()
            if self.removals is not None:
                self.removals.close_off()
            self._wake = trio.Event()
            self._eager = trio.Event()
            if not batch:
                return
            for each in self._subscribers:
                each.writing(batch)
            nodes, accounts, garbage = self._sources
            self._sources = ({}, {}, {})  # what is kept here could not be unloaded
            unpublished, discarded = self._unpublished, self._discarded
            self._unpublished, self._discarded = {}, []
            self._writing = frozenset(batch.removed).union(row.ino for row in batch.nodes)
            try:
                try:
                    refused = await self._refusals.apply(batch)
                except OutOfSpace:
                    if not await self._make_room():
                        raise
                    refused = await self._refusals.apply(batch)
            except BaseException:
                undo()
                self._unpublished = unpublished | self._unpublished
                self._discarded = discarded + self._discarded
                self._wake.set()
                raise
            finally:
                self._writing = frozenset()
                self.written += 1
            if self.removals is not None:
                self.removals.written()
            for each in self._subscribers:
                each.written()
            self.problem = None
            live: dict[str, dict[Any, Any]] = {
                "nodes": nodes, "accounts": accounts, "garbage": garbage, "recordings": nodes,
            }  # fmt: skip
            for (name, key), (item, error) in refused.items():
                live_item = live.get(name, {}).get(key, item)
                self._refusals.set_aside((name, key), live_item, error, unpublished, discarded)
            self._refusals.taken_but(refused)
            unsure = self._refusals.is_counted
            if self._unsure and not unsure:
                self.meta(UNSURE, "0")
            self._unsure = unsure
            for ino in unpublished:
                if ("nodes", ino) not in refused:
                    for each in self._subscribers:
                        each.unpublished(ino)
            for entry in discarded:
                if ("garbage", entry.gid) not in refused:
                    for each in self._subscribers:
                        each.discarded(entry)

    def try_refused(self, *, all_of_them: bool = False) -> None:
        """Put what was refused, and is due again (or all of it), among the dirty. Atomic."""
        for (name, key), each in self._refusals.due(all_of_them=all_of_them):
            kept: dict[str, dict[Any, Any]] = {
                "nodes": self._nodes, "removed": self._removed, "accounts": self._accounts,
                "garbage": self._garbage, "objects": self._objects, "journal": self._journal,
                "meta": self._rest.meta, "recordings": self._recordings,
            }  # fmt: skip
            if name in kept:
                value = None if name == "removed" else each.item[1] if name == "meta" else each.item
                kept[name].setdefault(key, value)
            else:
                lists: dict[str, list[Any]] = {
                    "purged": self._purged, "objects_gone": self._objects_gone, "journal_done": self._journal_done,
                }  # fmt: skip
                lists.get(name, getattr(self._rest, name, [])).insert(0, each.item)
            if each.publish:
                self._unpublished[each.item.ino] = None
            if each.discard:
                self._discarded.append(each.item)
            self._wake.set()

    async def durable(self, *inos: int) -> None:
        """Write everything dirty at this moment and wait until it would survive a power cut.

        Raises IoFailure or OutOfSpace; RowRefused when the row of one of *inos* is not in the catalogue.
        """
        await self.flush()
        await self._catalogue.sync()
        for ino in inos if self._refusals else ():
            if self.is_refused(ino):
                raise RowRefused(f"inode {ino}: the catalogue does not take its row; `recfs status` tells why")

    async def synced(self) -> None:
        """Wait until everything written so far would survive a power cut; what is dirty stays so. Raises IoFailure."""
        await self._catalogue.sync()

    async def run(self) -> None:
        """Flush for ever: after the interval, or at once when much is dirty."""
        await forever(PART, self._write_some, self.problems)

    async def _write_some(self) -> None:
        with trio.move_on_at(self._refusals.next_s):
            await self._wake.wait()
        self.try_refused()
        with trio.move_on_after(self._interval_s):
            await self._eager.wait()
        try:
            await self.flush()
        except Exception as error:
            if self.problem is None:
                log.error("catalogue cannot be written, retrying every %g s: %s", RETRY_S, error)
            self.problem = reason_of(error)
            await trio.sleep(RETRY_S)
        else:
            self.problem = None
