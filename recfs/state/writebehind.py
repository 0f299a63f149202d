"""Changes on their way to the catalogue: collected in memory, written together, at the latest after the flush interval.

A batch is everything that is dirty at one instant, so rows and the counters that count them always travel together.
What waits for a row to be written (the settler moves bytes only once the catalogue says so) is handed on after its
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
from recfs.state.problems import Problems, forever, reason_of
from recfs.state.refusals import PART, UNSURE, Refusals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from recfs.ports.catalogue import Catalogue
    from recfs.ports.rows import JournalRow, ObjectRow, UnansweredRow
    from recfs.state.accounts import Account
    from recfs.state.nodes import DirNode, Garbage, Node
    from recfs.stores.removals import Removals

log = logging.getLogger("recfs.catalogue")

EAGER_NODES = 1000
"""Dirty inodes from which a batch is written at once: it keeps the longest transaction near 10 ms."""
RETRY_S = 1.0


async def _no_room() -> bool:
    return False


class BatchFollower:
    """Who follows what is written to the catalogue: overrides what it wants to know. Atomic."""

    def writing(self, batch: Batch) -> None:
        """A batch is about to be written; may be added to."""

    def written(self) -> None:
        """It is written."""

    def unsettled(self, ino: int) -> None:
        """An inode's row with pending bits is written."""

    def discarded(self, entry: Garbage) -> None:
        """A garbage entry is written."""


class WriteBehind:
    """The dirty sets and the one writer of the catalogue."""

    def __init__(
        self, catalogue: Catalogue, interval_s: float, make_room: Callable[[], Awaitable[bool]] = _no_room
    ) -> None:
        """*make_room* is called when the disk is full, and true if it made some for the catalogue."""
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
        self.problems = Problems()
        """What is set aside, in any part of recfs."""
        self._refusals = Refusals(catalogue, self.problems)
        self._renewed = self._refusals.renewed
        self._unsure = False
        self._unsettled: dict[int, None] = {}
        self._discarded: list[Garbage] = []
        self._sources: tuple[dict[int, Node], dict[str, Account], dict[int, Garbage]] = ({}, {}, {})
        """Whose rows the batch under way holds."""
        self._lock = trio.Lock()
        """Held while a batch is written. The innermost: nothing but the catalogue is waited for under it."""
        self._wake = trio.Event()
        self._eager = trio.Event()
        self.problem: str | None = None
        self.changes = 0
        """Counts every change of any row: tells whether something read earlier is still true."""
        self.written = 0
        """Counts the batches: tells whether a row that was read meanwhile may be outdated, and no longer dirty."""
        self._make_room = make_room
        self._followers: tuple[BatchFollower, ...] = ()
        self.removals: Removals | None = None
        """Notes of removals that have returned before their batch was written."""

    def subscribe(self, follower: BatchFollower) -> None:
        """Tell *follower* of all that is written from now on."""
        self._followers = (*self._followers, follower)

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

    def totals(self, folder: DirNode, added_bytes: int, added_files: int) -> None:
        """Add to the totals of *folder* and of everything above it; their rows changed."""
        self.changes += 1
        nodes = self._nodes
        while True:
            folder.rbytes += added_bytes
            folder.rfiles += added_files
            nodes[folder.ino] = folder
            if folder.parent is folder:
                break
            folder = folder.parent
        if not self._wake.is_set():
            self._wake.set()
        if len(nodes) > EAGER_NODES:
            self._eager.set()

    def soon(self) -> None:
        """Something is to be written without waiting for the interval."""
        self._eager.set()

    def removed(self, node: Node) -> None:
        """The row of *node* goes."""
        self.changes += 1
        self._renewed(("nodes", node.ino))
        self._nodes.pop(node.ino, None)
        self._unsettled.pop(node.ino, None)
        self._removed[node.ino] = None
        self._wake.set()
        if len(self._removed) > EAGER_NODES:
            self._eager.set()

    def returned(self, removed: Node) -> None:
        """The removal of a node is about to return to who asked for it: the daemon's death may not undo it."""
        if self.removals is not None:
            self.removals.note(removed.ino)

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
        self._renewed(("garbage", gid))
        self._garbage.pop(gid, None)
        self._purged.append(gid)
        self._wake.set()

    def xattr(self, ino: int, name: bytes, value: bytes | None) -> None:
        """A user attribute was set, or (None) removed."""
        self._renewed(("xattrs", (ino, name)))
        self._rest.xattrs.append((ino, name, value))
        self._wake.set()

    def whiteout(self, parent: int, name: bytes, *, hidden: bool) -> None:
        """A shown name was hidden, or may show again."""
        self._renewed(("whiteouts", (parent, name)))
        self._rest.whiteouts.append((parent, name, hidden))
        self._wake.set()

    def view(self, view_id: int, ino: int) -> None:
        """A view id was given to a shared file."""
        self._rest.views.append((view_id, ino))
        self._wake.set()

    def object(self, row: ObjectRow) -> None:
        """What S3 holds of an inode changed."""
        self._renewed(("objects", row.ino))
        self._objects[row.ino] = row
        self._wake.set()

    def object_gone(self, ino: int) -> None:
        """S3 holds nothing of the inode any more."""
        self._renewed(("objects", ino))
        self._objects.pop(ino, None)
        self._objects_gone.append(ino)
        self._wake.set()

    def journal(self, row: JournalRow) -> None:
        """A piece of work on S3 is new or changed."""
        self._renewed(("journal", row.id))
        self._journal[row.id] = row
        self._wake.set()

    def journal_done(self, row_id: int) -> None:
        """A piece of work on S3 is done or dropped."""
        self._renewed(("journal", row_id))
        self._journal.pop(row_id, None)
        self._journal_done.append(row_id)
        self._wake.set()

    def unanswered(self, row: UnansweredRow) -> None:
        """S3 gave no answer to a request."""
        self._renewed(("unanswered", row.key))
        self._rest.unanswered.append(row)
        self._wake.set()

    def answered(self, key: str) -> None:
        """Nothing is feared of a key any more."""
        self._renewed(("unanswered", key))
        self._rest.answered.append(key)
        self._wake.set()

    def meta(self, key: str, value: str) -> None:
        """A store-wide fact changed."""
        self._renewed(("meta", key))
        self._rest.meta[key] = value
        self._wake.set()

    def is_dirty(self, ino: int) -> bool:
        """Whether memory knows more about *ino* than the catalogue."""
        return ino in self._nodes or ino in self._removed or ino in self._writing or self._refusals.is_of(ino)

    def is_refused(self, ino: int) -> bool:
        """Whether the catalogue did not take the last row of *ino*."""
        return self._refusals.is_of(ino)

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
            for each in self._followers:
                each.writing(batch)
            nodes, accounts, garbage = self._sources
            self._sources = ({}, {}, {})  # what is kept here could not be unloaded
            unsettled, discarded = self._unsettled, self._discarded
            self._unsettled, self._discarded = {}, []
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
                self._unsettled = unsettled | self._unsettled
                self._discarded = discarded + self._discarded
                self._wake.set()
                raise
            finally:
                self._writing = frozenset()
                self.written += 1
            if self.removals is not None:
                self.removals.written()
            for each in self._followers:
                each.written()
            self.problem = None
            live: dict[str, dict[Any, Any]] = {"nodes": nodes, "accounts": accounts, "garbage": garbage}
            for (name, key), (item, error) in refused.items():
                live_item = live.get(name, {}).get(key, item)
                self._refusals.set_aside((name, key), live_item, error, unsettled, discarded)
            self._refusals.taken_but(refused)
            unsure = self._refusals.is_counted
            if self._unsure and not unsure:
                self.meta(UNSURE, "0")
            self._unsure = unsure
            for ino in unsettled:
                if ("nodes", ino) not in refused:
                    for each in self._followers:
                        each.unsettled(ino)
            for entry in discarded:
                if ("garbage", entry.gid) not in refused:
                    for each in self._followers:
                        each.discarded(entry)

    def try_refused(self, *, all_of_them: bool = False) -> None:
        """Put what was refused, and is due again (or all of it), among the dirty. Atomic."""
        for (name, key), each in self._refusals.due(all_of_them=all_of_them):
            kept: dict[str, dict[Any, Any]] = {
                "nodes": self._nodes, "removed": self._removed, "accounts": self._accounts,
                "garbage": self._garbage, "objects": self._objects, "journal": self._journal,
                "meta": self._rest.meta,
            }  # fmt: skip
            if name in kept:
                value = None if name == "removed" else each.item[1] if name == "meta" else each.item
                kept[name].setdefault(key, value)
            else:
                lists: dict[str, list[Any]] = {
                    "purged": self._purged, "objects_gone": self._objects_gone, "journal_done": self._journal_done,
                }  # fmt: skip
                lists.get(name, getattr(self._rest, name, [])).insert(0, each.item)
            if each.settle:
                self._unsettled[each.item.ino] = None
            if each.discard:
                self._discarded.append(each.item)
            self._wake.set()

    def _take(self) -> tuple[Batch, Callable[[], None]]:
        nodes, removed, accounts = self._nodes, self._removed, self._accounts
        garbage, purged, rest = self._garbage, self._purged, self._rest
        objects, journal, journal_done = self._objects, self._journal, self._journal_done
        objects_gone = self._objects_gone
        self._sources = (nodes, accounts, garbage)
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
            unanswered=rest.unanswered,
            answered=rest.answered,
        )
        self._objects, self._journal, self._journal_done, self._objects_gone = {}, {}, [], []
        self._nodes, self._removed, self._accounts = {}, {}, {}
        self._garbage, self._purged, self._rest = {}, [], Batch()

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
            again = {row.key for row in newer.unanswered}
            self._rest = Batch(
                xattrs=rest.xattrs + newer.xattrs,
                whiteouts=rest.whiteouts + newer.whiteouts,
                views=rest.views + newer.views,
                meta=rest.meta | newer.meta,
                unanswered=rest.unanswered + newer.unanswered,
                answered=[key for key in rest.answered if key not in again] + newer.answered,
            )

        return batch, undo

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
