"""The catalogue's file while it is made anew."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.errors import CatalogueCorrupt, StoreError

_BUILDING = ".rebuild"
_SUFFIXES = ("", "-wal", "-shm")


class NewCatalogue(SqliteCatalogue):
    """A catalogue that is being made."""

    async def states(self) -> dict[str, int]:
        """How many files are in each state but `committed`."""
        query = "select state, count(*) from node where state is not null and state <> 'committed' group by state"
        return {state: int(count) for state, count in self._read(query)}


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


__all__ = ["NewCatalogue", "building", "discard", "facts_of", "finished", "open_new"]
