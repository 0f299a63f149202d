"""What becomes of files, told at once to whoever follows it.

Each event is told while the change is being made, on the trio thread and without an await in between: what a follower
records goes into the batch of the rows that the event belongs to, so a crash leaves both or neither. A follower that
fails would leave the change half told, so it raises nothing; what may fail belongs into a service of its own.

A new follower is made known in the composition root (`parts.py`), and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.state.nodes import FileNode, Node


class Follower:
    """Who follows what becomes of files: overrides what it wants to know. Atomic, and raises nothing."""

    def committed(self, node: FileNode) -> None:
        """The file's bytes are sealed with a checksum, and whole."""

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


class Events(Follower):
    """Tells all followers, in the order in which they subscribed."""

    def __init__(self) -> None:
        self._followers: tuple[Follower, ...] = ()

    def subscribe(self, follower: Follower) -> None:
        """Tell *follower* from now on."""
        self._followers = (*self._followers, follower)

    def committed(self, node: FileNode) -> None:
        """As `Follower.committed`."""
        for each in self._followers:
            each.committed(node)

    def abandoned(self, node: FileNode) -> None:
        """As `Follower.abandoned`."""
        for each in self._followers:
            each.abandoned(node)

    def modified(self, node: FileNode) -> None:
        """As `Follower.modified`."""
        for each in self._followers:
            each.modified(node)

    def superseded(self, node: FileNode) -> None:
        """As `Follower.superseded`."""
        for each in self._followers:
            each.superseded(node)

    def described(self, node: FileNode) -> None:
        """As `Follower.described`."""
        for each in self._followers:
            each.described(node)

    def renamed(self, node: Node) -> None:
        """As `Follower.renamed`."""
        for each in self._followers:
            each.renamed(node)

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """As `Follower.removed`."""
        for each in self._followers:
            each.removed(node, successor)

    def released(self, node: FileNode) -> None:
        """As `Follower.released`."""
        for each in self._followers:
            each.released(node)


__all__ = ["Events", "Follower"]
