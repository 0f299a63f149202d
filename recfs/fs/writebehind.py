"""Changes on their way to the catalogue: collected in memory, written together, at the latest after the flush interval.

A batch is everything that is dirty at one instant, so rows and the counters that count them always travel together.
What waits for a row to be written (the settler moves bytes only once the catalogue says so) is handed on after its
batch.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from recfs.errors import OutOfSpace, RecfsError
from recfs.ports import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.fs.accounts import Account
    from recfs.fs.garbage import Garbage
    from recfs.fs.nodes import Node
    from recfs.ports import Catalogue, JournalRow, ObjectRow

log = logging.getLogger("recfs.catalogue")

EAGER_NODES = 1000
"""Dirty inodes from which a batch is written at once: it keeps the longest transaction near 10 ms."""
RETRY_S = 1.0


class WriteBehind:
    """The dirty sets and the one writer of the catalogue."""

    def __init__(self, catalogue: Catalogue, interval_s: float) -> None:
        self._catalogue = catalogue
        self._interval_s = interval_s
        self._nodes: dict[int, Node] = {}
        self._removed: dict[int, None] = {}
        self._writing: frozenset[int] = frozenset()
        self._accounts: dict[str, Account] = {}
        self._garbage: dict[int, Garbage] = {}
        self._purged: list[int] = []
        self._objects: dict[int, ObjectRow] = {}
        self._objects_gone: list[int] = []
        self._journal: dict[int, JournalRow] = {}
        self._journal_done: list[int] = []
        self._rest = Batch()
        self._unsettled: dict[int, None] = {}
        self._discarded: list[Garbage] = []
        self._lock = trio.Lock()
        self._wake = trio.Event()
        self._eager = trio.Event()
        self.problem: str | None = None
        self.changes = 0
        """Counts every change of any row: tells whether something read earlier is still true."""
        self.written = 0
        """Counts the batches: tells whether a row that was read meanwhile may be outdated, and no longer dirty."""
        self.on_settle: Callable[[int], None] = lambda ino: None
        """Called with each inode whose pending bits were written."""
        self.on_discard: Callable[[Garbage], None] = lambda garbage: None
        """Called with each garbage entry that was written."""
        self.on_full: Callable[[], bool] = lambda: False
        """Called when the disk is full; true if it made some room."""

    # --- marking (atomic: no await) ------------------------------------------------------------------------------

    def node(self, node: Node) -> None:
        """The row of *node* changed. An unlinked node has none."""
        if node.unlinked:
            return
        self.changes += 1
        nodes = self._nodes
        nodes[node.ino] = node
        if not self._wake.is_set():
            self._wake.set()
        if len(nodes) > EAGER_NODES:
            self._eager.set()

    def removed(self, node: Node) -> None:
        """The row of *node* goes."""
        self.changes += 1
        self._nodes.pop(node.ino, None)
        self._unsettled.pop(node.ino, None)
        self._removed[node.ino] = None
        self._wake.set()
        if len(self._removed) > EAGER_NODES:
            self._eager.set()

    def account(self, account: Account) -> None:
        """The counters or limits of *account* changed."""
        self._accounts[account.user] = account
        self._wake.set()

    def settle(self, node: Node) -> None:
        """Mark *node* dirty and hand it to the settler once its row is written."""
        self._unsettled[node.ino] = None
        self.node(node)

    def garbage(self, garbage: Garbage, *, discard: bool = True) -> None:
        """The row of *garbage* is new or changed; *discard*: hand it to the settler once written."""
        self._garbage[garbage.gid] = garbage
        if discard:
            self._discarded.append(garbage)
        self._wake.set()

    def purged(self, gid: int) -> None:
        """The garbage entry is gone from disk, or its bytes are in use again."""
        self._garbage.pop(gid, None)
        self._purged.append(gid)
        self._wake.set()

    def xattr(self, ino: int, name: bytes, value: bytes | None) -> None:
        """A user attribute was set, or (None) removed."""
        self._rest.xattrs.append((ino, name, value))
        self._wake.set()

    def whiteout(self, parent: int, name: bytes, *, hidden: bool) -> None:
        """A shown name was hidden, or may show again."""
        self._rest.whiteouts.append((parent, name, hidden))
        self._wake.set()

    def view(self, view_id: int, ino: int) -> None:
        """A view id was given to a shared file."""
        self._rest.views.append((view_id, ino))
        self._wake.set()

    def object(self, row: ObjectRow) -> None:
        """What S3 holds of an inode changed."""
        self._objects[row.ino] = row
        self._wake.set()

    def object_gone(self, ino: int) -> None:
        """S3 holds nothing of the inode any more."""
        self._objects.pop(ino, None)
        self._objects_gone.append(ino)
        self._wake.set()

    def journal(self, row: JournalRow) -> None:
        """A piece of work on S3 is new or changed."""
        self._journal[row.id] = row
        self._wake.set()

    def journal_done(self, row_id: int) -> None:
        """A piece of work on S3 is done or dropped."""
        self._journal.pop(row_id, None)
        self._journal_done.append(row_id)
        self._wake.set()

    def meta(self, key: str, value: str) -> None:
        """A store-wide fact changed."""
        self._rest.meta[key] = value
        self._wake.set()

    def is_dirty(self, ino: int) -> bool:
        """Whether memory knows more about *ino* than the catalogue."""
        return ino in self._nodes or ino in self._removed or ino in self._writing

    @property
    def depth(self) -> int:
        """Rows waiting to be written."""
        return len(self._nodes) + len(self._removed) + len(self._garbage) + len(self._purged)

    # --- writing -------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write everything dirty at this moment. Raises IoFailure or OutOfSpace; nothing is forgotten then."""
        async with self._lock:
            if not self._wake.is_set():
                return
            self._wake = trio.Event()
            self._eager = trio.Event()
            batch, undo = self._take()
            if not batch:
                return
            unsettled, discarded = self._unsettled, self._discarded
            self._unsettled, self._discarded = {}, []
            self._writing = frozenset(batch.removed).union(row.ino for row in batch.nodes)
            try:
                try:
                    await self._catalogue.apply(batch)
                except OutOfSpace:
                    if not self.on_full():
                        raise
                    await self._catalogue.apply(batch)
            except BaseException:
                undo()
                self._unsettled = unsettled | self._unsettled
                self._discarded = discarded + self._discarded
                self._wake.set()
                raise
            finally:
                self._writing = frozenset()
                self.written += 1
            self.problem = None
            for ino in unsettled:
                self.on_settle(ino)
            for garbage in discarded:
                self.on_discard(garbage)

    def _take(self) -> tuple[Batch, Callable[[], None]]:
        nodes, removed, accounts = self._nodes, self._removed, self._accounts
        garbage, purged, rest = self._garbage, self._purged, self._rest
        objects, journal, journal_done = self._objects, self._journal, self._journal_done
        objects_gone = self._objects_gone
        self._objects, self._journal, self._journal_done, self._objects_gone = {}, {}, [], []
        self._nodes, self._removed, self._accounts = {}, {}, {}
        self._garbage, self._purged, self._rest = {}, [], Batch()
        batch = Batch(
            nodes=[node.row() for node in nodes.values()],
            removed=list(removed),
            accounts=[account.row() for account in accounts.values()],
            garbage=[entry.row() for entry in garbage.values()],
            purged=purged,
            xattrs=rest.xattrs,
            whiteouts=rest.whiteouts,
            views=rest.views,
            meta=rest.meta,
            objects=list(objects.values()),
            objects_gone=objects_gone,
            journal=list(journal.values()),
            journal_done=journal_done,
        )

        def undo() -> None:
            gone = self._removed
            self._nodes = {ino: node for ino, node in nodes.items() if ino not in gone} | self._nodes
            self._removed = removed | self._removed
            self._accounts = accounts | self._accounts
            dropped = set(self._purged)
            self._garbage = {gid: entry for gid, entry in garbage.items() if gid not in dropped} | self._garbage
            self._purged = purged + self._purged
            without = gone.keys() | set(self._objects_gone)
            self._objects = {ino: row for ino, row in objects.items() if ino not in without} | self._objects
            self._objects_gone = objects_gone + self._objects_gone
            done = set(self._journal_done)
            self._journal = {row_id: row for row_id, row in journal.items() if row_id not in done} | self._journal
            self._journal_done = journal_done + self._journal_done
            newer = self._rest
            self._rest = Batch(
                xattrs=rest.xattrs + newer.xattrs,
                whiteouts=rest.whiteouts + newer.whiteouts,
                views=rest.views + newer.views,
                meta=rest.meta | newer.meta,
            )

        return batch, undo

    async def durable(self) -> None:
        """Write everything dirty at this moment and wait until it would survive a power cut."""
        await self.flush()
        await self._catalogue.sync()

    async def synced(self) -> None:
        """Wait until everything written so far would survive a power cut; what is dirty stays so. Raises IoFailure."""
        await self._catalogue.sync()

    async def run(self) -> None:
        """Flush for ever: after the interval, or at once when much is dirty."""
        while True:
            await self._wake.wait()
            with trio.move_on_after(self._interval_s):
                await self._eager.wait()
            try:
                await self.flush()
            except RecfsError as error:
                if self.problem is None:
                    log.error("catalogue cannot be written, retrying every %g s: %s", RETRY_S, error)
                self.problem = str(error)
                await trio.sleep(RETRY_S)
            else:
                self.problem = None
