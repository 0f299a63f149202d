"""The platform's database: one table of recordings, and a few more that a migration has nothing to do with."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

_SCHEMA = """
CREATE TABLE users (id INTEGER PRIMARY KEY, email TEXT NOT NULL, created_at TEXT);
CREATE TABLE recordings (
    id INTEGER PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users (id),
    display_name VARCHAR(500),
    status VARCHAR(32) NOT NULL,
    start_time DATETIME,
    duration INTEGER,
    video_file_size INTEGER,
    local_video_path VARCHAR(1000),
    processed_video_path VARCHAR(1000),
    processed_audio_path VARCHAR(1000),
    transcription_dir VARCHAR(1000),
    expire_at DATETIME,
    created_at DATETIME
);
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('8f2c1d0a7b3e');
"""


@dataclass(slots=True)
class Row:
    """One recording as the platform knows it; the fields are the table's columns, in its order."""

    id: int
    user_id: int
    display_name: str
    status: str = "READY"
    start_time: str | None = None
    duration: int | None = None
    video_file_size: int | None = None
    local_video_path: str | None = None
    processed_video_path: str | None = None
    processed_audio_path: str | None = None
    transcription_dir: str | None = None
    expire_at: str | None = None
    created_at: str | None = None


def write_database(path: Path, rows: Sequence[Row]) -> None:
    """Make the database anew."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.executescript(_SCHEMA)
            users = sorted({row.user_id for row in rows})
            connection.executemany(
                "INSERT INTO users VALUES (?, ?, '2024-09-01 09:00:00.000000')",
                ((user, f"user{user}@example.org") for user in users),
            )
            columns = ", ".join("?" for _ in fields(Row))
            connection.executemany(f"INSERT INTO recordings VALUES ({columns})", map(astuple, rows))
    finally:
        connection.close()


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    r"""The table as PostgreSQL's `\copy recordings TO … WITH (FORMAT csv, HEADER)` writes it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(astuple(row) for row in rows)


__all__ = ["Row", "write_csv", "write_database"]
