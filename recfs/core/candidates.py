"""What was found foreign and waits to be believed, until it was seen unchanged for a while. Time is an argument."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recfs.core.foreign import Finding, is_same

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recfs.core.foreign import Known, Seen

Key = tuple[int, bytes]
"""Inode number of the directory, and the name in it."""
MOST = 100_000
"""So many wait at a time; others are found again later."""

_COME = (Finding.NEW, Finding.CHANGED)
_LEFT = (Finding.GONE, Finding.RENUMBERED)
"""What had been there is not, or is at another place."""


@dataclass(slots=True)
class Candidate:
    """One of them."""

    finding: Finding
    seen: Seen | None
    since_s: float
    due_s: float
    row: Known | None
    """What the row says, of what is gone."""
    files: int
    """How many files go with a directory that is gone."""
    counts: bool
    """Whether it is a file that is gone, and nowhere else."""
    scanned: bool
    """Found by a scan, which has to end before what it found can be told from a move."""
    elsewhere: bool = False
    """Gone from here, and found at another place: it was renamed, and is no loss."""


class Candidates:
    """All of them."""

    def __init__(self) -> None:
        self._known: dict[Key, Candidate] = {}
        self._due: list[tuple[float, Key]] = []
        self._gone: dict[int, Key] = {}
        self._come: dict[int, Key] = {}
        """By inode number on the disk: what no row knows, and what has come in the place of something else."""
        self._gone_alone = 0
        self._gone_in_folders = 0
        self.crowded = False
        """Whether some found no room."""

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def get(self, key: Key) -> Candidate | None:
        """One of them."""
        return self._known.get(key)

    def is_ready(
        self, key: Key, finding: Finding, seen: Seen | None, now_s: float, quiet_s: float,
        *, row: Known | None = None, files: int = 0, counts: bool = False, scanned: bool = False,
    ) -> bool:  # fmt: skip
        """Note what an entry was found to be; whether it has been just so for *quiet_s*. Else it is due then."""
        seen = seen.lasting if seen is not None else None
        known = self._known.get(key)
        if known is not None and (known.finding, known.seen) == (finding, seen):
            known.scanned = known.scanned and scanned
            if now_s - known.since_s >= quiet_s:
                return True
            if known.due_s <= now_s:
                self.put_off(key, known.since_s + quiet_s)
            return False
        if known is not None:
            self.drop(key)
        elif len(self._known) >= MOST:
            self.crowded = True
            return False
        made = self._known[key] = Candidate(finding, seen, now_s, 0.0, row, files, counts, scanned)
        if finding in _LEFT:
            self._count(made, 1)
            if row is not None and row.home_ino is not None:
                self._gone[row.home_ino] = key
                self._pair(row.home_ino)
        elif finding in _COME and seen is not None:
            self._come[seen.st_ino] = key
            self._pair(seen.st_ino)
        self.put_off(key, now_s + quiet_s)
        return made.finding is not Finding.BUSY and quiet_s <= 0

    def _count(self, gone: Candidate, sign: int) -> None:
        if gone.finding is Finding.GONE and not gone.elsewhere:
            self._gone_alone += sign * gone.counts
            self._gone_in_folders += sign * gone.files

    def _pair(self, st_ino: int) -> None:
        """Tell whether what is gone has come at another place."""
        gone, come = (self._known.get(keys[st_ino]) if st_ino in keys else None for keys in (self._gone, self._come))
        if gone is None or gone.row is None:
            return
        self._count(gone, -1)
        gone.elsewhere = come is not None and come.seen is not None and is_same(gone.row, come.seen)
        self._count(gone, 1)

    def put_off(self, key: Key, due_s: float) -> None:
        """Look at it again then."""
        known = self._known.get(key)
        if known is not None:
            known.due_s = due_s
            heapq.heappush(self._due, (due_s, key))

    def drop(self, key: Key, *, taken: bool = False) -> None:
        """It is ours, or was seen to: *taken* for what it is now, so that what it was elsewhere stays no loss."""
        known = self._known.pop(key, None)
        if known is None:
            return
        if known.finding in _LEFT:
            self._count(known, -1)
            home_ino = known.row.home_ino if known.row is not None else None
            if home_ino is not None and self._gone.get(home_ino) == key:
                del self._gone[home_ino]
        elif known.finding in _COME and known.seen is not None and self._come.get(known.seen.st_ino) == key:
            del self._come[known.seen.st_ino]
            if not taken:
                self._pair(known.seen.st_ino)

    def forget(self, folder: int, names: Iterable[bytes]) -> None:
        """There is no such directory any more, by its inode number in the mount; some that waited in it were due."""
        for name in names:
            self.drop((folder, name))

    @property
    def gone_files(self) -> int:
        """How many files are gone, nowhere to be found, and still have rows: one by one, or with directories, of which
        each may be both.
        """
        return max(self._gone_alone, self._gone_in_folders)

    def gone_from(self, st_ino: int) -> Key | None:
        """Where the entry with that inode number on the disk is missed, or another has its place."""
        return self._gone.get(st_ino)

    def come_to(self, st_ino: int | None) -> Key | None:
        """Where an entry with that inode number has come up under a name that no row has."""
        key = self._come.get(st_ino) if st_ino is not None else None
        return key if key is not None and self._known[key].finding is Finding.NEW else None

    @property
    def next_s(self) -> float:
        """When the next is due; infinite when none is."""
        return self._due[0][0] if self._due else float("inf")

    def take_due(self, now_s: float) -> dict[int, set[bytes]]:
        """Names by directory that are to be looked at again now."""
        found: dict[int, set[bytes]] = {}
        while self._due and self._due[0][0] <= now_s:
            due_s, key = heapq.heappop(self._due)
            known = self._known.get(key)
            if known is not None and known.due_s == due_s:
                found.setdefault(key[0], set()).add(key[1])
        return found

    def missing(self) -> dict[int, set[bytes]]:
        """Names by directory of what is gone."""
        found: dict[int, set[bytes]] = {}
        for (folder, name), known in self._known.items():
            if known.finding is Finding.GONE:
                found.setdefault(folder, set()).add(name)
        return found


__all__ = ["MOST", "Candidate", "Candidates", "Key"]
