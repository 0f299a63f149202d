"""Which inodes stay in memory: beyond a number of them, those that nobody needs are unloaded.

What is dirty, open, pending or physically elsewhere stays, and what any coroutine still has in its hands.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from recfs.core.layout import Role
from recfs.state.nodes import DirNode, FileNode, Node

if TYPE_CHECKING:
    from recfs.state.writebehind import WriteBehind


def _idle_references() -> int:
    """What sys.getrefcount says, in a loop over `Tree.nodes`, of a node that only the two tables hold."""
    table = {0: object()}
    for node in table.values():
        return sys.getrefcount(node) + 1
    raise AssertionError


_IDLE_REFERENCES = _idle_references()


def _most_references(node: Node) -> int:
    """How many a node has at most that may be unloaded.

    With more than those of the two tables some coroutine goes on with this object after an await, or something lies in
    it on the disk: a second object for the same inode would not hear of what becomes of the first.
    """
    if not isinstance(node, DirNode):
        return _IDLE_REFERENCES
    return _IDLE_REFERENCES + (node.job is node) + (node.recording is node)


class Memory:
    """Unloads nodes of a tree. All of it atomic."""

    def __init__(self, nodes: dict[int, Node], behind: WriteBehind, cached_inodes: int) -> None:
        self._nodes = nodes
        self._behind = behind
        self.cached_inodes = cached_inodes
        """How many may stay loaded that nobody needs."""

    def shrink(self) -> int:
        """Unload nodes beyond `cached_inodes`, those the kernel forgot before others; returns how many."""
        excess = len(self._nodes) - self.cached_inodes
        if excess <= 0:
            return 0
        excess += self.cached_inodes // 10
        dropped = 0
        for spare_referenced in (True, False):
            victims: list[Node] = []
            for node in self._nodes.values():
                if len(victims) >= excess - dropped:
                    break
                if self._evictable(node, spare_referenced) and sys.getrefcount(node) <= _most_references(node):
                    victims.append(node)
            for node in victims:
                self._unload(node)
            dropped += len(victims)
            if dropped >= excess:
                break
        return dropped

    def let_go(self, ino: int) -> None:
        """Unload a node at once if nobody needs it, and the kernel does not know it: a mere look is no use of it."""
        node = self._nodes.get(ino)
        if node is not None and self._evictable(node, True) and sys.getrefcount(node) <= _most_references(node):
            self._unload(node)

    def unload(self, ino: int) -> bool:
        """Unload a node that nobody needs, though the kernel may know it; False if somebody does."""
        node = self._nodes.get(ino)
        if node is None:
            return True
        idle = self._evictable(node, False) and sys.getrefcount(node) <= _most_references(node)
        if idle:
            self._unload(node)
        return idle

    def forget(self, ino: int, count: int) -> bool:
        """The kernel dropped *count* references; unload a node it no longer knows. False if none is loaded."""
        node = self._nodes.get(ino)
        if node is None:
            return False
        node.kernel_refs = max(0, node.kernel_refs - count)
        is_full = len(self._nodes) > self.cached_inodes // 2
        idle = node.kernel_refs == 0 and is_full and self._evictable(node, True)
        if idle and sys.getrefcount(node) <= _most_references(node):
            self._unload(node)
        return True

    def _evictable(self, node: Node, spare_referenced: bool) -> bool:
        is_moving = node.pending or node.publishing or node.moved is not None
        if is_moving or node.unlinked or self._behind.is_dirty(node.ino):
            return False
        if spare_referenced and node.kernel_refs:
            return False
        if isinstance(node, DirNode):
            return not node.children and node.role > Role.TEMP_TOP
        if not isinstance(node, FileNode):
            return True
        return node.body is None and (node.state not in ("writing", "sealing") or node.is_unhashed)

    def _unload(self, node: Node) -> None:
        del self._nodes[node.ino]
        parent = node.parent
        if parent.children.get(node.name) is node:
            del parent.children[node.name]
            parent.complete = False
