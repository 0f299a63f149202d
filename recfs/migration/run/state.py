"""The state of a run, `PLAN.state` beside the plan: an SQLite database that survives a death at any moment.

A row is written before the first byte of a file is copied, and again when all of it is there (`synchronous = FULL`, so
that a power cut takes nothing back that was told). One run at a time: `PLAN.state.lock` is held, also by what a run has
started, so that a run which was killed is over only when its rsync is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from recfs.core.bounds import loaded_time, stored_time
from recfs.core.migration.steps import UNKNOWN_NS, Brought, Row, Seen, Step
from recfs.errors import AccessDenied, IoFailure, OutOfSpace, StoreError
from recfs.migration.plans import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_VERSION: Final = 2
_WAIT_S: Final = 0.2
_COLUMNS: Final = (
    "source, target, step, brought, size, mtime_ns, device, inode, sha256, left_size, left_mtime_ns, problem, was_uid,"
    " was_gid, ctime_ns"
)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    source BLOB NOT NULL, target BLOB NOT NULL, step TEXT NOT NULL, brought TEXT NOT NULL,
    size INTEGER, mtime_ns INTEGER, device TEXT, inode TEXT, sha256 TEXT,
    left_size INTEGER, left_mtime_ns INTEGER, problem TEXT NOT NULL, was_uid INTEGER, was_gid INTEGER,
    ctime_ns INTEGER,
    PRIMARY KEY (source, target)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS directories (path BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recordings (path TEXT PRIMARY KEY, expires TEXT NOT NULL, problem TEXT NOT NULL)
    WITHOUT ROWID;
"""


class State:
    """What a run has done. All of it is in memory, too; what is put is durable when the call returns."""

    def __init__(self, plan: Path, connection: sqlite3.Connection, lock: int) -> None:
        self.plan = plan
        self.lock = lock
        """The descriptor that holds the lock; programs that write for the run are given it."""
        self._db = connection
        self._rows = dict(self._read())
        self.directories = {bytes(path) for (path,) in self._db.execute("SELECT path FROM directories")}
        """What was made in the store on the way, below its top."""
        self.recordings = {
            path: (expires, problem)
            for path, expires, problem in self._db.execute("SELECT path, expires, problem FROM recordings")
        }
        """Recordings whose expiry was carried over: what was set, and why it was not, or ""."""

    def row(self, source: bytes, target: bytes) -> Row:
        """What is known of a file, or a row that says nothing. Not yet kept: `put` does that."""
        found = self._rows.get((source, target))
        return found if found is not None else Row(source, target)

    def rows(self) -> Iterable[Row]:
        """All that is known, also of files that are not in the plan any more."""
        return self._rows.values()

    def put(self, rows: Iterable[Row], directories: Iterable[bytes] = ()) -> None:
        """Keep rows, and that directories were made. Raises OutOfSpace, IoFailure."""
        rows, directories = list(rows), set(directories) - self.directories
        if not rows and not directories:
            return
        with _told(self.plan), self._db:
            self._db.executemany(
                f"INSERT OR REPLACE INTO files ({_COLUMNS}) VALUES ({', '.join('?' * (_COLUMNS.count(',') + 1))})",
                map(_values, rows),
            )
            self._db.executemany("INSERT OR IGNORE INTO directories VALUES (?)", ((each,) for each in directories))
        for row in rows:
            self._rows[row.source, row.target] = row
        self.directories |= directories

    def forget_directories(self, directories: Iterable[bytes]) -> None:
        """Keep that directories are gone again. Raises OutOfSpace, IoFailure."""
        gone = list(directories)
        if not gone:
            return
        with _told(self.plan), self._db:
            self._db.executemany("DELETE FROM directories WHERE path = ?", ((each,) for each in gone))
        self.directories.difference_update(gone)

    def put_expiry(self, recording: str, expires: str, problem: str = "") -> None:
        """Keep that a recording's expiry was carried over, or why not. Raises OutOfSpace, IoFailure."""
        with _told(self.plan), self._db:
            self._db.execute("INSERT OR REPLACE INTO recordings VALUES (?, ?, ?)", (recording, expires, problem))
        self.recordings[recording] = (expires, problem)

    def forget_expiry(self, recordings: Iterable[str]) -> None:
        """Keep that recordings are as if the store had been told nothing. Raises OutOfSpace, IoFailure."""
        gone = list(recordings)
        with _told(self.plan), self._db:
            self._db.executemany("DELETE FROM recordings WHERE path = ?", ((each,) for each in gone))
        for each in gone:
            del self.recordings[each]

    def fact(self, key: str) -> str | None:
        """A single fact of the run; None where it was never told."""
        found = self._db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def put_fact(self, key: str, value: str) -> None:
        """Keep a single fact. Raises OutOfSpace, IoFailure."""
        with _told(self.plan), self._db:
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, value))

    def _read(self) -> Iterator[tuple[tuple[bytes, bytes], Row]]:
        for found in self._db.execute(f"SELECT {_COLUMNS} FROM files"):
            source, target, step, brought, size, mtime_ns, device, inode, sha256, left, left_ns, problem, *rest = found
            uid, gid, ctime_ns = rest
            ctime_ns = UNKNOWN_NS if ctime_ns is None else loaded_time(ctime_ns)
            seen = None if size is None else Seen(size, loaded_time(mtime_ns), int(device), int(inode), ctime_ns)
            known = None if left is None else (left, loaded_time(left_ns))
            row = Row(bytes(source), bytes(target), Step(step), Brought(brought), seen, sha256, known, problem)
            row.was = None if uid is None else (uid, gid)
            yield (row.source, row.target), row


def _values(row: Row) -> tuple[object, ...]:
    seen, left = row.seen, (None, None) if row.left is None else (row.left[0], stored_time(row.left[1]))
    # Device and inode numbers have 64 bits without a sign, which SQLite's integers do not hold.
    looks = (
        (seen.size, stored_time(seen.mtime_ns), str(seen.device), str(seen.inode)) if seen is not None else (None,) * 4
    )
    return (
        row.source,
        row.target,
        row.step,
        row.brought,
        *looks,
        row.sha256,
        *left,
        row.problem,
        *(row.was or (None, None)),
        None if seen is None or seen.ctime_ns == UNKNOWN_NS else stored_time(seen.ctime_ns),
    )


@contextlib.contextmanager
def opened(plan: Path, *, wait_s: float = 0.0, tell: Callable[[str], None] = lambda line: None) -> Iterator[State]:
    """Open the state of the run of *plan*, or begin one, and keep others out.

    Another run, or the rsync of one that was killed, is waited for *wait_s* seconds. Raises StoreError where it has not
    ended then, or where the file is none of this version; OutOfSpace and IoFailure as the disk does.
    """
    path = state_of(plan)
    with _told(plan):
        lock = os.open(
            path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    try:
        _refuse_others(lock, plan)
        _take(lock, plan, wait_s, tell)
        with _told(plan):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _refuse_others(file, plan)
            finally:
                os.close(file)
            connection = sqlite3.connect(path)
        try:
            with _told(plan):
                connection.execute("PRAGMA synchronous = FULL")
                _begin(connection, plan)
                state = State(plan, connection, lock)
            yield state
        finally:
            connection.close()
    finally:
        os.close(lock)


@contextlib.contextmanager
def seen(plan: Path) -> Iterator[State]:
    """Look at the state of the run of *plan*, also while a run goes on; one that has not begun is empty.

    What is put there is kept nowhere. Raises StoreError where the file is none of this version, IoFailure.
    """
    path = state_of(plan)
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        with _told(plan):
            if path.exists():
                there = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"
                with contextlib.closing(sqlite3.connect(there, uri=True)) as source:
                    source.backup(copy)
            _begin(copy, plan)
            state = State(plan, copy, -1)
        yield state


def _refuse_others(fd: int, plan: Path) -> None:
    """Raise AccessDenied for a file of a run that others have made, or may write: it decides what is deleted."""
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise AccessDenied(
            f"{state_of(plan)} or its lock is another user's, or others may write to it, and it decides what is copied"
            " and deleted: remove it, or chown and chmod 600 it if you know where it is from"
        )


def _take(lock: int, plan: Path, wait_s: float, tell: Callable[[str], None]) -> None:
    until_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until_s:
                raise StoreError(
                    f"another run of {plan}, or the rsync of one that was killed, is under way: wait for it"
                ) from None
        tell("waiting for another run of this plan, or the rsync of one that was killed, to end")
        time.sleep(_WAIT_S)


def _begin(connection: sqlite3.Connection, plan: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise StoreError(f"{state_of(plan)} is of a newer version of recfs ({version}): use that one")
    added = "ALTER TABLE files ADD COLUMN ctime_ns INTEGER;" if version == 1 else ""
    connection.executescript(f"BEGIN; {added} {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")


@contextlib.contextmanager
def _told(plan: Path) -> Iterator[None]:
    path = state_of(plan)
    try:
        yield
    except sqlite3.Error as error:
        if error.args and "full" in str(error):
            raise OutOfSpace(
                f"{path} cannot be written, its disk is full: make room and run it again; what was done is known"
            ) from None
        raise IoFailure(f"{path} cannot be used: {error}") from None
    except OSError as error:
        raise IoFailure(f"{path} cannot be used: {error.strerror}") from None


__all__ = ["State", "opened", "seen"]
