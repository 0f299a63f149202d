"""The room that the catalogue takes on the disk: its log begins anew whoever writes, and free pages are given back."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from recfs.catalogue import opening
from recfs.catalogue import sqlite as sqlite_module
from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.core.model import Kind
from recfs.ports.batch import Batch
from recfs.ports.rows import TrashRow

from .build import Filesystem, until

MIB = 1 << 20
VALUE = os.urandom(250_000)


def row(number: int) -> TrashRow:
    path = b"users/5/recordings/1/%d" % number
    return TrashRow(number, number, Kind.FILE, path, 0, None, None, 0o644, 0, 0, 0, 0, 0, xattrs=VALUE)


def log_bytes(path: Path) -> int:
    return os.stat(f"{path}-wal").st_size


async def filled(catalogue: SqliteCatalogue, count: int, *, but: int = 0) -> None:
    """So many rows come, and all *but* the last few go again."""
    for number in range(1, count + 1):
        await catalogue.apply(Batch(trash=[row(number)]))
    await catalogue.checkpoint(at_least_pages=1)
    await catalogue.apply(Batch(trash_gone=list(range(1, count + 1 - but))))
    await catalogue.checkpoint(at_least_pages=1)


async def test_the_log_begins_anew_while_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold that others write beside never gets to the end of the log: so the last of it they have to wait for."""
    monkeypatch.setattr(sqlite_module, "LONG_LOG_BYTES", MIB)
    path = tmp_path / "catalogue.db"
    catalogue = open_catalogue(path)
    small, beginnings, written = row(1)._replace(xattrs=VALUE[:20_000]), set[bytes](), 0
    async with trio.open_nursery() as nursery:

        async def fold() -> None:
            while True:
                await catalogue.checkpoint(at_least_pages=1)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(fold)
        while catalogue.folds < 20 or written < 400:
            written += 1
            await catalogue.apply(Batch(trash=[small._replace(gid=written % 20 + 1)]))
            beginnings.add(salts(path))
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert len(beginnings) >= 5
    assert len(await catalogue.trash()) == 20
    catalogue.close()


def salts(path: Path) -> bytes:
    """What is another each time the log begins anew (sqlite.org/fileformat2.html#the_write_ahead_log)."""
    with open(f"{path}-wal", "rb") as log:
        return log.read(24)[16:]


async def test_a_reader_that_stays_holds_no_writer_up_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "LONG_LOG_BYTES", MIB)
    path = tmp_path / "catalogue.db"
    catalogue = open_catalogue(path)
    await catalogue.apply(Batch(trash=[row(1)]))
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from trash_entry").fetchone()
        for number in range(2, 12):
            await catalogue.apply(Batch(trash=[row(number)]))
        folds = catalogue.folds
        await catalogue.checkpoint(at_least_pages=1)
        tried = catalogue.folds - folds
        await catalogue.checkpoint(at_least_pages=1)
        assert catalogue.folds - folds == tried + 1, "it is not tried again at once"
        await catalogue.apply(Batch(trash=[row(12)]))
    assert len(await catalogue.trash()) == 12
    catalogue.close()


async def test_a_log_that_grew_is_cut_when_it_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "catalogue.db"
    catalogue = open_catalogue(path)
    limit = sqlite_module.LONG_LOG_BYTES
    count = limit // len(VALUE) + 40
    for number in range(count):
        await catalogue.apply(Batch(trash=[row(number % 20 + 1)]))
    assert log_bytes(path) > limit
    await catalogue.checkpoint()
    await catalogue.apply(Batch(trash=[row(1)]))
    await catalogue.apply(Batch(trash=[row(2)]))
    assert log_bytes(path) <= limit
    catalogue.close()


async def test_free_pages_are_given_back_a_few_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    catalogue = open_catalogue(path)
    await filled(catalogue, 200, but=4)
    before = path.stat().st_size
    assert before > 47 * MIB
    slices = 0
    while catalogue.excess_pages() > 0:
        left = catalogue.excess_pages()
        catalogue.give_back()
        assert left - catalogue.excess_pages() == min(left, sqlite_module.GIVEN_BACK_PAGES)
        slices += 1
    assert slices > 20
    await catalogue.checkpoint(at_least_pages=1)
    assert path.stat().st_size < 20 * MIB
    assert [number for (number,) in catalogue._read("select gid from trash_entry")] == [197, 198, 199, 200]
    assert await catalogue.trash_xattrs(198) == VALUE
    catalogue.close()


async def test_a_store_gives_them_back_by_itself(fs: Filesystem) -> None:
    path = fs.parts.store.catalogue_path
    before = 120 * len(VALUE)
    await filled(fs.parts.catalogue, 120)  # giving back may begin before this has returned
    assert before > 28 * MIB
    await until(lambda: not fs.parts.catalogue.excess_pages())
    await fs.parts.catalogue.checkpoint(at_least_pages=1)
    assert path.stat().st_size < before * 2 // 3
    await fs.assert_consistent()


@pytest.mark.parametrize("but", [2, 150])
async def test_a_catalogue_from_before_learns_to_at_a_start(tmp_path: Path, but: int) -> None:
    """One that is free for the most part is written anew, which takes no longer than what is left in it."""
    path = tmp_path / "catalogue.db"
    open_catalogue(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("pragma journal_mode = delete")
        old.execute("pragma auto_vacuum = none")
        old.execute("vacuum")
    catalogue = open_catalogue(path)
    assert catalogue._read("pragma auto_vacuum") == [(0,)]
    assert catalogue.excess_pages() == 0
    await filled(catalogue, 200, but=but)
    assert catalogue.excess_pages() == 0, "it has no way to give any back"
    catalogue.close()
    before = path.stat().st_size
    catalogue = open_catalogue(path)
    is_new = but == 2
    assert catalogue._read("pragma auto_vacuum") == [(2 if is_new else 0,)]
    assert len(await catalogue.trash()) == but
    assert await catalogue.trash_xattrs(200) == VALUE
    catalogue.close()
    assert (path.stat().st_size < 2 * MIB) == is_new
    assert (path.stat().st_size == before) != is_new
    assert 2 * len(VALUE) < opening.REWRITTEN_BYTES
