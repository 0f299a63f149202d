"""What is known of files' contents: which are to be looked into, written with the rows that they belong to.

A file whose name says what it is (`core/media/kinds.py`) is queued in the batch of its commit: a crash leaves both or
neither, and what was not looked into is found again. What was found follows the inode, so renames keep it; of a name
that says something else, and of other bytes, it says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from recfs.core.media.kinds import kind_of
from recfs.core.media.verdicts import Verdict
from recfs.core.observing.kinds import EventKind
from recfs.core.reuse.numbering import RESERVED
from recfs.ports.rows import MediaRow
from recfs.state.events import Subscriber
from recfs.state.nodes import FileNode
from recfs.state.writebehind import BatchSubscriber

if TYPE_CHECKING:
    from recfs.ports.batch import Batch
    from recfs.ports.catalogue import Catalogue
    from recfs.ports.clock import Clock
    from recfs.state.nodes import DirNode, Node
    from recfs.state.writebehind import WriteBehind

_AGAIN = frozenset({EventKind.RESTORED, EventKind.ADOPTED, EventKind.REPAIRED})
"""A file has committed bytes by other means than a commit."""

_NOBODYS = bytes(32)
"""The checksum of no file."""


class MediaRows(Subscriber, BatchSubscriber):
    """Queues, and answers what is known. All but `of` is atomic."""

    def __init__(self, behind: WriteBehind, catalogue: Catalogue, clock: Clock, *, enabled: bool) -> None:
        """*enabled* False: nothing is queued; what is known from before is told."""
        self._behind = behind
        self._catalogue = catalogue
        self._clock = clock
        self._enabled = enabled
        self._unwritten: dict[int, MediaRow] = {}
        """What is on its way to the catalogue."""
        self._carries: list[MediaRow] = []
        self.is_looking = False
        """Whether somebody looks into recordings, and can."""
        self.upload_wait_s = 0.0
        """How long an upload waits for that."""
        self.queued = trio.Event()
        """Set when there is something new to be looked into; whoever waits puts another in its place."""

    # --- asking --------------------------------------------------------------------------------------------------

    async def of(self, node: FileNode) -> MediaRow | None:
        """What is known of the bytes that the file has; None: nothing, or they are no kind that is looked into."""
        row = self._unwritten.get(node.ino)
        if row is None and node.sha256 is not None:
            row = await self._catalogue.media(node.ino)
            row = self._unwritten.get(node.ino, row)
        return row if row is not None and self.is_about(row, node) else None

    async def is_reserved(self, node: FileNode) -> bool:
        """Whether a file only holds a name that was given out (`recfs next-version`), and nobody has written to it."""
        if node.bytes:
            return False
        kept = node.xattrs if node.xattrs is not None else await self._catalogue.xattrs(node.ino)
        return RESERVED in (node.xattrs if node.xattrs is not None else kept)

    @staticmethod
    def is_about(row: MediaRow, node: FileNode) -> bool:
        """Whether a row says something of the bytes and the name that a file has now."""
        kind = kind_of(node.name)
        return row.sha256 == node.sha256 and (kind is None or kind.checker.value == row.checker)

    # --- changing ------------------------------------------------------------------------------------------------

    def queue(self, node: FileNode, reason: str = "") -> bool:
        """Have a committed file looked into, or once more; False where its name does not say what it is.

        *reason*: in words, for whoever looks.
        """
        kind = kind_of(node.name)
        if kind is None or node.sha256 is None or node.unlinked:
            return False
        now_ns = self._clock.now_ns()
        self.put(MediaRow(node.ino, node.sha256, kind.checker.value, Verdict.PENDING, reason, queued_ns=now_ns))
        self.queued.set()
        return True

    def pass_over(self, row: MediaRow) -> None:
        """Have nothing be known of a queued file, as of one whose name is none that is looked into.

        What the row is about is no file's bytes, so that it says nothing (`is_about`), and no look is due.
        """
        self.put(row._replace(sha256=_NOBODYS, verdict=Verdict.WHOLE, reason="", facts=""))

    def put(self, row: MediaRow) -> None:
        """Remember a row."""
        self._unwritten[row.ino] = row
        self._behind.media(row)

    # --- what happens --------------------------------------------------------------------------------------------

    def committed(self, node: FileNode) -> None:
        """As `Subscriber.committed`."""
        if self._enabled and kind_of(node.name) is not None:
            self.queue(node)

    def modified(self, node: FileNode) -> None:
        """As `Subscriber.modified`: a name that was reserved is written to."""
        if node.bytes or node.xattrs == {}:
            return
        if node.xattrs is not None:
            if RESERVED not in node.xattrs:
                return
            del node.xattrs[RESERVED]
            self._behind.node(node)
        self._behind.xattr(node.ino, RESERVED, None)

    def renamed(self, node: Node, old: DirNode, old_name: bytes) -> None:
        """As `Subscriber.renamed`: another kind of name is another question."""
        if not self._enabled or not isinstance(node, FileNode) or kind_of(node.name) is kind_of(old_name):
            return
        if node.state.is_whole or node.state.is_remote:
            self.queue(node)

    def noted(self, kind: EventKind, node: Node, detail: str = "") -> None:
        """As `Subscriber.noted`."""
        if self._enabled and kind in _AGAIN and isinstance(node, FileNode) and node.state.is_whole:
            self.queue(node)

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """As `Subscriber.removed`."""
        self._unwritten.pop(node.ino, None)

    # --- what is written -----------------------------------------------------------------------------------------

    def writing(self, batch: Batch) -> None:
        """As `BatchSubscriber.writing`."""
        self._carries = batch.media

    def written(self) -> None:
        """As `BatchSubscriber.written`."""
        for row in self._carries:
            if self._unwritten.get(row.ino) is row:
                del self._unwritten[row.ino]
        if self._carries:
            self._carries = []
            self.queued.set()


__all__ = ["MediaRows"]
