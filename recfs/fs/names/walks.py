"""What open(2) does about ESTALE: the kernel walks the path once more, and then no more (LOOKUP_REVAL, fs/namei.c).

So an open that finds nothing under its number any more is told so once, and looks under the name again; whoever is told
twice would get an error that no local file system has.
"""

from __future__ import annotations

import trio

KEPT = 1024
"""How many threads are remembered that were told."""
KEPT_S = 1.0
"""How long: the kernel walks again at once, if it can."""


class Walks:
    """Who was told to walk again. All of it atomic."""

    def __init__(self) -> None:
        self._told: dict[int, float] = {}

    def is_second(self, pid: int) -> bool:
        """Whether an open of this thread is one that was told so; asked once by each."""
        if not self._told:
            return False
        return self._told.pop(pid, -KEPT_S) + KEPT_S > trio.current_time()

    def note(self, pid: int) -> None:
        """Remember that this thread is being told to walk again."""
        self._told[pid] = trio.current_time()
        if len(self._told) > KEPT:
            del self._told[next(iter(self._told))]


__all__ = ["Walks"]
