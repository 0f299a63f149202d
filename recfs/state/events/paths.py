"""Paths of what is made, renamed and removed: a directory's own is put together once, not for each file in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from recfs.core.layout import is_shallow, kept_path

if TYPE_CHECKING:
    from recfs.state.nodes import DirNode, Node

KNOWN: Final = 4096
"""Of so many directories the path is kept."""


class KeptPaths:
    """`kept_path` of nodes. Atomic."""

    def __init__(self) -> None:
        self._before: dict[int, bytes] = {}
        """By inode number of a directory: what comes before the names in it."""

    def of(self, node: Node) -> bytes:
        """The path of *node*; the one it had, for an unlinked one."""
        folder = node.parent
        if folder is node:
            return b""
        before = self._before.get(folder.ino)
        return before + node.name if before is not None else self._put_together(folder, node.name)

    def below(self, folder: DirNode, name: bytes) -> bytes:
        """The path of what is called *name* in *folder*."""
        before = self._before.get(folder.ino)
        return before + name if before is not None else self._put_together(folder, name)

    def _put_together(self, folder: DirNode, name: bytes) -> bytes:
        names = folder.parts()
        if is_shallow(len(names) + 1):  # else a long name may have to be cut
            if len(self._before) >= KNOWN:
                self._before.clear()
            self._before[folder.ino] = b"/".join([*names, b""])
        names.append(name)
        return kept_path(names)

    def moved(self) -> None:
        """A directory has another path, and so has everything below it."""
        self._before.clear()


__all__ = ["KeptPaths"]
