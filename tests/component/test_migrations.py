"""Catalogues of every earlier version become what a new one is, and keep their rows."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database

from recfs.catalogue import migrations
from recfs.catalogue.opening import open_catalogue
from recfs.core.bounds import MIN_TIME_NS

STORED = Path(__file__).with_name("catalogues")
"""A dump of a catalogue, with some rows, as each version of recfs that had another schema made it."""
FROZEN = {
    "0001_schema.sql": "3976a64f2c2eb230",
    "0002_objects.sql": "40efa7148927338c",
    "0005_unanswered.sql": "2fe25f4929f7555f",
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
    finally:
        catalogue.close()
    assert committed is not None
    assert (committed.name, committed.size_bytes, committed.sha256) == (b"committed", 4, b"s" * 32)
    assert committed.mtime_ns == (MIN_TIME_NS if version < "0003" else 5)
    assert written is not None
    assert (written.name, written.staging, written.promised) == (b"caf\xe9", "abc-1", 1)
    assert link is not None
    assert link.target == b"committed"
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("select path, promised from garbage").fetchall() == [(b"users/5/gone", 0)]
        assert db.execute("select count(*) from object").fetchone()[0] == (0 if version < "0002" else 1)
        assert db.execute("pragma integrity_check").fetchone()[0] == "ok"


@pytest.mark.parametrize("name", sorted(path.name for path in (Path(migrations.__file__).parent / "steps").glob("*")))
def test_the_sql_of_a_step_is_what_it_was(name: str) -> None:
    """Stores have gone through it: what is to change comes as another step."""
    text = (Path(migrations.__file__).parent / "steps" / name).read_bytes()
    assert hashlib.sha256(text).hexdigest()[:16] == FROZEN[name]
