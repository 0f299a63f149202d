"""What is added to counters: sums that are gathered file by file, and the statements that add them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from recfs.catalogue.rows import AT_ONCE, Statement
from recfs.core import bounds
from recfs.core.figures.categories import Category
from recfs.core.figures.counters import FigureKey, Key, MonthKey, category_in, month_key
from recfs.core.model import State
from recfs.ports.rows import NodeRow

if TYPE_CHECKING:
    from recfs.catalogue.rows import Run
    from recfs.core.figures.places import Place

SOURCE: Final = b"source."
"""What is called otherwise is no upload."""
REMOTE: Final = tuple(state for state in State if state.is_remote)
"""A tuple of three is looked through faster than an enum's member is hashed."""
LOW: Final = (1 << 32) - 1


class File(NamedTuple):
    """As much of a row as says where it is counted; names are those of NodeRow."""

    ino: int
    parent: int
    name: bytes
    kind: str
    size_bytes: int
    mtime_ns: int
    state: str | None
    has_object: int


class Sums(NamedTuple):
    """Files of a directory together, as counters have them."""

    here: int
    """Whether their bytes are on the local disk."""
    files: int
    high: int
    low: int


Row = NodeRow | File
_Figure = tuple[str, Category, bool, str]


def _upsert(table: str, *key: str) -> Statement:
    before = f"insert into {table} ({', '.join(key)}, files, high, low) values"
    row = f"({', '.join('?' * (len(key) + 3))})"
    added = ", ".join(f"{each} = {each} + excluded.{each}" for each in ("files", "high", "low"))
    after = f"on conflict ({', '.join(key)}) do update set {added}"
    return Statement(tuple(f"{before} {', '.join([row] * count)} {after}" for count in range(AT_ONCE + 1)))


_ADD: Final = _upsert("figure", *FigureKey._fields)
_ADD_MONTHS: Final = _upsert("uploaded", *MonthKey._fields)


class Changes:
    """Sums by counter: files, and bytes in two halves, for a sum of sizes may be beyond 64 bits."""

    __slots__ = ("figures", "months")

    def __init__(self) -> None:
        self.figures: dict[_Figure, list[int]] = {}
        self.months: dict[tuple[str, str], list[int]] = {}

    def add(self, row: Row, place: Place, storage_class: str, sign: int) -> None:
        """Count a file, or (*sign* -1) count it no longer."""
        name, size = row.name, row.size_bytes
        key = (place.user or "", category_in(place, name), row.state not in REMOTE, storage_class)
        known = self.figures.get(key)
        if known is None:
            self.figures[key] = [sign, sign * (size >> 32), sign * (size & LOW)]
        else:
            known[0] += sign
            known[1] += sign * (size >> 32)
            known[2] += sign * (size & LOW)
        if name.startswith(SOURCE):
            self._add_upload(row, place, sign)

    def take_off(self, place: Place, sums: Sums) -> None:
        """Count files no longer of which S3 has nothing, in a directory where all have one category."""
        assert place.category is not None
        known = self.figures.setdefault((place.user or "", place.category, bool(sums.here), ""), [0, 0, 0])
        known[0] -= sums.files
        known[1] -= sums.high
        known[2] -= sums.low

    def _add_upload(self, row: Row, place: Place, sign: int) -> None:
        key = month_key(row.name, place, bounds.time_ns(bounds.loaded_time(row.mtime_ns)))
        if key is not None:
            known = self.months.setdefault(key, [0, 0, 0])
            known[0] += sign
            known[1] += sign * (row.size_bytes >> 32)
            known[2] += sign * (row.size_bytes & LOW)

    def add_sum(self, key: Key, files: int, size_bytes: int) -> None:
        """Add to one counter."""
        values = [files, size_bytes >> 32, size_bytes & LOW]
        if isinstance(key, MonthKey):
            self.months[key] = values
        else:
            self.figures[key] = values

    def runs(self) -> Iterator[Run]:
        """What adds them."""
        for statement, sums in ((_ADD, self.figures), (_ADD_MONTHS, self.months)):
            rows: Sequence[tuple[object, ...]] = [(*key, *more) for key, more in sums.items() if any(more)]
            if rows:
                yield from statement.runs(rows)


__all__ = ["LOW", "REMOTE", "SOURCE", "Changes", "File", "Row", "Sums"]
