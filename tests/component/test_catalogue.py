"""The catalogue file: its schema, its refusals, its readers, and what a start reads of it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from recfs.api import summaries
from recfs.catalogue.connection import connect
from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.reports import SqliteReports
from recfs.catalogue.rows import STAGED, UNSETTLED
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.config import Config
from recfs.core.model import Kind, State
from recfs.errors import CatalogueCorrupt, StoreError
from recfs.ports.batch import Batch
from recfs.ports.rows import HOST, NodeRow, Placement
from tests.helpers.reports import answer_of

from .build import Filesystem, filesystem

pytestmark = pytest.mark.all_steps

USER_DIRS = 1000
FILES_EACH = 100


def node(ino: int, parent: int, name: bytes, kind: Kind = Kind.FILE, size: int = 1) -> NodeRow:
    """A committed file or a directory."""
    file = kind is Kind.FILE
    return NodeRow(
        ino, parent, name, kind, 0o755, 0, 0, size if file else 0, 0, 1, 1, 1, State.COMMITTED if file else None,
        b"s" * 32 if file else None, b"m" * 16 if file else None, None, 0, 0, 0,
        Placement(home_ino=ino),
    )  # fmt: skip


# --- schema -------------------------------------------------------------------------------------------------------


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    open_catalogue(path).close()
    before = path.read_bytes()
    open_catalogue(path, expect_new=False).close()
    assert path.read_bytes() == before


# --- refusals -----------------------------------------------------------------------------------------------------


def damaged(path: Path, how: str) -> None:
    """Make a catalogue, and spoil it."""
    catalogue = open_catalogue(path)
    catalogue._db.executemany("insert into whiteout values (?, ?)", [(n, b"name %d" % n) for n in range(2000)])
    catalogue.close()
    content = path.read_bytes()
    if how == "text":
        path.write_bytes(b"this is not a database\n" * 100)
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "pages":
        path.write_bytes(content[:4096] + hashlib.sha256(b"x").digest() * ((len(content) - 4096) // 32))
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "missing":
        path.unlink()
    elif how == "newer":
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("update _sqlite_migrations set name = '9999_from_the_future' where name = '0001_schema'")
            db.commit()


@pytest.mark.parametrize("how", ["text", "cut", "pages", "empty", "missing", "newer"])
def test_a_catalogue_that_cannot_be_used_is_refused_and_left_as_it_is(tmp_path: Path, how: str) -> None:
    path = tmp_path / "catalogue.db"
    damaged(path, how)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(
        CatalogueCorrupt, match="newer recfs" if how == "newer" else "recfs restore-catalogue. puts a backup of it back"
    ):
        open_catalogue(path, expect_new=False)
    assert (path.read_bytes() if path.exists() else None) == before


async def test_a_store_with_a_damaged_catalogue_does_not_start(fs: Filesystem) -> None:
    fs.checked_at_end = False
    await fs.write("users/5/recordings/1/file", b"bytes")
    await fs.drain()
    await fs.stop()
    path = fs.root / ".recfs/catalogue.db"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    before = path.read_bytes()
    with pytest.raises(BaseException) as raised:  # a group or not, depending on the nursery
        await fs.start()
    leaf: BaseException = raised.value
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    assert isinstance(leaf, StoreError)
    assert path.read_bytes() == before
    assert (fs.root / "users/5/recordings/1/file").read_bytes() == b"bytes"
    path.write_bytes(content)
    await fs.start()
    assert await fs.read("users/5/recordings/1/file") == b"bytes"


async def test_a_page_that_is_damaged_deep_in_the_file_is_told_as_that(fs: Filesystem) -> None:
    """Also where only something is looked up, beside no daemon."""
    fs.checked_at_end = False
    for number in range(2000):
        fs.parts.behind.xattr(2, b"user.%d" % number, b"value")
    await fs.stop()
    path = fs.root / ".recfs/catalogue.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("select rootpage from sqlite_master where name = 'node_name'").fetchone()
        (size,) = db.execute("pragma page_size").fetchone()
    content = path.read_bytes()
    path.write_bytes(content[: (root - 1) * size] + b"\xff" * size + content[root * size :])
    with pytest.raises(StoreError, match="malformed"), SqliteReports(path).reading() as snapshot:
        snapshot.entry([b"users", b"5"])


@pytest.mark.parametrize("known", ["file0", "file1"])
async def test_names_that_change_places_are_taken_though_one_row_is_remembered(fs: Filesystem, known: str) -> None:
    """A remembered row is changed where it is, any other is replaced: neither may be refused for the other's name."""
    folder = "users/5/recordings/1"
    for name in ("file0", "file1"):
        await fs.write(f"{folder}/{name}", name.encode())
    await fs.drain()
    fs.parts.catalogue._known.forget(
        [(await fs.node(f"{folder}/{name}")).ino for name in ("file0", "file1") if name != known]
    )
    await fs.rename(f"{folder}/file0", f"{folder}/file1", exchange=True)
    await fs.parts.behind.durable()
    assert not fs.parts.problems.as_json()
    assert (await fs.read(f"{folder}/file0"), await fs.read(f"{folder}/file1")) == (b"file1", b"file0")
    names = [(b"file0",), (b"file1",)]
    assert sorted(fs.rows("select name from node where kind = 'file'")) == [name for (name,) in names]


# --- readers beside the writer ------------------------------------------------------------------------------------


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[SqliteCatalogue]:
    """A new file."""
    made = open_catalogue(tmp_path / "catalogue.db")
    yield made
    made.close()


@pytest.mark.slow
async def test_readers_and_checkpoints_never_find_the_database_locked(
    catalogue: SqliteCatalogue, tmp_path: Path
) -> None:
    path, stop = tmp_path / "catalogue.db", threading.Event()
    trouble: list[Exception] = []
    rounds = itertools.count()

    def read() -> None:
        while not stop.is_set():
            try:
                with contextlib.closing(connect(path, read_only=True)) as db:
                    db.execute("pragma busy_timeout = 0")
                    db.execute("begin")
                    total, files = db.execute("select sum(size_bytes), count(*) from node").fetchone()
                    assert (total or 0) == files, "a batch was seen by halves"
                    db.execute("select * from account").fetchall()
                next(rounds)
            except Exception as error:
                trouble.append(error)

    def fold() -> None:
        while not stop.is_set():
            try:
                catalogue._checkpoint_in_thread()
            except Exception as error:
                trouble.append(error)

    threads = [threading.Thread(target=read), threading.Thread(target=read), threading.Thread(target=fold)]
    for thread in threads:
        thread.start()
    try:
        for batch in range(150):
            await catalogue.apply(Batch(nodes=[node(2 + batch * 20 + n, 1, b"%d-%d" % (batch, n)) for n in range(20)]))
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert trouble == []
    assert next(rounds) > 3


async def test_a_reader_changes_nothing_and_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    with pytest.raises(StoreError, match="cannot be opened"):
        connect(path, read_only=True)
    assert list(tmp_path.iterdir()) == []
    open_catalogue(path).close()
    with contextlib.closing(connect(path, read_only=True)) as db, pytest.raises(sqlite3.OperationalError):
        db.execute("delete from meta")


async def test_a_checkpoint_folds_the_log_in(catalogue: SqliteCatalogue, tmp_path: Path) -> None:
    for batch in range(5):
        await catalogue.apply(Batch(nodes=[node(2 + batch * 500 + n, 1, b"%d-%d" % (batch, n)) for n in range(500)]))
    main, log = tmp_path / "catalogue.db", tmp_path / "catalogue.db-wal"
    small = main.stat().st_size
    await catalogue.checkpoint(at_least_pages=1 << 30)
    assert main.stat().st_size == small
    await catalogue.checkpoint(at_least_pages=10)
    assert main.stat().st_size > small
    length = log.stat().st_size
    await catalogue.apply(Batch(nodes=[node(9000, 1, b"after")]))
    assert log.stat().st_size == length, "the log starts anew at its beginning"
    with contextlib.closing(connect(main, read_only=True)) as db:
        assert db.execute("select count(*) from node").fetchone() == (2501,)


async def test_closing_leaves_one_file(tmp_path: Path) -> None:
    catalogue = open_catalogue(tmp_path / "catalogue.db")
    await catalogue.apply(Batch(nodes=[node(2, 1, b"file")]))
    await catalogue.sync()
    catalogue.close()
    assert [path.name for path in tmp_path.iterdir()] == ["catalogue.db"]


async def test_syncs_of_many_callers_are_one(catalogue: SqliteCatalogue) -> None:
    import os

    import trio

    calls, fdatasync = [], os.fdatasync
    with mock.patch.object(os, "fdatasync", lambda fd: (calls.append(fd), fdatasync(fd))[1]):
        await catalogue.apply(Batch(meta={"a": "1"}))
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(catalogue.sync)
        assert len(calls) == 1
        await catalogue.sync()
        assert len(calls) == 1
        await catalogue.apply(Batch(meta={"a": "2"}))
        await catalogue.sync()
        assert len(calls) == 2


# --- a large one --------------------------------------------------------------------------------------------------


def fill(path: Path, users_ino: int) -> None:
    """100,000 files of 1000 users, written out of band: the rows only."""
    rows: list[tuple[object, ...]] = []
    ino = 1000
    with contextlib.closing(sqlite3.connect(path)) as db:
        for user in range(USER_DIRS):
            user_ino, recordings, recording = ino, ino + 1, ino + 2
            for number, (parent, name) in enumerate(
                ((users_ino, b"%d" % user), (user_ino, b"recordings"), (recordings, b"1"))
            ):
                row = node(ino + number, parent, name, Kind.DIR)
                rows.append(row._replace(size_bytes=FILES_EACH, rfiles=FILES_EACH))
            rows += [node(ino + 3 + n, recording, b"file%d" % n) for n in range(FILES_EACH)]
            ino += 3 + FILES_EACH
        fields = NodeRow._fields[:-1]
        row_of = "({}) values ({})".format(", ".join(fields), ", ".join("?" * len(fields)))
        db.executemany(f"insert into node {row_of}", [each[:-1] for each in rows])
        homes = [(HOST, each[0], each[0]) for each in rows]
        db.executemany("insert into placement (host, ino, home_ino) values (?, ?, ?)", homes)
        total = USER_DIRS * FILES_EACH
        db.execute("update node set size_bytes = ?, rfiles = ? where ino in (1, ?)", (total, total, users_ino))
        accounts = [(str(user), FILES_EACH, FILES_EACH) for user in range(USER_DIRS)]
        db.executemany("insert into account (user, used_bytes, used_files) values (?, ?, ?)", accounts)
        db.execute("update meta set value = ? where key = 'next_ino'", (str(ino),))
        db.commit()


@pytest.mark.slow
async def test_a_start_loads_nothing_but_what_is_under_way(place: Path) -> None:
    async with filesystem(place) as fs:
        users = (await fs.node("users")).ino
        await fs.stop()
        fill(fs.root / ".recfs/catalogue.db", users)
        read = 0
        from recfs.catalogue import questions

        node_row = questions.node_row

        def counting(values: tuple[object, ...]) -> NodeRow:
            nonlocal read
            read += 1
            return node_row(values)

        with mock.patch.object(questions, "node_row", counting):
            await fs.start()
            assert read <= 10
            assert len(fs.parts.tree.nodes) <= 10
            assert (await fs.node("users/77/recordings/1/file5")).ino
            assert read <= 30
            read = 0
            assert len(await fs.names("users/78/recordings/1")) == FILES_EACH
            assert read <= FILES_EACH + 10
            assert len(fs.parts.tree.nodes) <= 30, "listing loads no files"
        config = Config.model_validate({"root": fs.root})
        status = answer_of(fs.root / ".recfs/catalogue.db", summaries.status, config)
        assert status["states"]["committed"] == USER_DIRS * FILES_EACH
        plan = str(fs.rows(f"explain query plan {UNSETTLED} union {STAGED}"))
        assert all(index in plan for index in ("node_unsettled", "placement_unsettled"))
        assert "SCAN node USING INDEX node_unsettled" in plan
        assert plan.count("SCAN") == 1, "of an index of what was under way"
