"""Changes the S3 queue where somebody asks for it: rows are tried sooner, or taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.keys import key_for
from recfs.core.model import State
from recfs.ports.rows import DELETE, HOST, MOVE, UPLOAD
from recfs.state.walk import file_at
from recfs.tier.queue.unsent import Why

if TYPE_CHECKING:
    from recfs.ports.rows import JournalRow
    from recfs.state.tree import Tree
    from recfs.tier.tier import Tier


class QueueChanges:
    """Judges rows one by one, and carries out what is asked for."""

    def __init__(self, tier: Tier, tree: Tree) -> None:
        self._tier = tier
        self._tree = tree

    def retry(self, row: JournalRow) -> tuple[bool, str | None]:
        """Have it tried at once; returns whether it is, and else why asking does not help, if there is a reason."""
        reason = self._not_retried(row)
        return reason is None and self._tier.journal.retry(row.id), reason

    def _not_retried(self, row: JournalRow) -> str | None:
        """Why asking does not make this row be tried any sooner; None if it does. Atomic."""
        journal = self._tier.journal
        if journal.unsent.why_aside(row.id) is Why.NAME:
            return "its name looks temporary; rename the file, and it goes"
        if journal.unsent.why_aside(row.id) is Why.BROKEN:
            return f"{row.error}; write it anew, or let a [[route]] with broken = true take it"
        if row.id in journal.running:
            return "it is being done right now"
        if journal.unsent.why_aside(row.id) is Why.WATCHED:
            return row.error
        if row.kind == DELETE and not row.attempts:
            return "it waits for the trash's retention, or for a reader"
        if self._is_leased(row):
            return "another machine has it"
        if row.next_try_ns <= self._tree.clock.steady_ns():
            return "its turn has come already"
        return None

    def _is_leased(self, row: JournalRow) -> bool:
        return row.host != HOST and row.lease_until_ns > self._tree.clock.steady_ns()

    async def drop(self, row: JournalRow) -> str | None:
        """Take it out of the queue; returns why it stays there.

        An upload: the file stays `committed`, a multipart upload it began is aborted. A deletion: the object stays. A
        move is never dropped: the next file of the old name would overwrite the object.
        """
        journal = self._tier.journal
        if row.kind == MOVE and journal.unsent.why_aside(row.id) is Why.REFUSED:
            return "a move cannot be dropped: put right what S3 refuses, or remove the file"
        if row.kind == MOVE:
            return "a move cannot be dropped: the next file of the old name would overwrite the object"
        if row.id in journal.running and row.kind != UPLOAD:
            return "it is being done right now"
        if self._is_leased(row):
            return "another machine has it"
        node = await file_at(self._tree, row.ino) if row.kind == UPLOAD else None
        row = journal.rows.get(row.id, row)
        under_way = row.id in journal.running
        key = key_for(b"/".join(node.parts())) if node is not None else ""
        if row.kind == UPLOAD and row.key not in ("", key):
            journal.retry(row.id)
            return f"it may have put something under {row.key}, which is looked for first"
        journal.cancel(row.id)
        if row.key and not under_way and node is not None and node.object is None:
            journal.delete(key)  # the answer may have been lost
        if node is None or not under_way or node.state is not State.UPLOADING:
            return None
        # The sending threads see the state, and stop. What they stored by then, if they stored it all, goes.
        node.enter(State.COMMITTED)
        self._tree.behind.node(node)
        if node.object is None:
            journal.delete(key)
        return None
