"""What the rows of the S3 queue come to: counted as they come, change and go, so that nobody goes through all to know.

Where all have to be looked at, that is done in turns: there may be a million. All of it is atomic but `look_at_all`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from recfs.state.work.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from recfs.ports.rows import JournalRow

AT_ONCE: Final = 1000
"""So many ids are looked at before others have their turn, if it is not over before."""
_FEW: Final = 50
"""After so many it is looked whether it is: that takes longer than most looks."""
_STRETCH: Final = 1024


class Tally:
    """Counts of rows, and where those of a key are."""

    def __init__(self, rows: Mapping[int, JournalRow]) -> None:
        self._rows = rows
        self.kinds: Counter[str] = Counter()
        """How many there are, by kind."""
        self.failing = 0
        """How many were tried in vain."""
        self._of_key: dict[str, set[int]] = {}
        self._stretches: Counter[int] = Counter()
        """How many there are of each `_STRETCH` ids; with the ids they only get higher."""
        self._end = 0
        """The id after the highest there has been."""

    def put(self, before: JournalRow | None, row: JournalRow) -> None:
        """The row is new, or another than *before*."""
        if before is not None:
            self._uncount(before)
        else:
            self._stretches[row.id // _STRETCH] += 1
            self._end = max(self._end, row.id + 1)
        self.kinds[row.kind] += 1
        self.failing += bool(row.attempts)
        if row.key:
            self._of_key.setdefault(row.key, set()).add(row.id)

    def drop(self, row: JournalRow) -> None:
        """The row is gone."""
        self._uncount(row)
        stretch = row.id // _STRETCH
        self._stretches[stretch] -= 1
        if not self._stretches[stretch]:
            del self._stretches[stretch]

    def _uncount(self, row: JournalRow) -> None:
        self.kinds[row.kind] -= 1
        self.failing -= bool(row.attempts)
        if row.key:
            self._of_key[row.key].discard(row.id)
            if not self._of_key[row.key]:
                del self._of_key[row.key]

    def at(self, key: str) -> frozenset[int]:
        """The rows that name *key*."""
        return frozenset(self._of_key.get(key, ()))

    async def look_at_all(self, visit: Callable[[JournalRow], object]) -> None:
        """Show all rows to *visit*, in the order of their ids, in turns.

        Each as it is at its turn; those that come meanwhile, too, and nothing can have come between the last and the
        return. *visit* may change, add and drop rows.
        """
        turn, looked = Turn(), 0
        if len(self._rows) > AT_ONCE:
            await turn.pass_on()  # who asks may have had a turn of looks just now

        async def each(first: int, end: int) -> None:
            nonlocal looked
            for row_id in range(first, end):
                looked += 1
                if looked % AT_ONCE == 0 or (looked % _FEW == 0 and turn.is_over):
                    looked = 0
                    await turn.pass_on()
                row = self._rows.get(row_id)
                if row is not None:
                    visit(row)

        seen = self._end
        for stretch in list(self._stretches):
            await each(stretch * _STRETCH, min((stretch + 1) * _STRETCH, seen))
        while seen < self._end:
            first, seen = seen, self._end
            await each(first, seen)


__all__ = ["AT_ONCE", "Tally"]
