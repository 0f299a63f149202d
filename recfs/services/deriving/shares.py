"""Whose product is made next: owners of recordings take turns, and none of them has all programs.

What runs is not taken from anybody, and may run for as long as `deriving.timeout`: so of several programs one is kept
for others than whoever has the rest. Where there is one alone (`deriving.jobs` = 1) others wait for what runs.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from recfs.core.layout import owner_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from recfs.core.media.derived import Derived, Product
    from recfs.state.nodes import DirNode

    Key = tuple[int, Product]


class Shares:
    """Who has what. All of it is atomic."""

    def __init__(self, jobs: int) -> None:
        self._most = max(1, jobs - 1)
        self._owners: dict[int, str | None] = {}
        """Of the recordings of which something is open, by the inode number of their directory."""
        self._at_work: Counter[str | None] = Counter()
        self._served: dict[str | None, int] = {}
        """Whose turn was when, by number."""
        self._turn = 0

    def learn(self, folder: DirNode) -> None:
        """Whose a recording is."""
        self._owners[folder.ino] = owner_of(tuple(folder.parts()))

    def forget(self, folder: int) -> None:
        """Nothing of a recording is open any more."""
        self._owners.pop(folder, None)

    def pick(
        self, waiting: Mapping[Key, Derived], busy: Collection[Key], now_ns: int
    ) -> tuple[Derived | None, int | None]:
        """What is made now; and when something is due, where nothing is that may be (`Clock.steady_ns`).

        Of those who have the fewest programs, of whoever had no turn for the longest time, what was asked for first.
        """
        best: tuple[int, int] | None = None
        found, soonest_ns = None, None
        for key, record in waiting.items():
            if key in busy:
                continue
            if record.next_ns > now_ns:
                soonest_ns = record.next_ns if soonest_ns is None else min(soonest_ns, record.next_ns)
                continue
            owner = self._owners.get(record.folder)
            rank = (self._at_work.get(owner, 0), self._served.get(owner, 0))
            if rank[0] < self._most and (best is None or rank < best):
                best, found = rank, record
                if best == (0, 0):
                    break
        return found, soonest_ns

    def begin(self, folder: int) -> str | None:
        """A product of a recording is made; returns whose turn that is, for `end`."""
        owner = self._owners.get(folder)
        self._turn += 1
        self._served[owner] = self._turn
        self._at_work[owner] += 1
        return owner

    def end(self, owner: str | None) -> None:
        """It is made, or not."""
        self._at_work[owner] -= 1
        if not self._at_work[owner]:
            del self._at_work[owner]
        if not self._owners:
            self._served.clear()


__all__ = ["Shares"]
