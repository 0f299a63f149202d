"""The md5 of committed files that have none yet: made when somebody asks for it, or S3 is to have it, and kept then.

A pass goes on though whoever asked has given up, so that who asks again finds it further on, or done.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.disk.commit.digests import Pass, Source
from recfs.disk.commit.hashing import Work, owner_of
from recfs.errors import IoFailure

if TYPE_CHECKING:
    from recfs.disk.backing_files import BackingFiles
    from recfs.disk.commit.digests import Digest
    from recfs.disk.commit.hashing import Hashing
    from recfs.state.nodes import FileNode
    from recfs.state.writebehind import WriteBehind

TRIES = 3
"""How often a file is looked for that is moved about."""


class Md5s:
    """Makes them."""

    def __init__(self, behind: WriteBehind, backing_files: BackingFiles, hashing: Hashing) -> None:
        self._behind = behind
        self._backing_files = backing_files
        self._hashing = hashing
        self._ends: dict[FileNode, trio.Event] = {}
        """Of the passes under way."""
        self._why: dict[FileNode, str] = {}
        """What the last pass over a file met, until it is told."""

    async def of(self, node: FileNode) -> bytes | None:
        """The md5 of a file's committed bytes; None where it has none by now. Raises IoFailure: they cannot be read.

        Also where they are not those that were committed.
        """
        why = ""
        for _ in range(TRIES):
            if node.md5 is not None or not node.state.is_whole or node.unlinked:
                break
            await self._backing_files.wait_for_moves(node)
            ended = self._ends.get(node) or self._begin(node)
            await ended.wait()
            why = self._why.pop(node, why)
        if node.md5 is None and node.state.is_whole and not node.unlinked:
            raise IoFailure(f"{node.path}: no md5 of its bytes: {why or 'they were moved about meanwhile'}")
        return node.md5

    def _begin(self, node: FileNode) -> trio.Event:
        source = partial(self._source, node)
        self._ends[node] = ended = trio.Event()
        done = partial(self._done, node)
        self._hashing.submit(Work(Pass(source(), node.bytes), owner_of(node), node.path, done, source))
        return ended

    def _source(self, node: FileNode) -> Source:
        is_alone = node.body is None or not node.body.writable
        return Source(self._backing_files.path_of(node), is_alone)

    def _done(self, node: FileNode, found: Digest | None) -> None:
        """Keep it, unless the file is another by now. Atomic."""
        if found is not None and node.state.is_whole and not node.unlinked:
            if found.error is not None:
                self._why[node] = str(found.error)
            elif found.sha256 != node.sha256:
                self._why[node] = "they are not those that were committed"
            else:
                node.md5 = found.md5
                self._behind.node(node)
        self._ends.pop(node).set()


__all__ = ["Md5s"]
