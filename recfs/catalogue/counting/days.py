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
from recfs.ports.figures import OfDay, Remembered, Surveyed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from recfs.catalogue.rows import Run

DROPPED: Final = 500
"""So many rows are dropped at once: a millisecond."""
_KEEP: Final = "replace into survey (name, at_ns, took_ms, found) values (?, ?, ?, ?)"
_LAST: Final = "select user, category, max(day), files, bytes from figure_of_day where day < ? group by user, category"
"""The row with the greatest day of each: bare columns are of that row (sqlite.org/lang_select.html)."""
_OLD: Final = (
    "select user, category, day from figure_of_day as old where day < ?"
    " and exists (select 1 from figure_of_day as later where later.user = old.user"
    " and later.category = old.category and later.day > old.day and later.day <= ?) limit ?"
)


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
    now: dict[tuple[str, str], list[int]] = {}
    for key, files, size_bytes in found.figures:
        each = now.setdefault((key.user, key.category.value), [0, 0])
        each[0] += files
        each[1] += size_bytes
    before = {(user, category): [files, size] for user, category, _, files, size in db.execute(_LAST, (day,))}
    rows = [OfDay(key[0], key[1], day, files, total(size)) for key, (files, size) in sorted(now.items())]
    # a daemon may have begun with this day, and have died before all was kept
    begun = set(db.execute("select user, category from figure_of_day where day >= ?", (day,)))
    rows += [OfDay(key[0], key[1], day, 0, 0) for key in sorted((before.keys() | begun) - now.keys())]
    return [row for row in rows if before.get(row[:2], [0, 0]) != [row.files, row.size_bytes] or row[:2] in begun]


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
        marks = ", ".join(["(?, ?, ?, ?, ?)"] * len(some))
        text = f"replace into figure_of_day (user, category, day, files, bytes) values {marks}"
        yield text, [value for row in some for value in row]


def keep_day(day: str, at_ns: int) -> Iterator[Run]:
    """What says that all of a day's are kept; counters of nothing are no more needed."""
    yield "replace into figure_day (day, at_ns) values (?, ?)", (day, at_ns)
    yield "delete from figure where files = 0 and high = 0 and low = 0", ()
    yield "delete from uploaded where files = 0 and high = 0 and low = 0", ()


def old_rows(db: sqlite3.Connection, before: str) -> list[Run]:
    """What drops some of what is not needed for days from *before* on; none when nothing is left of it."""
    rows = db.execute(_OLD, (before, before, DROPPED)).fetchall()
    drop = "delete from figure_of_day where user = ? and category = ? and day = ?"
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
    rows = [OfDay(user, category, day, files, size) for user, category, day, files, size in db.execute(_LAST, (since,))]
    query = "select user, category, day, files, bytes from figure_of_day where day >= ? order by day"
    rows += map(OfDay._make, db.execute(query, (since,)))
    return Remembered(days, rows)


__all__ = ["changed", "keep_day", "keep_rows", "keep_survey", "last_day", "old_rows", "remembered", "survey"]
