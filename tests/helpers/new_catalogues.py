"""New catalogues for tests, each a copy of one that went through all steps: 2 ms of CPU, where the steps take 18.

What is copied are the pages, by SQLite itself (sqlite3_backup_init), so nothing of a catalogue is told here.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from typing import Any

from sqlite_utils import Database

Apply = Callable[..., Any]


def copied(apply: Apply) -> Apply:
    """In place of *apply*, that of the steps: an empty file becomes a copy, any other goes through the steps."""

    def copying(db: Database, **options: Any) -> None:
        is_empty = db.conn.execute("select count(*) from sqlite_schema").fetchone() == (0,)
        if is_empty and not options and db.conn.execute("pragma auto_vacuum").fetchone() == (_INCREMENTAL,):
            _made_by(apply).backup(db.conn)
        else:
            apply(db, **options)

    return copying


_INCREMENTAL = 2


@functools.cache
def _made_by(apply: Apply) -> sqlite3.Connection:
    made = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    made.execute(f"pragma auto_vacuum = {_INCREMENTAL}")  # as recfs makes it (catalogue/connection.py)
    apply(Database(made))
    return made
