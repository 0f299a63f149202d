"""Directories that a look could tell nothing of: they are looked at again until one could.

A look finds no directory where the row has it while that was moved, removed or replaced past recfs and nobody has seen
to it yet, or while it is being made. Then nothing can be said of its entries, and the event that led to the look is
spent. So the directory is remembered until it was looked at: as soon as the one that was missing above it is found, and
by the clock, after a growing delay, whatever has become of it.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from recfs.disk.watching.inotify import Marks
    from recfs.state.tree import Tree

FIRST_S = 1.0
"""How long the first time."""
LONGEST_S = 60.0
MOST = 10_000
"""So many are remembered; when there were more, everything is looked at once these were."""


class Again:
    """All of them, by inode number in the mount. Atomic."""

    def __init__(self, tree: Tree, marks: Marks) -> None:
        self._tree = tree
        self._marks = marks
        self._known: dict[int, tuple[float, float]] = {}
        """How long each was left alone, and until when (`trio.current_time`)."""
        self._due: list[tuple[float, int]] = []
        self._crowded = False

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, ino: int) -> bool:
        return ino in self._known

    @property
    def next_s(self) -> float:
        """When the next is due (`trio.current_time`); infinite when none is."""
        return self._due[0][0] if self._due else float("inf")

    def want(self, ino: int) -> None:
        """A look could tell nothing of the directory *ino*."""
        known = self._known.get(ino)
        now_s = trio.current_time()
        if known is None and len(self._known) >= MOST:
            self._crowded = True
            return
        if known is not None and known[1] > now_s:
            return  # it is to be looked at already: others led here meanwhile
        delay_s = FIRST_S if known is None else min(known[0] * 2, LONGEST_S)
        self._known[ino] = (delay_s, now_s + delay_s)
        heapq.heappush(self._due, (now_s + delay_s, ino))

    def looked(self, ino: int) -> None:
        """It was looked at, or there is no such directory any more."""
        self._known.pop(ino, None)

    def found(self, folder: int) -> None:
        """A directory that was missing has been found, or another took its place: it and all that were looked for in
        it are looked at now.
        """
        self._marks.whole(folder)
        for ino in self._known:
            if self._is_below(ino, folder):
                self._marks.whole(ino)

    def _is_below(self, ino: int, folder: int) -> bool:
        node = self._tree.nodes.get(ino)
        while node is not None and node.parent is not node:
            if node.ino == folder:
                return True
            node = node.parent
        return False

    def take_due(self) -> list[int]:
        """Those that are to be looked at now."""
        now_s = trio.current_time()
        due: list[int] = []
        while self._due and self._due[0][0] <= now_s:
            due_s, ino = heapq.heappop(self._due)
            known = self._known.get(ino)
            if known is not None and known[1] == due_s:
                due.append(ino)
        return due

    def take_crowded(self) -> bool:
        """Whether everything is to be looked at, since not all found room; this is told once."""
        crowded, self._crowded = self._crowded and not self._known, self._crowded and bool(self._known)
        return crowded


__all__ = ["Again"]
