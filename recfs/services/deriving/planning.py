"""Plans of chunks that nobody has asked for: of audio that `chunks.automatic` names, once it is known what is in it.

One at a time, owners in turns. What a death has left out, or a full queue, the sweep `derive` brings back.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

import trio

from recfs.core.layout import owner_of
from recfs.core.observing.kinds import EventKind
from recfs.disk.commit.lanes import Turns
from recfs.errors import FsError, InvalidArgument, MediaUnavailable
from recfs.services.deriving import PART
from recfs.state.events.subscribers import Subscriber
from recfs.state.nodes import FileNode
from recfs.state.problems import forever
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.core.media.chunks import ChunkRule
    from recfs.services.deriving.chunking import Chunking
    from recfs.state.nodes import DirNode, Node
    from recfs.state.tree import Tree

log = logging.getLogger("recfs.derive")

MOST_WAITING: Final = 5000
"""Files of one owner that wait at the same time."""
MOST_REFUSED: Final = 10_000
"""Versions of files of which it is remembered that they are not cut."""


class Planning(Subscriber):
    """Has plans be made."""

    def __init__(self, tree: Tree, chunking: Chunking, rules: Sequence[ChunkRule], *, looks: bool) -> None:
        """*looks*: files are looked into, and planned after that; else after their commit."""
        self._tree = tree
        self._chunking = chunking
        self.rules = rules
        self._looks = looks
        self._problems = tree.behind.problems
        self._turns: Turns[int] = Turns()
        self._owners: dict[int, str | None] = {}
        self._counts: Counter[str | None] = Counter()
        self._refused: dict[int, bytes] = {}
        """What is too short, or no audio: their checksums then, by inode number."""
        self._wake = trio.Event()

    # --- what is heard (atomic) ----------------------------------------------------------------------------------

    def noted(self, kind: EventKind, node: Node, detail: str = "") -> None:
        """It is known what is in a file."""
        if kind is EventKind.PROBED and isinstance(node, FileNode):
            self.hear(node.ino, tuple(node.parts()))

    def committed(self, node: FileNode) -> None:
        """Where nobody looks into files, nothing else comes."""
        if not self._looks:
            self.hear(node.ino, tuple(node.parts()))

    def renamed(self, node: Node, old: DirNode, old_name: bytes) -> None:
        """It may have the name only now. What is not known yet is heard of again."""
        if isinstance(node, FileNode) and node.sha256 is not None:
            self.hear(node.ino, tuple(node.parts()))

    def hear(self, ino: int, path: tuple[bytes, ...]) -> None:
        """A file has come, or was found: it is planned when it is its turn, if a rule takes it."""
        if ino in self._owners or not any(rule.takes(path) for rule in self.rules):
            return
        owner = owner_of(path)
        if self._counts[owner] >= MOST_WAITING:
            return
        self._owners[ino] = owner
        self._counts[owner] += 1
        self._turns.put(owner, ino)
        self._wake.set()

    # --- planning ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Plan, for ever."""
        await forever(PART, self._next, self._problems)

    async def _next(self) -> None:
        await trio.lowlevel.checkpoint()
        while (ino := self._turns.take()) is None:
            wake = self._wake
            await wake.wait()
            if self._wake is wake:
                self._wake = trio.Event()
        owner = self._owners.pop(ino)
        self._counts[owner] -= 1
        if not self._counts[owner]:
            del self._counts[owner]
        with self._problems.aside(PART, ("plan", ino), f"the plan of chunks of inode {ino}"):
            await self._plan(ino)

    async def _plan(self, ino: int) -> None:
        node = await file_at(self._tree, ino)
        if node is None or node.unlinked or node.sha256 is None:
            return
        sha256 = node.sha256
        if self._refused.get(ino) == sha256 or not any(rule.takes(tuple(node.parts())) for rule in self.rules):
            return
        try:
            await self._chunking.plan_once(node)
        except InvalidArgument as error:
            log.debug("%s has no plan of chunks: %s", node.path, error)
            self._refused[ino] = sha256
            while len(self._refused) > MOST_REFUSED:
                del self._refused[next(iter(self._refused))]
        except (FsError, MediaUnavailable) as error:  # it is being written, or S3 alone has it, or there is no ffprobe
            log.debug("%s has no plan of chunks yet: %s", node.path, error)


__all__ = ["Planning"]
