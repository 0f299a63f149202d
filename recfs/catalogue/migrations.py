"""Schema versions of the catalogue file, and the step from each to the next.

Version 1 is `schema.sql`. A later change adds a numbered step here *and* edits `schema.sql`, so that a new
store and a migrated one end the same; `tests/component/test_catalogue.py` compares them. sqlite-utils runs each
step and its record in one transaction and remembers what was applied, so a crash half-way repeats nothing.
"""

from __future__ import annotations

from importlib import resources

from sqlite_utils import Database, Migrations

from recfs.core.bounds import MIN_TIME_NS

steps = Migrations("recfs")

NEWEST = "0004_promises"
"""Name of the last step: a catalogue that records a later one was written by a newer recfs."""


@steps(name="0001_schema")
def schema(db: Database) -> None:
    """Create all tables."""
    script = resources.files("recfs.catalogue").joinpath("schema.sql").read_text("utf-8")
    for statement in split_statements(script):
        db.execute(statement)


@steps(name="0002_objects")
def objects(db: Database) -> None:
    """What S3 holds of a file, the journal, and the states that go with them.

    A check constraint cannot be changed in place (sqlite.org/lang_altertable.html, section 7), so `node` is made anew.
    """
    names = {name for (name,) in db.execute("select name from sqlite_master where type = 'table'")}
    if "object" in names:
        return  # made by `schema.sql` as it stands now
    script = resources.files("recfs.catalogue").joinpath("schema.sql").read_text("utf-8")
    statements = split_statements(script)
    columns = ", ".join(row[1] for row in db.execute("pragma table_info(node)"))
    db.execute("alter table node rename to node_0001")
    for (index,) in db.execute(
        "select name from sqlite_master where type = 'index' and tbl_name = 'node_0001' and sql is not null"
    ).fetchall():
        db.execute(f"drop index {index}")
    for statement in statements:
        subject = statement.split("(")[0].split()
        if {"node", "object", "journal"} & set(subject):
            db.execute(statement)
    into = columns.replace("fsynced", "promised")
    db.execute(f"insert into node ({into}) select {columns} from node_0001")
    db.execute("drop table node_0001")


@steps(name="0003_times")
def times(db: Database) -> None:
    """Times before 1901 are clamped, as they are from now on: below, the range of times continues from 2262 on."""
    for table, columns in (
        ("node", ("atime_ns", "mtime_ns", "ctime_ns")),
        ("garbage", ("mtime_ns",)),
        ("object", ("mtime_ns",)),
    ):
        for column in columns:
            db.execute(f"update {table} set {column} = {MIN_TIME_NS} where {column} < {MIN_TIME_NS}")


@steps(name="0004_promises")
def promises(db: Database) -> None:
    """What was promised of uncommitted bytes, by close as by fsync, and also of versions that are held."""
    if "fsynced" in {row[1] for row in db.execute("pragma table_info(node)")}:
        db.execute("alter table node rename column fsynced to promised")
    if "promised" not in {row[1] for row in db.execute("pragma table_info(garbage)")}:
        db.execute("alter table garbage add column promised integer not null default 0")


def split_statements(script: str) -> list[str]:
    """Split *script* at semicolons that end a line (comments dropped), to run without an implicit commit."""
    lines = [line.split("--", 1)[0].rstrip() for line in script.splitlines()]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" \n;")]


def applied(db: Database) -> list[str]:
    """Names of the steps this file has seen, oldest first."""
    return [step.name for step in steps.applied(db)]
