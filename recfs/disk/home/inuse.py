"""Files whose inode the kernel may keep locked (i_rwsem) for as long as some program likes.

While such a file is open by passthrough, any program that reads it past the page cache, or writes to it, holds that
lock and faults in a buffer that may never answer (disk/contended.py). rename(2) and unlink(2) of the file wait for it
with the directories locked, and rename(2) between directories with all such renames of the file system locked out
(s_vfs_rename_mutex, fs/namei.c); chown(2), chmod(2) and utimensat(2) wait for it, too. So nothing of that is done to
these files: what is to happen to them waits until the last such open is released, or the last call has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.state.nodes import FileNode, Garbage


class InUse:
    """All of them, with how many reasons each has. Atomic."""

    def __init__(self) -> None:
        self._files: dict[int, tuple[FileNode, int]] = {}
        self.given_back: Callable[[int], None] = lambda ino: None
        """Called with the inode number of a file that is in use no more."""

    def begin(self, node: FileNode) -> None:
        """Add one reason why the file is in use."""
        self._files[node.ino] = (node, self._files.get(node.ino, (node, 0))[1] + 1)

    def end(self, node: FileNode) -> None:
        """Drop one reason why the file is in use."""
        count = self._files[node.ino][1] - 1
        if count:
            self._files[node.ino] = (node, count)
        else:
            del self._files[node.ino]
            self.given_back(node.ino)

    def has(self, node: FileNode) -> bool:
        """Whether the file is in use."""
        return node.ino in self._files

    def has_remains(self, entry: Garbage) -> bool:
        """Whether these bytes are in use: those of a file that lost its name and that somebody still has."""
        found = self._files.get(entry.ino)
        return found is not None and found[0].remains is entry


__all__ = ["InUse"]
