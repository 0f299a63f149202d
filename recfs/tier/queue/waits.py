"""Which rows of the S3 queue wait for another file's object to leave the key they need. Atomic."""

from __future__ import annotations

from typing import Final

READERS: Final = 0
"""In the place of a row: who reads the object is waited for."""


class Waits:
    """Both ways: what a row waits for, and what waits for a row."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        self._for: dict[int, set[int]] = {}

    def __contains__(self, row_id: int) -> bool:
        return row_id in self._of

    def begin(self, row_id: int, other: int) -> None:
        """The row waits for *other*: a move, or `READERS`."""
        self.end(row_id)
        self._of[row_id] = other
        self._for.setdefault(other, set()).add(row_id)

    def end(self, row_id: int) -> None:
        """Nothing is in the row's way, as far as is known."""
        other = self._of.pop(row_id, None)
        if other is not None:
            self._for[other].discard(row_id)
            if not self._for[other]:
                del self._for[other]

    def behind(self, other: int) -> list[int]:
        """The rows that wait for *other*, the oldest first."""
        return sorted(self._for.get(other, ()))


__all__ = ["READERS", "Waits"]
