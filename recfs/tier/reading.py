"""The way back from S3, as the file system asks for it (`state/remote.py`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from recfs.core.model import State
from recfs.ports.objects import ARCHIVE_CLASSES, RestoreState
from recfs.state.remote import Upload

if TYPE_CHECKING:
    from recfs.state.backing_file import Fetch
    from recfs.state.nodes import FileNode
    from recfs.tier.budget import UploadBudget
    from recfs.tier.evictor import CacheEvictor
    from recfs.tier.link import Link
    from recfs.tier.partials import Partials


class BytesInS3:
    """Brings them through partial copies."""

    def __init__(
        self, partials: Partials, evictor: CacheEvictor, link: Link, budget: UploadBudget, *, fetch_whole_below: int
    ) -> None:
        self._partials = partials
        self._evictor = evictor
        self._link = link
        self.budget = budget
        self.fetch_whole_below = fetch_whole_below

    async def bring(self, node: FileNode) -> None:
        """As `RemoteBytes.bring`."""
        await self._partials.bring(node)

    async def begin(self, node: FileNode) -> tuple[int, Fetch] | None:
        """As `RemoteBytes.begin`."""
        partial = await self._partials.of(node)
        if partial is None or node.body is not None or node.state is not State.FETCHING:
            return None
        return os.dup(partial.fd), partial.download

    def begin_again(self, node: FileNode) -> tuple[int, Fetch]:
        """As `RemoteBytes.begin_again`."""
        partial = self._partials.again(node)
        return os.dup(partial.fd), partial.download

    def lost(self, node: FileNode) -> bool:
        """As `RemoteBytes.lost`."""
        return self._evictor.lost(node)

    async def restore_state(self, node: FileNode) -> RestoreState | None:
        """As `RemoteBytes.restore_state`."""
        in_s3 = node.object
        if in_s3 is None or (node.state is not State.ARCHIVED and in_s3.storage_class not in ARCHIVE_CLASSES):
            return None
        info = await trio.to_thread.run_sync(
            self._link.objects.head, in_s3.key, limiter=self._link.limiter, abandon_on_cancel=True
        )
        return info.restore_state if info is not None else None

    def upload_of(self, node: FileNode) -> Upload | None:
        """As `RemoteBytes.upload_of`."""
        row = self.budget.upload_of(node)
        return Upload(row.attempts, row.error) if row is not None else None


__all__ = ["BytesInS3"]
