"""Changes of attributes: mode, owner, size, times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recfs.core.bounds import time_ns
from recfs.disk.refresh import drop_privileges, refresh
from recfs.errors import IsADirectory
from recfs.ports.rows import Pending
from recfs.state.nodes import FileNode

if TYPE_CHECKING:
    from recfs.fs.files import OpenFiles
    from recfs.state.nodes import Node
    from recfs.state.tree import Tree


@dataclass(frozen=True, slots=True)
class Changes:
    """What a setattr request wants; None = leave. Times in ns since the epoch."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


class Attributes:
    """Changes them: the rows at once, the home tree through the publisher."""

    def __init__(self, tree: Tree, files: OpenFiles) -> None:
        self._tree = tree
        self._behind = tree.behind
        self._files = files

    async def change(self, node: Node, changes: Changes) -> Node:
        """Carry out what a setattr request wants. Raises IsADirectory, and what `OpenFiles.truncate` does."""
        if isinstance(node, FileNode):
            refresh(self._tree, node)  # else a later look would take the times of what was written before for new
        if changes.size is not None:
            if not isinstance(node, FileNode):
                raise IsADirectory(f"{node.path} is a directory")
            await self._files.truncate(node, changes.size)
        before = (node.mode, node.uid, node.gid, node.mtime_ns)
        now = self._tree.clock.now_ns()
        if changes.mode is not None:
            node.mode = changes.mode & 0o7777
        if changes.uid is not None:
            node.uid = changes.uid
        if changes.gid is not None:
            node.gid = changes.gid
        if isinstance(node, FileNode) and changes.mode is None and (changes.uid, changes.gid) != (None, None):
            drop_privileges(node)
        if changes.atime_ns is not None:
            node.atime_ns = time_ns(changes.atime_ns)
        if changes.mtime_ns is not None:
            node.mtime_ns = time_ns(changes.mtime_ns)
        node.ctime_ns = now
        if not node.unlinked:
            self._tree.activity(node.parent)
        self._publish_attributes(node)
        changed = (node.mode, node.uid, node.gid, node.mtime_ns) != before
        if changed and isinstance(node, FileNode):
            self._tree.events.described(node)
        return node

    def _publish_attributes(self, node: Node) -> None:
        """Have the home tree follow new attributes. Atomic."""
        if node.unlinked:
            return
        away = isinstance(node, FileNode) and node.state.is_remote
        if away or node.parent is node or getattr(node, "staging", None) is not None or node.pending & Pending.MAKE:
            self._behind.node(node)  # the root is the operator's; the others get their attributes when they arrive
        else:
            node.pending |= Pending.ATTRS
            self._behind.publish(node)


__all__ = ["Attributes", "Changes"]
