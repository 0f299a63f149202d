"""What becomes of files, told at once to its subscribers.

Each event is told while the change is being made, on the trio thread and without an await in between: what a subscriber
records goes into the batch of the rows that the event belongs to, so a crash leaves both or neither. A subscriber that
fails would leave the change half told, so it raises nothing; what may fail belongs into a service of its own.

A new subscriber is made known in the composition root (`parts.py`), and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.state.nodes import FileNode, Node


class Subscriber:
    """Base class of a subscriber: overrides what it wants to know. Atomic, and raises nothing."""

    def committed(self, node: FileNode) -> None:
        """The file's bytes are sealed with a checksum.

        The row is not durable yet, and the commit may be taken back without another event: who acts later looks at the
        state again.
        """

    def abandoned(self, node: FileNode) -> None:
        """The file was closed and stays incomplete: no commit comes."""

    def modified(self, node: FileNode) -> None:
        """The bytes on the local disk are about to differ from what was committed, or are gone."""

    def superseded(self, node: FileNode) -> None:
        """A file whose bytes are in S3 only is overwritten; they are the way back until the commit."""

    def described(self, node: FileNode) -> None:
        """Mode, owner or time of modification changed."""

    def renamed(self, node: Node) -> None:
        """A file, or a directory with everything below, has another name."""

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """The file is about to lose its name, to *successor* if that takes it over."""

    def released(self, node: FileNode) -> None:
        """Nobody has the file open any more."""


class Events(Subscriber):
    """Tells all subscribers, in the order in which they subscribed."""

    def __init__(self) -> None:
        self._subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Tell *subscriber* from now on."""
        self._subscribers = (*self._subscribers, subscriber)

    def committed(self, node: FileNode) -> None:
        """As `Subscriber.committed`."""
        for each in self._subscribers:
            each.committed(node)

    def abandoned(self, node: FileNode) -> None:
        """As `Subscriber.abandoned`."""
        for each in self._subscribers:
            each.abandoned(node)

    def modified(self, node: FileNode) -> None:
        """As `Subscriber.modified`."""
        for each in self._subscribers:
            each.modified(node)

    def superseded(self, node: FileNode) -> None:
        """As `Subscriber.superseded`."""
        for each in self._subscribers:
            each.superseded(node)

    def described(self, node: FileNode) -> None:
        """As `Subscriber.described`."""
        for each in self._subscribers:
            each.described(node)

    def renamed(self, node: Node) -> None:
        """As `Subscriber.renamed`."""
        for each in self._subscribers:
            each.renamed(node)

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """As `Subscriber.removed`."""
        for each in self._subscribers:
            each.removed(node, successor)

    def released(self, node: FileNode) -> None:
        """As `Subscriber.released`."""
        for each in self._subscribers:
            each.released(node)


__all__ = ["Events", "Subscriber"]
