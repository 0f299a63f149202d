"""SQLite behind the Catalogue port: one writer connection, used on the trio thread, in WAL mode.

Why nothing here waits for the disk on the trio thread:
- `synchronous=NORMAL`: a commit in WAL mode writes the log but does not fsync it. `sync()` fsyncs the log file in a
  thread, once for all batches applied by then (group commit).
- `wal_autocheckpoint=0`: the log is folded into the main file by `checkpoint()`, which runs a passive checkpoint on a
  second connection in a thread. Passive checkpoints never wait for, nor block, the writer
  (sqlite.org/c3ref/wal_checkpoint_v2.html).
One daemon writes (the root's lock file sees to that) and command-line readers open read-only, so
"database is locked" has nobody to come from.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from recfs.catalogue.check import recount
from recfs.catalogue.connection import FULL
from recfs.catalogue.headroom import Headroom
from recfs.catalogue.rows import (
    ACCOUNT,
    AND_PLACEMENT,
    COPIES,
    FORGET_FUTURE,
    GARBAGE,
    JOURNAL,
    NODE,
    NODE_ALONE,
    NODES,
    OBJECT,
    OBJECTS,
    REMOTE_COUNT,
    SOME_KEYS,
    STAGED,
    SUM,
    UNANSWERED,
    UNFIT,
    UNSETTLED,
    Known,
    added_up,
    fitted,
    garbage_row,
    node_row,
    object_row,
    runs,
)
from recfs.core.bounds import MAX_INT
from recfs.errors import IoFailure, OutOfSpace, RowRefused
from recfs.ports.rows import HOST, AccountRow, JournalRow, UnansweredRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from recfs.catalogue.rows import Run
    from recfs.ports.batch import Batch
    from recfs.ports.rows import GarbageRow, NodeRow, ObjectRow

log = logging.getLogger("recfs.catalogue")

CHECKPOINT_PAGES = 4096
"""Log length (4 KiB pages) from which `checkpoint` folds it into the main file: 16 MiB."""

FOLD_EVERY_S = 1.0
"""How long the log is not tried to be folded in on a full disk, after that was in vain."""

REFUSED_KEPT = 20
"""How many rows that did not fit `recfs status` names."""


class SqliteCatalogue:
    """The Catalogue port on one SQLite file. Construct with `opening.open_catalogue`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._db = connection
        self._sync_limiter = trio.CapacityLimiter(1)
        self._applied = 0
        self._synced = 0
        self._wal_fd = -1
        self.refused: Sequence[str] = ()
        self._folded_s = float("-inf")
        """When the log could not be folded in for want of room."""
        self.folds = 0
        """How often the log was folded in."""
        self.headroom = Headroom(path)
        self._known = Known()

    # --- writing -------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, *, trial: bool = False) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction, or (*trial*) as one that is taken back; no await may stand inside."""
        self._db.execute("begin immediate")
        try:
            yield self._db
            self._db.execute("rollback" if trial else "commit")
        except BaseException:
            if self._db.in_transaction:  # on a full disk SQLite has rolled back by itself
                self._db.execute("rollback")
            raise

    def _run(self, todo: Sequence[Run], *, trial: bool) -> None:
        """Run *todo* as one transaction."""
        if len(todo) == 1 and not trial:  # a statement by itself is one (sqlite.org/lang_transaction.html)
            self._db.execute(*todo[0])
            return
        with self._transaction(trial=trial) as db:
            for text, values in todo:
                db.execute(text, values)

    async def apply(self, batch: Batch, *, trial: bool = False) -> None:
        """Write *batch* in one transaction, all of it or nothing. A value that does not fit is made to: `refused`."""
        try:
            try:
                self._run(runs(batch, self._known), trial=trial)
            except UNFIT:
                self._known.forget()
                self._apply_fitted(batch, trial=trial)
        except UNFIT as error:
            self._known.forget()
            raise RowRefused(f"catalogue {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            self._known.forget()
            raise self._failure(error) from error
        if not trial:
            self._applied += 1
            self._known.written(batch.nodes)

    def _apply_fitted(self, batch: Batch, *, trial: bool) -> None:
        """Write *batch* with its values brought into their ranges."""
        fit, told = fitted(batch)
        self._run(runs(fit, self._known), trial=trial)
        for what in told if not trial else ():
            if what not in self.refused:
                log.error("catalogue %s: a row does not fit: %s", self._path, what)
                self.refused = (*self.refused[-(REFUSED_KEPT - 1) :], what)

    def _failure(self, error: sqlite3.DatabaseError) -> OutOfSpace | IoFailure:
        if getattr(error, "sqlite_errorcode", 0) in FULL:
            return OutOfSpace(f"catalogue {self._path}: the disk is full")
        return self._trouble(error)

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
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error

    def _read_one(self, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        rows = self._read(query, values)
        return rows[0] if rows else None

    async def sync(self) -> None:
        """Fsync the log unless a later sync already covered what was applied before this call."""
        wanted = self._applied
        async with self._sync_limiter:
            if self._synced >= wanted:
                return
            covered = self._applied
            if self._wal_fd < 0:
                self._wal_fd = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                await trio.to_thread.run_sync(os.fdatasync, self._wal_fd)
            except OSError as error:
                raise IoFailure(f"catalogue {self._path}: {error}") from error
            self._synced = covered

    async def checkpoint(self, *, at_least_pages: int = CHECKPOINT_PAGES) -> None:
        """Fold the log into the main file when it has grown to *at_least_pages*. Raises IoFailure or OutOfSpace."""
        try:
            pages = os.stat(f"{self._path}-wal").st_size // 4096
        except FileNotFoundError:
            return
        if pages >= at_least_pages:
            try:
                await trio.to_thread.run_sync(self._checkpoint_in_thread)
            except sqlite3.DatabaseError as error:
                raise self._failure(error) from error

    async def fold(self) -> bool:
        """Fold all of the log in, so that it is written anew from its beginning; tells whether that worked.

        After a failure not for a second: on a full disk everybody who writes asks for it.
        """
        if trio.current_time() - self._folded_s < FOLD_EVERY_S:
            return False
        try:
            return await trio.to_thread.run_sync(self._checkpoint_in_thread)
        except sqlite3.DatabaseError:
            self._folded_s = trio.current_time()
            return False

    def _checkpoint_in_thread(self) -> bool:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as other:
            other.execute("pragma synchronous = normal")
            _, pages, folded = other.execute("pragma wal_checkpoint(passive)").fetchone()
            self.folds += 1
            return bool(pages == folded)

    def close(self) -> None:
        """Fold the log in and close. The file alone is then the whole catalogue."""
        if self._wal_fd >= 0:
            os.close(self._wal_fd)
            self._wal_fd = -1
        with suppress(sqlite3.OperationalError):  # on a full disk the log stays, and is as good
            self._db.execute("pragma wal_checkpoint(truncate)")
        self._db.close()
        self.headroom.close()

    # --- reading -------------------------------------------------------------------------------------------------

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

    async def unsettled(self) -> Sequence[NodeRow]:
        """What was under way when the catalogue was last written."""
        query = f"select {NODE} from {NODES} where node.ino in ({UNSETTLED}) order by node.ino"
        return [node_row(row) for row in self._read(query)]

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction. Raises IoFailure or OutOfSpace."""
        try:
            with self._transaction() as db:
                yield db
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error
        self._known.forget()
        self._applied += 1

    async def forget_home_inos(self) -> None:
        """Forget every recorded st_ino."""
        with self._change() as db:
            db.execute("update placement set home_ino = null where host = ? and home_ino is not null", (HOST,))
            db.execute("update garbage set home_ino = null where home_ino is not null")

    async def staged(self) -> set[str | None]:
        """Staging ids that rows name."""
        return {staging for (staging,) in self._read(STAGED)}

    async def garbage(self) -> Sequence[GarbageRow]:
        """All garbage rows, oldest first."""
        return [garbage_row(row) for row in self._read(f"select {GARBAGE} from garbage order by gid")]

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

    async def meta(self) -> dict[str, str]:
        """Store-wide facts."""
        return dict(self._read("select key, value from meta"))

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

    async def object_at(self, key: str, but: int) -> int | None:
        """Another inode than *but* whose object lies under *key*."""
        row = self._read_one("select ino from object where key = ? and ino <> ?", (key, but))
        return int(row[0]) if row is not None else None

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

    async def recount(self) -> int:
        """Have every counter say what its rows add up to, in a thread."""
        found = await trio.to_thread.run_sync(recount, self._path)
        self._known.forget()
        return len(found.differences)

    async def highest_ino(self) -> int:
        """The highest inode number."""
        query = "select max(coalesce((select max(ino) from node), 0), coalesce((select max(ino) from garbage), 0))"
        return int(self._read(query)[0][0])

    async def forget_future(self, now_ns: int) -> None:
        """What lies ahead of *now_ns* counts as recorded just now."""
        with self._change() as db:
            for text in FORGET_FUTURE:
                db.execute(text, {"now": now_ns})

    async def forget_fetches(self) -> None:
        """`fetching` is `evicted` again."""
        with self._change() as db:
            db.execute("update node set state = 'evicted' where state = 'fetching'")
