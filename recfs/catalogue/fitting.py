"""Values that do not fit into the catalogue, and are made to."""

from __future__ import annotations

import sqlite3
from typing import Any, Final, TypeVar

from recfs.core import bounds
from recfs.core.life import Life
from recfs.ports.batch import Batch
from recfs.ports.rows import (
    AccountRow,
    EventRow,
    GarbageRow,
    JournalRow,
    LocalCopy,
    MediaRow,
    NodeRow,
    ObjectRow,
    Placement,
    SweepRow,
    TrashRow,
    UnansweredRow,
)

Row = TypeVar(
    "Row", NodeRow, Placement, GarbageRow, AccountRow, ObjectRow, LocalCopy, JournalRow, UnansweredRow, SweepRow, Life,
    TrashRow, EventRow, MediaRow,
)  # fmt: skip

UNFIT: Final = (
    OverflowError, ValueError, TypeError,
    sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError,
)  # fmt: skip
"""What SQLite and its binding say to a value that is none: too large, of no type they know, not UTF-8, or against a
constraint of `schema.sql`."""

_TIMES: Final = frozenset({"atime_ns", "mtime_ns", "ctime_ns"})
_TOTALS: Final = frozenset({"size_bytes", "rfiles", "used_bytes", "used_files", "month_uploads"})


def fitted(batch: Batch) -> tuple[Batch, list[str]]:
    """Bring every value of *batch* into its range. With it come the rows that had values nobody should have handed in.

    Times beyond 2262 and sums beyond 64 bits are no such values: they are folded, and saturate.
    """
    odd: list[str] = []
    return (
        Batch(
            nodes=[
                _fit(row._replace(placement=_fit(row.placement, what, odd)), what, odd)
                for row in batch.nodes
                for what in [f"inode {row.ino}"]
            ],
            removed=batch.removed,
            emptied=batch.emptied,
            accounts=[_fit(row, f"account {row.user!r}", odd) for row in batch.accounts],
            garbage=[_fit(row, f"garbage {row.gid}", odd) for row in batch.garbage],
            purged=batch.purged,
            xattrs=batch.xattrs,
            whiteouts=batch.whiteouts,
            views=batch.views,
            meta={key: _text(value) for key, value in batch.meta.items()},
            objects=[
                _fit(row._replace(copy=_fit(row.copy, what, odd)), what, odd)
                for row in batch.objects
                for what in [f"object of inode {row.ino}"]
            ],
            objects_gone=batch.objects_gone,
            journal=[_fit(row, f"upload journal {row.id}", odd) for row in batch.journal],
            journal_done=batch.journal_done,
            unanswered=[_fit(row, f"request for {row.key}", odd) for row in batch.unanswered],
            answered=[_text(key) for key in batch.answered],
            sweeps=[_fit(row, f"run {row.id} of sweep {row.name!r}", odd) for row in batch.sweeps],
            sweeps_gone=batch.sweeps_gone,
            trash=[_fit(row, f"trash {row.gid}", odd) for row in batch.trash],
            trash_gone=batch.trash_gone,
            events=[_fit(row, f"event {row.id}", odd) for row in batch.events],
            events_gone=batch.events_gone,
            media=[_fit(row, f"media of inode {row.ino}", odd) for row in batch.media],
            recordings=[row._replace(life=_fit(row.life, f"recording {row.ino}", odd)) for row in batch.recordings],
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
