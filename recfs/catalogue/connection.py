"""Connections to the catalogue's file: opening it, and what its refusals say of it or of the disk it is on."""

from __future__ import annotations

import mmap
import os
import sqlite3
from pathlib import Path

from recfs.errors import CatalogueCorrupt, StoreError, StoreFull

FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
"""What SQLite says on a full disk. The second: the index of the log (-shm) could not grow."""

STATEMENTS = 512
"""How many statements stay compiled: each is one for every number of rows it is run for (`rows.py`)."""

FULL_BYTES = 256 << 10
"""On a disk with less than this, what SQLite cannot read, write or make is put down to that."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the catalogue file; *read_only* never creates nor changes it.

    Raises CatalogueCorrupt when it is not a catalogue, is damaged, or comes from a newer recfs, StoreFull when the disk
    has no room for the log or its index (-wal, -shm), without which it cannot be read.
    """
    # SQLite makes its index (-shm) a page at a time and maps it. Where blocks are smaller, that leaves holes: on a full
    # disk whoever touches one is ended by SIGBUS (mmap(2)).
    if is_full(path) and os.statvfs(path.parent).f_frsize < mmap.PAGESIZE and not os.path.exists(f"{path}-shm"):
        raise full(path)
    try:
        uri = f"file:{_quote(path)}?mode={'ro' if read_only else 'rwc'}"
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5, cached_statements=STATEMENTS
        )
        connection.execute("pragma temp_store = memory")
        connection.execute("pragma cache_size = -16384")
        if not read_only:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = normal")
            connection.execute("pragma wal_autocheckpoint = 0")
        connection.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        raise unusable(path, error) from error
    return connection


def _quote(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def unusable(path: Path, error: sqlite3.DatabaseError) -> StoreError:
    """What *error* says of the catalogue, or of the disk it is on."""
    code = getattr(error, "sqlite_errorcode", 0)
    may_be = code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)  # the primary code of an extended one
    return full(path) if code in FULL or (may_be and is_full(path)) else corrupt(path, error)


def is_full(path: Path) -> bool:
    """Whether the disk under the catalogue has next to nothing left."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < FULL_BYTES or bool(disk.f_files and not disk.f_favail)


def full(path: Path) -> StoreFull:
    """What is to be said when the disk has no room for what opening the catalogue takes."""
    root = path.parent.parent
    return StoreFull(
        f"store {root}: its disk is full (`df {root}`, `df -i {root}`), and opening the catalogue takes some room. "
        f"Nothing is lost. Free some MiB and try again: other files on that disk, what is in {path.parent}/trash and "
        f"{path.parent}/lost+found, or make the disk larger"
    )


def corrupt(path: Path, error: Exception | str) -> CatalogueCorrupt:
    """What is to be said of a file that is no catalogue, or a damaged one."""
    return CatalogueCorrupt(
        f"catalogue {path} cannot be read ({error}). It was left as it is. Restore the file from a backup; "
        f"without one, move the whole store aside, mount a new one and copy users/, shared/ and temp/ of the old one "
        f"into that mount: those files are whole without the catalogue."
    )
