"""Who holds which key in S3: nothing is put where another file's object lies, or is read.

Asked before every upload and every move. Whoever finds a key held looks again later; files whose objects change places
(RENAME_EXCHANGE) would wait for each other for ever, so one of them goes aside first (`tier/uploads/moves.py`).
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

from recfs.core.model import State
from recfs.ports.object_errors import ObjectStoreError
from recfs.state.walk import file_at
from recfs.tier.identity import has_object
from recfs.tier.queue.reasons import NOT_YET
from recfs.tier.queue.unsent import Why
from recfs.tier.queue.waits import READERS
from recfs.tier.tier import key_of

if TYPE_CHECKING:
    from recfs.ports.rows import JournalRow
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind
    from recfs.tier.tier import Tier

log = logging.getLogger("recfs.uploader")

ASIDE = ".recfs/moving/"
"""Where an object waits whose key and that of another change places. No path of a file begins so."""
WAY_S = 0.1
"""First wait for a key to become free …"""
WAY_MAX_S = 10.0
"""… and the longest between two looks."""
_NS = 10**9


class Holders:
    """Tells whose object is where journalled work is going to put one."""

    def __init__(self, tier: Tier, tree: Tree, behind: WriteBehind) -> None:
        self._tier = tier
        self._journal = tier.journal
        self._tree = tree
        self._behind = behind
        self._waits: dict[int, int] = {}
        """How often a row had to wait for another file's object to leave its key."""
        self.to_go_aside: set[int] = set()
        """Moves that S3 refuses, whose object is where another file's is to be: it goes aside."""

    def ended(self, row_id: int) -> None:
        """The row is done or dropped."""
        self._waits.pop(row_id, None)
        self.to_go_aside.discard(row_id)
        self._journal.unblock(row_id)

    async def make_durable(self, node: FileNode, key: str) -> None:
        """What made *key* free for this file must not come undone: a power cut would find another's object replaced.

        Raises IoFailure or OutOfSpace.
        """
        if self._journal.is_deleted(key) or (node.object is not None and node.object.key == key):
            await self._behind.durable()

    async def holder(self, key: str, ino: int) -> FileNode | None:
        """The other file whose object is under *key*, to be moved or not."""
        for other in (self._journal.leaving.get(key), await self._tree.catalogue.object_at(key, ino)):
            if other is None or other == ino:
                continue
            node = await file_at(self._tree, other)
            if node is not None and node.object is not None and node.object.key == key:
                return node
        return None

    async def in_the_way(self, row: JournalRow, key: str, holder: FileNode | None) -> bool:
        """Whether something else needs what is under *key*; the row is then looked at again later, and says why."""
        self._journal.unblock(row.id)
        if holder is not None and self._is_refused(holder) and await self.is_lost(holder):
            await self._give_way(holder)
            holder = None
        if holder is None and not self._tier.copies.is_read(key, row.ino):
            return False
        why = "waits for those who read the object under its name"
        if holder is not None and holder.object is not None and key_of(holder) != key:
            why = f"waits for the move of {key_of(holder)}"
            move = self._journal.move_of(holder.ino)
            if move is None or not (self._is_refused(holder) or move.error == NOT_YET):
                self._tier.queue_move(holder)  # renamed with its directory, and not told so yet
            elif move.id not in self.to_go_aside:
                self.to_go_aside.add(move.id)
                self._tier.queue_move(holder)  # it cannot follow its file: aside it can, perhaps
            else:
                self._journal.lasting.add(row.id)  # neither: that is to be put right first
            if (move := self._journal.move_of(holder.ino)) is not None:
                self._journal.waits.begin(row.id, move.id)
        else:
            self._journal.waits.begin(row.id, READERS)
        waits = self._waits[row.id] = self._waits.get(row.id, -1) + 1
        delay_s = min(WAY_S * 2.0 ** min(waits, 10), WAY_MAX_S) * random.uniform(0.5, 1.0)
        next_ns = self._tree.clock.steady_ns() + round(delay_s * _NS)
        self._journal.waiting(row._replace(error=why, next_try_ns=next_ns))
        return True

    def _is_refused(self, holder: FileNode) -> bool:
        move = self._journal.move_of(holder.ino)
        return move is not None and self._journal.unsent.why_aside(move.id) is Why.REFUSED

    async def is_lost(self, node: FileNode) -> bool:
        """Whether S3 has the object of a file no more: it was deleted, or replaced, out of band. Asks S3.

        If it only has another ETag, which recfs gave it and whose answer was lost, that is taken down.
        """
        try:
            is_there = await has_object(self._tier.link, self._tier.copies, node)
        except ObjectStoreError:
            return False  # nobody knows
        return is_there is False and not node.unlinked

    async def _give_way(self, node: FileNode) -> None:
        """The file's object is lost: its key is another's now. Raises IoFailure or OutOfSpace."""
        in_s3, move = node.object, self._journal.move_of(node.ino)
        assert in_s3 is not None
        aside = f"{ASIDE}{node.ino}"
        log.warning(
            "%s: its object %s was deleted or replaced out of band, and another file takes that name in S3; "
            "if it is brought back, then as %s", node.path, in_s3.key, aside,
        )  # fmt: skip
        self._tier.copies.remember(node, in_s3._replace(key=aside))
        if move is not None:
            self.to_go_aside.discard(move.id)
            self._journal.retry(move.id)  # it says then where the object is missing now
        if node.state is State.STORED:
            await self._tier.store_anew(node)
        await self._behind.durable()

    async def in_circle(self, node: FileNode, holder: FileNode) -> bool:
        """Whether *holder*, whose object has to leave first, waits for *node* to leave."""
        seen: set[int] = set()
        step: FileNode | None = holder
        while step is not None and step.ino not in seen and step is not node:
            seen.add(step.ino)
            step = await self.holder(key_of(step), step.ino)
        return step is node
