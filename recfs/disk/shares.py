"""How many of the daemon's descriptors each user's open files keep, so that one user leaves some to the others.

Every open file keeps a descriptor of the daemon, more while it is overwritten or fetched (`BackingFile`); it counts for
each user who has it open. Users may go on opening while they keep fewer than there are left for all: so one alone
comes to half of them, another to half of the rest, and there is always a rest. On a local disk the limit is each
process's own, and nobody takes another's. root, the daemon's user and the operator are excepted, as root is from
fs.file-max (proc_sys_fs(5)).

What is counted is kept up at each first open and last release of a body by a user, and at each `BackingFile.swap`.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final

from recfs.disk.diskio import file_limit, kept_files
from recfs.disk.staging import pool_size
from recfs.errors import TooManyFiles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recfs.state.backing_file import BackingFile

log = logging.getLogger("recfs.fs")

FLOOR: Final = 16
"""So many are nobody's concern, however few are left."""
WARN_EVERY_S: Final = 60.0
"""A user's refusals are logged once in this time."""
NAMED: Final = 5
"""So many users are named by `recfs status`."""


class Shares:
    """The descriptors of open files, by user. Everything is atomic."""

    def __init__(self, operators: Iterable[int] = ()) -> None:
        self._excepted = {0, os.geteuid(), *operators}
        """Users who may have all there are."""
        self._counts: dict[int, int] = {}
        self._used = 0
        self._left = 0
        self._told: dict[int, float] = {}
        self._measure()

    def _measure(self) -> None:
        """The limit can be changed from outside (prlimit(2))."""
        self._left = file_limit() - kept_files() - pool_size() - self._used

    def count(self, uid: int) -> int:
        """How many the open files of a user keep."""
        return self._counts.get(uid, 0)

    def admit(self, uid: int) -> None:
        """Raises TooManyFiles when the user keeps his share already."""
        count = self._counts.get(uid, 0)
        if count >= self._left and self._is_too_much(uid, count):
            raise TooManyFiles(f"uid {uid} keeps {count} of the daemon's descriptors already")

    def _is_too_much(self, uid: int, count: int) -> bool:
        if count < FLOOR or uid in self._excepted:
            return False
        self._measure()
        if count < self._left:
            return False
        now = time.monotonic()
        if now - self._told.get(uid, -WARN_EVERY_S) >= WARN_EVERY_S:
            self._told = {each: when for each, when in self._told.items() if now - when < WARN_EVERY_S} | {uid: now}
            log.warning("%s", self._words(uid, count))
        return True

    def _words(self, uid: int, count: int) -> str:
        return (
            f"uid {uid} has files open that keep {count:,} of recfs's descriptors, and {max(self._left, 0):,} are left "
            f"for all: more are refused (EMFILE) until some are closed"
        )

    @property
    def problems(self) -> list[str]:
        """Who has so many files open that more are refused, for people."""
        self._measure()
        least = max(FLOOR, self._left)
        greedy = [(count, uid) for uid, count in self._counts.items() if count >= least and uid not in self._excepted]
        told = [self._words(uid, count) for count, uid in sorted(greedy, reverse=True)[:NAMED]]
        return told + ([f"… and {len(greedy) - NAMED} more uids"] if len(greedy) > NAMED else [])

    def opened(self, body: BackingFile, uid: int) -> None:
        """The user has one more handle on it."""
        users = body.users
        count = users.get(uid, 0)
        users[uid] = count + 1
        if count:
            return
        if len(users) == 1:
            body.shares = self
            body.charged = 1 + len(body.retired) + (body.download is not None)
            self._used += body.charged
            self._left -= body.charged
        self._counts[uid] = self._counts.get(uid, 0) + body.charged

    def closed(self, body: BackingFile, uid: int) -> None:
        """One less."""
        users = body.users
        count = users[uid] - 1
        if count:
            users[uid] = count
            return
        del users[uid]
        count = self._counts[uid] - body.charged
        if count:
            self._counts[uid] = count
        else:
            del self._counts[uid]
        if not users:
            self._used -= body.charged
            self._left += body.charged

    def grown(self, body: BackingFile) -> None:
        """It keeps one descriptor more, by those who have it open."""
        body.charged += 1
        self._used += 1
        self._left -= 1
        for uid in body.users:
            self._counts[uid] += 1


__all__ = ["FLOOR", "WARN_EVERY_S", "Shares"]
