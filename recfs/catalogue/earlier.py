"""The catalogue as it was before its schema was brought up to date: kept beside it, for there is no other way back.

The steps, for whoever has the store's lock; each may be the last one before a death, and the next start goes on:
  1. a copy is made under a name of its own (`_PART`), checked, and made durable;
  2. it gets its name, durably, unless there is one of the same bytes: however often an update of the schema fails,
     there is one copy;
  3. the schema is brought up to date (`migrations.py`);
  4. of the copies those beyond the newest `KEPT` go.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import sqlite3
import stat
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from recfs.catalogue.connection import FULL, connect, unusable
from recfs.catalogue.copying import CatalogueCopies
from recfs.catalogue.migrations import NEWEST
from recfs.catalogue.reading import last_step
from recfs.core.units import format_size
from recfs.errors import NotAStore, OutOfSpace, StoreError, StoreFull

if TYPE_CHECKING:
    from pathlib import Path

KEPT = 3
"""So many copies stay: as many updates of the schema can be gone back on."""
MARK = ".before-upgrade-"
"""In a copy's name, after that of the catalogue; the number of its last step follows, and when it was made."""
_PART = f"{MARK}part"
_LOGS = ("-wal", "-shm")
"""What SQLite makes beside one that somebody looks into."""


def keep_earlier(catalogue: Path, step: str) -> Path | None:
    """Have a copy of *catalogue*, whose last step is *step*, before it is changed; None where it holds no store yet.

    It has mode 0600. Raises StoreFull when there is no room for it, and StoreError.
    """
    copies = CatalogueCopies()
    part = catalogue.with_name(catalogue.name + _PART)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            copies.copy(catalogue, part, lambda: False)
            for each in kept(catalogue):
                if filecmp.cmp(part, each, shallow=False):
                    _sync(catalogue.parent)
                    return each
            _sync(part)
            owner = os.stat(catalogue)
            with contextlib.suppress(PermissionError):  # root looks after the store of another user
                os.chown(part, owner.st_uid, owner.st_gid)
            name = _free_name(catalogue, step)
            os.rename(part, name)
            _sync(catalogue.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
    except NotAStore:
        return None
    except (OutOfSpace, OSError, sqlite3.DatabaseError) as error:
        if isinstance(error, OutOfSpace) or _is_full(error):
            raise _no_room(catalogue, step, copies) from error
        if isinstance(error, sqlite3.DatabaseError):
            raise unusable(catalogue, error) from error
        raise StoreError(
            f"catalogue {catalogue} is to be kept as it is before this version of recfs changes it, and that copy could"
            f" not be made ({error}). Nothing was changed"
        ) from error
    return name


def is_earlier(catalogue: Path) -> bool:
    """Whether a start of this version would change the schema of *catalogue*. Raises as `connect`."""
    with closing(connect(catalogue, read_only=True)) as db:
        return last_step(db) < NEWEST


def drop_older(catalogue: Path) -> None:
    """Remove the copies beyond the newest `KEPT`. Those that cannot be removed stay."""
    for each in kept(catalogue)[KEPT:]:
        for end in ("", *_LOGS):
            with contextlib.suppress(OSError):
                os.unlink(f"{each}{end}")


def kept(catalogue: Path) -> list[Path]:
    """The copies that there are, newest first."""
    named = catalogue.parent.glob(f"{catalogue.name}{MARK}*")
    there = [(each.lstat(), each) for each in named if not each.name.endswith((_PART, *_LOGS))]
    found = [(info.st_mtime_ns, each) for info, each in there if stat.S_ISREG(info.st_mode)]
    return [each for _, each in sorted(found, reverse=True)]


def _free_name(catalogue: Path, step: str) -> Path:
    when = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%dT%H%M%SZ")
    stem = f"{catalogue.name}{MARK}{step.partition('_')[0]}-{when}"
    name, serial = catalogue.with_name(stem), 0
    while os.path.lexists(name):
        serial += 1
        name = catalogue.with_name(f"{stem}-{serial}")
    return name


def _is_full(error: OSError | sqlite3.DatabaseError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", 0) in FULL


def _no_room(catalogue: Path, step: str, copies: CatalogueCopies) -> StoreFull:
    root = catalogue.parent.parent
    needed = format_size(copies.room_for(catalogue))
    return StoreFull(
        f"store {root}: before this version of recfs brings the catalogue up to date (from step {step}), a copy of it"
        f" is kept in {catalogue.parent}, and its disk has no room for that: it takes {needed}, and as much again for"
        f" the change itself. Nothing was changed. Free that much (`df {root}`), or go on with the recfs before it"
    )


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


__all__ = ["KEPT", "MARK", "drop_older", "is_earlier", "keep_earlier", "kept"]
