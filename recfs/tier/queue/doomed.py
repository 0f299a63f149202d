"""Which objects are to go, and whose they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from recfs.ports.rows import JournalRow

_Key = TypeVar("_Key", str, int)


class Doomed:
    """The journal's deletions: by key, and by the file that had the object. All of it atomic."""

    def __init__(self) -> None:
        self._of_key: dict[str, set[int]] = {}
        self._of_file: dict[int, set[int]] = {}

    def add(self, row: JournalRow) -> None:
        """The object under the row's key is to go; known already, that changes nothing."""
        self._of_key.setdefault(row.key, set()).add(row.id)
        if row.ino:
            self._of_file.setdefault(row.ino, set()).add(row.id)

    def drop(self, row: JournalRow) -> None:
        """It is gone, or stays."""
        _discard(self._of_key, row.key, row.id)
        if row.ino:
            _discard(self._of_file, row.ino, row.id)

    def at(self, key: str) -> set[int]:
        """The rows that are to delete the object under *key*."""
        return self._of_key.get(key, set())

    def of(self, ino: int) -> set[int]:
        """The rows that are to delete objects that a file had, under whatever key."""
        return self._of_file.get(ino, set())


def _discard(rows: dict[_Key, set[int]], key: _Key, row_id: int) -> None:
    rows[key].discard(row_id)
    if not rows[key]:
        del rows[key]
