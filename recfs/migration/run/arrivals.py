"""What rsync left at the targets: whether each file has come, whole, with its attributes, and is still its source.

rsync's exit code speaks of a batch, and what it says names only some files: what counts is what lies there.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from recfs.core.migration.rsync_ends import said_of
from recfs.core.migration.steps import Brought, Step, Way
from recfs.errors import FsError
from recfs.migration.run.hashing import is_shown
from recfs.migration.run.trees import mtime_of, reason_of, seen_of

if TYPE_CHECKING:
    from recfs.migration.run.batches import Item
    from recfs.migration.run.rsync import Ended
    from recfs.migration.run.trees import Tree


class Arrivals:
    """Judges what has come from a tree of sources."""

    def __init__(self, sources: Tree) -> None:
        self._sources = sources

    def taken(self, tree: Tree, item: Item, ended: Ended) -> str | None:
        """Look whether a file has come; None if so, else what rsync said of it, "" where it said nothing."""
        row = item.row
        try:
            there = tree.look(item.entry.target)
            # rsync spares a new file's place where somebody has put something since, and what it spares it passes over.
            spared = there is not None and item.way is Way.NEW and is_shown(tree, item.entry.target)
        except (OSError, FsError) as error:
            return reason_of(error)
        if there is None:
            row.step, row.brought, row.left = Step.PENDING, Brought.NOTHING, None
            return said_of(item.entry.target, ended.said)
        left = (there.st_size, mtime_of(there))
        whole = there.st_size == item.seen.size and (
            mtime_of(there) == item.seen.mtime_ns or (not ended.code and item.way is not Way.NEW)
        )
        if not whole or spared or not stat.S_ISREG(there.st_mode):
            return said_of(item.entry.target, ended.said)
        if not self._is_unchanged(item):
            row.left = left  # a newer one takes its place
            return ""
        row.step, row.left, row.problem = Step.COPIED, left, _carried(tree, item)
        return None

    def _is_unchanged(self, item: Item) -> bool:
        try:
            now = self._sources.look(item.entry.source)
        except (OSError, FsError):
            return False
        return now is not None and seen_of(now) == item.seen == seen_of(os.fstat(item.fd))


def _carried(tree: Tree, item: Item) -> str:
    """Give a file the extended attributes of its source; which it did not get, and why.

    rsync would ask the farm's links for them.
    """
    lost = {}
    for name in sorted(item.attributes):
        try:
            tree.set_attribute(item.entry.target, item.seen, name, os.getxattr(item.fd, name))
        except (OSError, FsError) as error:
            lost[name] = reason_of(error)
    told = ", ".join(f"{name} ({why})" for name, why in lost.items())
    return f"it came without extended attributes of its source: {told}" if lost else ""


__all__ = ["Arrivals"]
