"""What waits to be uploaded and can be: in all, and by the user whose files they are.

Only this counts in the budget of local copies (fs/backlog.py, tier/evictor.py). Set aside is what will not leave by
itself, whatever the others do: a file whose name looks temporary waits for a rename, one that S3 refuses for somebody
who puts it right, one that is watched for its time. None may keep others from writing; `recfs status` names them.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.ports.rows import JournalRow


class Why(StrEnum):
    """Why an upload is set aside."""

    NAME = "name"
    """Its name looks temporary."""
    REFUSED = "refused"
    """S3 refuses this file, and will do so again. Moves and deletions may be set aside so, too, and count nothing."""
    BROKEN = "broken"
    """What is in the file is broken, and no rule says that it goes all the same."""
    WATCHED = "watched"
    """S3 has it, and may yet replace it by what it was asked before: it is looked at until that is over. So may be what
    the object says of its file; a move that writes it again then counts nothing."""


class Unsent:
    """The tally. All of it atomic."""

    def __init__(self) -> None:
        self.total_bytes = 0
        self.watched_bytes = 0
        """Of files that S3 has, and whose local copies have to stay for a while all the same."""
        self.watched_files = 0
        self._by_owner: Counter[str | None] = Counter()
        self._rows: dict[int, tuple[int, str | None]] = {}
        self._aside: dict[int, Why] = {}

    def put(self, row: JournalRow, owner: str | None) -> None:
        """An upload was journalled, or has another size. *owner*: the user; None for shared files."""
        why = self.why_aside(row.id)
        self.drop(row.id)
        self._rows[row.id] = (row.size_bytes, owner)
        self._count(row.id, 1)
        if why is not None:
            self.set_aside(row.id, why)

    def drop(self, row_id: int) -> None:
        """The upload is done, or not wanted any more."""
        self.count_again(row_id)
        self._count(row_id, -1)
        self._rows.pop(row_id, None)

    def set_aside(self, row_id: int, why: Why) -> None:
        """Stop counting the row: it will not leave by itself."""
        self.count_again(row_id)
        self._count(row_id, -1)
        self._aside[row_id] = why
        self._count_watched(row_id, 1)

    def count_again(self, row_id: int) -> None:
        """Count the row again."""
        if row_id in self._aside:
            self._count_watched(row_id, -1)
            del self._aside[row_id]
            self._count(row_id, 1)

    def _count_watched(self, row_id: int, sign: int) -> None:
        if self._aside[row_id] is Why.WATCHED and row_id in self._rows:
            self.watched_bytes += sign * self._rows[row_id][0]
            self.watched_files += sign

    def why_aside(self, row_id: int) -> Why | None:
        """Why the upload does not count; None if it does."""
        return self._aside.get(row_id)

    def owner_of(self, row_id: int) -> str | None:
        """Whose file it is."""
        return self._rows[row_id][1] if row_id in self._rows else None

    def of(self, owner: str | None) -> int:
        """Bytes of one user's files."""
        return self._by_owner[owner]

    def share_bytes(self, budget_bytes: int, owner: str | None) -> int:
        """What of the budget is *owner*'s: all who have something waiting, and they, get the same."""
        return budget_bytes // (len(self._by_owner) + (owner not in self._by_owner))

    def _count(self, row_id: int, sign: int) -> None:
        if row_id not in self._rows or row_id in self._aside:
            return
        size, owner = self._rows[row_id]
        self.total_bytes += sign * size
        self._by_owner[owner] += sign * size
        if not self._by_owner[owner]:
            del self._by_owner[owner]
