"""Rows as SQLite has them: statements that write a batch, values that come back, and values that do not fit.

Times are kept in the range of ext4, folded into 64 bits (`core/bounds.py`). Rows as they usually are go to SQLite as
they are; only when it refuses one is the batch looked through (`fitted`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, TypeVar

from recfs.core import bounds
from recfs.core.model import Kind, State
from recfs.ports.batch import Batch
from recfs.ports.rows import AccountRow, GarbageRow, JournalRow, NodeRow, ObjectRow, UnansweredRow

Values = Sequence[Any]
Run = tuple[str, Values]
"""A statement's text, and the values for it."""
Row = TypeVar("Row", NodeRow, GarbageRow, AccountRow, ObjectRow, JournalRow, UnansweredRow)

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
UNANSWERED: Final = ", ".join(UnansweredRow._fields)

_TIMES: Final = frozenset({"atime_ns", "mtime_ns", "ctime_ns"})
_TOTALS: Final = frozenset({"size_bytes", "rfiles", "used_bytes", "used_files", "month_uploads"})
_KIND = {kind.value: kind for kind in Kind}
_STATE: dict[str | None, State | None] = {None: None} | {state.value: state for state in State}
_OLDEST: Final = bounds.MIN_TIME_NS


SUM: Final = "coalesce(sum(size_bytes >> 32), 0), coalesce(sum(size_bytes & 4294967295), 0)"
"""A sum of sizes in two halves, for `added_up`: SQLite's own sum() fails beyond 64 bits."""


_ALONE: Final = "state is not null and state <> 'committed' and state in ('evicted', 'fetching', 'archived')"
_SOME: Final = 5
SOME_KEYS: Final = (
    f"select * from (select key from object join node using (ino) where {_ALONE} limit {_SOME})"
    f" union select * from (select key from object limit {_SOME})"
)
"""A few of the keys that S3 should hold, those of files that are there alone among them."""
REMOTE_COUNT: Final = f"select count(*) from node where {_ALONE}"
"""How many files are in S3 alone."""


def added_up(halves: Sequence[tuple[Any, ...]]) -> int:
    """The sum that the one row of a query for `SUM` says."""
    ((high, low),) = halves
    return (int(high) << 32) + int(low)


AT_ONCE: Final = 32
"""How many rows one run of a statement writes at most."""


class Statement(NamedTuple):
    """A statement, by the number of rows that one run of it writes.

    The binding gives the interpreter's lock away at each run and may have to wait for it behind other threads: with one
    run for each row, a batch takes some three times as long as SQLite needs for it.
    """

    texts: tuple[str, ...]

    def runs(self, rows: Sequence[Values]) -> Iterator[Run]:
        """The runs that write *rows*, in order."""
        for first in range(0, len(rows), AT_ONCE):
            some = rows[first : first + AT_ONCE]
            yield self.texts[len(some)], some[0] if len(some) == 1 else [*chain.from_iterable(some)]


def _put(table: str, fields: tuple[str, ...]) -> Statement:
    before, row = f"replace into {table} ({', '.join(fields)}) values", f"({', '.join('?' * len(fields))})"
    return Statement(tuple(f"{before} {', '.join([row] * count)}" for count in range(AT_ONCE + 1)))


def _drop(table: str, *key: str) -> Statement:
    before, row = f"delete from {table} where", f"({', '.join('?' * len(key))})"
    single = f"{before} {' and '.join(f'{column} = ?' for column in key)}"
    several = f"{before} ({', '.join(key)}) in (values"
    return Statement(("", single, *(f"{several} {', '.join([row] * count)})" for count in range(2, AT_ONCE + 1))))


# `replace` also removes a row that still holds the (parent, name) a renamed row now takes; such a row changed its own
# name in the same batch, or was removed, so it is written back by its own turn.
_PUT_NODES: Final = _put("node", NodeRow._fields)
_PUT_ACCOUNTS: Final = _put("account", AccountRow._fields)
_PUT_GARBAGE: Final = _put("garbage", GarbageRow._fields)
_PUT_OBJECTS: Final = _put("object", ObjectRow._fields)
_PUT_JOURNAL: Final = _put("journal", JournalRow._fields)
_PUT_UNANSWERED: Final = _put("unanswered", UnansweredRow._fields)
_PUT_XATTR: Final = _put("xattr", ("ino", "name", "value"))
_PUT_WHITEOUT: Final = _put("whiteout", ("parent", "name"))
_PUT_VIEWS: Final = _put("view", ("view_id", "ino"))
_PUT_META: Final = _put("meta", ("key", "value"))
_DROP_NODES: Final = _drop("node", "ino")
_DROP_GARBAGE: Final = _drop("garbage", "gid")
_DROP_OBJECTS: Final = _drop("object", "ino")
_DROP_JOURNAL: Final = _drop("journal", "id")
_DROP_UNANSWERED: Final = _drop("unanswered", "key")
_DROP_XATTR: Final = _drop("xattr", "ino", "name")
_DROP_WHITEOUT: Final = _drop("whiteout", "parent", "name")
_DROP_ALL_OF: Final = (_DROP_OBJECTS, _drop("xattr", "ino"), _drop("whiteout", "parent"), _drop("view", "ino"))
"""What goes with a node."""


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


def statements(batch: Batch) -> Iterator[tuple[Statement, Sequence[Values]]]:
    """Statements that write *batch*, in order, each with the rows to run it for."""
    removed = [(ino,) for ino in batch.removed]
    yield _DROP_NODES, removed
    yield _PUT_NODES, batch.nodes
    yield _PUT_ACCOUNTS, batch.accounts
    yield _PUT_GARBAGE, batch.garbage
    yield _DROP_GARBAGE, [(gid,) for gid in batch.purged]
    for ino, name, value in batch.xattrs:
        yield (_DROP_XATTR, [(ino, name)]) if value is None else (_PUT_XATTR, [(ino, name, value)])
    for parent, name, hidden in batch.whiteouts:
        yield _PUT_WHITEOUT if hidden else _DROP_WHITEOUT, [(parent, name)]
    yield _PUT_VIEWS, batch.views
    yield _DROP_OBJECTS, [(ino,) for ino in batch.objects_gone]
    yield _PUT_OBJECTS, batch.objects
    yield _PUT_JOURNAL, batch.journal
    yield _DROP_JOURNAL, [(done,) for done in batch.journal_done]
    yield _PUT_UNANSWERED, batch.unanswered
    yield _DROP_UNANSWERED, [(key,) for key in batch.answered]
    for statement in _DROP_ALL_OF:  # last: the batch may also hold what they were given before they went
        yield statement, removed
    yield _PUT_META, list(batch.meta.items())


def runs(batch: Batch) -> list[Run]:
    """What is to be run, in one transaction and in order, to write *batch* as it is.

    SQLite, or its binding, raises one of `UNFIT` for a row that does not fit.
    """
    return [run for statement, rows in statements(batch) if rows for run in statement.runs(rows)]


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
            unanswered=[_fit(row, f"request for {row.key}", odd) for row in batch.unanswered],
            answered=[_text(key) for key in batch.answered],
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
