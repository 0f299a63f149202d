"""Directories that become recordings: what is kept of them from then on, and which sources they bring."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from recfs.core.access.sources import SOURCE, check_source
from recfs.core.layout import Role, is_upload
from recfs.core.life import Life
from recfs.core.model import Kind
from recfs.core.retention import CHANGED_EVERY_NS
from recfs.errors import InvalidPath
from recfs.state.nodes import DirNode, FileNode

if TYPE_CHECKING:
    from recfs.state.nodes import Node
    from recfs.state.tree import Tree

MOST_SOURCES: Final = 1000
"""A directory with more files `source.*` becomes no recording: they are looked at in one stretch."""


def begin_life(tree: Tree, folder: DirNode) -> None:
    """A directory became a recording: one that had been a recording before goes on with the life it had. Atomic."""
    if folder.life is None:
        now_ns = tree.clock.steady_ns()
        folder.life = Life(created_ns=tree.clock.now_ns(), born_ns=now_ns, changed_ns=now_ns + CHANGED_EVERY_NS)
    tree.behind.recording(folder)


async def recall_life(tree: Tree, folder: DirNode) -> None:
    """Have what is kept of a directory that may become a recording again in memory, if anything is."""
    life = await tree.catalogue.recording(folder.ino) if folder.life is None else None
    if folder.life is None:
        folder.life = life


async def sources_brought(tree: Tree, node: Node | None, folder: DirNode) -> dict[bytes, bool]:
    """Files and links `source.*` of a directory that becomes a recording in *folder*: whether each is a file.

    Nothing of what is a recording already, and keeps what it has: it is renamed, or goes to another user. Exact until
    something is awaited. Raises InvalidPath for more than MOST_SOURCES.
    """
    if not isinstance(node, DirNode) or folder.role is not Role.USER_RECORDINGS or node.role is Role.RECORDING:
        return {}
    while True:
        written = tree.behind.written
        rows = await tree.catalogue.named(node.ino, SOURCE, MOST_SOURCES + 1) if not node.complete else ()
        if written == tree.behind.written:
            break  # else what was read may be outdated
    found = {
        row.name: row.kind == Kind.FILE
        for row in rows
        if row.kind != Kind.DIR and row.ino not in tree.nodes and not tree.behind.is_dirty(row.ino)
    }
    for name, child in node.children.items():
        if name.startswith(SOURCE) and not isinstance(child, DirNode):
            found[name] = isinstance(child, FileNode)
    if max(len(rows), len(found)) > MOST_SOURCES:
        raise InvalidPath(f"{node.path}: more than {MOST_SOURCES} files source.* make no recording")
    return found


def uploads_among(sources: dict[bytes, bool]) -> int:
    """How many of the sources that a directory brings count as uploads. Atomic."""
    return sum(is_file and is_upload(Role.RECORDING, name) for name, is_file in sources.items())


def check_brought(node: DirNode, sources: dict[bytes, bool], allowed: tuple[str, ...]) -> None:
    """Raise InvalidPath where a directory would bring a recording a source that is not *allowed*. Atomic."""
    for name in sorted(sources):
        try:
            check_source(Role.RECORDING, name, allowed)
        except InvalidPath as error:
            raise InvalidPath(f"{node.path or os.curdir}: {error}") from None


__all__ = ["MOST_SOURCES", "begin_life", "check_brought", "recall_life", "sources_brought", "uploads_among"]
