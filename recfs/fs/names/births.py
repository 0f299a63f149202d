"""Directories that become recordings, and what is kept of them from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.core.life import Life
from recfs.core.retention import CHANGED_EVERY_NS

if TYPE_CHECKING:
    from recfs.state.nodes import DirNode
    from recfs.state.tree import Tree


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


__all__ = ["begin_life", "recall_life"]
