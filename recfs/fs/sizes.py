"""How large a file may become, and making it larger or smaller."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recfs.core.bounds import end_of
from recfs.disk.diskio import disk_error
from recfs.disk.refresh import drop_privileges, refresh, remember_below
from recfs.errors import OutOfSpace
from recfs.state.nodes import BLOCK_BYTES

if TYPE_CHECKING:
    from recfs.disk.backing_files import BackingFiles
    from recfs.disk.staging import DiskReserve
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree


class Sizes:
    """Asks quota and disk before a file grows."""

    def __init__(self, tree: Tree, backing_files: BackingFiles, space: DiskReserve) -> None:
        self._tree = tree
        self._behind = tree.behind
        self._unsealing = backing_files.unsealing
        self._versions = backing_files.versions
        self._stops = backing_files.stops
        self._space = space

    async def resize(self, node: FileNode, size: int) -> None:
        """Make an open file of the size, and raise what forbids that."""
        body = node.body
        assert body is not None
        refresh(self._tree, node)
        await self._stops.thawed(node, body)
        if size == 0:
            room, versions = True, self._versions
            if body.backing and versions.keeps(node):
                try:
                    self._space.admit(os.fstat(body.fd).st_blocks * BLOCK_BYTES)  # its bytes will be copied
                except OutOfSpace:
                    room = False
                    if not versions.is_half_gone(node):
                        raise
            await self._unsealing.supersede(node, room=room)
        else:
            end_of(size, 0, self._space.max_file_bytes)
            await self._unsealing.unseal(node)
            if size > node.bytes:
                account = node.parent.account if not node.unlinked else None
                if account is not None:
                    account.demand(node.bytes, size)
                self._space.admit(0)
            self._tree.resize(node, size)
            try:
                await self._unsealing.cut(node, body, size)
            except BaseException as error:
                self._tree.resize(node, os.fstat(body.fd).st_size)
                if not isinstance(error, OSError):
                    raise
                raise disk_error(error, node) from error
        remember_below(node)
        drop_privileges(node)
        now = self._tree.clock.now_ns()
        node.mtime_ns = node.ctime_ns = now
        self._behind.node(node)
        self._tree.activity(node.parent)

    def admit(self, node: FileNode, offset: int, wanted: int) -> int:
        """How far towards *wanted* a write at *offset* may go. Raises when not by one byte."""
        most = self._space.max_file_bytes
        if wanted > most:
            end_of(offset, 1, most)
            wanted = most
        account = node.parent.account if not node.unlinked else None
        allowed = account.admit(node.bytes, wanted, offset) if account is not None else wanted
        self._space.admit(allowed - max(node.bytes, offset))  # a hole takes no room
        return allowed

    def demand(self, node: FileNode, size: int) -> None:
        """Raise what keeps a file from becoming so large."""
        end_of(size, 0, self._space.max_file_bytes)
        if node.parent.account is not None and not node.unlinked:
            node.parent.account.demand(node.bytes, size)


__all__ = ["Sizes"]
