"""How many bytes may wait for their upload, and what becomes of those who write more: back-pressure in write(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from recfs.core.routing import route
from recfs.errors import OutOfSpace

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.routing import Decision
    from recfs.ports.rows import JournalRow
    from recfs.state.nodes import DirNode, FileNode
    from recfs.tier.copies import Copies

PATIENCE_S = 30.0
"""How long uploads may get nowhere, with the budget full, before files for S3 are refused."""
_ANY_BYTES = 1 << 62


class UploadBudget:
    """Compares what waits for its upload with [cache] max_size. A user has a share of it."""

    def __init__(self, copies: Copies, decide: Callable[[FileNode], Decision]) -> None:
        self._copies = copies
        self._journal = copies.journal
        self._decide = decide
        self._seen = (-1, 0)
        self._since = 0.0

    @property
    def is_full(self) -> bool:
        """As `Budget.is_full`."""
        return self._journal.unsent.total_bytes > self._copies.settings.max_bytes

    def upload_of(self, node: FileNode) -> JournalRow | None:
        """The upload of a file, if it is in the queue. Atomic."""
        return self._journal.upload_of(node.ino)

    def holds_back(self, node: FileNode) -> bool:
        """As `Budget.holds_back`."""
        return not node.unlinked and self._is_over(node.parent) and self._decide(node).store == "s3"

    def refuse(self, folder: DirNode, name: bytes) -> None:
        """As `Budget.refuse`."""
        if self._is_over(folder) and self._belongs_there(folder, name):
            self.refuse_if_stuck()

    def refuse_if_stuck(self) -> None:
        """As `Budget.refuse_if_stuck`."""
        now, journal = trio.current_time(), self._journal
        ended, done = journal.uploads_ended, sum(each.done_bytes for each in journal.running.values())
        if ended != self._seen[0] or done > self._seen[1]:
            self._since = now
        self._seen = (ended, done)
        if now - self._since >= PATIENCE_S:
            raise OutOfSpace(
                f"{journal.unsent.total_bytes} bytes wait to be uploaded, and [cache] max_size is "
                f"{self._copies.settings.max_bytes}; `recfs queue` tells what holds them up"
            )

    async def progress(self) -> None:
        """As `Budget.progress`."""
        await self._journal.progress()

    def _belongs_there(self, folder: DirNode, name: bytes) -> bool:
        """Whether a file of this name goes to S3 whatever its size will be."""
        path = (*folder.parts(), name)
        return all(route(self._copies.settings.rules, path, size, 0.0).store == "s3" for size in (0, _ANY_BYTES))

    def _is_over(self, folder: DirNode) -> bool:
        """Whether the budget is full, and not for want of others' uploads alone."""
        unsent, budget = self._journal.unsent, self._copies.settings.max_bytes
        return unsent.total_bytes > budget and unsent.of(folder.user) >= unsent.share_bytes(budget, folder.user)


__all__ = ["PATIENCE_S", "UploadBudget"]
