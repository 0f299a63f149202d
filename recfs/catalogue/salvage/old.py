"""A catalogue that may be damaged anywhere, and is only read: one question at a time, also by inode number."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from recfs.catalogue import migrations
from recfs.catalogue.connection import connect
from recfs.catalogue.questions import Questions
from recfs.catalogue.rows import ACCOUNT
from recfs.errors import StoreError
from recfs.ports.rows import AccountRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recfs.ports.rows import NodeRow

_FILE_STORE = 1
"""Of the pragma temp_store: what is made for one connection alone lies in a file, however many rows there are."""


class OldCatalogue(Questions):
    """A catalogue that may be damaged, read only. What meets damage raises IoFailure."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(path, connection)
        self._is_sorted = False

    async def accounts(self) -> Sequence[AccountRow]:
        """All users' counters and limits."""
        return [AccountRow._make(row) for row in self._read(f"select {ACCOUNT} from account")]

    async def lying_at(self, home_ino: int) -> Sequence[NodeRow]:
        """What had this inode number on the disk. The first time all of them are sorted, for there is no index."""
        if not self._is_sorted:
            self._sort()
        found = self._read("select ino from temp.by_number where home_ino = ?", (home_ino,))
        rows = [await self.node(int(ino)) for (ino,) in found]
        return [row for row in rows if row is not None]

    def _sort(self) -> None:
        try:
            self._db.execute(f"pragma temp_store = {_FILE_STORE}")
            self._db.execute("create temp table by_number (home_ino, ino, primary key (home_ino, ino)) without rowid")
            self._db.execute(
                "insert or ignore into temp.by_number"
                " select home_ino, ino from main.placement where home_ino is not null"
            )
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error
        finally:
            self._is_sorted = True

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()


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


__all__ = ["OldCatalogue", "open_old"]
