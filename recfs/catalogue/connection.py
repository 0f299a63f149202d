"""Connections to the catalogue's file: opening it, and what its refusals say of it or of the disk it is on."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import sqlite3
from collections.abc import Collection
from pathlib import Path

from recfs.core.naming import show_name
from recfs.core.units import format_size
from recfs.errors import CatalogueCorrupt, StoreError, StoreFull

FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
"""What SQLite says on a full disk. The second: the index of the log (-shm) could not grow."""

STATEMENTS = 512
"""How many statements stay compiled: each is one for every number of rows it is run for (`rows.py`)."""

FULL_BYTES = 256 << 10
"""On a disk with less than this, what SQLite cannot read, write or make is put down to that."""

LONG_LOG_BYTES = 64 << 20
"""A log that was longer is cut to this as it begins anew (sqlite.org/pragma.html#pragma_journal_size_limit)."""

ROOM_BYTES = 64 << 20
"""With a limit on file sizes below that, what SQLite cannot write is put down to it."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the catalogue file; *read_only* never creates nor changes it.

    Raises CatalogueCorrupt when it is not a catalogue, is damaged, or comes from a newer recfs, StoreFull when the disk
    has no room for the log or its index (-wal, -shm), without which it cannot be read, StoreError when it cannot be
    had: locked by another program, or not to be opened or written.
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
            if connection.execute("pragma page_count").fetchone() == (0,):  # it is new, and is to give free pages back
                connection.execute("pragma auto_vacuum = incremental")
            connection.execute("pragma journal_mode = wal")
            connection.execute(f"pragma journal_size_limit = {LONG_LOG_BYTES}")
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
    primary = code & 0xFF  # of an extended one
    may_be = primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if (may_be or code in FULL) and 0 <= limit < ROOM_BYTES and not is_full(path):
        return StoreError(
            f"catalogue {path} cannot be written ({error}): no file can become larger than {format_size(limit)} here"
            f" (RLIMIT_FSIZE): start recfs without that limit (ulimit -f unlimited)"
        )
    if code in FULL or (may_be and is_full(path)):
        return full(path)
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        whose = holders(path) or "on another machine, perhaps"
        return StoreError(
            f"catalogue {path} is locked by another program ({whose}): end it, and try again. Nothing was changed"
        )
    if primary in _NOT_TO_BE_HAD:
        return StoreError(
            f"catalogue {path} cannot be opened ({error}): the file, its -wal and -shm beside it, and their directory "
            f"have to be there and this user's to read and write (ls -la, lsattr, df, dmesg). Nothing was changed"
        )
    return corrupt(path, error)


_NOT_TO_BE_HAD = (
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOLFS,
)  # fmt: skip
"""Primary result codes that say nothing of what is in the file."""


def unmake(path: Path, but: Collection[str]) -> None:
    """Remove a catalogue that could not be made to its end, *but* for what was there before, by its suffix."""
    for suffix in ("-shm", "-wal", ""):
        if suffix not in but:
            with contextlib.suppress(OSError):
                os.unlink(f"{path}{suffix}")


def holders(path: Path) -> str:
    """Which other processes have a lock on the catalogue or its index: "sqlite3 (process 7)"; empty if none is known.

    As proc_locks(5) tells: the process id, or -1 for a lock of an open file, and device and inode of the file.
    """
    found: dict[int, None] = {}
    with contextlib.suppress(OSError, ValueError):
        locks = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
        for suffix in ("", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                info = os.stat(f"{path}{suffix}")
                device = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
                found.update({int(lock[4]): None for lock in locks if lock[1] != "->" and lock[5] == device})
    return ", ".join(f"{_name_of(pid)} (process {pid})" for pid in found if pid not in (-1, 0, os.getpid()))


def _name_of(pid: int) -> str:
    try:
        return show_name(Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip())
    except OSError:
        return "unknown"


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


def newer(path: Path, step: str) -> CatalogueCorrupt:
    """What is to be said of a catalogue whose last step this recfs does not know."""
    return CatalogueCorrupt(
        f"catalogue {path} was written by a newer recfs (step {step}); install that version or newer. Or put the copy"
        f" back that was kept when it was brought up to date, {path.name}.before-upgrade-*, with `recfs"
        f" restore-catalogue`. Nothing was changed"
    )


def not_updated(path: Path, step: str, error: sqlite3.DatabaseError) -> StoreError:
    """What is to be said where bringing the schema up to date failed."""
    if not step or getattr(error, "sqlite_errorcode", 0) & 0xFF not in (
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
    ):
        return unusable(path, error)
    return StoreError(
        f"catalogue {path} could not be brought up to date from step {step} ({error}). It is as it was: install the"
        f" recfs before this one again, which goes on with it, and report this"
    )


def corrupt(path: Path, error: Exception | str) -> CatalogueCorrupt:
    """What is to be said of a file that is no catalogue, or a damaged one."""
    return CatalogueCorrupt(
        f"catalogue {path} cannot be read ({error}). It was left as it is. `recfs restore-catalogue` puts a backup"
        f" of it back; without one, `recfs rebuild` makes it anew of what lies in users/, shared/ and temp/, which is"
        f" whole without it, and in S3."
    )
