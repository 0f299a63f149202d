"""--update-db: what becomes of the platform's database, and of what was before."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recfs.core.migration.escapes import escaped
from recfs.errors import InvalidArgument, IoFailure, NotFound, NotSupported, TryAgain
from recfs.migration import updating
from recfs.migration.updating import Updated, update
from tests.helpers.migrations import Migration

pytestmark = pytest.mark.needs("rsync")
SOURCE = "users/4/recordings/7/source.mp4"
FOLDER = "users/4/recordings/7/transcription"
COLUMNS = {"id": "item", "local_video_path": "video path", "transcription_dir": "texts"}
NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "data.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute('CREATE TABLE "my media" (item INTEGER PRIMARY KEY, "video path" TEXT, texts TEXT)')
        db.execute("""INSERT INTO "my media" VALUES (7, 'media/a.mp4', 'media/t'), (8, 'other', NULL)""")
    return path


@pytest.fixture
def migration(tmp_path: Path, database: Path) -> Migration:
    made = Migration(tmp_path)
    made.file("a.mp4", b"film", SOURCE)
    made.file("t/master.json", b"{}", f"{FOLDER}/master.json")
    made.file("t/topics.json", b"[]", f"{FOLDER}/topics.json")
    made.plan.made_of |= {
        "db": escaped(bytes(database)),
        "mapping": json.dumps({"table": "my media", "columns": COLUMNS}),
        "recording users/4/recordings/7": json.dumps(
            {
                "row": "7",
                "columns": {"local_video_path": SOURCE, "transcription_dir": FOLDER},
                "was": {"local_video_path": "media/a.mp4", "transcription_dir": "media/t"},
            }
        ),
    }
    made.run()
    return made


def rows(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute('SELECT * FROM "my media" ORDER BY item').fetchall()


def updated(migration: Migration, wait_s: float = 5.0) -> Updated:
    with migration.state() as state:
        return update(migration.plan, state, NOW, wait_s)


def test_paths_of_verified_files_are_set_after_a_copy_was_made(migration: Migration, database: Path) -> None:
    before = rows(database)
    migration.verify()
    found = updated(migration)
    assert (found.columns, found.there, found.waiting) == (2, 0, 0)
    assert rows(database) == [(7, SOURCE, FOLDER), (8, "other", None)]
    assert found.backup is not None
    assert rows(found.backup) == before
    again = updated(migration)
    assert (again.columns, again.there, again.backup) == (0, 2, None)


def test_paths_of_files_that_are_not_verified_stay(migration: Migration, database: Path) -> None:
    migration.answer = lambda tree, target: None if target.endswith(b"topics.json") else "x"
    assert updated(migration).waiting == 2
    migration.verify()
    from recfs.migration.run.hashing import read

    migration.answer = lambda tree, target: None if target.endswith(b"topics.json") else read(tree, target)
    migration.verify()
    found = updated(migration)
    assert (found.columns, found.waiting) == (1, 1)
    assert rows(database)[0] == (7, SOURCE, "media/t")


@pytest.mark.parametrize(
    "change", ["UPDATE \"my media\" SET texts = 'elsewhere'", 'DELETE FROM "my media" WHERE item = 7']
)
def test_rows_that_changed_since_the_plan_refuse_all_of_it(migration: Migration, database: Path, change: str) -> None:
    migration.verify()
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(change)
    before = rows(database)
    with pytest.raises(InvalidArgument, match="nothing is updated"):
        updated(migration)
    assert rows(database) == before
    assert len(list(database.parent.glob("data.db*"))) == 1


def test_a_locked_database_is_waited_for_so_long(migration: Migration, database: Path) -> None:
    migration.verify()
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(TryAgain, match="locked"):
            updated(migration, wait_s=0.05)
        db.execute("ROLLBACK")
    assert updated(migration).columns == 2


def test_a_database_with_a_log_and_ids_of_16_bytes(migration: Migration, database: Path) -> None:
    identity = bytes(range(16))
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute('DROP TABLE "my media"')
        db.execute('CREATE TABLE "my media" (item BLOB PRIMARY KEY, "video path" TEXT, texts BLOB)')
        db.execute('INSERT INTO "my media" VALUES (?, ?, ?)', (identity, "media/a.mp4", b"media/t"))
    told = json.loads(migration.plan.made_of["recording users/4/recordings/7"])
    migration.plan.made_of["recording users/4/recordings/7"] = json.dumps(told | {"row": identity.hex()})
    migration.verify()
    assert updated(migration).columns == 2
    assert rows(database) == [(identity, SOURCE, FOLDER)]


def made_anew(database: Path, *statements: str) -> None:
    """The table in another shape; it has a recording 8 besides."""
    with closing(sqlite3.connect(database)) as db, db:
        db.execute('DROP TABLE "my media"')
        for statement in statements:
            db.execute(statement)


_INSERT = """INSERT INTO "my media" (item, "video path", texts) VALUES (7, 'media/a.mp4', 'media/t'), (8, 'x', 'y')"""


@pytest.mark.parametrize(
    "shape",
    [
        'rowid INTEGER DEFAULT 7, item INTEGER PRIMARY KEY, "video path" TEXT, texts TEXT',
        'rowid TEXT, item INTEGER PRIMARY KEY, "video path" TEXT, texts TEXT',
        'rowid, oid, _rowid_, item INT PRIMARY KEY, "video path" TEXT, texts TEXT) WITHOUT ROWID --',
        'item, "video path", texts',
        'item TEXT, "video path" TEXT, texts TEXT',
        'item REAL, "video path" TEXT, texts TEXT',
    ],
)
def test_rows_are_known_by_their_ids_in_tables_of_any_shape(migration: Migration, database: Path, shape: str) -> None:
    hidden = "-- " if shape.endswith("--") else ""
    made_anew(database, f'CREATE TABLE "my media" ({shape.removesuffix(" --")}{"" if hidden else ")"}', _INSERT)
    migration.verify()
    assert updated(migration).columns == 2
    with closing(sqlite3.connect(database)) as db:
        found = db.execute('SELECT "video path", texts FROM "my media" ORDER BY item').fetchall()
    assert found == [(SOURCE, FOLDER), ("x", "y")]
    assert updated(migration).there == 2


def test_an_id_that_several_users_have_is_the_users_whose_recording_it_is(migration: Migration, database: Path) -> None:
    made_anew(
        database,
        'CREATE TABLE "my media" (item INT, owner INT, "video path" TEXT, texts TEXT, PRIMARY KEY (item, owner))',
        """INSERT INTO "my media" VALUES (7, 3, 'media/a.mp4', 'media/t'), (7, 4, 'media/a.mp4', 'media/t')""",
    )
    migration.verify()
    with pytest.raises(InvalidArgument, match="has 0 rows"):  # whose they are is not told
        updated(migration)
    migration.plan.made_of["mapping"] = json.dumps({"table": "my media", "columns": COLUMNS | {"user_id": "owner"}})
    assert updated(migration).columns == 2
    assert rows(database) == [(7, 3, "media/a.mp4", "media/t"), (7, 4, SOURCE, FOLDER)]


@pytest.mark.parametrize("key", ["item TEXT COLLATE NOCASE", "item"])
def test_a_change_that_would_be_of_several_rows_or_none_is_none(migration: Migration, database: Path, key: str) -> None:
    made_anew(
        database,
        f'CREATE TABLE "my media" ({key}, "video path" TEXT, texts TEXT)',
        """INSERT INTO "my media" VALUES ('A7', 'media/a.mp4', 'media/t'), ('a7', 'other', '')""",
        *(['CREATE TRIGGER mine BEFORE UPDATE ON "my media" BEGIN SELECT RAISE(IGNORE); END'] if key == "item" else []),
    )
    told = json.loads(migration.plan.made_of["recording users/4/recordings/7"])
    migration.plan.made_of["recording users/4/recordings/7"] = json.dumps(told | {"row": "A7"})
    migration.verify()
    before = rows(database)
    with pytest.raises(InvalidArgument, match=f"would be set in {0 if key == 'item' else 2} rows"):
        updated(migration)
    assert rows(database) == before


def test_a_view_is_refused_for_what_it_is(migration: Migration, database: Path) -> None:
    with closing(sqlite3.connect(database)) as db, db:
        db.execute('ALTER TABLE "my media" RENAME TO behind')
        db.execute('CREATE VIEW "my media" AS SELECT * FROM behind')
    migration.verify()
    with pytest.raises(NotSupported, match="is a view, and paths are set in tables"):
        updated(migration)
    assert len(list(database.parent.glob("data.db*"))) == 1


def test_a_pipe_in_the_place_of_the_database_is_not_waited_for(migration: Migration, database: Path) -> None:
    migration.verify()
    database.unlink()
    os.mkfifo(database)
    with pytest.raises(InvalidArgument, match="is no regular file"):
        updated(migration)


def test_a_copy_that_cannot_be_made_refuses_all_of_it(migration: Migration, database: Path) -> None:
    migration.verify()
    before = rows(database)
    database.with_name("data.db.before-migration-20261130T000000Z").write_bytes(b"of an earlier one")
    with pytest.raises(Exception, match="nothing is updated"):
        updated(migration)
    assert rows(database) == before


def test_no_copy_is_left_of_a_database_that_stays_as_it_was(migration: Migration, database: Path) -> None:
    migration.verify()
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("""CREATE TRIGGER t BEFORE UPDATE ON "my media" BEGIN SELECT RAISE(ABORT, 'not now'); END""")
    with pytest.raises(IoFailure, match="cannot be changed: not now"):
        updated(migration)
    assert list(database.parent.glob("data.db*")) == [database]


def test_a_copy_has_its_name_when_it_is_whole_and_halves_of_killed_updates_go(
    migration: Migration, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration.verify()
    half = database.with_name("data.db.before-migration-20261129T000000Z.part")
    half.write_bytes(b"SQLite")
    whole = database.with_name("data.db.before-migration-20261128T000000Z")
    whole.write_bytes(b"of an earlier one")
    really, seen = updating._synced, list[list[str]]()

    def synced(path: Path, flags: int) -> None:
        seen.append(sorted(each.name.rpartition("-")[2] for each in database.parent.glob("data.db.*")))
        really(path, flags)

    monkeypatch.setattr(updating, "_synced", synced)
    updated(migration)
    assert seen == [["20261128T000000Z", "20261130T000000Z.part"], ["20261128T000000Z", "20261130T000000Z"]]
    assert whole.read_bytes() == b"of an earlier one"


def test_a_plan_without_a_database_and_one_that_is_gone(migration: Migration, database: Path) -> None:
    database.unlink()
    with pytest.raises(NotFound):
        updated(migration)
    del migration.plan.made_of["db"]
    with pytest.raises(NotSupported):
        updated(migration)
