"""Looking into the catalogue file: a read-only connection, and paths."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from recfs.catalogue.connection import connect
from recfs.errors import NotAStore, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = 1
"""Inode number of the mount's root."""


@contextmanager
def reading(catalogue: Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees one state of the catalogue as long as it is used. Raises NotAStore, or as `connect`."""
    with closing(connect(catalogue, read_only=True)) as db:
        db.row_factory = sqlite3.Row
        db.execute("begin")  # one snapshot for everything that follows
        require_whole(db, catalogue)
        yield db


def require_whole(db: sqlite3.Connection, catalogue: Path) -> None:
    """Raise NotAStore where whoever made the store did not come to the end of it."""
    if not has_table(db, "node") or db.execute("select 1 from node where ino = ?", (ROOT,)).fetchone() is None:
        raise NotAStore(
            f"the store {catalogue.parent.parent} was not made to its end: its disk was full, say, or recfs was ended;"
            f" mounting it does that"
        )


def facts(catalogue: Path) -> dict[str, str]:
    """Store-wide facts. Raises CatalogueCorrupt."""
    with reading(catalogue) as db:
        return facts_in(db)


def facts_in(db: sqlite3.Connection) -> dict[str, str]:
    """The same, of a catalogue that is being read."""
    return {row["key"]: row["value"] for row in db.execute("select key, value from meta")}


def text(name: bytes) -> str:
    """A name for JSON: surrogateescape keeps bytes that are not UTF-8."""
    return os.fsdecode(name)


def parts_of(path: str) -> list[bytes]:
    """A mount path, level by level."""
    return [part for part in os.fsencode(path).split(b"/") if part]


def walk(db: sqlite3.Connection, path: str) -> sqlite3.Row:
    """The row at a mount path. Raises NotFound."""
    row = db.execute("select * from node where ino = ?", (ROOT,)).fetchone()
    for name in parts_of(path):
        row = db.execute("select * from node where parent = ? and name = ? and ino <> 1", (row["ino"], name)).fetchone()
        if row is None:
            raise NotFound(f"{path}: no such file or directory")
    found: sqlite3.Row = row
    return found


def has_table(db: sqlite3.Connection, name: str) -> bool:
    """Whether the catalogue is new enough to have this table; a daemon brings an older one up to date."""
    found = db.execute("select 1 from sqlite_master where type = 'table' and name = ?", (name,)).fetchone()
    return found is not None
