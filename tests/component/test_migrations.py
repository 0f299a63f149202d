"""Catalogues of every earlier version become what a new one is, and keep their rows."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from recfs.catalogue import migrations
from recfs.catalogue.earlier import kept
from recfs.catalogue.migrations import split_statements
from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.reports import SqliteReports
from recfs.core.bounds import MAX_INT, MIN_TIME_NS
from recfs.core.figures.counters import NOT_KNOWN
from recfs.core.life import Cause, Life, Status
from recfs.errors import CatalogueCorrupt, StoreError
from recfs.ports.rows import HOST, LocalCopy, Placement

pytestmark = pytest.mark.all_steps

STORED = Path(__file__).with_name("catalogues")
"""A dump of a catalogue, with some rows, as each version of recfs that had another schema made it."""
FROZEN = {
    "0001_schema.sql": "3976a64f2c2eb230",
    "0002_objects.sql": "40efa7148927338c",
    "0005_unanswered.sql": "2fe25f4929f7555f",
    "0006_placement.sql": "0411ae3844facef6",
    "0007_sweeps.sql": "f37ad64b761be697",
    "0008_recordings.sql": "e666389b709c496f",
    "0009_trash.sql": "6e34325fa6c566dd",
    "0010_events.sql": "c006f1268683c9b7",
    "0011_owners.sql": "959108ab7328abca",
    "0012_figures.sql": "7020678ea4943ee6",
    "0013_derived.sql": "1bcc6ae074db3b20",
    "0014_twins.sql": "cc6801ab0d8bd899",
    "0015_media.sql": "6ffcebf2dc6bbeea",
    "0016_places_of_days.sql": "2374fd03dea78545",
}
"""The beginning of the SHA-256 of each step's SQL."""
VERSIONS = sorted(path.stem for path in STORED.glob("*.sql"))


def checks(sql: str) -> list[str]:
    """The check constraints of a table, without their line breaks."""
    sql = re.sub(r"--.*", "", sql)
    found = []
    for match in re.finditer(r"\bcheck \(", sql):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(sql[end], 0)
            end += 1
        found.append(" ".join(sql[match.start() : end].split()))
    return found


def shape(path: Path) -> dict[str, object]:
    """All that a schema says, whatever statements made it."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        tables = [
            (name, strict, without_rowid)
            for _, name, kind, _, without_rowid, strict in db.execute("pragma table_list")
            if kind == "table" and not name.startswith(("sqlite_", "_sqlite_"))
        ]
        text = dict(db.execute("select name, sql from sqlite_master where sql is not null"))
        indexes = {
            name: " ".join(sql.split()) for name, sql in text.items() if re.match(r"create (unique )?index", sql)
        }
        return {
            "tables": sorted(tables),
            "columns": {name: db.execute(f"pragma table_xinfo({name})").fetchall() for name, _, _ in tables},
            "checks": {name: checks(text[name]) for name, _, _ in tables},
            "indexes": indexes,
        }


def stored(path: Path, version: str) -> None:
    """Make the catalogue that a dump tells of."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript((STORED / f"{version}.sql").read_text())
        db.execute("pragma journal_mode = wal")


def test_a_new_catalogue_has_the_schema_that_is_written_down(tmp_path: Path) -> None:
    open_catalogue(tmp_path / "new.db").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "plain.db")) as db:
        db.executescript(Path(migrations.__file__).with_name("schema.sql").read_text("utf-8"))
    assert shape(tmp_path / "new.db") == shape(tmp_path / "plain.db")
    assert len(shape(tmp_path / "new.db")["columns"]) > 5  # type: ignore[arg-type]


def test_the_newest_step_is_the_last_one() -> None:
    names = [step.name for step in migrations.steps.pending(Database(memory=True))]
    assert names == sorted(names)
    assert names[-1] == migrations.NEWEST


def test_there_is_a_copy_of_every_version() -> None:
    """A new step comes with the dump of a catalogue that has it."""
    names = [step.name for step in migrations.steps.pending(Database(memory=True))]
    assert [name.split("_")[0] for name in names] == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_earlier_catalogue_becomes_what_a_new_one_is(tmp_path: Path, version: str) -> None:
    path = tmp_path / "catalogue.db"
    stored(path, version)
    with contextlib.closing(sqlite3.connect(path)) as db:
        before = db.execute("select count(*) from _sqlite_migrations").fetchone()[0]
    assert before == int(version)
    catalogue = open_catalogue(path, expect_new=False)
    try:
        open_catalogue(tmp_path / "new.db").close()
        assert shape(path) == shape(tmp_path / "new.db")
        committed, written, link = [await catalogue.node(ino) for ino in (4, 5, 6)]
        held, work = await catalogue.object(4), await catalogue.journal()
        life = await catalogue.recording(3)
        account = await catalogue.account("5")
        media = await catalogue.media(4)
    finally:
        catalogue.close()
    assert committed is not None
    assert (committed.name, committed.size_bytes, committed.sha256) == (b"committed", 4, b"s" * 32)
    assert committed.mtime_ns == (MIN_TIME_NS if version < "0003" else 5)
    assert written is not None
    assert written.name == b"caf\xe9"
    assert link is not None
    assert (link.target, link.placement) == (b"committed", Placement())
    assert (committed.placement, written.placement) == (Placement(home_ino=99), Placement("abc-1", promised=1))
    assert held is None if version < "0002" else held is not None and held.copy == LocalCopy(7, 1, 0, 8)
    assert [(row.host, row.lease_until_ns) for row in work] == ([] if version < "0002" else [(HOST, MAX_INT)])
    expired = Life(Status.EXPIRED, 11, 12, 13, 14, 15, 16, 17, Cause.DATE, 1, "a note", "uid 0")
    owner = (account.owner_uid, account.owner_gid, account.owner_mode) if account is not None else None
    assert owner == ((10005, 77, 0o700) if version >= "0011" else None)
    assert (media is not None and media.verdict == "whole") == (version >= "0015")
    assert life == (expired if version >= "0008" else None)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("select path, promised from garbage").fetchall() == [(b"users/5/gone", 0)]
        of_days = db.execute("select * from figure_of_day").fetchall()
        where = NOT_KNOWN if version < "0016" else ""
        assert of_days == ([] if version < "0012" else [("5", "other", 1, where, "2026-11-29", 2, 5)])
        assert db.execute("select count(*) from object").fetchone()[0] == (0 if version < "0002" else 1)
        assert db.execute("pragma integrity_check").fetchone()[0] == "ok"


@pytest.mark.parametrize("version", VERSIONS)
def test_commands_read_an_earlier_catalogue_as_it_is(tmp_path: Path, version: str) -> None:
    path = tmp_path / "catalogue.db"
    stored(path, version)
    before = shape(path)
    with SqliteReports(path).reading() as snapshot:
        entry = snapshot.entry((b"users", b"5", b"committed"))
        assert entry is not None
        assert entry.row.placement == Placement(home_ino=99)
        assert entry.held is None if version < "0002" else entry.held is not None and entry.held.copy.keep_until_ns == 8
        staged = [each.row.placement for each in snapshot.below(3, recursive=False, state="writing")]
        assert staged == [Placement("abc-1", promised=int(version >= "0004"))]
        assert snapshot.waiting().unpublished == 0
        assert list(snapshot.recordings()) == []
        assert [each.row.lease_until_ns for each in snapshot.journal()] == ([] if version < "0002" else [MAX_INT])
        assert snapshot.local_bytes() == (0 if version < "0002" else 4)
        of_days = [(row.category, row.storage_class, row.files) for row in snapshot.remembered("2000-01-01").rows]
        where = NOT_KNOWN if version < "0016" else ""
        assert of_days == ([] if version < "0012" else [("other", where, 2)])
    assert shape(path) == before


@pytest.mark.parametrize("after", [1, 9, 12, 20, 27])
async def test_a_step_that_ends_half_way_is_done_again_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    path = tmp_path / "catalogue.db"
    stored(path, "0005")
    before = shape(path)

    def some(script: str) -> Iterator[str]:
        yield from split_statements(script)[:after]
        raise OSError("ended")

    with monkeypatch.context() as ended:
        ended.setattr(migrations, "split_statements", some)
        with pytest.raises(OSError, match="ended"):
            open_catalogue(path, expect_new=False)
    assert shape(path) == before
    catalogue = open_catalogue(path, expect_new=False)
    try:
        written = await catalogue.node(5)
        assert written is not None
        assert written.placement == Placement("abc-1", promised=1)
    finally:
        catalogue.close()


@pytest.mark.parametrize("name", sorted(path.name for path in (Path(migrations.__file__).parent / "steps").glob("*")))
def test_the_sql_of_a_step_is_what_it_was(name: str) -> None:
    """Stores have gone through it: what is to change comes as another step."""
    text = (Path(migrations.__file__).parent / "steps" / name).read_bytes()
    assert hashlib.sha256(text).hexdigest()[:16] == FROZEN[name]


@pytest.mark.parametrize("error", ["insert into nowhere values (1)", "insert into more values (1), (1)"])
def test_where_one_of_several_steps_fails_the_catalogue_is_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    """The recfs that wrote it can go on with it; and what is said is not that it is damaged."""
    path = tmp_path / "catalogue.db"
    stored(path, VERSIONS[-1])
    before = shape(path)
    steps = Migrations("recfs")
    for each in migrations.steps.pending(Database(memory=True)):
        steps(name=each.name)(each.fn)
    steps(name="9998_more")(lambda db: db.execute("create table more (x integer primary key) strict"))
    steps(name="9999_bad")(lambda db: db.execute(error))
    with monkeypatch.context() as later:
        later.setattr(migrations, "steps", steps)
        later.setattr(migrations, "NEWEST", "9999_bad")
        for _ in range(2):
            with pytest.raises(
                StoreError, match=f"could not be brought up to date from step {VERSIONS[-1]}.* as it was"
            ) as told:
                open_catalogue(path, expect_new=False)
            assert not isinstance(told.value, CatalogueCorrupt)
    assert shape(path) == before
    assert len(kept(path)) == 1
    open_catalogue(path, expect_new=False).close()
