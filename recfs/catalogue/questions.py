"""What the daemon asks its catalogue: the reads of the Catalogue port."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import trio

from recfs.catalogue import deriving
from recfs.catalogue.rows import (
    ACCOUNT,
    AND_PLACEMENT,
    CONTENT,
    COPIES,
    GARBAGE,
    JOURNAL,
    LIFE,
    MEDIA,
    NAMED,
    NODE,
    NODE_ALONE,
    NODES,
    OBJECT,
    OBJECTS,
    REMOTE_COUNT,
    SOME_KEYS,
    STAGED,
    SUM,
    SWEEP,
    TRASH,
    UNANSWERED,
    UNHASHED,
    UNSETTLED,
    added_up,
    garbage_row,
    life,
    node_row,
    object_row,
    trash_row,
)
from recfs.core.bounds import MAX_INT
from recfs.errors import IoFailure
from recfs.ports.rows import HOST, AccountRow, Content, JournalRow, MediaRow, SweepRow, UnansweredRow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recfs.core.life import Life
    from recfs.core.media.chunks import Chunk, ChunkPlan
    from recfs.core.media.derived import Derived
    from recfs.ports.rows import GarbageRow, NodeRow, ObjectRow, TrashRow


class Questions:
    """Reads, on the writer's connection: they see its last batch. While one is written in a thread, on another."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._db = connection

    def _readable(self) -> sqlite3.Connection:
        """The connection that a read waits for nobody on."""
        return self._db

    def _trouble(self, error: sqlite3.DatabaseError) -> IoFailure:
        """The file is damaged, or cannot be read or written."""
        damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        helps = (
            "docs/runbook.md tells how to restore it" if damaged
            else "can it and its -wal be read and written (lsattr, dmesg)?"
        )  # fmt: skip
        return IoFailure(f"catalogue {self._path}: {error}; {helps}")

    def _read(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of *query*. Raises IoFailure when the file is damaged there."""
        try:
            return self._readable().execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error

    def _read_one(self, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        rows = self._read(query, values)
        return rows[0] if rows else None

    async def node(self, ino: int) -> NodeRow | None:
        """The row of *ino*."""
        row = self._read_one(f"select {NODE} from {NODES} where node.ino = ?", (ino,))
        return node_row(row) if row else None

    async def child(self, parent: int, name: bytes) -> NodeRow | None:
        """The row called *name* in *parent*; the root is its own parent and nobody's child."""
        query = f"select {NODE} from {NODES} where parent = ? and name = ? and node.ino <> 1"
        row = self._read_one(query, (parent, name))
        return node_row(row) if row else None

    async def children(self, parent: int, after_ino: int, limit: int, *, placed: bool = False) -> Sequence[NodeRow]:
        """A page of *parent*'s rows in inode order."""
        columns, here = (NODE, AND_PLACEMENT) if placed else (NODE_ALONE, "")
        which = "where parent = ? and node.ino > ? order by node.ino limit ?"
        query = f"select {columns} from node indexed by node_parent {here} {which}"
        return [node_row(row) for row in self._read(query, (parent, max(after_ino, 1), limit))]

    async def named(self, parent: int, prefix: bytes, limit: int) -> Sequence[NodeRow]:
        """As the port says: a range of the index of names."""
        beyond = prefix[:-1] + bytes([prefix[-1] + 1])
        query = f"select {NODE_ALONE} from node where parent = ? and name >= ? and name < ? and node.ino <> 1 limit ?"
        return [node_row(row) for row in self._read(query, (parent, prefix, beyond, limit))]

    async def contents(self, parent: int, after_ino: int, limit: int) -> Sequence[Content]:
        """As the port says."""
        which = "where parent = ? and node.ino > ? order by node.ino limit ?"
        query = f"select {CONTENT} from node indexed by node_parent {AND_PLACEMENT} {which}"
        return [Content._make(row) for row in self._read(query, (parent, max(after_ino, 1), limit))]

    async def files(self, after_ino: int, limit: int) -> Sequence[int]:
        """As the port says."""
        query = "select ino from node where ino > ? and kind = 'file' order by ino limit ?"
        return [ino for (ino,) in self._read(query, (after_ino, limit))]

    async def unsettled(self) -> Sequence[NodeRow]:
        """What was under way when the catalogue was last written."""
        query = f"select {NODE} from {NODES} where node.ino in ({UNSETTLED}) order by node.ino"
        return [node_row(row) for row in self._read(query)]

    async def unhashed(self, after_ino: int, limit: int) -> Sequence[int]:
        """As the port says."""
        query = f"select node.ino {UNHASHED} and node.ino > ? order by node.ino limit ?"
        return [ino for (ino,) in self._read(query, (after_ino, limit))]

    async def staged(self) -> set[str | None]:
        """Staging ids that rows name."""
        return {staging for (staging,) in self._read(STAGED)}

    async def garbage(self) -> Sequence[GarbageRow]:
        """All garbage rows, oldest first."""
        return [garbage_row(row) for row in self._read(f"select {GARBAGE} from garbage order by gid")]

    async def trash(self) -> Sequence[tuple[TrashRow, int]]:
        """As the port says."""
        found = self._read(f"select length(xattrs), {TRASH} from trash_entry order by gid")
        return [(trash_row(tuple(row)), size) for size, *row in found]

    async def trash_xattrs(self, gid: int) -> bytes:
        """As the port says."""
        row = self._read_one("select xattrs from trash_entry where gid = ?", (gid,))
        return bytes(row[0]) if row is not None else b""

    async def account(self, user: str) -> AccountRow | None:
        """The counters of *user*."""
        row = self._read_one(f"select {ACCOUNT} from account where user = ?", (user,))
        return AccountRow._make(row) if row else None

    async def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """The user's extended attributes of *ino*."""
        return dict(self._read("select name, value from xattr where ino = ?", (ino,)))

    async def whiteouts(self, parent: int) -> set[bytes]:
        """Names hidden in *parent*."""
        return {name for (name,) in self._read("select name from whiteout where parent = ?", (parent,))}

    async def views(self) -> Sequence[tuple[int, int]]:
        """All (view id, shared inode) pairs."""
        return self._read("select view_id, ino from view")

    async def jobs(self, activity_before_ns: int) -> Sequence[NodeRow]:
        """Job directories whose last change is older."""
        query = f"select {NODE} from {NODES} where activity_ns <> 0 and activity_ns < ? order by activity_ns"
        return [node_row(row) for row in self._read(query, (min(activity_before_ns, MAX_INT),))]

    async def recording(self, ino: int) -> Life | None:
        """What is kept of a recording."""
        row = self._read_one(f"select {LIFE} from recording where ino = ?", (ino,))
        return life(row) if row else None

    async def media(self, ino: int) -> MediaRow | None:
        """What is known of a file's content."""
        row = self._read_one(f"select {MEDIA} from media where ino = ?", (ino,))
        return MediaRow._make(row) if row else None

    async def media_pending(self, checkers: Sequence[str], after_ino: int, limit: int) -> Sequence[MediaRow]:
        """A page of what is to be looked into."""
        query = (
            f"select {MEDIA} from media indexed by media_open where verdict = 'pending' and ino > ?"
            f" and checker in ({', '.join('?' * len(checkers))}) order by ino limit ?"
        )
        return [MediaRow._make(row) for row in self._read(query, (after_ino, *checkers, limit))]

    async def media_alike(self, sha256: bytes, checker: str) -> MediaRow | None:
        """What was found in the same bytes."""
        query = f"select {MEDIA} from media where sha256 = ? and verdict in ('whole', 'broken') and checker = ? limit 1"
        row = self._read_one(query, (sha256, checker))
        return MediaRow._make(row) if row else None

    async def unlooked(self, after_ino: int, limit: int) -> Sequence[tuple[int, bytes]]:
        """As the port says."""
        query = (
            "select node.ino, node.name from node left join media on media.ino = node.ino where node.kind = 'file'"
            f" and node.sha256 is not null and media.ino is null and node.ino > ? and {NAMED} order by node.ino limit ?"
        )
        return [(int(ino), bytes(name)) for ino, name in self._read(query, (after_ino, limit))]

    async def meta(self) -> dict[str, str]:
        """Store-wide facts."""
        return dict(self._read("select key, value from meta"))

    async def sweeps(self) -> Sequence[SweepRow]:
        """Runs of sweeps, oldest first."""
        return [SweepRow._make(row) for row in self._read(f"select {SWEEP} from sweep_run order by id")]

    # --- S3 ------------------------------------------------------------------------------------------------------

    async def object(self, ino: int) -> ObjectRow | None:
        """What S3 holds of *ino*."""
        row = self._read_one(f"select {OBJECT} from {OBJECTS} where object.ino = ?", (ino,))
        return object_row(row) if row else None

    async def journal(self) -> Sequence[JournalRow]:
        """All work that is not done."""
        return [JournalRow._make(row) for row in self._read(f"select {JOURNAL} from journal order by id")]

    async def unanswered(self) -> Sequence[UnansweredRow]:
        """Requests that S3 may carry out yet."""
        return [UnansweredRow._make(row) for row in self._read(f"select {UNANSWERED} from unanswered")]

    async def upload_names(self) -> Sequence[tuple[int, bytes, str | None]]:
        """(row, file name, user) of all journalled uploads; no user for shared files."""
        query = (
            "with recursive up(id, file, at, above, name, below) as ("
            " select journal.id, node.name, node.ino, node.parent, node.name, null"
            " from journal join node on node.ino = journal.ino where journal.kind = 'upload'"
            " union all select up.id, up.file, node.ino, node.parent, node.name, up.name"
            " from up join node on node.ino = up.above where up.at <> 1 and node.ino <> 1)"
            " select id, file, case when name in (?, ?) then below end from up where above = 1"
        )
        found = self._read(query, (b"users", b"temp"))
        return [
            (row_id, file, user.decode("ascii", "replace") if user is not None else None)
            for row_id, file, user in found
        ]

    async def any_object(self) -> bool:
        """Whether S3 holds anything."""
        return self._read_one("select 1 from object limit 1", ()) is not None

    async def some_objects(self) -> tuple[Sequence[str], int]:
        """A few keys that S3 should hold, and how many files are in S3 alone."""
        counted = self._read_one(REMOTE_COUNT, ())
        keys = [str(key) for (key,) in self._read(SOME_KEYS, ())]
        return keys, int(counted[0]) if counted is not None else 0

    async def objects_after(self, key: str, limit: int) -> Sequence[ObjectRow]:
        """A page of objects in order of their keys: SQLite compares text as its bytes (sqlite.org/datatype3.html)."""
        query = f"select {OBJECT} from {OBJECTS} where object.key > ? order by object.key limit ?"
        return [object_row(row) for row in self._read(query, (key, limit))]

    async def object_at(self, key: str, but: int) -> int | None:
        """Another inode than *but* whose object lies under *key*."""
        row = self._read_one("select ino from object where key = ? and ino <> ?", (key, but))
        return int(row[0]) if row is not None else None

    async def objects_of(self, sha256: bytes, but: int, limit: int) -> Sequence[int]:
        """Other inodes than *but* whose objects have those bytes."""
        query = "select ino from object where sha256 = ? and ino <> ? limit ?"
        return [int(ino) for (ino,) in self._read(query, (sha256, but, limit))]

    async def objects_by_key(self, after: str, limit: int) -> Sequence[ObjectRow]:
        """A page in order of keys. SQLite compares texts by their bytes."""
        query = f"select {OBJECT} from {OBJECTS} where object.key > ? order by object.key limit ?"
        return [object_row(row) for row in self._read(query, (after, limit))]

    async def objects_below(self, folder: int, after_ino: int, limit: int) -> Sequence[int]:
        """Inodes with an object below *folder*."""
        query = (
            "with recursive below(ino) as (select ? union all select node.ino from node join below"
            " on node.parent = below.ino where node.kind = 'dir' and node.ino <> 1)"
            " select node.ino from node join below on node.parent = below.ino"
            " where node.has_object = 1 and node.ino > ? order by node.ino limit ?"
        )
        return [ino for (ino,) in self._read(query, (folder, after_ino, limit))]

    async def evictable(self, now_ns: int, limit: int) -> Sequence[int]:
        """Inodes whose local copy may go, least recently used first."""
        query = (
            f"select ino from local_copy join node using (ino) where host = {HOST} and local = 1"
            " and pinned = 0 and keep_until_ns <= ? and node.state = 'stored' order by used_ns limit ?"
        )
        return [ino for (ino,) in self._read(query, (now_ns, limit))]

    async def local_object_bytes(self) -> int:
        """Bytes of all local copies."""
        return added_up(self._read(f"select {SUM} from {COPIES} and local = 1"))

    async def bytes_below(self, folder: int) -> int:
        """Sizes of all files below *folder*, added up anew."""
        query = (
            "with recursive below(ino) as (select ? union all select node.ino from node join below"
            " on node.parent = below.ino where node.kind = 'dir' and node.ino <> 1)"
            f" select {SUM} from node join below on node.parent = below.ino where node.kind = 'file'"
        )
        return added_up(self._read(query, (folder,)))

    async def event_span(self) -> tuple[int, int]:
        """The first and the last event."""
        return self._read("select coalesce(min(id), 0), coalesce(max(id), 0) from event")[0]

    async def event_since(self, at_ns: int) -> int | None:
        """The first event that is not older."""
        found = self._read_one("select id from event where at_ns >= ? order by id limit 1", (at_ns,))
        return found[0] if found is not None else None

    async def derived(self, folder: int) -> Sequence[Derived]:
        """Products of a recording."""
        return deriving.of_folder(self._db, folder)

    async def derived_open(self) -> Sequence[Derived]:
        """Products that are to be made."""
        return deriving.not_done(self._db)

    async def chunk_plan(self, source: int) -> ChunkPlan | None:
        """How a file is cut."""
        while True:
            found: list[Chunk] = []
            plan = deriving.plan(self._readable(), source)
            while plan is not None and (page := deriving.chunk_page(self._readable(), source, len(found))):
                found += page
                await trio.lowlevel.checkpoint()
            if deriving.plan(self._readable(), source) == plan:  # else another has been made meanwhile
                return plan._replace(chunks=tuple(found)) if plan is not None else None

    async def chunk_head(self, source: int) -> ChunkPlan | None:
        """The same without its chunks."""
        return deriving.plan(self._readable(), source)

    async def highest_ino(self) -> int:
        """The highest inode number."""
        query = "select max(coalesce((select max(ino) from node), 0), coalesce((select max(ino) from garbage), 0))"
        return int(self._read(query)[0][0])


__all__ = ["Questions"]
