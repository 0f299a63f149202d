"""--update-db: the platform's database is told where its files are now, in one transaction, after a copy was made.

The lock of a writer is taken first, so that nobody changes anything between the look at the rows, the copy and the
change (https://sqlite.org/lang_transaction.html); the copy is made by another connection, which sees what was before.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from recfs.core.migration.escapes import unescaped
from recfs.core.migration.names import id_of
from recfs.core.migration.plan import MOVED
from recfs.core.migration.rows import ID, USER, told_as
from recfs.core.migration.steps import Step
from recfs.errors import InvalidArgument, IoFailure, NotFound, NotSupported, TryAgain
from recfs.migration.database import copies_of, copy_name, refuse_others, table_called
from recfs.migration.run.recordings import told

if TYPE_CHECKING:
    from datetime import datetime

    from recfs.core.migration.plan import Plan
    from recfs.core.migration.rows import Value
    from recfs.migration.run.recordings import Told
    from recfs.migration.run.state import State

_NAMED: Final = 5
_PART: Final = ".part"


class _Change(NamedTuple):
    """One value that is to be set."""

    column: str
    value: str
    keys: tuple[Value, ...]
    """What says which row: its values in the columns of ids, as they stand there."""
    path: str
    """Of the recording."""


class Updated(NamedTuple):
    """What became of a database."""

    database: Path
    backup: Path | None
    """The copy from before; None where nothing was to be changed."""
    columns: int
    """Values that were set."""
    there: int
    """Values that were set before."""
    waiting: int
    """Values that stay as they are, for their files are not verified."""


def update(plan: Plan, state: State, now: datetime, wait_s: float) -> Updated:
    """Set the path columns of the platform's database to where the verified files are, relative to the mount.

    Rows are known by their ids, and never by SQLite's `rowid`: a table may have none, or a column that is called so
    (https://sqlite.org/lang_createtable.html#rowid). Each change is one row's, or none is made.

    A database that is locked is waited for *wait_s* seconds. Raises NotSupported where the plan was made without a
    database, or of a view, NotFound, TryAgain where it stays locked, InvalidArgument where rows have changed since the
    plan was made, and IoFailure; nothing is changed then.
    """
    if "db" not in plan.made_of or "mapping" not in plan.made_of:
        raise NotSupported("the plan was made without a database: there is nothing to update")
    database = Path(os.fsdecode(unescaped(plan.made_of["db"])))
    try:
        mapping = json.loads(plan.made_of["mapping"])
        table, names = str(mapping["table"]), {str(key): str(name) for key, name in mapping["columns"].items()}
        keys = [names[ID], *([names[USER]] if USER in names else [])]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidArgument("`#: mapping = …` of the plan is not what `recfs migrate plan` wrote") from None
    wanted, waiting = _wanted(plan, state)
    if not database.exists():
        raise NotFound(f"{database}: the platform's database is not there")
    refuse_others(database)
    try:
        with closing(_connected(database, "rw", wait_s)) as db:
            db.execute("BEGIN IMMEDIATE")
            backup = None
            try:
                changes, there = _changes(db, _changeable(db, database, table), keys, names, wanted)
                backup = _backup(database, now, wait_s) if changes else None
                _set(db, table, keys, changes)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite rolls back by itself where the disk fails
                    db.execute("ROLLBACK")
                    if backup is not None:  # of a database that is as it was
                        with contextlib.suppress(OSError):
                            backup.unlink()
                raise
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise TryAgain(
                f"{database} was locked for {wait_s:g} s: try again when the platform does not write"
            ) from None
        raise IoFailure(f"{database} cannot be changed: {error}") from None
    except sqlite3.Error as error:
        raise IoFailure(f"{database} cannot be changed: {error}") from None
    return Updated(database, backup, len(changes), there, waiting)


def _wanted(plan: Plan, state: State) -> tuple[list[tuple[Told, dict[str, str]]], int]:
    """By recording the columns whose files are verified, and how many are not."""
    good: set[bytes] = set()
    bad: set[bytes] = set()
    for entry in plan.entries:
        if entry.action not in MOVED:
            continue
        row = state.row(entry.source, entry.target)
        is_good = row.step in (Step.VERIFIED, Step.CLEANED) and not row.problem
        parts = entry.target.split(b"/")
        (good if is_good else bad).update(b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    found, waiting = [], 0
    for each in told(plan):
        paths = {column: os.fsencode(path).rstrip(b"/") for column, path in each.columns.items()}
        verified = {column for column, path in paths.items() if path in good and path not in bad}
        waiting += len(paths) - len(verified)
        if verified:
            found.append((each, {column: each.columns[column] for column in sorted(verified)}))
    return found, waiting


def _changeable(db: sqlite3.Connection, database: Path, table: str) -> str:
    """The table, if its rows can be changed. Raises InvalidArgument, NotSupported."""
    name, kind = table_called(db, database, table)
    if kind == "view":
        raise NotSupported(
            f"{name} of {database} is a view, and paths are set in tables: make the plan of the table behind it"
        )
    return name


def _changes(
    db: sqlite3.Connection,
    table: str,
    keys: list[str],
    names: dict[str, str],
    wanted: list[tuple[Told, dict[str, str]]],
) -> tuple[list[_Change], int]:
    """What is to be set, and how much is set already. Raises InvalidArgument."""
    changes: list[_Change] = []
    there, problems = 0, []
    slots = sorted({column for _, values in wanted for column in values})
    unknown = [column for column in slots if column not in names]
    if unknown:
        raise InvalidArgument(f"the plan's mapping has no name for the column {unknown[0]}")
    rows = _rows(db, table, keys, [names[column] for column in slots], {str(each.row) for each, _ in wanted})
    for each, values in wanted:
        found = _of(each, rows.get(str(each.row), []))
        if len(found) != 1:
            problems.append(f"{each.path} has {len(found)} rows, by {keys[0]} = {str(each.row)!r}")
            continue
        key, current = found[0]
        for column, value in values.items():
            was = _text(current[slots.index(column)])
            if was == value:
                there += 1
            elif was != each.was.get(column):
                problems.append(f"{names[column]} of {each.path} is {was!r}, and was {each.was.get(column)!r}")
            elif not _is_text(value):
                problems.append(f"{value!r} of {each.path} is no UTF-8, as text of a database is")
            else:
                changes.append(_Change(names[column], value, key, each.path))
    if problems:
        more = f", and {len(problems) - _NAMED:,} more" if len(problems) > _NAMED else ""
        raise InvalidArgument(
            "rows have changed since the plan was made, and nothing is updated: "
            + "; ".join(problems[:_NAMED])
            + more
            + ". Make a new plan and run that"
        )
    return changes, there


_Row = tuple[tuple["Value", ...], tuple["Value", ...]]
"""Values of the columns of ids, and of those of paths."""


def _rows(
    db: sqlite3.Connection, table: str, keys: list[str], columns: list[str], wanted: set[str]
) -> dict[str, list[_Row]]:
    """Rows by the id that a plan tells of them; those that are *wanted*.

    Told in Python, for what a value is equal to in SQLite depends on the type of its column
    (https://sqlite.org/datatype3.html, 4.2), which a column need not have.
    """
    found: defaultdict[str, list[_Row]] = defaultdict(list)
    if wanted:
        selected = ", ".join(_quoted(column) for column in (*keys, *columns))
        for row in db.execute(f"SELECT {selected} FROM {_quoted(table)}"):
            told = told_as(row[0])
            if told in wanted:
                found[told].append((tuple(row[: len(keys)]), tuple(row[len(keys) :])))
    return found


def _of(each: Told, rows: list[_Row]) -> list[_Row]:
    """The rows that are a recording's: of those with its id its user's, if several users have one of this id."""
    if len(rows) <= 1:
        return rows
    user = each.path.split("/")[1]
    return [row for row in rows if len(row[0]) > 1 and id_of(told_as(row[0][1])) == user]


def _set(db: sqlite3.Connection, table: str, keys: list[str], changes: list[_Change]) -> None:
    """Make the changes. Raises InvalidArgument where one would not be one row's; the caller rolls back."""
    where = " AND ".join(f"{_quoted(key)} IS ?" for key in keys)
    for change in changes:
        line = f"UPDATE {_quoted(table)} SET {_quoted(change.column)} = ? WHERE {where}"
        count = db.execute(line, (change.value, *change.keys)).rowcount
        if count != 1:
            raise InvalidArgument(
                f"{change.column} of {change.path} would be set in {count} rows, and not in one: nothing is updated."
                " A trigger of the table, or how it compares ids, is in the way"
            )


def _backup(database: Path, now: datetime, wait_s: float) -> Path:
    """Copy the database as it is without the transaction under way; where to. Raises sqlite3.Error, IoFailure.

    The copy has its name when it is whole: whoever finds one can go back to it.
    """
    backup = database.with_name(copy_name(database, now))
    part = backup.with_name(backup.name + _PART)
    try:
        for each in copies_of(database):
            if each.name.endswith(_PART):  # of an update that was killed: this one has the lock
                each.unlink()
        if os.path.lexists(backup):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        mode = database.stat().st_mode & 0o777
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
        try:
            with closing(_connected(database, "ro", wait_s)) as source, closing(sqlite3.connect(part)) as copy:
                copy.execute("PRAGMA journal_mode = OFF")
                source.backup(copy)
            _synced(part, os.O_RDONLY)
            os.rename(part, backup)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _synced(backup.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise IoFailure(f"{backup} cannot be written, and nothing is updated: {error.strerror}") from None
    return backup


def _synced(path: Path, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _connected(database: Path, mode: str, wait_s: float) -> sqlite3.Connection:
    where = f"file:{quote(os.fsencode(database.absolute()))}?mode={mode}"
    db = sqlite3.connect(where, uri=True, timeout=wait_s, isolation_level=None)
    db.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    return db


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


__all__ = ["Updated", "update"]
