"""Looking into the catalogue file: a read-only connection."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from recfs.catalogue.connection import connect, newer, unusable
from recfs.catalogue.migrations import NEWEST
from recfs.errors import NotAStore
from recfs.ports.rows import ROOT_INO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def reading(catalogue: Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees one state of the catalogue as long as it is used. Raises NotAStore, or as `connect`,
    also while it is used.
    """
    with closing(connect(catalogue, read_only=True)) as db:
        try:
            db.execute("begin")  # one snapshot for everything that follows
            if (step := last_step(db)) > NEWEST:
                raise newer(catalogue, step)
            require_whole(db, catalogue)
            yield db
        except sqlite3.DatabaseError as error:  # a page deep in the file
            raise unusable(catalogue, error) from error


def require_whole(db: sqlite3.Connection, catalogue: Path) -> None:
    """Raise NotAStore where whoever made the store did not come to the end of it."""
    if not has_table(db, "node") or db.execute("select 1 from node where ino = ?", (ROOT_INO,)).fetchone() is None:
        raise NotAStore(
            f"the store {catalogue.parent.parent} was not made to its end: its disk was full, say, or recfs was ended;"
            f" mounting it does that"
        )


def last_step(db: sqlite3.Connection) -> str:
    """The newest of the steps that a catalogue has gone through (`migrations.py`); empty where it has seen none."""
    if not has_table(db, "_sqlite_migrations"):
        return ""
    (name,) = db.execute("select max(name) from _sqlite_migrations where migration_set = 'recfs'").fetchone()
    return str(name or "")


def has_table(db: sqlite3.Connection, name: str) -> bool:
    """Whether the catalogue is new enough to have this table; a daemon brings an older one up to date."""
    found = db.execute("select 1 from sqlite_master where type = 'table' and name = ?", (name,)).fetchone()
    return found is not None


__all__ = ["has_table", "last_step", "reading", "require_whole"]
