"""Back-pressure: whoever makes files faster than they get sealed and uploaded is slowed down in write(2).

Nobody waits in create(2), mkdir(2) or symlink(2): the kernel holds the directory for as long as one of them lasts, and
with it `ls`, and the `rm` that would make room. What can be known there is answered at once. A write holds its own file
only, and no longer than `PAUSE_S`, since whoever removes or renames that file waits for it with the directory held; so
does the kernel with a writer that dirties memory too fast (balance_dirty_pages, mm/page-writeback.c).

What holds writers back:
  the commit pipeline   more closed files than `[commit].max_pending` wait: the first write to each new file pauses
  the budget            what waits for S3, and can get there, is more than `[cache].max_size`: each write to a file that
                        belongs there pauses, of those users who have their share of it waiting; and once no upload has
                        got anywhere for `PATIENCE_S`, such files are refused (ENOSPC) at create and write alike
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from recfs.core.routing import route
from recfs.errors import OutOfSpace

if TYPE_CHECKING:
    from recfs.fs.bodies import Bodies
    from recfs.fs.nodes import DirNode, FileNode
    from recfs.fs.tier import Tier
    from recfs.fs.writebehind import WriteBehind
    from recfs.ports import Pipeline

PAUSE_S = 0.2
"""Longest pause of one write. The kernel's own MAX_PAUSE."""
PATIENCE_S = 30.0
"""How long uploads may get nowhere, with the budget full, before files for S3 are refused."""
REFUSED_FROM = 10
"""From so many times `max_pending` on new files are refused: pauses have not kept the pipeline bounded."""
_ANY_BYTES = 1 << 62


class Backlog:
    """Decides who is held back."""

    def __init__(self, bodies: Bodies, behind: WriteBehind, pipeline: Pipeline, *, max_pending: int) -> None:
        self._bodies = bodies
        self._behind = behind
        self._pipeline = pipeline
        self._max_pending = max_pending
        self._sent = (-1, 0)
        self._since = 0.0

    @property
    def is_full(self) -> bool:
        """Whether anybody is held back."""
        tier = self._bodies.tier
        return self._pipeline.busy_with > self._max_pending or (
            tier is not None and tier.journal.unsent.total_bytes > tier.settings.max_bytes
        )

    # --- at once (atomic) ----------------------------------------------------------------------------------------

    def admit(self, folder: DirNode, name: bytes) -> None:
        """Raise OutOfSpace when a new file of this name would be refused every byte anyway."""
        if not self.is_full:
            return
        depth = self._pipeline.busy_with
        if depth > self._max_pending and self._behind.problem is not None:
            raise OutOfSpace(self._behind.problem)
        if depth > REFUSED_FROM * self._max_pending:
            raise OutOfSpace(
                f"{depth} closed files wait to be committed, and [commit] max_pending is {self._max_pending}"
            )
        tier = self._bodies.tier
        if tier is not None and self._is_over(tier, folder) and self._belongs_there(tier, folder, name):
            self._refuse_if_stuck(tier)

    def is_held_back(self, node: FileNode) -> bool:
        """Whether the next write to *node* would pause: the kernel is not to do it by itself then."""
        if not self.is_full:
            return False
        tier = self._bodies.tier
        return self._pipeline.busy_with > self._max_pending or (tier is not None and self._is_too_much(tier, node))

    @staticmethod
    def _belongs_there(tier: Tier, folder: DirNode, name: bytes) -> bool:
        """Whether a file of this name goes to S3 whatever its size will be."""
        path = (*folder.parts(), name)
        return all(route(tier.settings.rules, path, size, 0.0).store == "s3" for size in (0, _ANY_BYTES))

    @staticmethod
    def _is_over(tier: Tier, folder: DirNode) -> bool:
        """Whether the budget is full, and not for want of others' uploads alone."""
        unsent, budget = tier.journal.unsent, tier.settings.max_bytes
        user = folder.account.user if folder.account is not None else None
        return unsent.total_bytes > budget and unsent.of(user) >= unsent.share_bytes(budget, user)

    def _is_too_much(self, tier: Tier, node: FileNode) -> bool:
        return not node.unlinked and self._is_over(tier, node.parent) and tier.decide(node).store == "s3"

    def _refuse_if_stuck(self, tier: Tier) -> None:
        now, journal = trio.current_time(), tier.journal
        sent, done = journal.sent, sum(each.done_bytes for each in journal.running.values())
        if sent != self._sent[0] or done > self._sent[1]:
            self._since = now
        self._sent = (sent, done)
        if now - self._since >= PATIENCE_S:
            raise OutOfSpace(
                f"{journal.unsent.total_bytes} bytes wait to be uploaded, and [cache] max_size is "
                f"{tier.settings.max_bytes}; `recfs queue` tells what holds them up"
            )

    # --- in write(2) ---------------------------------------------------------------------------------------------

    async def pause(self, node: FileNode) -> None:
        """Let the others catch up before the next bytes of *node*. Raises OutOfSpace when they will not."""
        if self._pipeline.busy_with > self._max_pending and not node.bytes:
            with trio.move_on_after(PAUSE_S):
                while self._pipeline.busy_with > self._max_pending:
                    await self._pipeline.progress()
        tier = self._bodies.tier
        if tier is None or not self._is_too_much(tier, node):
            return
        self._refuse_if_stuck(tier)
        with trio.move_on_after(PAUSE_S):  # too short to be worth an interruption
            while self._is_too_much(tier, node):
                await tier.journal.progress()


__all__ = ["PATIENCE_S", "PAUSE_S", "Backlog"]
