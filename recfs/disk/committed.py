"""Committed bytes, open for reading in threads: they stay good wherever the file moves, and whatever becomes of it.

A descriptor outlives renames, eviction and removal. What it does not outlive is a change of the bytes where they lie,
which the state of the file tells of: who wants one version and no other looks at that once all is read (`is_current`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from recfs.errors import Stale

if TYPE_CHECKING:
    from recfs.disk.backing_files import BackingFiles
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.state.nodes import FileNode
    from recfs.stores.local import LocalStore


class CommittedBytes:
    """An open descriptor on one committed version of a file."""

    def __init__(self, node: FileNode, fd: int) -> None:
        self._node = node
        self.fd = fd
        self.size_bytes = node.bytes
        self.sha256 = node.sha256
        self._changes = node.changes

    @property
    def is_current(self) -> bool:
        """Whether the file has had just these bytes since. Asked from other threads, too: it only reads.

        Not if it has them again: others were there meanwhile, and may have been read.
        """
        node = self._node
        return node.state.is_whole and node.changes == self._changes and not node.unlinked


class CommittedFiles:
    """Opens committed files that lie here."""

    def __init__(self, backing_files: BackingFiles, places: PathResolver, store: LocalStore) -> None:
        self._backing_files = backing_files
        self._places = places
        self._store = store

    @contextlib.asynccontextmanager
    async def open(self, node: FileNode) -> AsyncIterator[CommittedBytes]:
        """The bytes that lie here.

        Raises Stale where there are none by the time that they can be opened: the file is being written, was removed,
        or only S3 has it. Else OSError or IoFailure.
        """
        await self._backing_files.wait_for_moves(node)
        if not node.state.is_whole or node.unlinked:
            raise Stale(f"{node.path} is {node.state}, or was removed")
        fd = self._store.open_file(self._places.local(node), os.O_RDONLY)
        try:
            yield CommittedBytes(node, fd)
        finally:
            os.close(fd)


__all__ = ["CommittedBytes", "CommittedFiles"]
