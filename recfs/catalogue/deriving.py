"""Products and chunks, as SQLite has them: what reads them, and the statements that write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from recfs.core.media.chunks import MAX_CHUNKS, Chunk, ChunkPlan
from recfs.core.media.derived import Derived, Made, Product, Status

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from recfs.catalogue.rows import Run

_DERIVED: Final = ", ".join(Derived._fields)
_KEEP: Final = f"replace into derived ({_DERIVED}) values ({', '.join('?' * len(Derived._fields))})"
_CHUNK: Final = ", ".join(Chunk._fields)
_KEEP_CHUNK: Final = f"replace into chunk (source, {_CHUNK}) values ({', '.join('?' * (len(Chunk._fields) + 1))})"
PAGE: Final = 200
"""Chunks that are read or written in one go: about a millisecond."""
_MANY: Final = 1000
_PLAN: Final = "source, sha256, duration_ms, options, job, at_ns"
GONE: Final = (
    "delete from derived where folder not in (select ino from node where kind = 'dir')",
    "delete from chunk where source not in (select ino from node where kind = 'file')",
    "delete from chunk_plan where source not in (select ino from node where kind = 'file')",
)
LOST: Final = (
    "update chunk set status = 'pending', reason = '', ino = 0, size_bytes = 0, sha256 = null"
    " where status = 'completed' and ino not in (select ino from node where kind = 'file')"
)
"""Chunks whose file went with its temp job, or was removed."""


def of_folder(db: sqlite3.Connection, folder: int) -> list[Derived]:
    """Products of a recording."""
    return [*map(_derived, db.execute(f"select {_DERIVED} from derived where folder = ?", (folder,)))]


def not_done(db: sqlite3.Connection) -> list[Derived]:
    """Products that are pending, or being made."""
    query = f"select {_DERIVED} from derived where status in ('pending', 'processing') order by folder, product"
    return [*map(_derived, db.execute(query))]


def keep(record: Derived) -> Run:
    """What keeps a product."""
    values: list[Any] = [*record]
    at = Derived._fields.index
    for field in ("product", "status"):
        values[at(field)] = values[at(field)].value
    for field in ("files", "staged"):
        values[at(field)] = json.dumps([(name, ino, sha256.hex()) for name, ino, sha256 in values[at(field)]])
    return _KEEP, values


def plan(db: sqlite3.Connection, source: int) -> ChunkPlan | None:
    """How a file is cut, without its chunks."""
    row = db.execute(f"select {_PLAN} from chunk_plan where source = ?", (source,)).fetchone()
    return ChunkPlan._make((*row, ())) if row is not None else None


def chunk_page(db: sqlite3.Connection, source: int, first: int) -> list[Chunk]:
    """Its chunks from a number on, at most `PAGE`."""
    query = f"select {_CHUNK} from chunk where source = ? and number >= ? order by number limit {PAGE}"
    return [*map(_chunk, db.execute(query, (source, first)))]


def keep_plan(plan: ChunkPlan) -> Iterator[list[Run]]:
    """What keeps a plan, in transactions of `PAGE` rows at most: it is there from the last of them on."""
    yield [("delete from chunk_plan where source = ?", (plan.source,))]
    for first in range(0, len(plan.chunks), PAGE):
        yield [keep_chunk(plan.source, chunk) for chunk in plan.chunks[first : first + PAGE]]
    for first in range(len(plan.chunks), MAX_CHUNKS, _MANY):
        yield [("delete from chunk where source = ? and number between ? and ?", (plan.source, first, first + _MANY))]
    yield [(f"replace into chunk_plan ({_PLAN}) values (?, ?, ?, ?, ?, ?)", plan[:-1])]


def fail_chunks(source: int, reason: str, *, done: bool) -> Iterator[list[Run]]:
    """What has chunks have failed, in transactions of at most `_MANY` rows."""
    text = (
        "update chunk set status = 'failed', reason = ?, ino = 0, size_bytes = 0, sha256 = null"
        " where source = ? and number between ? and ?"
    )
    if not done:
        text += " and status <> 'completed'"
    for first in range(0, MAX_CHUNKS, _MANY):
        yield [(text, (reason, source, first, first + _MANY - 1))]


def keep_chunk(source: int, chunk: Chunk) -> Run:
    """What keeps a chunk."""
    return _KEEP_CHUNK, (source, *chunk._replace(status=chunk.status.value))  # type: ignore[arg-type]


def _derived(values: tuple[Any, ...]) -> Derived:
    record = Derived._make(values)
    return record._replace(
        product=Product(record.product), status=Status(record.status),
        files=_made(str(record.files)), staged=_made(str(record.staged)),
    )  # fmt: skip


def _made(text: str) -> tuple[Made, ...]:
    return tuple(Made(name, ino, bytes.fromhex(sha256)) for name, ino, sha256 in json.loads(text))


def _chunk(values: tuple[Any, ...]) -> Chunk:
    chunk = Chunk._make(values)
    return chunk._replace(status=Status(chunk.status))


__all__ = [
    "GONE", "LOST", "PAGE", "chunk_page", "fail_chunks", "keep", "keep_chunk", "keep_plan", "not_done", "of_folder",
    "plan",
]  # fmt: skip
