"""Reads of files in S3 that failed, for `recfs status`: the last few, until they succeed or need no S3 any more."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from recfs.errors import Stale
from recfs.ports.object_errors import (
    AccessRefused,
    ChecksumMismatch,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    TransferCancelled,
    WrongCredentials,
)
from recfs.state.nodes import FileNode
from recfs.state.problems import reason_of

if TYPE_CHECKING:
    from recfs.state.tree import Tree

KEPT = 100
"""So many files at most; of more, those that failed last."""
NAMED = 10
"""So many of them are named one by one."""
_OF_THE_FILE = (AccessRefused, ChecksumMismatch, ObjectChanged, ObjectMissing)
"""What says nothing of other files. Anything else is over for all of them as soon as one is read."""


@dataclass(slots=True)
class Miss:
    """A file whose last read from S3 failed."""

    ino: int
    error: Exception
    since_s: float
    """Wall-clock time of the first failure, in seconds since the epoch."""
    tries: int = 0

    @property
    def reason(self) -> str:
        """What went wrong, and what helps."""
        return reason_of(self.error)


class Misses:
    """Files whose last read from S3 failed."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._known: dict[int, Miss] = {}
        """By inode number, in the order of their last failures."""

    def failed(self, ino: int, error: Exception) -> None:
        """Bytes of a file that somebody waits for did not come. Atomic."""
        if isinstance(error, (ObjectArchived, TransferCancelled)):
            return  # its state tells; nobody reads any more
        miss = self._known.pop(ino, None) or Miss(ino, error, time.time())
        miss.error = error
        miss.tries += 1
        self._known[ino] = miss
        if len(self._known) > KEPT:
            del self._known[next(iter(self._known))]

    def came(self, ino: int) -> None:
        """Bytes of a file came. Atomic, and cheap."""
        if self._known:
            self._known.pop(ino, None)
            for each in [each for each in self._known.values() if not isinstance(each.error, _OF_THE_FILE)]:
                del self._known[each.ino]

    def of(self, ino: int) -> str | None:
        """Why the last read of a file failed; None if it did not."""
        miss = self._known.get(ino)
        return miss.reason if miss is not None else None

    @property
    def general(self) -> str | None:
        """The last failure that is no file's own, wrong credentials first; None if there is none."""
        found = [miss for miss in reversed(self._known.values()) if not isinstance(miss.error, _OF_THE_FILE)]
        found.sort(key=lambda miss: not isinstance(miss.error, WrongCredentials))
        return found[0].reason if found else None

    async def listed(self) -> tuple[list[dict[str, Any]], str | None]:
        """Those that failed last, newest first, wrong credentials before all; and the problem in one line."""
        paths: dict[int, str] = {}
        for ino in list(self._known):
            path = await self._path(ino)
            if path is None:
                self._known.pop(ino, None)
            else:
                paths[ino] = path
        known = [miss for miss in reversed(self._known.values()) if miss.ino in paths]
        known.sort(key=lambda miss: not isinstance(miss.error, WrongCredentials))
        if not known:
            return [], None
        first = known[0]
        count = "1 file" if len(known) == 1 else f"{len(known)} files" if len(known) < KEPT else f"{KEPT} files or more"
        path = paths[first.ino]
        what = f"reading {count} from S3 failed (EIO): {path}: {first.reason.removeprefix(f'{path}: ')}"
        return [
            {
                "path": paths[miss.ino], "reason": miss.reason, "tries": miss.tries,
                "since": datetime.fromtimestamp(miss.since_s, UTC).isoformat(timespec="seconds"),
            }
            for miss in known[:NAMED]
        ], what  # fmt: skip

    async def _path(self, ino: int) -> str | None:
        """The path of a file that still needs S3 to be read; None if it does not."""
        try:
            node = await self._tree.get(ino)
        except Stale:
            return None
        if not isinstance(node, FileNode) or node.unlinked or not node.state.is_remote:
            return None
        return node.path
