"""All files below a path, page by page: neither a large directory nor a large tree is ever in memory as a whole."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

import trio

from recfs.core.model import Kind, State
from recfs.errors import NotADirectory, Stale
from recfs.ports.rows import NodeRow
from recfs.state.nodes import DirNode, FileNode, Node

if TYPE_CHECKING:
    from recfs.state.tree import Tree

PAGE = 500


class Found:
    """A file as it was when its page was read."""

    __slots__ = ("_tree", "ctime_ns", "folder", "has_object", "ino", "mtime_ns", "parts", "size_bytes", "state")

    def __init__(self, tree: Tree, folder: DirNode, parts: tuple[bytes, ...], entry: FileNode | NodeRow) -> None:
        self._tree = tree
        self.ino, self.folder = entry.ino, folder
        self.parts = parts
        self.mtime_ns, self.ctime_ns = entry.mtime_ns, entry.ctime_ns
        if isinstance(entry, FileNode):
            self.state, self.size_bytes, self.has_object = entry.state, entry.bytes, entry.object is not None
        else:
            self.state, self.size_bytes = entry.state or State.INCOMPLETE, entry.size_bytes
            self.has_object = bool(entry.has_object)

    @property
    def path(self) -> str:
        """Its path then."""
        return os.fsdecode(b"/".join(self.parts))

    async def node(self) -> FileNode | None:
        """The file as it is now; None if it is gone."""
        node = await file_at(self._tree, self.ino)
        return None if node is None or node.unlinked else node


async def file_at(tree: Tree, ino: int) -> FileNode | None:
    """The file with this inode number, with a name or without one; None if there is none."""
    try:
        node = await tree.get(ino)
    except Stale:
        return None
    return node if isinstance(node, FileNode) else None


class Walk:
    """The file *top*, or all files below it. What is moved about meanwhile may be met twice, or not at all.

    No generator: one that is left half-way has to be closed by hand, or the collector finds it.
    """

    def __init__(self, tree: Tree, top: DirNode | FileNode) -> None:
        self._tree = tree
        self._found: deque[Found] = deque()
        self._pending = [(top.ino, 0)]
        if isinstance(top, FileNode):
            self._pending.clear()
            self._found.append(Found(tree, top.parent, tuple(top.parts()), top))

    def __aiter__(self) -> Walk:
        return self

    async def __anext__(self) -> Found:
        while not self._found:
            if not self._pending:
                raise StopAsyncIteration
            await self._read(*self._pending.pop())
            await trio.lowlevel.checkpoint()
        return self._found.popleft()

    async def _read(self, ino: int, after: int) -> None:
        """One page of a directory: its files are found, the directories below it wait their turn."""
        try:
            folder = await self._tree.directory(ino)
        except (Stale, NotADirectory):
            return
        page = await self._tree.page(folder, after, PAGE)
        if not page:
            return
        parts = tuple(folder.parts())
        self._pending.append((ino, page[-1].ino))
        below = [(each.ino, 0) for each in page if _kind(each) is Kind.DIR and each.ino != ino]
        self._pending.extend(reversed(below))
        for each in page:
            if isinstance(each, FileNode) or (isinstance(each, NodeRow) and each.kind is Kind.FILE):
                self._found.append(Found(self._tree, folder, (*parts, each.name), each))


def _kind(entry: Node | NodeRow) -> Kind:
    return Kind(entry.kind)
