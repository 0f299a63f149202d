"""All files below a path, page by page: neither a large directory nor a large tree is ever in memory as a whole."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
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


async def walk(tree: Tree, top: DirNode | FileNode) -> AsyncGenerator[Found, None]:
    """The file *top*, or all files below it. What is moved about meanwhile may be met twice, or not at all."""
    if isinstance(top, FileNode):
        yield Found(tree, top.parent, tuple(top.parts()), top)
        return
    pending = [(top.ino, 0)]
    while pending:
        ino, after = pending.pop()
        try:
            folder = await tree.directory(ino)
        except (Stale, NotADirectory):
            continue
        page = await tree.page(folder, after, PAGE)
        if not page:
            continue
        parts = tuple(folder.parts())
        pending.append((ino, page[-1].ino))
        below = [(each.ino, 0) for each in page if _kind(each) is Kind.DIR and each.ino != ino]
        pending.extend(reversed(below))
        for each in page:
            if isinstance(each, FileNode) or (isinstance(each, NodeRow) and each.kind is Kind.FILE):
                yield Found(tree, folder, (*parts, each.name), each)
        await trio.lowlevel.checkpoint()


def _kind(entry: Node | NodeRow) -> Kind:
    return Kind(entry.kind)
