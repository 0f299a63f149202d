"""What guards the rows of a store against a disk that is not there, and against a command that went wrong.

A disk that is not mounted looks like one that everything was removed from. So what is gone loses its row only while it
is little, and the store's own directories are where they were; else all of it is kept, and told, until it is back or
the operator says that it was meant.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from typing import TYPE_CHECKING

import trio

from recfs.core.foreign import GONE_WITHIN_S, may_forget
from recfs.core.layout import TOP_DIRS
from recfs.errors import IoFailure
from recfs.fs.foreign.judging import PART

if TYPE_CHECKING:
    from recfs.core.candidates import Candidates
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.watch")

MISSING = "missing"
"""The problem of what is gone, and was not forgotten."""


class Missing:
    """Decides whether rows may go. Atomic."""

    def __init__(self, tree: Tree, store: LocalStore, candidates: Candidates) -> None:
        self._tree = tree
        self._problems = tree.behind.problems
        self._store = store
        self._candidates = candidates
        self._lately: deque[tuple[float, int]] = deque()
        """When how many files lost their rows."""
        self._accepted_until_s = 0.0
        self._tops = self._top_levels()
        self.held: str | None = None
        """Why rows of what is gone are kept; None while nothing keeps them."""

    def may_forget(self, *, is_safe: bool = False) -> bool:
        """Whether all that is gone may lose its rows; else that is told. *is_safe*: it is of something that S3 has, or
        that was found elsewhere.
        """
        now_s = trio.current_time()
        while self._lately and self._lately[0][0] < now_s - GONE_WITHIN_S:
            self._lately.popleft()
        gone, files = self._candidates.gone_files, self._tree.root.rfiles
        why = None
        if self._top_levels() != self._tops:
            why = "directories of the store itself are not where they were: is its disk mounted?"
        elif is_safe or self.is_accepted():
            return True
        elif not may_forget(gone, sum(each for _, each in self._lately), files):
            why = (
                f"{gone:,} of {files:,} files are gone from the disk at once; their names stay until they are back, or"
                " `recfs watch accept` says that they were removed on purpose"
            )
        if why is None:
            self._let_go()
            return True
        if self.held is None:
            log.error("%s", why)
        self.held = why
        self._problems.note(PART, MISSING, IoFailure(why), quiet=True)
        return False

    def is_accepted(self) -> bool:
        """Whether what is missing now was removed on purpose."""
        return trio.current_time() < self._accepted_until_s

    def forgotten(self) -> None:
        """A file lost its row."""
        self._lately.append((trio.current_time(), 1))

    def accept(self) -> int:
        """All that is gone was removed on purpose; tells how many files that are."""
        self._accepted_until_s = trio.current_time() + GONE_WITHIN_S
        self._let_go()
        return self._candidates.gone_files

    def look_again(self) -> bool:
        """Something has come back, perhaps; whether nothing is held any more that was."""
        if self.held is None or self._candidates.gone_files or self._top_levels() != self._tops:
            return False
        self._let_go()
        return True

    def _let_go(self) -> None:
        self.held = None
        self._problems.solved(PART, MISSING)

    def _top_levels(self) -> list[int]:
        """Inode numbers of the store's own directories, as paths lead there now; 0 where they lead to nothing."""
        found = []
        for path in (os.fsencode(self._store.private), *(self._store.home([top]) for top in TOP_DIRS)):
            try:
                found.append(os.stat(path, follow_symlinks=False).st_ino)
            except OSError:
                found.append(0)
        return found


__all__ = ["MISSING", "Missing"]
