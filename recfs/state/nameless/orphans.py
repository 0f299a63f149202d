"""Inodes that lost their name while the kernel may still know them by number.

A path walk finds an inode, the name goes, and only then comes the open of what was found. On a local file system an
inode lives as long as anybody holds it. Here it does until the kernel forgets it (FORGET): with its attributes, and as
long as its bytes lie somewhere, with those (disk/remains.py). It is charged to nobody and has no row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.state.nodes import Node

KEPT = 16_384
"""How many at most: what the kernel never knew is never forgotten. The oldest go first."""


class Orphans:
    """All of them, by inode number."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def add(self, node: Node) -> None:
        """*node* has just lost its name. Atomic."""
        self._nodes[node.ino] = node
        if len(self._nodes) > KEPT:
            del self._nodes[next(iter(self._nodes))]

    def nodes(self) -> list[Node]:
        """All of them, the oldest first."""
        return list(self._nodes.values())

    def get(self, ino: int) -> Node | None:
        """What the number stood for, if the kernel may still ask for it."""
        return self._nodes.get(ino)

    def forget(self, ino: int, count: int) -> None:
        """The kernel dropped *count* references. Atomic."""
        node = self._nodes.get(ino)
        if node is not None:
            node.kernel_refs -= count
            if node.kernel_refs <= 0:
                del self._nodes[ino]


__all__ = ["KEPT", "Orphans"]
