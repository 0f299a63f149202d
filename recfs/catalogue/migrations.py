"""Schema versions of the catalogue file, and the step from each to the next.

Every store has gone through all steps, a new one at once. So what a step does never changes again: its SQL lies in
`steps/`, or stands below. `schema.sql` is what comes out, for readers; `tests/component/test_migrations.py` compares,
and takes a stored copy of each earlier version through the steps that it lacks. sqlite-utils runs each step and its
record in one transaction and remembers what was applied, so a crash half-way repeats nothing.
"""

from __future__ import annotations

from importlib import resources

from sqlite_utils import Database, Migrations

from recfs.core.bounds import MIN_TIME_NS

steps = Migrations("recfs")

NEWEST = "0016_places_of_days"
"""Name of the last step: a catalogue that records a later one was written by a newer recfs."""


def _run(db: Database, name: str) -> None:
    script = resources.files("recfs.catalogue").joinpath("steps", f"{name}.sql").read_text("utf-8")
    for statement in split_statements(script):
        db.execute(statement)


@steps(name="0001_schema")
def schema(db: Database) -> None:
    """Create the first tables."""
    _run(db, "0001_schema")


@steps(name="0002_objects")
def objects(db: Database) -> None:
    """What S3 holds of a file, the journal, and the states that go with them."""
    _run(db, "0002_objects")


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
    db.execute("alter table node rename column fsynced to promised")
    db.execute("alter table garbage add column promised integer not null default 0")


@steps(name="0005_unanswered")
def unanswered(db: Database) -> None:
    """Requests that S3 may carry out yet."""
    _run(db, "0005_unanswered")


@steps(name="0006_placement")
def placement(db: Database) -> None:
    """What is true of one machine alone lies apart; work on S3 has an owner."""
    _run(db, "0006_placement")


@steps(name="0007_sweeps")
def sweeps(db: Database) -> None:
    """Runs of sweeps are remembered."""
    _run(db, "0007_sweeps")


@steps(name="0008_recordings")
def recordings(db: Database) -> None:
    """How long recordings live."""
    _run(db, "0008_recordings")


@steps(name="0009_trash")
def trash(db: Database) -> None:
    """The trash keeps directories, links, attributes, and what only S3 has."""
    _run(db, "0009_trash")


@steps(name="0010_events")
def events(db: Database) -> None:
    """What becomes of files is remembered for whoever asks."""
    _run(db, "0010_events")


@steps(name="0011_owners")
def owners(db: Database) -> None:
    """Users are told apart by uid."""
    _run(db, "0011_owners")


@steps(name="0012_figures")
def figures(db: Database) -> None:
    """Files are counted by user, category and place, at first by the daemon once it runs; days are remembered."""
    _run(db, "0012_figures")


@steps(name="0013_derived")
def derived(db: Database) -> None:
    """What is derived from recordings is remembered, and how their audio is cut."""
    _run(db, "0013_derived")


@steps(name="0014_twins")
def twins(db: Database) -> None:
    """Objects are found by their bytes."""
    _run(db, "0014_twins")


@steps(name="0015_media")
def media(db: Database) -> None:
    """What is in recordings is remembered. Those of an earlier version are looked into once the daemon runs."""
    _run(db, "0015_media")


@steps(name="0016_places_of_days")
def places_of_days(db: Database) -> None:
    """Of earlier days it is remembered where the bytes were; of those before this step that is not known."""
    _run(db, "0016_places_of_days")


def split_statements(script: str) -> list[str]:
    """Split *script* at semicolons that end a line (comments dropped), to run without an implicit commit."""
    lines = [line.split("--", 1)[0].rstrip() for line in script.splitlines()]
    return [part.strip() for part in "\n".join(lines).split(";\n") if part.strip(" \n;")]
