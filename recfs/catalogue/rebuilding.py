"""The catalogue's file while it is made anew, and what may still be read of the one before it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from recfs.catalogue import migrations
from recfs.catalogue.connection import connect
from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.questions import Questions
from recfs.catalogue.rows import ACCOUNT
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.errors import CatalogueCorrupt, StoreError
from recfs.ports.rows import AccountRow

if TYPE_CHECKING:
    from collections.abc import Sequence

_BUILDING = ".rebuild"
_SUFFIXES = ("", "-wal", "-shm")


class NewCatalogue(SqliteCatalogue):
    """A catalogue that is being made."""

    async def states(self) -> dict[str, int]:
        """How many files are in each state but `committed`."""
        query = "select state, count(*) from node where state is not null and state <> 'committed' group by state"
        return {state: int(count) for state, count in self._read(query)}


class OldCatalogue(Questions):
    """A catalogue that may be damaged, read only. What meets damage raises IoFailure."""

    async def accounts(self) -> Sequence[AccountRow]:
        """All users' counters and limits."""
        return [AccountRow._make(row) for row in self._read(f"select {ACCOUNT} from account")]

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


def building(path: Path) -> Path:
    """Where the new catalogue lies while it is made."""
    return path.with_name(path.name + _BUILDING)


def open_new(path: Path) -> NewCatalogue:
    """Begin to make a catalogue anew, or go on. One that was begun and is damaged counts for nothing.

    Raises StoreError, StoreFull.
    """
    where = building(path)
    if where.exists() and path.exists() and os.path.samefile(where, path):
        discard(path)  # it is the catalogue by now, and whoever gave it that name was killed
    try:
        opened = open_catalogue(where)
    except CatalogueCorrupt:
        discard(path)
        opened = open_catalogue(where)
    return NewCatalogue(opened._path, opened._db)


def discard(path: Path) -> None:
    """Remove what was begun. Raises OSError."""
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{building(path)}{suffix}")


def finished(path: Path) -> Path:
    """What was made is closed: bring it to stable storage. Gives its file. Raises OSError, StoreError."""
    where = building(path)
    if os.path.exists(f"{where}-wal") and os.path.getsize(f"{where}-wal"):
        raise StoreError(f"catalogue {where}: its log could not be folded in; is the disk full? Run it again")
    fd = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return where


def facts_of(path: Path) -> dict[str, str]:
    """Store-wide facts of a catalogue, as its main file has them; none where they cannot be read. Changes nothing."""
    try:
        uri = f"{path.absolute().as_uri()}?immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as db:
            return {str(key): str(value) for key, value in db.execute("select key, value from meta")}
    except (sqlite3.Error, ValueError):
        return {}


def open_old(path: Path) -> OldCatalogue | None:
    """The catalogue that is there, to be read; None where nothing of it can be, or it is of another version."""
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        connection = connect(path, read_only=True)
        (newest,) = connection.execute("select max(name) from _sqlite_migrations").fetchone()
    except (StoreError, sqlite3.Error):
        return None
    if newest != migrations.NEWEST:
        connection.close()
        return None
    return OldCatalogue(path, connection)


__all__ = ["NewCatalogue", "OldCatalogue", "building", "discard", "facts_of", "finished", "open_new", "open_old"]
