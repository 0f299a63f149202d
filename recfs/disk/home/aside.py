"""What the publisher could not do: left alone for a while, the longer the more often it failed, and told meanwhile."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import trio

from recfs.state.nodes import Garbage

if TYPE_CHECKING:
    from recfs.state.nodes import Node
    from recfs.state.problems import Problems

PART = "home tree"
RETRY_S = 1.0
Key = tuple[str, int]
"""("node", inode number) or ("garbage", its number)."""


class Aside:
    """Entries that failed, and when each is tried again. Atomic."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._known: dict[Key, tuple[float, float]] = {}
        """When each failed, and when it is tried again."""
        self._since: dict[Key, float] = {}
        """When each failed for the first time in a row."""
        self._dependants: set[Key] = set()
        """Those of them that failed because of another."""

    def __len__(self) -> int:
        return len(self._known)

    @property
    def next_s(self) -> float:
        """When the next one is tried again (`trio.current_time`); infinite when there is none."""
        return min((at for _, at in self._known.values()), default=float("inf"))

    def add(self, item: Node | Garbage, error: Exception) -> None:
        """It failed."""
        key, path = _key(item), item.path
        quiet = isinstance(error, OSError) and error.errno == errno.ECANCELED  # what it builds on is told
        problem = self._problems.note(PART, key, error, os.fsdecode(path), quiet=quiet)
        now = trio.current_time()
        self._known[key] = (now, now + max(RETRY_S, problem.delay_s))
        self._since.setdefault(key, now)
        if quiet:
            self._dependants.add(key)

    def lasting_s(self, item: Node | Garbage) -> float:
        """For how long it has failed again and again, in seconds; 0 if it has not before."""
        now = trio.current_time()
        return now - self._since.get(_key(item), now)

    def due(self, *, hurried: bool = False) -> list[Key]:
        """Those that have been left alone for long enough, which are not aside any more."""
        now = trio.current_time()
        due = [key for key, (failed, at) in self._known.items() if (failed + RETRY_S if hurried else at) <= now]
        for key in due:
            del self._known[key]
        return due

    def over(self, item: Node | Garbage) -> None:
        """It has succeeded, or is not wanted any more."""
        self.gone(_key(item))

    def gone(self, key: Key) -> None:
        """There is no such entry any more."""
        self._known.pop(key, None)
        self._problems.solved(PART, key)
        if self._since.pop(key, None) is None:
            return
        self._dependants.discard(key)
        # What failed because of this one, perhaps, need not wait any longer.
        now = trio.current_time()
        for each in self._dependants & self._known.keys():
            self._known[each] = (self._known[each][0], now)


def _key(item: Node | Garbage) -> Key:
    return ("garbage", item.gid) if isinstance(item, Garbage) else ("node", item.ino)


__all__ = ["PART", "RETRY_S", "Aside"]
