"""Keys at which somebody is at work: nobody else puts, moves or deletes anything there. Atomic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.tier.queue.journal import Journal


class Holds:
    """Shared by the queue's workers and by who copies objects besides."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.keys: set[str] = set()
        """Those that are held; the uploader keeps its own here, too."""

    def take(self, key: str) -> bool:
        """Hold *key*; False: somebody else does."""
        if key in self.keys:
            return False
        self.keys.add(key)
        return True

    def give_back(self, key: str) -> None:
        """Whoever has waited for *key* may go on."""
        self.keys.discard(key)
        self._journal.wake.set()


__all__ = ["Holds"]
