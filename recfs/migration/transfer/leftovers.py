"""Files of an earlier export at a destination that the store has no more, or cannot give as they should be."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from recfs.migration.transfer.beneath import looked_at, open_below, opened
from recfs.migration.transfer.items import Unusable
from recfs.migration.transfer.placing import PlainPlace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recfs.migration.transfer.items import Item, Outcome, Problem


class Leftovers:
    """What is to become of them. It hears of everything that the source gives."""

    def __init__(self, top: bytes, before: Mapping[bytes, str], *, delete: bool) -> None:
        """*before*: SHA256SUMS as it was; *top*: what is exported. *delete*: what is gone in the store is removed."""
        self._prefix = top + b"/"
        self._before = before
        self._delete = delete
        self._given: set[bytes] = set()
        self._unknown: set[bytes] = set()
        """What could not be given, and may have had something in it."""

    def heard(self, each: Item | Problem, *, is_problem: bool) -> None:
        """The source gave that."""
        self._given.add(each.path)
        if is_problem:
            self._unknown.add(each.path)

    def settle(self, to: int, outcome: Outcome) -> dict[bytes, str]:
        """Remove or name what is gone; give the lines of SHA256SUMS that stay. *to*: a descriptor. Raises OSError."""
        stay = {}
        for path, sha256 in self._before.items():
            if not path.startswith(self._prefix):
                stay[path] = sha256
                continue
            if path in outcome.sums or not _is_file(to, path):
                continue
            if self._is_gone(path):
                if self._delete and self._removed(to, path, sha256):
                    outcome.deleted += 1
                    continue
                outcome.leave(path)
            stay[path] = sha256
        return stay

    def _is_gone(self, path: bytes) -> bool:
        parts = path.split(b"/")
        above = {b"/".join(parts[:depth]) for depth in range(1, len(parts))}
        return path not in self._given and not above & self._unknown

    def _removed(self, to: int, path: bytes, sha256: str) -> bool:
        """Remove a file that still has the bytes that were exported, and the directories that are empty then."""
        *above, name = path.split(b"/")
        try:
            with opened(open_below(to, tuple(above))) as folder:
                with opened(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)) as file:
                    mine = os.fstat(file)
                    if not stat.S_ISREG(mine.st_mode) or PlainPlace().sha256_of(file) != sha256:
                        return False
                    there = looked_at(folder, name)
                    if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
                        return False
                os.unlink(name, dir_fd=folder)
        except (OSError, Unusable):
            return False
        while above and b"/".join(above) not in self._given and b"/".join(above).startswith(self._prefix):
            try:
                with opened(open_below(to, tuple(above[:-1]))) as folder:
                    os.rmdir(above.pop(), dir_fd=folder)
            except OSError:
                break
        return True


def _is_file(to: int, path: bytes) -> bool:
    *above, name = path.split(b"/")
    try:
        with opened(open_below(to, tuple(above))) as folder:
            there = looked_at(folder, name)
    except OSError:
        return False
    return there is not None and stat.S_ISREG(there.st_mode)


__all__ = ["Leftovers"]
