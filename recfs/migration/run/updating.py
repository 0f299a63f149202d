"""--update-db: the platform's database is told where its files are now, in one transaction, after a copy was made.

The lock of a writer is taken first, so that nobody changes anything between the look at the rows, the copy and the
change (https://sqlite.org/lang_transaction.html); the copy is made by another connection, which sees what was before.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from recfs.core.migration.escapes import unescaped
from recfs.core.migration.plan import MOVED
from recfs.core.migration.steps import Step
from recfs.errors import InvalidArgument, IoFailure, NotFound, NotSupported, TryAgain
from recfs.migration.run.recordings import told

if TYPE_CHECKING:
    from datetime import datetime

    from recfs.core.migration.plan import Plan
    from recfs.migration.run.recordings import Told
    from recfs.migration.run.state import State

_ID: Final = "id"
_NAMED: Final = 5


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

    A database that is locked is waited for *wait_s* seconds. Raises NotSupported where the plan was made without a
    database, NotFound, TryAgain where it stays locked, InvalidArgument where rows have changed since the plan was made,
    and IoFailure; nothing is changed then.
    """
    if "db" not in plan.made_of or "mapping" not in plan.made_of:
        raise NotSupported("the plan was made without a database: there is nothing to update")
    database = Path(os.fsdecode(unescaped(plan.made_of["db"])))
    try:
        mapping = json.loads(plan.made_of["mapping"])
        table, names = str(mapping["table"]), {str(key): str(name) for key, name in mapping["columns"].items()}
        identity = names[_ID]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InvalidArgument("`#: mapping = …` of the plan is not what `recfs migrate plan` wrote") from None
    wanted, waiting = _wanted(plan, state)
    if not database.exists():
        raise NotFound(f"{database}: the platform's database is not there")
    try:
        with closing(_connected(database, "rw", wait_s)) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                changes, there = _changes(db, table, identity, names, wanted)
                backup = _backup(database, now, wait_s) if changes else None
                for column, value, where in changes:
                    line = f"UPDATE {_quoted(table)} SET {_quoted(column)} = ? WHERE rowid = ?"
                    db.execute(line, (value, where))
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
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


def _changes(
    db: sqlite3.Connection, table: str, identity: str, names: dict[str, str], wanted: list[tuple[Told, dict[str, str]]]
) -> tuple[list[tuple[str, str, int]], int]:
    """Column, value and rowid of what is to be set, and how much is set already. Raises InvalidArgument."""
    changes: list[tuple[str, str, int]] = []
    there, problems = 0, []
    for each, values in wanted:
        missing = [column for column in values if column not in names]
        if missing:
            raise InvalidArgument(f"the plan's mapping has no name for the column {missing[0]} of {each.path}")
        columns = ", ".join(_quoted(names[column]) for column in values)
        rows = _rows(db, f"SELECT rowid, {columns} FROM {_quoted(table)} WHERE", identity, each.row)
        if len(rows) != 1:
            problems.append(f"{each.path} has {len(rows)} rows, by {identity} = {each.row!r}")
            continue
        where, *current = rows[0]
        for (column, value), now in zip(values.items(), current, strict=True):
            was = _text(now)
            if was == value:
                there += 1
            elif was != each.was.get(column):
                problems.append(f"{names[column]} of {each.path} is {was!r}, and was {each.was.get(column)!r}")
            else:
                changes.append((names[column], value, int(where)))
    if problems:
        more = f", and {len(problems) - _NAMED:,} more" if len(problems) > _NAMED else ""
        raise InvalidArgument(
            "rows have changed since the plan was made, and nothing is updated: "
            + "; ".join(problems[:_NAMED])
            + more
            + ". Make a new plan and run that"
        )
    return changes, there


def _rows(db: sqlite3.Connection, select: str, identity: str, value: str | int | None) -> list[tuple[Any, ...]]:
    """Rows by an id, as the plan tells it: a UUID of 16 bytes is told in hex."""
    column = _quoted(identity)
    found = db.execute(f"{select} {column} = ? LIMIT 2", (value,)).fetchall()
    if not found and isinstance(value, str):
        found = db.execute(
            f"{select} typeof({column}) = 'blob' AND lower(hex({column})) = ? LIMIT 2", (value.lower(),)
        ).fetchall()
    return found


def _backup(database: Path, now: datetime, wait_s: float) -> Path:
    """Copy the database as it is without the transaction under way; where to. Raises sqlite3.Error, IoFailure."""
    backup = database.with_name(f"{database.name}.before-migration-{now:%Y%m%dT%H%M%SZ}")
    try:
        mode = database.stat().st_mode & 0o777
        os.close(os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
        with closing(_connected(database, "ro", wait_s)) as source, closing(sqlite3.connect(backup)) as copy:
            source.backup(copy)
        for path, flags in ((backup, os.O_RDONLY), (backup.parent, os.O_RDONLY | os.O_DIRECTORY)):
            fd = os.open(path, flags | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    except OSError as error:
        raise IoFailure(f"{backup} cannot be written, and nothing is updated: {error.strerror}") from None
    return backup


def _connected(database: Path, mode: str, wait_s: float) -> sqlite3.Connection:
    where = f"file:{quote(os.fsencode(database.absolute()))}?mode={mode}"
    db = sqlite3.connect(where, uri=True, timeout=wait_s, isolation_level=None)
    db.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
    return db


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


__all__ = ["Updated", "update"]
