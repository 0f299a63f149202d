"""Opening the catalogue's file for the daemon: made where there is none, looked through, brought up to date."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from typing import TYPE_CHECKING

from sqlite_utils import Database

from recfs.catalogue import migrations
from recfs.catalogue.connection import connect, corrupt, newer, not_updated, unmake, unusable
from recfs.catalogue.earlier import drop_older, keep_earlier
from recfs.catalogue.reading import last_step
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("recfs.catalogue")

CHECK_BYTES = 16 << 20
"""Up to this size a start checks every page (some 14 ms a MiB); of larger files damage shows when it is met."""

REWRITTEN_BYTES = 64 << 20
"""What a file holds at most that is written anew at a start: a second."""


def open_catalogue(path: Path, *, expect_new: bool = True, keep: bool = True) -> SqliteCatalogue:
    """Open or create the catalogue at *path*, bring its schema up to date, and make the file's name durable.

    *expect_new* False: there are files it should know of, so a missing or empty one is refused. *keep*: whether one of
    an earlier version is kept as it was (`earlier.py`); False for scratch copies.
    Raises CatalogueCorrupt, StoreFull, StoreError.
    """
    if not expect_new and (not path.exists() or path.stat().st_size == 0):
        raise corrupt(path, "it is missing or empty, though the store has files")
    there = [suffix for suffix in ("", "-wal", "-shm") if os.path.exists(f"{path}{suffix}")]
    is_new = "" not in there or not path.stat().st_size
    try:
        return _opened(path, expect_new=expect_new, keep=keep)
    except StoreError:
        if is_new:
            unmake(path, [suffix for suffix in there if suffix])
        raise


def _opened(path: Path, *, expect_new: bool, keep: bool) -> SqliteCatalogue:
    connection = connect(path)
    try:
        connection.execute("begin immediate")  # else what cannot be written is met by whoever writes first
        connection.execute("rollback")
        if path.stat().st_size <= CHECK_BYTES:
            (verdict,) = connection.execute("pragma integrity_check(1)").fetchone()
            if verdict != "ok":
                raise corrupt(path, verdict)
        db = Database(connection, execute_plugins=False)  # to look for some, every package of the machine is asked
        newest = last_step(connection)
        if not newest and not expect_new:
            raise corrupt(path, "it holds nothing, though the store has files: its log, the -wal beside it, is missing")
        if newest > migrations.NEWEST:
            raise newer(path, newest)
        if newest != migrations.NEWEST:
            copy = keep_earlier(path, newest) if newest and keep else None
            try:
                # All steps or none: whoever wrote it can go on with it after one that fails.
                with db.atomic() if newest else contextlib.nullcontext():
                    migrations.steps.apply(db)
            except sqlite3.DatabaseError as error:
                raise not_updated(path, newest, error) from error
            if copy is not None:
                drop_older(path)
                log.info(
                    "the catalogue was brought from step %s to %s; before that it was as in %s",
                    newest,
                    migrations.NEWEST,
                    copy,
                )
        _learn_to_shrink(connection)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise unusable(path, error) from error
    except BaseException:
        connection.close()
        raise
    return SqliteCatalogue(path, connection)


def _learn_to_shrink(connection: sqlite3.Connection) -> None:
    """Write a file from before, which cannot give its free pages back, anew where it is free for the most part."""
    auto, free, pages, size = (
        int(connection.execute(f"pragma {each}").fetchone()[0])
        for each in ("auto_vacuum", "freelist_count", "page_count", "page_size")
    )
    if auto == 0 and free > pages // 2 and free * size > CHECK_BYTES and (pages - free) * size <= REWRITTEN_BYTES:
        with contextlib.suppress(sqlite3.OperationalError):  # the disk has no room for it: the next start
            connection.execute("pragma journal_mode = delete")  # it can be changed in no other
            connection.execute("pragma auto_vacuum = incremental")
            connection.execute("vacuum")
        connection.execute("pragma journal_mode = wal")


__all__ = ["CHECK_BYTES", "REWRITTEN_BYTES", "open_catalogue"]
