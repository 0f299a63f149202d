"""A user moves from one store to another: copied, verified by the checksums of both, and then removed where it was."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from recfs.client.file_facts import WHOLE
from recfs.migration.transfer.beneath import looked_at, open_below, opened
from recfs.migration.transfer.bringing import Bringing
from recfs.migration.transfer.items import Ask, Item, Kind, Outcome, Problem, Unusable, Why
from recfs.migration.transfer.store import MountPlace, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.migration.transfer.items import Source

_CHANGED = "it changed while it was moved: run the command again"


class Moving:
    """One user's move. Every step can be done again: what is done already is found to be right, and left."""

    def __init__(
        self, read: Callable[[], Source], to: int, ask_to: Ask, outcome: Outcome, *,
        replace: bool, tell: Callable[[Outcome], None] | None = None,
    ) -> None:  # fmt: skip
        """*read* looks at the user in the old store anew; *to*: a descriptor of the new store's mount; *ask_to*: its
        daemon.
        """
        self._read = read
        self._to = to
        self._ask_to = ask_to
        self._outcome = outcome
        self._replace = replace
        self._tell = tell
        self._place = MountPlace()
        self._verified: list[Item] = []

    def copy(self) -> None:
        """Bring all to the new store, and verify it there. The outcome is clean if everything is the same in both."""
        outcome = self._outcome
        bringing = Bringing(
            self._to, self._ask_to, outcome, replace=self._replace, owners=True, tell=self._tell
        )  # fmt: skip
        bringing.bring(self._read())
        if not outcome.clean:
            return
        for each in self._read().items():
            if isinstance(each, Problem):
                outcome.problem(each.path, each.why, each.reason)
            elif self._is_same(each):
                self._verified.append(each)
            else:
                outcome.problem(each.path, Why.WRITING, _CHANGED)

    def _is_same(self, item: Item) -> bool:
        try:
            with opened(open_below(self._to, item.parts[:-1])) as folder:
                there = looked_at(folder, item.parts[-1])
                if there is None or stat.S_IFMT(there.st_mode) != _TYPES[item.kind]:
                    return False
                if item.kind is Kind.LINK:
                    return os.readlink(item.parts[-1], dir_fd=folder) == item.target
                if item.kind is Kind.DIRECTORY:
                    return True
                sha256 = item.sha256 or self._outcome.sums.get(item.path)
                flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
                with opened(os.open(item.parts[-1], flags, dir_fd=folder)) as file:
                    return sha256 is not None and self._place.sha256_of(file) == sha256
        except (OSError, Unusable):
            return False

    def remove(self, mount: int) -> None:
        """Remove in the old store what was verified, if it is still that. *mount*: a descriptor of its mount."""
        outcome = self._outcome
        for item in reversed(self._verified):
            try:
                with opened(open_below(mount, item.parts[:-1])) as folder:
                    if item.kind is Kind.DIRECTORY:
                        self._remove_folder(folder, item)
                    elif _is_still(folder, item, outcome.sums.get(item.path)):
                        os.unlink(item.parts[-1], dir_fd=folder)
                        outcome.removed += 1
                    else:
                        outcome.problem(item.path, Why.WRITING, _CHANGED)
            except FileNotFoundError:
                continue
            except OSError as error:
                outcome.problem(item.path, Why.REFUSED, f"it cannot be removed: {error.strerror or error}")
            if self._tell is not None:
                self._tell(outcome)

    @staticmethod
    def _remove_folder(folder: int, item: Item) -> None:
        if len(item.parts) > _FIXED_DEPTH:
            os.rmdir(item.parts[-1], dir_fd=folder)
        else:
            with contextlib.suppress(OSError):  # with the user
                os.rmdir(item.parts[-1], dir_fd=folder)


_FIXED_DEPTH = 3
"""users/<id>/recordings: the directories that go when the user goes."""
_TYPES = {Kind.FILE: stat.S_IFREG, Kind.DIRECTORY: stat.S_IFDIR, Kind.LINK: stat.S_IFLNK}


def _is_still(folder: int, item: Item, sha256: str | None) -> bool:
    """Whether an entry of the old store is what it was when it was verified. Raises OSError."""
    name = item.parts[-1]
    if item.kind is Kind.LINK:
        return os.readlink(name, dir_fd=folder) == item.target
    with opened(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)) as file:
        there, mine = looked_at(folder, name), os.fstat(file)
        same = there is not None and there.st_ino == mine.st_ino and stat.S_ISREG(mine.st_mode)
        if not same or (told(file, "user.recfs.state") or "writing") not in WHOLE:
            return False
        return sha256 is not None and told(file, "user.recfs.sha256") == sha256


__all__ = ["Moving"]
