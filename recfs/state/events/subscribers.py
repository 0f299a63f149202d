"""What becomes of files, told at once to its subscribers.

Each event is told while the change is being made, on the trio thread and without an await in between: what a subscriber
records goes into the batch of the rows that the event belongs to, so a crash leaves both or neither. A subscriber that
fails would leave the change half told, so it raises nothing; what may fail belongs into a service of its own.

A new subscriber is made known in the composition root (`parts.py`), and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Collection

    from recfs.core.observing.kinds import EventKind
    from recfs.state.nodes import DirNode, FileNode, Node


BEHIND_POLL_S = 0.05


class Subscriber:
    """Base class of a subscriber: overrides what it wants to know. Atomic, and raises nothing."""

    def committed(self, node: FileNode) -> None:
        """The file's bytes are sealed with a checksum.

        The row is not durable yet, and the commit may be taken back (`uncommitted`), or the file be written to again
        (`modified`): who acts later looks at the state again.
        """

    def uncommitted(self, node: FileNode) -> None:
        """The commit that was told last is taken back: its row did not become durable, and the file is sealed again."""

    def abandoned(self, node: FileNode) -> None:
        """The file was closed and stays incomplete: no commit comes."""

    def modified(self, node: FileNode) -> None:
        """The bytes on the local disk are about to differ from what was committed, or are gone.

        A file that was committed still says its checksum.
        """

    def superseded(self, node: FileNode) -> None:
        """A file whose bytes are in S3 only is overwritten; they are the way back until the commit."""

    def described(self, node: FileNode) -> None:
        """Mode, owner or time of modification changed."""

    def renamed(self, node: Node, old: DirNode, old_name: bytes) -> None:
        """A file, or a directory with everything below, has another name; *old_name* in *old* was the one it had."""

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """The file is about to lose its name, to *successor* if that takes it over."""

    def emptied(self, folder: DirNode) -> None:
        """The directory has lost its name; everything in it has, too."""

    def removed_whole(self, folder: DirNode) -> None:
        """The directory is about to lose its name together with all files in it, of which nothing else is told.

        They are plain (`Content.is_plain`), none is loaded, and no subscriber has said that it `follows` one of them.
        """

    def follows(self, inos: Collection[int]) -> Collection[int]:
        """Of which of these files something is kept that has to end with their names: `removed` is told of each."""
        return ()

    def released(self, node: FileNode) -> None:
        """Nobody has the file open any more."""

    def misplaced(self, folder: DirNode, name: bytes) -> None:
        """In the home tree, nothing of recfs's lies where it was expected, under *name* in *folder*. Perhaps somebody's
        does.
        """

    def noted(self, kind: EventKind, node: Node, detail: str = "") -> None:
        """Something else has become of *node*, of which its users may want to know; *detail*: in words, for people."""

    def purged(self, path: bytes, size_bytes: int) -> None:
        """What had that path is gone from the trash for good, or is about to be."""

    def rolled_back(self, path: bytes) -> None:
        """A file that was being overwritten has again what was committed before: nobody ends the overwrite."""

    def is_behind(self) -> bool:
        """Whether it has yet to write so much of what it was told that who tells of very many things should wait."""
        return False

    def limit_reached(self, user: str, limit: str) -> None:
        """A user was refused something because of a limit (`recfs quota show` has their names)."""


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

    def uncommitted(self, node: FileNode) -> None:
        """As `Subscriber.uncommitted`."""
        for each in self._subscribers:
            each.uncommitted(node)

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

    def renamed(self, node: Node, old: DirNode, old_name: bytes) -> None:
        """As `Subscriber.renamed`."""
        for each in self._subscribers:
            each.renamed(node, old, old_name)

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """As `Subscriber.removed`."""
        for each in self._subscribers:
            each.removed(node, successor)

    def emptied(self, folder: DirNode) -> None:
        """As `Subscriber.emptied`."""
        for each in self._subscribers:
            each.emptied(folder)

    def removed_whole(self, folder: DirNode) -> None:
        """As `Subscriber.removed_whole`."""
        for each in self._subscribers:
            each.removed_whole(folder)

    def follows(self, inos: Collection[int]) -> Collection[int]:
        """As `Subscriber.follows`, of any of them."""
        return {ino for each in self._subscribers for ino in each.follows(inos)}

    def released(self, node: FileNode) -> None:
        """As `Subscriber.released`."""
        for each in self._subscribers:
            each.released(node)

    def misplaced(self, folder: DirNode, name: bytes) -> None:
        """As `Subscriber.misplaced`."""
        for each in self._subscribers:
            each.misplaced(folder, name)

    def noted(self, kind: EventKind, node: Node, detail: str = "") -> None:
        """As `Subscriber.noted`."""
        for each in self._subscribers:
            each.noted(kind, node, detail)

    def purged(self, path: bytes, size_bytes: int) -> None:
        """As `Subscriber.purged`."""
        for each in self._subscribers:
            each.purged(path, size_bytes)

    def rolled_back(self, path: bytes) -> None:
        """As `Subscriber.rolled_back`."""
        for each in self._subscribers:
            each.rolled_back(path)

    def is_behind(self) -> bool:
        """As `Subscriber.is_behind`, of any of them."""
        return any(each.is_behind() for each in self._subscribers)

    async def caught_up(self) -> None:
        """Let others have their turn, and subscribers write what they were told. Not for those who answer requests."""
        await trio.lowlevel.checkpoint()
        while self.is_behind():  # noqa: ASYNC110  # each has its own way to write
            await trio.sleep(BEHIND_POLL_S)

    def limit_reached(self, user: str, limit: str) -> None:
        """As `Subscriber.limit_reached`."""
        for each in self._subscribers:
            each.limit_reached(user, limit)


__all__ = ["Events", "Subscriber"]
