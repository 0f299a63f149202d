"""Where nodes physically lie: the local path behind a node, whatever its row is still waiting for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.state.nodes import DirNode, Node
    from recfs.stores.local import LocalStore

Place = tuple["DirNode | None", bytes]
"""A physical directory (None = the holding area) and a name in it."""


class PathResolver:
    """Local paths of nodes. A path holds until the next await, and only while the publisher does not touch it."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def local(self, node: Node) -> bytes:
        """Local path of the node's bytes: in staging, or in the home tree."""
        staging = getattr(node, "staging", None)
        return self._store.staging(staging) if staging is not None else self.home(node)

    def home(self, node: Node) -> bytes:
        """Local path of the node's entry in the home tree."""
        names: list[bytes] = []
        while True:
            moved = node.moved
            if moved is None:
                parent = node.parent
                if parent is node:
                    return self._store.home(reversed(names))
                names.append(node.name)
                node = parent
                continue
            folder, name = moved
            names.append(name)
            if folder is None:
                return b"/".join((self._store.holding_area, *reversed(names)))
            node = folder

    @staticmethod
    def way(node: Node) -> list[int]:
        """Inode numbers of the node and of the directories that it physically lies in: whose moves change its path.

        Its name may lead through others, when it has yet to follow a rename.
        """
        inos = [node.ino]
        while True:
            folder = node.parent if node.moved is None else node.moved[0]
            if folder is None or folder is node:
                return inos
            inos.append(folder.ino)
            node = folder

    def at(self, place: Place) -> bytes:
        """Local path of a physical place."""
        folder, name = place
        return (self._store.holding_area if folder is None else self.home(folder)) + b"/" + name
