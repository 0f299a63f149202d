"""What became of files, counted by the kinds that `recfs events` tells: a few integers are counted up for each.

Counted are those that the running daemon sees, whether or not events are written.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from recfs.core.observing.kinds import EventKind
from recfs.state.events import Subscriber
from recfs.state.nodes import FileNode

if TYPE_CHECKING:
    from recfs.state.nodes import DirNode, Node

WITH_BYTES = (EventKind.COMMITTED, EventKind.UPLOADED, EventKind.EVICTED, EventKind.FETCHED)
"""Kinds of which it is told, too, how many bytes they were about."""


class Happened(Subscriber):
    """Counts. Atomic; copied by whoever tells them."""

    def __init__(self) -> None:
        self.events: Counter[EventKind] = Counter(dict.fromkeys(EventKind, 0))
        """All kinds, those that never came among them: a counter that is there from the beginning can be subtracted."""
        self.file_bytes: Counter[EventKind] = Counter(dict.fromkeys(WITH_BYTES, 0))
        """Sizes of the files, by kind."""
        self._taken_back: set[int] = set()
        """Files whose commit was counted and has not come about yet."""

    def _count(self, kind: EventKind, node: Node) -> None:
        self.events[kind] += 1
        if kind in self.file_bytes and isinstance(node, FileNode):
            self.file_bytes[kind] += node.bytes

    def committed(self, node: FileNode) -> None:
        """As `Subscriber.committed`; one that was taken back is counted once."""
        if node.ino in self._taken_back:
            self._taken_back.discard(node.ino)
        else:
            self._count(EventKind.COMMITTED, node)

    def uncommitted(self, node: FileNode) -> None:
        """As `Subscriber.uncommitted`."""
        self._taken_back.add(node.ino)

    def abandoned(self, node: FileNode) -> None:
        """As `Subscriber.abandoned`."""
        self._count(EventKind.INCOMPLETE, node)

    def modified(self, node: FileNode) -> None:
        """As `Subscriber.modified`."""
        self._taken_back.discard(node.ino)
        if node.sha256 is not None:
            self._count(EventKind.OVERWRITTEN, node)

    def renamed(self, node: Node, old: DirNode, old_name: bytes) -> None:
        """As `Subscriber.renamed`."""
        self._count(EventKind.RENAMED, node)

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """As `Subscriber.removed`."""
        self._taken_back.discard(node.ino)
        self._count(EventKind.REMOVED if successor is None else EventKind.OVERWRITTEN, node)

    def removed_whole(self, folder: DirNode) -> None:
        """As `Subscriber.removed_whole`: the directory, and each file in it."""
        self.events[EventKind.REMOVED] += 1 + folder.rfiles

    def noted(self, kind: EventKind, node: Node, detail: str = "") -> None:
        """As `Subscriber.noted`."""
        self._count(kind, node)

    def limit_reached(self, user: str, limit: str) -> None:
        """As `Subscriber.limit_reached`: each time."""
        self.events[EventKind.QUOTA_REACHED] += 1


__all__ = ["WITH_BYTES", "Happened"]
