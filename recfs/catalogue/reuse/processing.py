"""Results of processing, in an SQLite file of their own: .recfs/processing.db.

Not in the catalogue, for they can be made again: they make neither it nor its backups larger, are not checked with it,
and stay good when it is restored or made anew, since they are kept by checksum. Not in files either: thousands of small
ones would take an inode each, and a listing to find the one that was not used for longest.

The file is written with write-ahead logging and without waiting for the disk: a death of the process loses nothing, a
power cut the last moments. Where it cannot be read any more, it is made anew.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from recfs.catalogue.connection import FULL
from recfs.core.reuse.processing import EVERYBODY, USERS_PART
from recfs.errors import IoFailure, OutOfSpace
from recfs.ports.processing import Counts, Gone, Kept, OfKind, Uses

if TYPE_CHECKING:
    from pathlib import Path

    from recfs.core.reuse.processing import Key, Lifetimes

log = logging.getLogger("recfs.processing")

VERSION: Final = 1
"""Of the tables (pragma user_version). A file of another one is made anew."""
ENTRY_BYTES: Final = 400
"""What a result takes besides its bytes, in the table and its indexes."""
AT_ONCE: Final = 100
LOG_BYTES: Final = 8 << 20
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_TABLES: Final = f"""
create table entry (
    number       integer primary key,
    sha256       blob    not null,
    kind         text    not null,
    options      blob    not null,     -- sha256 of them
    writer       integer not null,     -- uid to whom alone it is given, or -1
    made_ns      integer not null,     -- time that passes, as the next
    used_ns      integer not null,
    uses         integer not null,
    text_bytes   integer not null,
    packed_bytes integer not null,
    digest       blob    not null      -- sha256 of body.packed
) strict;
create unique index entry_key on entry (sha256, kind, options, writer);
create index entry_used on entry (used_ns);
create index entry_made on entry (kind, made_ns);
create table body (number integer primary key, packed blob not null) strict;  -- apart: totals are read without it
create table fact (name text primary key, value integer not null) strict, without rowid;
pragma user_version = {VERSION};
"""
_INDEX: Final = "create index if not exists entry_writer on entry (writer, used_ns)"
"""Also for a file that was made before there were shares."""
_COLUMNS: Final = "number, packed, digest, text_bytes, made_ns, uses"
_SIZES: Final = f"writer, sum(packed_bytes + {ENTRY_BYTES})"

Params = ParamSpec("Params")
Result = TypeVar("Result")


def _asked(
    method: Callable[Concatenate[ProcessingStore, sqlite3.Connection, Params], Result],
) -> Callable[Concatenate[ProcessingStore, Params], Result]:
    """A method that is carried out in one transaction. A file that cannot be read is made anew, and asked again."""

    @wraps(method)
    def ask(self: ProcessingStore, /, *args: Params.args, **kwargs: Params.kwargs) -> Result:
        try:
            return self.in_transaction(lambda db: method(self, db, *args, **kwargs))
        except sqlite3.DatabaseError as error:
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) not in _DAMAGED:
                raise self.refusal(error) from error
            self.begin_anew(f"cannot be read ({error})")
        try:
            return self.in_transaction(lambda db: method(self, db, *args, **kwargs))
        except sqlite3.DatabaseError as error:
            raise self.refusal(error) from error

    return ask


class _OtherVersion(sqlite3.DatabaseError):
    """A file of an earlier recfs, or a later one."""

    sqlite_errorcode = sqlite3.SQLITE_FORMAT


class ProcessingStore:
    """The ProcessingBooks port. The file is opened when something is asked, and not before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._bytes: dict[int, int] = {}
        """Of all results by writer, `ENTRY_BYTES` of each included."""

    # --- the file ------------------------------------------------------------------------------------------------

    def in_transaction(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do all of it, or nothing. Raises sqlite3.DatabaseError."""
        db = self._opened()
        before = dict(self._bytes)
        db.execute("begin immediate")
        try:
            result = work(db)
            db.execute("commit")
        except BaseException:
            self._bytes = before
            with contextlib.suppress(sqlite3.Error):
                db.execute("rollback")
            raise
        return result

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # not with the umask's mode
            db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
            try:
                db.execute("pragma auto_vacuum = incremental")
                db.execute("pragma journal_mode = wal")
                db.execute("pragma synchronous = normal")
                db.execute(f"pragma journal_size_limit = {LOG_BYTES}")
                (version,) = db.execute("pragma user_version").fetchone()
                (tables,) = db.execute("select count(*) from sqlite_master").fetchone()
                if tables and version != VERSION:
                    raise _OtherVersion(f"its tables are of version {version}, not {VERSION}")
                if not tables:
                    db.executescript(f"begin immediate; {_TABLES} commit;")
                db.execute(_INDEX)
                self._bytes = dict(db.execute(f"select {_SIZES} from entry group by writer"))
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def begin_anew(self, why: str) -> None:
        """Give up all results."""
        log.warning("%s %s: all results of processing are given up, and it is made anew", self._path, why)
        self.close()
        for suffix in ("-wal", "-shm", ""):  # a death in between leaves none that could be taken for another's log
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._path}{suffix}")
        with contextlib.suppress(sqlite3.DatabaseError):
            self.in_transaction(lambda db: _count(db, {"begun_anew": 1}))

    def refusal(self, error: sqlite3.DatabaseError) -> IoFailure | OutOfSpace:
        """What SQLite says, in recfs's words."""
        if getattr(error, "sqlite_errorcode", 0) in FULL:
            return OutOfSpace(f"{self._path}: the disk is full")
        return IoFailure(f"{self._path}: {error}")

    def close(self) -> None:
        """Nothing is asked any more, until something is."""
        if self._db is not None:
            db, self._db = self._db, None
            with contextlib.suppress(sqlite3.Error):
                db.close()

    # --- results -------------------------------------------------------------------------------------------------

    @_asked
    def find(
        self, db: sqlite3.Connection, key: Key, writers: Sequence[int], lifetimes: Lifetimes, now_ns: int
    ) -> Kept | None:  # fmt: skip
        """The result under a key."""
        query = (
            f"select {_COLUMNS} from entry join body using (number)"
            " where sha256 = ? and kind = ? and options = ? and writer = ?"
        )
        for writer in writers:
            row = db.execute(query, (*key, writer)).fetchone()
            if row is not None:
                found = Kept._make(row)
                if not lifetimes.is_over(key.kind, (now_ns - found.made_ns) / 1e9):
                    return found
        return None

    @_asked
    def put(self, db: sqlite3.Connection, key: Key, writer: int, kept: Kept, limit_bytes: int) -> Gone:
        """Keep one."""
        where = "sha256 = ? and kind = ? and options = ? and writer = ?"
        self._remove(db, db.execute(f"select number from entry where {where}", (*key, writer)).fetchall())
        values = (*key, writer, kept.made_ns, kept.made_ns, 0, kept.text_bytes, len(kept.packed), kept.digest)
        marks = ", ".join("?" * len(values))
        number = db.execute(
            "insert into entry"
            " (sha256, kind, options, writer, made_ns, used_ns, uses, text_bytes, packed_bytes, digest)"
            f" values ({marks})", values,
        ).lastrowid  # fmt: skip
        db.execute("insert into body (number, packed) values (?, ?)", (number, kept.packed))
        self._bytes[writer] = self._bytes.get(writer, 0) + len(kept.packed) + ENTRY_BYTES
        gone = self._make_room(db, number, limit_bytes, writer)
        _count(db, {"evicted": gone.entries, "stored": 1})
        return gone

    def _make_room(self, db: sqlite3.Connection, number: int | None, limit_bytes: int, writer: int) -> Gone:
        """Give up what has to go for one that *writer* put: first of their own, if that is for them alone."""
        gone = Gone(0, 0)
        if writer != EVERYBODY:
            gone = self._evict(db, number, writer, self._bytes[writer] - limit_bytes // USERS_PART)
        for whose in self._heaviest_first():
            over = sum(self._bytes.values()) - limit_bytes
            if over <= 0:
                break
            gone = _added(gone, self._evict(db, number, whose, over))
        return gone

    def _heaviest_first(self) -> list[int]:
        """Writers in the order that their results make room: users, those who have most first, then for everybody's."""
        return sorted(self._bytes, key=lambda writer: (writer == EVERYBODY, -self._bytes[writer]))

    def _evict(self, db: sqlite3.Connection, kept: int | None, writer: int, over: int) -> Gone:
        """Give up so many bytes of a writer's results but *kept*, those that were not used for longest."""
        gone = Gone(0, 0)
        query = (
            "select number, packed_bytes from entry where writer = ? and number <> ? order by used_ns, number limit ?"
        )
        while over > 0 and (oldest := db.execute(query, (writer, kept, AT_ONCE)).fetchall()):
            some = []
            while oldest and over > 0:
                some.append(oldest.pop(0))
                over -= some[-1][1] + ENTRY_BYTES
            gone = _added(gone, self._remove(db, [(each,) for each, _ in some]))
        return gone

    @_asked
    def drop(self, db: sqlite3.Connection, number: int) -> None:
        """Give one up."""
        self._remove(db, [(number,)])

    @_asked
    def tell(self, db: sqlite3.Connection, uses: Uses, counts: Counts) -> None:
        """Take down what was given out."""
        query = "update entry set uses = uses + ?, used_ns = max(used_ns, ?) where number = ?"
        db.executemany(query, [(times, used_ns, number) for number, (times, used_ns) in uses.items()])
        _count(db, counts)

    def expire(self, lifetimes: Lifetimes, now_ns: int) -> Gone:
        """Give up what is over, some at a time: nobody waits for long meanwhile."""
        gone = Gone(0, 0)
        self._forget_future(now_ns)
        for kind in self._kinds():
            while (some := self._expire(kind, lifetimes.of(kind), now_ns)).entries:
                gone = _added(gone, some)
        self._shrink()
        return gone

    @_asked
    def _forget_future(self, db: sqlite3.Connection, now_ns: int) -> None:
        """What was made or used later than now is of a clock that began again since: its time begins now."""
        db.execute("update entry set made_ns = min(made_ns, ?), used_ns = min(used_ns, ?)", (now_ns, now_ns))

    @_asked
    def _kinds(self, db: sqlite3.Connection) -> list[str]:
        return [kind for (kind,) in db.execute("select distinct kind from entry")]

    @_asked
    def _expire(self, db: sqlite3.Connection, kind: str, lifetime_s: float, now_ns: int) -> Gone:
        if not lifetime_s:
            return Gone(0, 0)
        query = "select number from entry where kind = ? and made_ns <= ? limit ?"
        over = db.execute(query, (kind, now_ns - round(lifetime_s * 1e9), AT_ONCE)).fetchall()
        gone = self._remove(db, over)
        _count(db, {"expired": gone.entries})
        return gone

    def _shrink(self) -> None:
        """Give free pages back to the disk."""
        with contextlib.suppress(sqlite3.OperationalError):  # somebody reads, or the disk is full: the next time
            self._opened().execute("pragma incremental_vacuum").fetchall()

    def purge(self, kind: str | None, sha256: bytes | None, made_before_ns: int | None) -> Gone:
        """Give up what is all of that."""
        gone = Gone(0, 0)
        while (some := self._purge(kind, sha256, made_before_ns)).entries:
            gone = _added(gone, some)
        self._shrink()
        return gone

    @_asked
    def _purge(
        self, db: sqlite3.Connection, kind: str | None, sha256: bytes | None, made_before_ns: int | None
    ) -> Gone:  # fmt: skip
        wanted = {"kind = ?": kind, "sha256 = ?": sha256, "made_ns < ?": made_before_ns}
        given = {text: value for text, value in wanted.items() if value is not None}
        where = " and ".join(given) or "true"
        query = f"select number from entry where {where} limit ?"
        return self._remove(db, db.execute(query, (*given.values(), AT_ONCE)).fetchall())

    def _remove(self, db: sqlite3.Connection, numbers: Sequence[tuple[int]]) -> Gone:
        """Give some up, and count what that frees."""
        entries = freed = 0
        query = "delete from entry where number = ? returning writer, packed_bytes"
        for (number,) in numbers:
            row = db.execute(query, (number,)).fetchone()
            db.execute("delete from body where number = ?", (number,))
            if row is not None:
                writer, size = row
                entries, freed = entries + 1, freed + size
                self._bytes[writer] -= size + ENTRY_BYTES
                if not self._bytes[writer]:
                    del self._bytes[writer]
        return Gone(entries, freed)

    @_asked
    def totals(self, db: sqlite3.Connection) -> tuple[Sequence[OfKind], dict[str, int]]:
        """What there is by kind, and what was counted."""
        query = (
            "select kind, count(*), sum(text_bytes), sum(packed_bytes), sum(uses)"
            " from entry group by kind order by kind"
        )
        kinds = [OfKind._make(row) for row in db.execute(query)]
        return kinds, dict(db.execute("select name, value from fact"))


def _added(one: Gone, other: Gone) -> Gone:
    return Gone(one.entries + other.entries, one.packed_bytes + other.packed_bytes)


def _count(db: sqlite3.Connection, counts: Counts) -> None:
    query = "insert into fact (name, value) values (?, ?) on conflict do update set value = value + excluded.value"
    db.executemany(query, [(name, value) for name, value in counts.items() if value])


__all__ = ["ENTRY_BYTES", "ProcessingStore"]
