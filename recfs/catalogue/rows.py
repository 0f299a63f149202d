"""Rows as SQLite has them: statements that write a batch, values that come back, and values that do not fit.

Times are kept in the range of ext4, folded into 64 bits (`core/bounds.py`). Rows as they usually are go to SQLite as
they are; only when it refuses one is the batch looked through (`fitted`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

from recfs.core import bounds
from recfs.core.model import Kind, State
from recfs.ports import AccountRow, Batch, GarbageRow, JournalRow, NodeRow, ObjectRow

Values = Sequence[Any]
Row = TypeVar("Row", NodeRow, GarbageRow, AccountRow, ObjectRow, JournalRow)

UNFIT: Final = (
    OverflowError, ValueError, TypeError,
    sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError,
)  # fmt: skip
"""What SQLite and its binding say to a value that is none: too large, of no type they know, not UTF-8, or against a
constraint of `schema.sql`."""

NODE: Final = ", ".join(NodeRow._fields)
GARBAGE: Final = ", ".join(GarbageRow._fields)
ACCOUNT: Final = ", ".join(AccountRow._fields)
OBJECT: Final = ", ".join(ObjectRow._fields)
JOURNAL: Final = ", ".join(JournalRow._fields)

_TIMES: Final = frozenset({"atime_ns", "mtime_ns", "ctime_ns"})
_TOTALS: Final = frozenset({"size_bytes", "rfiles", "used_bytes", "used_files", "month_uploads"})
_KIND = {kind.value: kind for kind in Kind}
_STATE: dict[str | None, State | None] = {None: None} | {state.value: state for state in State}
_OLDEST: Final = bounds.MIN_TIME_NS


SUM: Final = "coalesce(sum(size_bytes >> 32), 0), coalesce(sum(size_bytes & 4294967295), 0)"
"""A sum of sizes in two halves, for `added_up`: SQLite's own sum() fails beyond 64 bits."""


def added_up(halves: Sequence[tuple[Any, ...]]) -> int:
    """The sum that the one row of a query for `SUM` says."""
    ((high, low),) = halves
    return (int(high) << 32) + int(low)


def _put(table: str, fields: tuple[str, ...]) -> str:
    return f"replace into {table} ({', '.join(fields)}) values ({', '.join('?' * len(fields))})"


# `replace` also removes a row that still holds the (parent, name) a renamed row now takes; such a row changed its own
# name in the same batch, or was removed, so it is written back by its own turn.
_PUT_NODE: Final = _put("node", NodeRow._fields)
_PUT_ACCOUNT: Final = _put("account", AccountRow._fields)
_PUT_GARBAGE: Final = _put("garbage", GarbageRow._fields)
_PUT_OBJECT: Final = _put("object", ObjectRow._fields)
_PUT_JOURNAL: Final = _put("journal", JournalRow._fields)


# --- reading -------------------------------------------------------------------------------------------------------


def node_row(values: tuple[Any, ...]) -> NodeRow:
    """Turn a result row into a NodeRow with its enums."""
    ino, parent, name, kind, mode, uid, gid, size, rfiles, atime, mtime, ctime, state, *rest = values
    if atime < _OLDEST or mtime < _OLDEST or ctime < _OLDEST:
        atime, mtime, ctime = bounds.loaded_time(atime), bounds.loaded_time(mtime), bounds.loaded_time(ctime)
    return NodeRow(
        ino, parent, name, _KIND[kind], mode, uid, gid, size, rfiles, atime, mtime, ctime, _STATE[state], *rest
    )


def garbage_row(values: tuple[Any, ...]) -> GarbageRow:
    """Turn a result row into a GarbageRow with its enums."""
    gid, ino, kind, *rest = values
    row = GarbageRow(gid, ino, _KIND[kind], *rest)
    return row._replace(mtime_ns=bounds.loaded_time(row.mtime_ns))


def object_row(values: tuple[Any, ...]) -> ObjectRow:
    """Turn a result row into an ObjectRow."""
    row = ObjectRow._make(values)
    return row._replace(mtime_ns=bounds.loaded_time(row.mtime_ns)) if row.mtime_ns < _OLDEST else row


# --- writing -------------------------------------------------------------------------------------------------------


def statements(batch: Batch) -> Iterator[tuple[str, Sequence[Values]]]:
    """Statements that write *batch*, in order, each with the rows to run it for."""
    removed = [(ino,) for ino in batch.removed]
    yield "delete from node where ino = ?", removed
    yield _PUT_NODE, batch.nodes
    yield _PUT_ACCOUNT, batch.accounts
    yield _PUT_GARBAGE, batch.garbage
    yield "delete from garbage where gid = ?", [(gid,) for gid in batch.purged]
    for ino, name, value in batch.xattrs:
        if value is None:
            yield "delete from xattr where ino = ? and name = ?", [(ino, name)]
        else:
            yield "replace into xattr values (?, ?, ?)", [(ino, name, value)]
    for parent, name, hidden in batch.whiteouts:
        if hidden:
            yield "replace into whiteout values (?, ?)", [(parent, name)]
        else:
            yield "delete from whiteout where parent = ? and name = ?", [(parent, name)]
    yield "replace into view values (?, ?)", batch.views
    yield "delete from object where ino = ?", [(ino,) for ino in batch.objects_gone]
    yield _PUT_OBJECT, batch.objects
    yield _PUT_JOURNAL, batch.journal
    yield "delete from journal where id = ?", [(done,) for done in batch.journal_done]
    if removed:  # last: the batch may also hold what they were given before they went
        yield "delete from object where ino = ?", removed
        yield "delete from xattr where ino = ?", removed
        yield "delete from whiteout where parent = ?", removed
        yield "delete from view where ino = ?", removed
    yield "replace into meta values (?, ?)", list(batch.meta.items())


def write(db: sqlite3.Connection, batch: Batch) -> None:
    """Write *batch* as it is, in the transaction that is open. Raises one of `UNFIT` for a row that does not fit."""
    for statement, rows in statements(batch):
        if rows:
            db.executemany(statement, rows)


def fitted(batch: Batch) -> tuple[Batch, list[str]]:
    """Bring every value of *batch* into its range. With it come the rows that had values nobody should have handed in.

    Times beyond 2262 and sums beyond 64 bits are no such values: they are folded, and saturate.
    """
    odd: list[str] = []
    return (
        Batch(
            nodes=[_fit(row, f"inode {row.ino}", odd) for row in batch.nodes],
            removed=batch.removed,
            accounts=[_fit(row, f"account {row.user!r}", odd) for row in batch.accounts],
            garbage=[_fit(row, f"garbage {row.gid}", odd) for row in batch.garbage],
            purged=batch.purged,
            xattrs=batch.xattrs,
            whiteouts=batch.whiteouts,
            views=batch.views,
            meta={key: _text(value) for key, value in batch.meta.items()},
            objects=[_fit(row, f"object of inode {row.ino}", odd) for row in batch.objects],
            objects_gone=batch.objects_gone,
            journal=[_fit(row, f"upload journal {row.id}", odd) for row in batch.journal],
            journal_done=batch.journal_done,
        ),
        odd,
    )


def _fit(row: Row, what: str, odd: list[str]) -> Row:
    changed: dict[str, Any] = {}
    value: Any
    for field, value in zip(row._fields, row, strict=True):
        expected = False
        fit: Any = value
        if isinstance(value, str):
            fit = _text(value)
        elif isinstance(value, int) and field in _TIMES:
            fit, expected = bounds.stored_time(value), bounds.time_ns(value) == value
        elif isinstance(value, int) and field in _TOTALS:
            fit, expected = bounds.total(value), value > 0
        elif isinstance(value, int):
            fit = min(max(value, bounds.MIN_INT), bounds.MAX_INT)
        if fit != value:
            changed[field] = fit
            if not expected:
                odd.append(f"{what}: {field} = {str(value)[:60]!r} became {str(fit)[:60]!r}")
    return row._replace(**changed) if changed else row


def _text(value: str) -> str:
    """The text itself, or, where UTF-8 cannot say it (a name that was none), with its escapes written out."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
