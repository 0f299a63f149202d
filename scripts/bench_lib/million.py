"""A catalogue of a million files, made without writing a million files.

The rows are clones of rows that recfs wrote itself: one committed file and one recording are made through the
mount, then copied inside SQLite with other inode numbers, parents and names. So this file knows the columns
that tie rows together (ino, parent, name, the totals, the accounts, next_ino) and no others. The home tree
has no bytes for the clones; nothing here reads them.
"""

import sqlite3
from pathlib import Path

from .recfs_target import RecfsTarget
from .small import PAYLOAD
from .target import TargetError

FILES_PER_RECORDING = 100
RECORDINGS_PER_USER = 100


def build(target: RecfsTarget, files: int, recordings_per_user: int = RECORDINGS_PER_USER) -> None:
    """Give the stopped, empty store of `target` a catalogue with `files` files; recfs checks its counters.

    So many users that each has `recordings_per_user` recordings of FILES_PER_RECORDING files.

    Raises TargetError when `recfs quota check` finds the counters wrong: then the schema has moved on from
    this file.
    """
    users = files // (recordings_per_user * FILES_PER_RECORDING)
    target.start()
    for user in range(1, users + 1):
        (target.tree / "users" / str(user) / "recordings").mkdir(parents=True)
    template = target.tree / "users" / "1" / "recordings" / "1"
    template.mkdir()
    (template / "f0").write_bytes(PAYLOAD)
    target.settle()
    file_ino, recording_ino = (template / "f0").stat().st_ino, template.stat().st_ino
    recordings_inos = [(target.tree / "users" / str(user) / "recordings").stat().st_ino for user in range(1, users + 1)]
    target.stop()

    database = target.root / ".recfs" / "catalogue.db"
    _clone(database, file_ino, recording_ino, recordings_inos, recordings_per_user)

    target.start()
    found = target.call("quota_check", repair=False)
    target.stop()
    if found["differences"] or found["checked_files"] < files:
        raise TargetError(f"the generated catalogue is not consistent (has the schema changed?): {found}")


def _clone(
    database: Path, file_ino: int, recording_ino: int, recordings_inos: list[int], recordings_per_user: int
) -> None:
    connection = sqlite3.connect(database)
    try:
        with connection:
            _insert(connection, file_ino, recording_ino, recordings_inos, recordings_per_user)
        # recfs checkpoints when it stops; leaving that to the next start would be measured as its start-up.
        connection.execute("pragma wal_checkpoint(truncate)")
    finally:
        connection.close()


def _insert(
    connection: sqlite3.Connection,
    file_ino: int,
    recording_ino: int,
    recordings_inos: list[int],
    recordings_per_user: int,
) -> None:
    (next_ino,) = connection.execute(
        "select max((select cast(value as integer) from meta where key = 'next_ino'), (select max(ino) + 1 from node))"
    ).fetchone()
    columns = [row[1] for row in connection.execute("pragma table_info(node)")]
    recording_bytes = FILES_PER_RECORDING * len(PAYLOAD)
    user_files, user_bytes = recordings_per_user * FILES_PER_RECORDING, recordings_per_user * recording_bytes

    def clone(changed: dict[str, str]) -> str:
        """An insert of `:count` copies of row `:template`, n running from 0, with some columns computed."""
        values = ", ".join(changed.get(column, column) for column in columns)
        return (
            "with recursive series(n) as (select 0 union all select n + 1 from series where n + 1 < :count)"
            f" insert into node ({', '.join(columns)})"
            f" select {values} from series, node where ino = :template"
        )

    clone_recordings = clone(
        {
            "ino": ":first + n",
            "parent": ":parent",
            # 1 is the template's own name.
            "name": "cast(cast(n + 2 as text) as blob)",
            "size_bytes": str(recording_bytes),
            "rfiles": str(FILES_PER_RECORDING),
        }
    )
    clone_files = clone({"ino": ":first + n", "parent": ":parent", "name": "cast('f' || n as blob)"})
    for recordings_ino in recordings_inos:
        first_recording = next_ino
        connection.execute(
            clone_recordings,
            {
                "template": recording_ino,
                "count": recordings_per_user,
                "first": first_recording,
                "parent": recordings_ino,
            },
        )
        next_ino += recordings_per_user
        for recording in range(first_recording, first_recording + recordings_per_user):
            connection.execute(
                clone_files,
                {"template": file_ino, "count": FILES_PER_RECORDING, "first": next_ino, "parent": recording},
            )
            next_ino += FILES_PER_RECORDING
        _count(connection, recordings_ino, user_files, user_bytes)
    for user in range(1, len(recordings_inos) + 1):
        connection.execute(
            "insert into account (user, used_bytes, used_files) values (?, ?, ?)"
            " on conflict (user) do update set used_bytes = used_bytes + excluded.used_bytes,"
            " used_files = used_files + excluded.used_files",
            (str(user), user_bytes, user_files),
        )
    connection.execute("update meta set value = ? where key = 'next_ino'", (str(next_ino),))
    # nobody has counted these by category: the daemon does
    connection.execute("replace into meta (key, value) values ('figures_recount', '1')")


def _count(connection: sqlite3.Connection, directory: int, files: int, size_bytes: int) -> None:
    """Add one user's clones to the totals of `directory` and all above it; the root is its own parent."""
    connection.execute(
        "with recursive up(ino) as (select :directory union"
        " select node.parent from up join node on node.ino = up.ino)"
        " update node set size_bytes = size_bytes + :size_bytes, rfiles = rfiles + :files"
        " where ino in (select ino from up)",
        {"directory": directory, "size_bytes": size_bytes, "files": files},
    )
