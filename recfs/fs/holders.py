"""Who holds which key in S3: nothing is put where another file's object lies, or is read.

Asked before every upload and every move. Whoever finds a key held looks again later; files whose objects change places
(RENAME_EXCHANGE) would wait for each other for ever, so one of them goes aside first (`fs/moves.py`).
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

from recfs.errors import Stale
from recfs.fs.nodes import FileNode
from recfs.fs.tier import key_of

if TYPE_CHECKING:
    from recfs.fs.tier import Tier
    from recfs.fs.tree import Tree
    from recfs.fs.writebehind import WriteBehind
    from recfs.ports import JournalRow

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
        self.wanted: set[int] = set()
        """Moves that S3 refuses, whose object is where another file's is to be: it goes aside."""

    def ended(self, row_id: int) -> None:
        """The row is done or dropped."""
        self._waits.pop(row_id, None)
        self.wanted.discard(row_id)

    async def settled(self, node: FileNode, key: str) -> None:
        """What made *key* free for this file must not come undone: a power cut would find another's object replaced.

        Raises IoFailure or OutOfSpace.
        """
        if self._journal.is_deleted(key) or (node.object is not None and node.object.key == key):
            await self._behind.durable()

    async def holder(self, key: str, ino: int) -> FileNode | None:
        """The other file whose object is under *key*, to be moved or not."""
        for other in (self._journal.held.get(key), await self._tree.catalogue.object_at(key, ino)):
            if other is None or other == ino:
                continue
            with contextlib.suppress(Stale):
                node = await self._tree.get(other)
                if isinstance(node, FileNode) and node.object is not None and node.object.key == key:
                    return node
        return None

    async def in_the_way(self, row: JournalRow, key: str, holder: FileNode | None) -> bool:
        """Whether something else needs what is under *key*; the row is then looked at again later."""
        if holder is None and not self._tier.partials.is_read(key, row.ino):
            return False
        if holder is not None and holder.object is not None and key_of(holder) != key:
            move = self._journal.move_of(holder.ino)
            if move is not None and self._journal.unsent.why_aside(move.id):
                self.wanted.add(move.id)
            self._tier.follow(holder)  # renamed with its directory, and not told so yet; or not able to follow
        waits = self._waits[row.id] = self._waits.get(row.id, -1) + 1
        delay_s = min(WAY_S * 2.0 ** min(waits, 10), WAY_MAX_S) * random.uniform(0.5, 1.0)
        self._journal.update(row._replace(next_try_ns=self._tree.clock.steady_ns() + round(delay_s * _NS)))
        return True

    async def in_circle(self, node: FileNode, holder: FileNode) -> bool:
        """Whether *holder*, whose object has to leave first, waits for *node* to leave."""
        seen: set[int] = set()
        step: FileNode | None = holder
        while step is not None and step.ino not in seen and step is not node:
            seen.add(step.ino)
            step = await self.holder(key_of(step), step.ino)
        return step is node
