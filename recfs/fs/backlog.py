"""Back-pressure: whoever makes files faster than they get sealed and uploaded is slowed down in write(2).

Nobody waits in create(2), mkdir(2) or symlink(2): the kernel holds the directory for as long as one of them lasts, and
with it `ls`, and the `rm` that would make room. What can be known there is answered at once. A write holds its own file
only, and no longer than `PAUSE_S`, since whoever removes or renames that file waits for it with the directory held; so
does the kernel with a writer that dirties memory too fast (balance_dirty_pages, mm/page-writeback.c).

What holds writers back:
  the commit pipeline   more closed files than `[commit].max_pending` wait: the first write to each new file pauses
  the budget            what waits for S3, and can get there, is more than `[cache].max_size`: each write to a file that
                        belongs there pauses, of those users who have their share of it waiting; and once no upload has
                        got anywhere for 30 s (tier/budget.py), such files are refused (ENOSPC) at create and write
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from recfs.errors import OutOfSpace

if TYPE_CHECKING:
    from recfs.ports.work import Pipeline
    from recfs.state.nodes import DirNode, FileNode
    from recfs.state.remote import Budget
    from recfs.state.writebehind import WriteBehind

PAUSE_S = 0.2
"""Longest pause of one write. The kernel's own MAX_PAUSE."""
REFUSED_FROM = 10
"""From so many times `max_pending` on new files are refused: pauses have not kept the pipeline bounded."""


class Backlog:
    """Decides who is held back."""

    def __init__(self, budget: Budget, behind: WriteBehind, pipeline: Pipeline, *, max_pending: int) -> None:
        self._budget = budget
        self._behind = behind
        self._pipeline = pipeline
        self.max_pending = max_pending

    @property
    def is_full(self) -> bool:
        """Whether anybody is held back."""
        return self._pipeline.busy_with > self.max_pending or self._budget.is_full

    # --- at once (atomic) ----------------------------------------------------------------------------------------

    def admit(self, folder: DirNode, name: bytes) -> None:
        """Raise OutOfSpace when a new file of this name would be refused every byte anyway."""
        if not self.is_full:
            return
        depth = self._pipeline.busy_with
        if depth > self.max_pending and self._behind.problem is not None:
            raise OutOfSpace(self._behind.problem)
        if depth > REFUSED_FROM * self.max_pending:
            raise OutOfSpace(
                f"{depth} closed files wait to be committed, and [commit] max_pending is {self.max_pending}"
            )
        self._budget.refuse(folder, name)

    def is_held_back(self, node: FileNode) -> bool:
        """Whether the next write to *node* would pause: the kernel is not to do it by itself then."""
        if not self.is_full:
            return False
        return self._pipeline.busy_with > self.max_pending or self._budget.holds_back(node)

    # --- in write(2) ---------------------------------------------------------------------------------------------

    async def pause(self, node: FileNode) -> None:
        """Let the others catch up before the next bytes of *node*. Raises OutOfSpace when they will not."""
        if self._pipeline.busy_with > self.max_pending and not node.bytes:
            with trio.move_on_after(PAUSE_S):
                while self._pipeline.busy_with > self.max_pending:
                    await self._pipeline.progress()
        if not self._budget.holds_back(node):
            return
        self._budget.refuse_if_stuck()
        with trio.move_on_after(PAUSE_S):  # too short to be worth an interruption
            while self._budget.holds_back(node):
                await self._budget.progress()


__all__ = ["PAUSE_S", "Backlog"]
