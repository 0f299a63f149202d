"""The platform's SQLite database, read as it is at one moment, also while the platform writes; nothing is changed.

SQLite may write where it only reads: it makes the index of a write-ahead log (https://sqlite.org/wal.html, "Read-Only
Databases"), and it needs to roll back the journal of a program that died. So a database that nobody has open is read as
immutable, and one that was left in the middle is copied, with its journal or log, and the copy is read.
"""

from __future__ import annotations

import enum
import os
import shutil
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from recfs.core.migration.rows import ID, PATHS, USER
from recfs.errors import InvalidArgument, IoFailure, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from recfs.core.migration.rows import Value
    from recfs.migration.mapping import Names

MAGIC: Final = b"SQLite format 3\0"
_WAL: Final = 2
"""Version to read, of a database with a write-ahead log (https://sqlite.org/fileformat2.html, 1.3.3)."""
_READ_VERSION: Final = 19
_HEADER: Final = 100
_PAGE_SIZE: Final = slice(16, 18)
_BUSY_S: Final = 20.0
"""So long a platform that is writing is waited for."""
_TRIES: Final = 5
_BEFORE: Final = ".before-migration-"
"""In names of copies, which are made before a database is changed."""
_BESIDE: Final = ("-wal", "-shm", "-journal")
_NEEDS_WRITING: Final = ("SQLITE_READONLY", "SQLITE_CANTOPEN")
_WRONG: Final = {**dict.fromkeys(PATHS, ("INTEGER", "REAL")), ID: ("REAL",), USER: ("REAL",)}
"""Affinities that columns cannot have."""


def files_of(database: Path) -> list[Path]:
    """The files that a database consists of while a program works on it."""
    return [database, *(database.with_name(database.name + end) for end in _BESIDE)]


def copy_name(database: Path, now: datetime) -> str:
    """What the copy of a database is called that is made before it is changed."""
    return f"{database.name}{_BEFORE}{now:%Y%m%dT%H%M%SZ}"


def copies_of(database: Path) -> list[Path]:
    """The copies of it that were made so; none where its directory cannot be read."""
    try:
        names = os.listdir(database.parent)
    except OSError:
        return []
    return [database.with_name(name) for name in sorted(names) if name.startswith(database.name + _BEFORE)]


def refuse_others(database: Path) -> None:
    """Refuse a pipe, a device and whatever else an open may wait for, for ever.

    Also in the place of a journal or a log, which SQLite opens. Raises InvalidArgument, IoFailure.
    """
    for path in files_of(database):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise IoFailure(f"{path} cannot be looked at: {error.strerror}") from None
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InvalidArgument(f"{path} is no regular file, and so no part of an SQLite database")


def rows_in(database: Path, names: Names) -> Iterator[Mapping[str, Value]]:
    """The rows of one moment, by the names of `core.migration.rows`.

    Raises NotFound where there is no file; InvalidArgument where it is no database, is damaged, or has no such table or
    column; IoFailure where the disk says no.
    """
    for row in _read(database, names):
        yield dict(zip(names.columns, row, strict=True))


def _read(database: Path, names: Names) -> list[tuple[Value, ...]]:
    for _ in range(_TRIES):
        refuse_others(database)
        before = _state(database)
        how = _how_to(database)
        try:
            if how is _How.AS_IT_LIES:
                try:
                    return _rows(database, "mode=ro", names, database)
                except sqlite3.Error as error:
                    if not _name_of(error).startswith(_NEEDS_WRITING):
                        raise
            elif how is _How.IMMUTABLE:
                found = _rows(database, "immutable=1", names, database)
                if _state(database) == before:
                    return found
                continue  # SQLite trusted that nobody would change it
            with tempfile.TemporaryDirectory(prefix="recfs-plan-") as scratch:
                copy = _copied(database, Path(scratch))
                if _state(database) == before:
                    return _rows(copy, "mode=rw", names, database)
        except sqlite3.Error as error:
            if _state(database) == before or how is _How.AS_IT_LIES:
                raise _unusable(database, error) from None
    raise IoFailure(f"{database} is changed all the time: try again, or name a copy")


def _rows(where: Path, how: str, names: Names, database: Path) -> list[tuple[Value, ...]]:
    with closing(_connected(where, how)) as db:
        db.execute("begin")  # one moment for all of it
        table, columns = _columns(db, database, names)
        return db.execute(f"select {', '.join(map(_quoted, columns))} from {_quoted(table)}").fetchall()


class _How(enum.Enum):
    AS_IT_LIES = enum.auto()
    IMMUTABLE = enum.auto()
    COPIED = enum.auto()


def _state(database: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """By what changes of the database are known."""
    found: list[tuple[int, int, int] | None] = []
    for path in files_of(database):
        try:
            about = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((about.st_ino, about.st_size, about.st_mtime_ns))
    return tuple(found)


def _header(database: Path) -> bytes:
    try:
        with database.open("rb") as file:
            return file.read(_HEADER)
    except FileNotFoundError:
        raise NotFound(f"{database}: there is no such file") from None
    except OSError as error:
        raise IoFailure(f"{database} cannot be read: {error.strerror}") from None


def _how_to(database: Path) -> _How:
    """How it can be read without anything being made beside it."""
    header = _header(database)
    if not header.startswith(MAGIC):
        told = "it is empty" if not header else "it does not begin as one"
        raise InvalidArgument(f"{database} is no SQLite database: {told}")
    wal, shm, journal = files_of(database)[1:]
    _refuse_cut_off(database, header, wal, journal)
    if header[_READ_VERSION] != _WAL or shm.exists():
        return _How.AS_IT_LIES
    # Programs that have it open have an index of the log; the last one removes both.
    return _How.COPIED if _has_bytes(wal) else _How.IMMUTABLE


def _refuse_cut_off(database: Path, header: bytes, *beside: Path) -> None:
    """SQLite reads what is missing of a last page as zeros, and so as rows without values. Raises InvalidArgument.

    A program that died may have written half a page, which the journal or log *beside* has whole.
    """
    page_size = int.from_bytes(header[_PAGE_SIZE]) or 1
    page_size = 1 << 16 if page_size == 1 else page_size  # fileformat2.html, 1.3.2
    if not any(map(_has_bytes, beside)) and (over := database.stat().st_size % page_size):
        raise InvalidArgument(
            f"{database} is damaged (cut off: its last page has {over:,} bytes of {page_size:,}):"
            f" `sqlite3 {database} .recover` saves what there is"
        )


def _has_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _copied(database: Path, scratch: Path) -> Path:
    copy = scratch / "data.db"
    try:
        for path in files_of(database):
            end = path.name.removeprefix(database.name)
            if end != "-shm" and path.exists():
                shutil.copyfile(path, copy.with_name(copy.name + end))
    except OSError as error:
        raise IoFailure(f"{database} was left in the middle, and cannot be copied to {scratch}: {error}") from None
    return copy


def _connected(database: Path, how: str) -> sqlite3.Connection:
    where = quote(os.fsencode(database.absolute()))
    db = sqlite3.connect(f"file:{where}?{how}", uri=True, timeout=_BUSY_S, isolation_level=None)
    try:
        db.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
        db.execute("pragma query_only = on")
        db.execute("pragma trusted_schema = off")  # what its views call is not run
    except BaseException:
        db.close()
        raise
    return db


def _columns(db: sqlite3.Connection, database: Path, names: Names) -> tuple[str, list[str]]:
    """The table and its columns, as they are written there, in the order of *names*."""
    table, _ = table_called(db, database, names.table)
    types: dict[str, tuple[str, str]] = {
        name.lower(): (name, kind.upper()) for _, name, kind, *_ in db.execute(f"pragma table_xinfo({_quoted(table)})")
    }
    for key, name in names.columns.items():
        if name.lower() not in types:
            told = f"{name!r}" + (f" (for {key})" if key != name else "")
            raise InvalidArgument(
                f"table {table!r} of {database} has no column {told}; there are: "
                f"{', '.join(there for there, _ in types.values())}. A file that --columns names says what it is"
                f' called, or "" for none'
            )
        found, declared = types[name.lower()]
        if _affinity(declared) in _WRONG.get(key, ()):
            wanted = "paths are text" if key in PATHS else "ids are integers or UUIDs"
            raise InvalidArgument(f"column {found!r} of table {table!r} in {database} is {declared}, and {wanted}")
    return table, [types[name.lower()][0] for name in names.columns.values()]


def table_called(db: sqlite3.Connection, database: Path, name: str) -> tuple[str, str]:
    """How a table or view is written, and which of both it is. Raises InvalidArgument where there is none."""
    tables = {
        written.lower(): (written, kind)
        for written, kind in db.execute("select name, type from sqlite_master where type in ('table', 'view')")
    }
    found = tables.get(name.lower())
    if found is None:
        there = ", ".join(sorted(each for each, _ in tables.values() if not each.startswith("sqlite_"))) or "none"
        raise InvalidArgument(
            f"{database} has no table {name!r}; there are: {there}. A file that --columns names says which it is"
        )
    return found


def _affinity(declared: str) -> str:
    """https://sqlite.org/datatype3.html, section 3.1, as far as it matters."""
    if "INT" in declared:
        return "INTEGER"
    if any(each in declared for each in ("CHAR", "CLOB", "TEXT", "BLOB")) or not declared:
        return "TEXT"
    return "REAL" if any(each in declared for each in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _name_of(error: sqlite3.Error) -> str:
    """SQLite's name of it; "" for what Python says itself."""
    return getattr(error, "sqlite_errorname", "")


def _unusable(database: Path, error: sqlite3.Error) -> Exception:
    code = _name_of(error)
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return InvalidArgument(f"{database} is damaged ({error}): `sqlite3 {database} .recover` saves what there is")
    if code.startswith("SQLITE_BUSY"):
        return IoFailure(f"{database} was locked for {_BUSY_S:g} s by a program that writes; try again")
    return IoFailure(f"{database} cannot be read: {error}")


__all__ = ["MAGIC", "copies_of", "copy_name", "files_of", "refuse_others", "rows_in", "table_called"]
