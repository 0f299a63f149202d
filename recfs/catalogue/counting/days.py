"""What is remembered beside the counters: what a survey of all files found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from recfs.catalogue.reading import has_table
from recfs.ports.figures import Surveyed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from recfs.catalogue.rows import Run

_KEEP: Final = "replace into survey (name, at_ns, took_ms, found) values (?, ?, ?, ?)"


def survey(db: sqlite3.Connection, name: str) -> Surveyed | None:
    """What the last one found."""
    if not has_table(db, "survey"):
        return None
    row = db.execute("select at_ns, took_ms, found from survey where name = ?", (name,)).fetchone()
    return Surveyed(row[0], row[1], json.loads(row[2])) if row is not None else None


def keep_survey(name: str, surveyed: Surveyed) -> Iterator[Run]:
    """What keeps it."""
    yield _KEEP, (name, surveyed.at_ns, surveyed.took_ms, json.dumps(surveyed.found))


__all__ = ["keep_survey", "survey"]
