"""Open files of a daemon that died, taken over by what its ledger says (state/ledger.py) and what lies on the disk."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from recfs.core.bounds import time_ns
from recfs.core.model import State
from recfs.disk.diskio import is_frozen
from recfs.errors import QuotaExceeded, RecfsError, Stale
from recfs.fs.fallback_entries import VIEW_BIT, FallbackEntry
from recfs.fs.handles import Mode
from recfs.state.ledger import COUNTED, DIRECT, WRITES
from recfs.state.nodes import FileNode

if TYPE_CHECKING:
    from recfs.fs.vfs import Vfs
    from recfs.state.backing_file import BackingFile
    from recfs.state.ledger import Ledger, Opened

log = logging.getLogger("recfs.recovery")


def writing(ledger: Ledger) -> frozenset[int]:
    """Inode numbers of the files that are open for writing."""
    return frozenset(each.ino for each in ledger.open_files() if each.flags & WRITES)


class KeptFiles:
    """Enters them: after recovery, before anything is served."""

    def __init__(self, vfs: Vfs, ledger: Ledger) -> None:
        self._vfs = vfs
        self._tree = vfs.tree
        self._ledger = ledger

    async def take_over(self) -> None:
        """Enter all of them. One whose file is gone, or cannot be opened, is told: what asks for it gets an error."""
        found: dict[int, FileNode] = {}
        for opened in self._ledger.open_files():
            try:
                found[opened.ino] = await self._enter(opened)
            except (RecfsError, OSError) as error:
                log.error("an open file of before this start is lost (inode %d): %s", opened.ino, error)
                self._ledger.released(opened.number)
        for node in found.values():
            if node.state is State.WRITING and node.body is not None and node.body.writers:
                self._catch_up(node, node.body)
        self._vfs.files.next_number = max(self._vfs.files.next_number, self._ledger.next_number)

    async def _enter(self, opened: Opened) -> FileNode:
        files, writes = self._vfs.files, bool(opened.flags & WRITES)
        node = await self._tree.get(opened.ino)
        if not isinstance(node, FileNode):
            raise Stale(f"inode {opened.ino} is no file")
        shown = await self._vfs.views.resolve(opened.asked) if opened.asked >= VIEW_BIT else None
        body = await self._vfs.backing_files.acquire(node, write=writes)
        body.handles -= 1
        body.writers -= writes
        handle = files.inherit(opened.number, node, body, opened.uid, writes=writes)
        handle.direct = bool(opened.flags & DIRECT)
        handle.shown = shown if isinstance(shown, FallbackEntry) else None
        if node.state is State.WRITING:
            body.in_place = node.staging is None and node.unmarked
        if opened.mode is not None:
            body.backing = body.backing or opened.backing
            files.modes.inherit(handle, Mode(opened.mode), counted=bool(opened.flags & COUNTED))
        return node

    def _catch_up(self, node: FileNode, body: BackingFile) -> None:
        """What was written when nobody took it over into the row. Atomic."""
        info = os.fstat(body.fd)
        if info.st_size != node.bytes:
            self._tree.resize(node, info.st_size)
            node.mtime_ns = node.ctime_ns = time_ns(info.st_mtime_ns)
            self._tree.behind.node(node)
        if is_frozen(body.fd):
            body.stopped = (QuotaExceeded, f"{node.path}: its writer had run past a limit before recfs was started")


__all__ = ["KeptFiles", "writing"]
