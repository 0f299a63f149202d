"""What the kernel is told of an inode: attributes, and how long it may believe them."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pyfuse3

from recfs.core.bounds import MAX_INT
from recfs.disk.refresh import refresh
from recfs.fs.fallback_entries import FallbackEntry
from recfs.state.nodes import BLOCK_BYTES, FileNode, LinkNode, Node

if TYPE_CHECKING:
    from recfs.ports.rows import NodeRow
    from recfs.state.tree import Tree

MAX_BLOCKS = MAX_INT // BLOCK_BYTES
"""Programs multiply st_blocks by 512."""
CACHE_S = 3600
"""How long the kernel may keep names and attributes: changes pass through it, or are followed by an invalidation."""


class Entries:
    """Nodes, views and rows as pyfuse3 wants them."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def of(self, seen: Node | FallbackEntry, ino: int = 0) -> pyfuse3.EntryAttributes:
        """Attributes of a node or view; *ino*: the number the kernel asked under."""
        entry = pyfuse3.EntryAttributes()
        if isinstance(seen, FallbackEntry):
            node: Node = seen.shared
            entry.st_ino = seen.ino
            entry.st_mode = stat.S_IFREG | seen.mode
            entry.st_uid, entry.st_gid = seen.uid, seen.gid
            entry.st_size = node.size
            entry.entry_timeout = entry.attr_timeout = 0
        else:
            node = seen
            foreign = False
            if isinstance(node, FileNode) and node.body is not None and node.body.unchecked_writers:
                refresh(self._tree, node)  # may change all of what is answered, the mode as well
                node.body.invalidation_pending = False
                foreign = node.body.foreign
            entry.st_ino = ino or node.ino
            entry.st_mode = node.format | node.mode
            entry.st_uid = node.uid
            entry.st_gid = node.gid
            # A view's number that now stands for an own copy is not the number the copy's changes are announced under.
            entry.attr_timeout = 0 if foreign or (ino and ino != node.ino) else CACHE_S
            if isinstance(node, FileNode):
                entry.st_size = size = node.bytes
                entry.st_blocks = min(-(-size // BLOCK_BYTES), MAX_BLOCKS)
            elif isinstance(node, LinkNode):
                entry.st_size = len(node.target)
            entry.st_nlink = 0 if node.unlinked else 1
            # In a directory with fallbacks a name may change its meaning when a shared file comes or goes.
            entry.entry_timeout = 0 if node.parent.fallback is not None else CACHE_S
        entry.st_atime_ns = node.atime_ns
        entry.st_mtime_ns = node.mtime_ns
        entry.st_ctime_ns = node.ctime_ns
        return entry

    def of_row(self, row: NodeRow) -> pyfuse3.EntryAttributes:
        """Attributes of a node that is listed without being loaded."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = row.ino
        if row.kind == "file":
            entry.st_mode = stat.S_IFREG | row.mode
            entry.st_size = size = row.size_bytes
            entry.st_blocks = min(-(-size // BLOCK_BYTES), MAX_BLOCKS)
        elif row.kind == "dir":
            entry.st_mode = stat.S_IFDIR | row.mode
        else:
            entry.st_mode = stat.S_IFLNK | row.mode
            entry.st_size = len(row.target or b"")
        entry.st_uid = row.uid
        entry.st_gid = row.gid
        entry.st_atime_ns = row.atime_ns
        entry.st_mtime_ns = row.mtime_ns
        entry.st_ctime_ns = row.ctime_ns
        entry.entry_timeout = entry.attr_timeout = CACHE_S
        return entry
