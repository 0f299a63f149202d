"""What the counters of files say, what their rows add up to, and what is to be added where the two differ.

A difference is that of one state of the catalogue. Added later it is still right: each batch since then has changed
counter and rows alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from recfs.catalogue.counting.changes import Changes, File
from recfs.catalogue.figures import folders, tallies
from recfs.catalogue.reading import has_table
from recfs.catalogue.rows import added_up
from recfs.core.figures.categories import Category, category_of
from recfs.core.figures.counters import RECOUNT_DUE, FigureKey, Key, MonthKey
from recfs.core.figures.places import places
from recfs.ports.figures import Counted, FigureOff, FiguresProof

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from recfs.catalogue.rows import Run

_NO_MORE_DUE: Final = "update meta set value = '0' where key = ? and value = ?"


def counted_at(db: sqlite3.Connection) -> str | None:
    """What the fact RECOUNT_DUE says."""
    found = db.execute("select value from meta where key = ?", (RECOUNT_DUE,)).fetchone()
    return str(found[0]) if found is not None else None


def counted(db: sqlite3.Connection, user: str | None) -> Counted | None:
    """The counters, or those of one user; None: they are not to be believed."""
    if not has_table(db, "figure") or counted_at(db) not in (None, "0"):
        return None
    which, values = ("and user = ?", (user,)) if user is not None else ("", ())
    by_value = {each.value: each for each in Category}
    figures = [
        (FigureKey(owner, by_value[category], bool(here), storage_class), files, added_up([(high, low)]))
        for owner, category, here, storage_class, files, high, low in db.execute(
            f"select user, category, here, storage_class, files, high, low from figure where files <> 0 {which}", values
        )
    ]
    months = [
        (MonthKey(owner, month), files, added_up([(high, low)]))
        for owner, month, files, high, low in db.execute(
            f"select user, month, files, high, low from uploaded where files <> 0 {which}", values
        )
    ]
    return Counted(figures, months)


def prove(db: sqlite3.Connection) -> FiguresProof:
    """Count everything anew, as one transaction sees it."""
    if not has_table(db, "figure"):
        return FiguresProof([], None)
    actual = _actual(db)
    recorded: dict[Key, tuple[int, int]] = {}
    for user, category, here, storage_class, files, high, low in db.execute(
        "select user, category, here, storage_class, files, high, low from figure"
    ):
        recorded[FigureKey(user, Category(category), bool(here), storage_class)] = files, added_up([(high, low)])
    for user, month, files, high, low in db.execute("select user, month, files, high, low from uploaded"):
        recorded[MonthKey(user, month)] = files, added_up([(high, low)])
    off = [
        FigureOff(key, *recorded.get(key, (0, 0)), *actual.get(key, (0, 0)))
        for key in sorted(recorded.keys() | actual.keys(), key=str)
        if recorded.get(key, (0, 0)) != actual.get(key, (0, 0))
    ]
    return FiguresProof(off, counted_at(db))


def _actual(db: sqlite3.Connection) -> dict[Key, tuple[int, int]]:
    known = places(folders(db, None))
    sums: dict[Key, list[int]] = {}
    for tally in tallies(db, None, 0, knows_s3=True):
        place = known.get(tally.parent)
        if place is None:
            continue  # its directory is of no place
        category = category_of(place.category, place.role, tally.marks)
        key = FigureKey(place.user or "", category, tally.here, tally.storage_class or "")
        each = sums.setdefault(key, [0, 0])
        each[0] += tally.files
        each[1] += tally.size_bytes
    uploads = Changes()
    fields = ", ".join(File._fields)
    for row in map(
        File._make,
        db.execute(
            f"select {fields} from node where kind = 'file'"
            " and name >= cast('source.' as blob) and name < cast('source/' as blob)"
        ),
    ):
        place = known.get(row.parent)
        if place is not None:
            uploads.add(row, place, "", 1)
    found: dict[Key, tuple[int, int]] = {key: (files, size) for key, (files, size) in sums.items()}
    for month, (files, high, low) in uploads.months.items():
        found[MonthKey(*month)] = files, added_up([(high, low)])
    return found


def corrections(found: FiguresProof) -> Iterator[Run]:
    """What corrects the counters; they are to be believed again, if RECOUNT_DUE still says what it said."""
    changes = Changes()
    for each in found.off:
        changes.add_sum(each.key, each.actual_files - each.recorded_files, each.actual_bytes - each.recorded_bytes)
    yield from changes.runs()
    if found.counted_at is not None:
        yield _NO_MORE_DUE, (RECOUNT_DUE, found.counted_at)


__all__ = ["corrections", "counted", "prove"]
