"""The dirty sets: what changed and is still to be written to the catalogue, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from recfs.ports.batch import Batch
from recfs.ports.rows import RecordingRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from recfs.ports.rows import EventRow, JournalRow, MediaRow, ObjectRow, SweepRow, TrashRow, UnansweredRow
    from recfs.state.accounts import Account
    from recfs.state.nodes import DirNode, Garbage, Node

EAGER_NODES = 1000
"""Dirty inodes from which a batch is written at once: it keeps the longest transaction near 10 ms."""


class Changes:
    """Collects changes of rows, and makes a batch of all there are. Atomic: no await."""

    def __init__(self, renewed: Callable[[tuple[str, Any]], None]) -> None:
        """*renewed* is called with the table and key of a row that takes the place of one that was refused, perhaps."""
        self._renewed = renewed
        self._nodes: dict[int, Node] = {}
        self._removed: dict[int, None] = {}
        self._accounts: dict[str, Account] = {}
        self._garbage: dict[int, Garbage] = {}
        self._purged: list[int] = []
        self._objects: dict[int, ObjectRow] = {}
        self._objects_gone: list[int] = []
        self._journal: dict[int, JournalRow] = {}
        self._journal_done: list[int] = []
        self._recordings: dict[int, DirNode] = {}
        self._rest = Batch()
        self._unpublished: dict[int, None] = {}
        self._discarded: list[Garbage] = []
        self._sources: tuple[dict[int, Node], dict[str, Account], dict[int, Garbage]] = ({}, {}, {})
        """Whose rows the batch under way holds."""
        self._wake = trio.Event()
        self._eager = trio.Event()
        self.changes = 0
        """Counts every change of any row: tells whether something read earlier is still true."""

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
        self._recordings.pop(node.ino, None)
        self._unpublished.pop(node.ino, None)
        self._removed[node.ino] = None
        self._wake.set()
        if len(self._removed) > EAGER_NODES:
            self._eager.set()

    def emptied(self, folder: int, first_ino: int, last_ino: int) -> None:
        """The bytes of files that lost their name together with their directory are gone: so do their rows.

        *first_ino*, *last_ino*: those in *folder* from this inode to that.
        """
        self._renewed(("emptied", (folder, first_ino, last_ino)))
        self._rest.emptied.append((folder, first_ino, last_ino))
        self._wake.set()

    def recording(self, folder: DirNode) -> None:
        """What is kept of a recording changed. Its directory counts as changed, so that it stays in memory."""
        if folder.unlinked:
            return
        self._renewed(("recordings", folder.ino))
        self._recordings[folder.ino] = folder
        self.node(folder)

    def account(self, account: Account) -> None:
        """The counters or limits of *account* changed."""
        self._accounts[account.user] = account
        self._wake.set()

    def publish(self, node: Node) -> None:
        """Mark *node* dirty and hand it to the publisher once its row is written."""
        self._unpublished[node.ino] = None
        self.node(node)

    def garbage(self, garbage: Garbage, *, discard: bool = True) -> None:
        """The row of *garbage* is new or changed; *discard*: hand it to the publisher once written."""
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

    def object_keys(self) -> set[str]:
        """Keys of the objects whose rows are to be written."""
        return {row.key for row in self._objects.values()}

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

    def trash(self, row: TrashRow) -> None:
        """The trash keeps something beside bytes."""
        self._renewed(("trash", row.gid))
        self._rest.trash.append(row)
        self._wake.set()

    def trash_gone(self, gid: int) -> None:
        """The trash keeps nothing of it any more."""
        self._renewed(("trash", gid))
        self._rest.trash_gone.append(gid)
        self._wake.set()

    def swept(self, row: SweepRow) -> None:
        """A run of a sweep began, or ended."""
        self._renewed(("sweeps", row.id))
        self._rest.sweeps.append(row)
        self._wake.set()

    def swept_gone(self, row_id: int) -> None:
        """A run of a sweep is not remembered any longer."""
        self._renewed(("sweeps", row_id))
        self._rest.sweeps_gone.append(row_id)
        self._wake.set()

    def media(self, row: MediaRow) -> None:
        """What is known of a file's content changed."""
        self._renewed(("media", row.ino))
        self._rest.media.append(row)
        if not self._wake.is_set():
            self._wake.set()

    def event(self, row: EventRow) -> None:
        """Something became of a file: in the batch of its rows."""
        self._rest.events.append(row)
        if not self._wake.is_set():
            self._wake.set()

    def events_gone(self, ids: Iterable[int]) -> None:
        """These events did not come about after all, or are not kept any longer."""
        self._rest.events_gone.extend(ids)
        self._wake.set()

    def meta(self, key: str, value: str) -> None:
        """A store-wide fact changed."""
        self._renewed(("meta", key))
        self._rest.meta[key] = value
        self._wake.set()

    def _take(self) -> tuple[Batch, Callable[[], None]]:
        """Everything dirty, which is clean from now on; and what makes it dirty again."""
        nodes, removed, accounts = self._nodes, self._removed, self._accounts
        garbage, purged, rest = self._garbage, self._purged, self._rest
        objects, journal, journal_done = self._objects, self._journal, self._journal_done
        objects_gone, recordings = self._objects_gone, self._recordings
        self._sources = (nodes, accounts, garbage)
        batch = Batch(
            nodes=[node.row() for node in nodes.values()],
            removed=list(removed),
            accounts=[account.row() for account in accounts.values()],
            garbage=[entry.row() for entry in garbage.values()],
            purged=purged,
            emptied=rest.emptied,
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
            sweeps=rest.sweeps,
            sweeps_gone=rest.sweeps_gone,
            trash=rest.trash,
            trash_gone=rest.trash_gone,
            events=rest.events,
            events_gone=rest.events_gone,
            media=rest.media,
            recordings=[
                RecordingRow(ino, folder.life) for ino, folder in recordings.items() if folder.life is not None
            ],
        )
        self._recordings = {}
        self._objects, self._journal, self._journal_done, self._objects_gone = {}, {}, [], []
        self._nodes, self._removed, self._accounts = {}, {}, {}
        self._garbage, self._purged, self._rest = {}, [], Batch()

        def undo() -> None:
            gone = self._removed
            self._nodes = {ino: node for ino, node in nodes.items() if ino not in gone} | self._nodes
            self._recordings = {ino: folder for ino, folder in recordings.items() if ino not in gone} | self._recordings
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
                emptied=rest.emptied + newer.emptied,
                xattrs=rest.xattrs + newer.xattrs,
                whiteouts=rest.whiteouts + newer.whiteouts,
                views=rest.views + newer.views,
                meta=rest.meta | newer.meta,
                unanswered=rest.unanswered + newer.unanswered,
                answered=[key for key in rest.answered if key not in again] + newer.answered,
                sweeps=rest.sweeps + newer.sweeps,
                sweeps_gone=rest.sweeps_gone + newer.sweeps_gone,
                trash=rest.trash + newer.trash,
                trash_gone=rest.trash_gone + newer.trash_gone,
                media=rest.media + newer.media,
                events=rest.events + newer.events,
                events_gone=rest.events_gone + newer.events_gone,
            )

        return batch, undo
