"""What is remembered beside the counters: what they said on earlier days, and what a survey of all files found.

Of a day only counters are kept that said something else than before. What is dropped leaves what the first day that is
kept needs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from recfs.catalogue.counting.proof import counted
from recfs.catalogue.reading import has_table
from recfs.catalogue.rows import AT_ONCE
from recfs.core.bounds import total
from recfs.core.figures.counters import NOT_KNOWN
from recfs.ports.figures import OfDay, Remembered, Surveyed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from recfs.catalogue.rows import Run

DROPPED: Final = 500
"""So many rows are dropped at once: a millisecond."""
_KEEP: Final = "replace into survey (name, at_ns, took_ms, found) values (?, ?, ?, ?)"
_KEY: Final = "user, category, here, storage_class"
_LAST: Final = f"select {_KEY}, max(day), files, bytes from figure_of_day where day < ? group by {_KEY}"
"""The row with the greatest day of each: bare columns are of that row (sqlite.org/lang_select.html)."""
_Key = tuple[str, str, int, str]
_OLD: Final = (
    f"select {_KEY}, day from figure_of_day as old where day < ?"
    " and exists (select 1 from figure_of_day as later where later.user = old.user"
    " and later.category = old.category and later.here = old.here and later.storage_class = old.storage_class"
    " and later.day > old.day and later.day <= ?) limit ?"
)
_NO_PLACE: Final = (
    f"with figure_of_day as (select user, category, 1 as here, '{NOT_KNOWN}' as storage_class, day, files, bytes"
    " from main.figure_of_day) "
)
"""Before the above, of a catalogue from before it was kept where the bytes were."""


def survey(db: sqlite3.Connection, name: str) -> Surveyed | None:
    """What the last one found."""
    if not has_table(db, "survey"):
        return None
    row = db.execute("select at_ns, took_ms, found from survey where name = ?", (name,)).fetchone()
    return Surveyed(row[0], row[1], json.loads(row[2])) if row is not None else None


def keep_survey(name: str, surveyed: Surveyed) -> Iterator[Run]:
    """What keeps it."""
    yield _KEEP, (name, surveyed.at_ns, surveyed.took_ms, json.dumps(surveyed.found))


def changed(db: sqlite3.Connection, day: str) -> Sequence[OfDay] | None:
    """What the counters say that is not what they said before *day*; None: they are not to be believed."""
    found = counted(db, None)
    if found is None:
        return None
    rows = [
        OfDay(key.user, key.category.value, int(key.here), key.storage_class, day, files, total(size_bytes))
        for key, files, size_bytes in sorted(found.figures)
    ]
    now = {row[:4] for row in rows}
    before: dict[_Key, tuple[int, int]] = {row[:4]: row[5:] for row in db.execute(_LAST, (day,))}
    # a daemon may have begun with this day, and have died before all was kept
    begun: set[_Key] = set(db.execute(f"select {_KEY} from figure_of_day where day >= ?", (day,)))
    rows += [OfDay(*key, day, 0, 0) for key in sorted((before.keys() | begun) - now)]
    return [row for row in rows if before.get(row[:4], (0, 0)) != row[5:] or row[:4] in begun]


def last_day(db: sqlite3.Connection) -> str | None:
    """The last day that is remembered."""
    if not has_table(db, "figure_day"):
        return None
    (day,) = db.execute("select max(day) from figure_day").fetchone()
    return str(day) if day is not None else None


def keep_rows(rows: Sequence[OfDay]) -> Iterator[Run]:
    """What keeps some of a day's."""
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(some))
        text = f"replace into figure_of_day ({_KEY}, day, files, bytes) values {marks}"
        yield text, [value for row in some for value in row]


def keep_day(day: str, at_ns: int) -> Iterator[Run]:
    """What says that all of a day's are kept; counters of nothing are no more needed."""
    yield "replace into figure_day (day, at_ns) values (?, ?)", (day, at_ns)
    yield "delete from figure where files = 0 and high = 0 and low = 0", ()
    yield "delete from uploaded where files = 0 and high = 0 and low = 0", ()


def old_rows(db: sqlite3.Connection, before: str) -> list[Run]:
    """What drops some of what is not needed for days from *before* on; none when nothing is left of it."""
    rows = db.execute(_OLD, (before, before, DROPPED)).fetchall()
    drop = f"delete from figure_of_day where ({_KEY}, day) = (?, ?, ?, ?, ?)"
    runs: list[Run] = [(drop, row) for row in rows]
    if not runs and db.execute("select 1 from figure_day where day < ?", (before,)).fetchone() is not None:
        runs.append(("delete from figure_day where day < ?", (before,)))
    return runs


def remembered(db: sqlite3.Connection, since: str) -> Remembered:
    """What is remembered from a day on."""
    if not has_table(db, "figure_day"):
        return Remembered([], [])
    query = "select day, at_ns from figure_day where day >= ? order by day"
    days = [(str(day), int(at_ns)) for day, at_ns in db.execute(query, (since,))]
    columns = {row[1] for row in db.execute("pragma table_info(figure_of_day)")}
    known = "" if "storage_class" in columns else _NO_PLACE
    rows = list(map(OfDay._make, db.execute(known + _LAST, (since,))))
    query = f"{known}select {_KEY}, day, files, bytes from figure_of_day where day >= ? order by day"
    rows += map(OfDay._make, db.execute(query, (since,)))
    return Remembered(days, rows)


__all__ = ["changed", "keep_day", "keep_rows", "keep_survey", "last_day", "old_rows", "remembered", "survey"]
