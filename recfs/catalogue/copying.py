"""Copies of the catalogue's file: made while the daemon writes, and looked through before anybody relies on them.

SQLite's online backup (sqlite.org/backup.html) from a read-only connection that keeps one read transaction for all of
it: in WAL mode that holds up no writer, and a copy that takes seconds is of one instant. It is made of pages as they
lie in the file, so that it costs what reading and writing them costs.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from recfs.catalogue.connection import FULL, connect, unusable
from recfs.catalogue.migrations import NEWEST
from recfs.catalogue.reading import has_table, last_step, require_whole
from recfs.core.generation import ID, count_of
from recfs.core.upkeep.backups import Contents
from recfs.errors import BackupDamaged, Interrupted, OutOfSpace

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES = 1024
"""Copied between two looks whether the copy is still wanted: 4 MiB."""
LOOK_OPCODES = 1_000_000
"""Steps of SQLite's machine between two such looks while a copy is checked."""


class CatalogueCopies:
    """The CatalogueCopies port on SQLite. Blocking, for threads."""

    def room_for(self, catalogue: Path) -> int:
        """Bytes that a copy takes at most: the file's, and its log's."""
        return sum(os.stat(f"{catalogue}{end}").st_size for end in ("", "-wal") if os.path.exists(f"{catalogue}{end}"))

    def copy(self, catalogue: Path, to: Path, stopped: Callable[[], bool]) -> Contents:
        """Copy *catalogue* into the file *to*, and give what it holds.

        Raises Interrupted when *stopped* says so, OutOfSpace, BackupDamaged when the copy is another than was read, and
        as `connect`.
        """

        def progress(_status: int, _remaining: int, _total: int) -> None:
            if stopped():
                raise Interrupted("the backup was stopped")

        with closing(connect(catalogue, read_only=True)) as source:
            try:
                source.execute("begin")
                require_whole(source, catalogue)
                held = _contents(source)
                with closing(sqlite3.connect(to, isolation_level=None)) as target:
                    # Whoever dies half-way leaves a file that nobody takes for a backup: no journal, no fsync.
                    target.execute("pragma journal_mode = off")
                    target.execute("pragma synchronous = off")
                    source.backup(target, pages=PAGES, progress=progress, sleep=0)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) in FULL:
                    raise OutOfSpace(f"{to.parent}: no room for a backup of the catalogue") from error
                raise unusable(catalogue, error) from error
        copied = self.check(to, stopped)
        if copied != held:
            raise BackupDamaged(f"the copy of {catalogue} in {to.parent} is not what was read: {copied} for {held}")
        return held

    def check(self, file: Path, stopped: Callable[[], bool]) -> Contents:
        """Look through every page of a copy (PRAGMA quick_check), and give what it holds.

        Raises BackupDamaged for what is no whole catalogue, or one of a newer recfs; Interrupted. Changes nothing, and
        makes no file beside it.
        """
        with closing(_frozen(file)) as db:
            db.set_progress_handler(lambda: int(stopped()), LOOK_OPCODES)
            try:
                (verdict,) = db.execute("pragma quick_check(1)").fetchone()
                if verdict != "ok":
                    raise BackupDamaged(f"{file.name}: {verdict}")
                if not has_table(db, "node") or not has_table(db, "meta"):
                    raise BackupDamaged(f"{file.name}: it is no catalogue of recfs")
                held = _contents(db)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
                    raise Interrupted("the check was stopped") from error
                raise BackupDamaged(f"{file.name}: {error}") from error
        if held.schema > NEWEST:
            raise BackupDamaged(f"{file.name} is of a newer recfs (step {held.schema}): install that version or newer")
        return held

    def contents(self, catalogue: Path) -> Contents | None:
        """What a catalogue holds, in use or not; None where that cannot be read."""
        with contextlib.suppress(Exception), closing(connect(catalogue, read_only=True)) as db:
            db.execute("begin")
            return _contents(db)
        return None


def _frozen(file: Path) -> sqlite3.Connection:
    """A connection to a file that nobody changes: SQLite makes no log and takes no lock (sqlite.org/uri.html)."""
    quoted = str(file).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return sqlite3.connect(f"file:{quoted}?mode=ro&immutable=1", uri=True, isolation_level=None)


def _contents(db: sqlite3.Connection) -> Contents:
    tables = [
        str(name)
        for (name,) in db.execute(
            "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' order by name"
        )
    ]
    rows = {table: int(db.execute(f'select count(*) from "{table}"').fetchone()[0]) for table in tables}
    facts = dict(db.execute("select key, value from meta").fetchall())
    return Contents(facts.get(ID, ""), count_of(facts), last_step(db), rows)


__all__ = ["CatalogueCopies"]
