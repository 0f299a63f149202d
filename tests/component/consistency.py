"""What has to be true of a settled store: rows, counters, and every byte on disk agree."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
from collections.abc import Collection
from pathlib import Path

from recfs.catalogue.rows import NODE, NODES
from recfs.core.bounds import loaded_time
from recfs.stores.beneath import Beneath
from tests.helpers.reports import check

PRIVATE = ".recfs"
_WHOLE = ("committed", "uploading", "stored")
_REMOTE = ("evicted", "fetching", "archived")


def assert_store(catalogue: Path, root: Path, *, lost: int = 0, trash: int = 0) -> None:
    """Rows, counters and disk of a settled store agree."""
    checked = check(catalogue)
    assert checked.differences == []
    assert checked.figures.is_due or checked.figures.off == []
    with contextlib.closing(sqlite3.connect(f"file:{catalogue}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        rows = {row["ino"]: row for row in db.execute(f"select {NODE} from {NODES}")}
        garbage = db.execute("select * from garbage").fetchall()
        for table, column in (
            ("xattr", "ino"), ("whiteout", "parent"), ("view", "ino"), ("placement", "ino"), ("local_copy", "ino"),
        ):  # fmt: skip
            dangling = db.execute(f"select * from {table} where {column} not in (select ino from node)").fetchall()
            assert [tuple(row) for row in dangling] == [], f"{table} rows of nobody"

        if not list((root / PRIVATE).glob("*.before-rebuild-*")):  # which begins another history
            assert_events(db)

    paths = {1: os.fsencode(root)}

    def home(row: sqlite3.Row) -> bytes:
        above = [row]
        while above[-1]["ino"] not in paths:
            above.append(rows[above[-1]["parent"]])
        for each in reversed(above[:-1]):
            paths[each["ino"]] = paths[each["parent"]] + b"/" + each["name"]
        return paths[row["ino"]]

    beneath = Beneath(os.fsencode(root))
    beneath.open(())
    try:
        here = [row for row in rows.values() if row["ino"] != 1 and row["state"] not in _REMOTE]
        expected = {home(row) for row in here if row["staging"] is None}
        tops = [os.fsencode(root / top) for top in ("users", "shared", "temp")]
        found = {path for top in tops for path, _ in beneath.walk(top)} | set(tops)
        assert found == expected, f"home tree and rows differ: {found - expected} and {expected - found}"
        for row in here:
            staged_at = os.fsencode(root / PRIVATE / "staging" / (row["staging"] or ""))
            with beneath.folder(home(row) if row["staging"] is None else staged_at) as (folder, name):
                _assert_row(row, folder, name)
    finally:
        beneath.close()
    staged = {row["staging"] for row in rows.values() if row["staging"]}
    unnamed = set(os.listdir(root / PRIVATE / "staging")) - staged
    for name in unnamed:
        path = root / PRIVATE / "staging" / name
        assert not path.stat().st_size, f"bytes of nobody in staging: {name}"
        assert "user.recfs.label" not in os.listxattr(path), f"a file of nobody in staging: {name}"
    assert [(row["gid"], row["path"]) for row in garbage if row["staging"] or row["home_name"]] == [], "garbage waits"
    assert len(garbage) == trash, [(row["path"], row["held_by"]) for row in garbage]
    in_trash = sorted(int(name) for name in os.listdir(root / PRIVATE / "trash"))
    assert in_trash == sorted(row["gid"] for row in garbage), [tuple(row) for row in garbage]
    assert os.listdir(root / PRIVATE / "limbo") == []
    assert len(os.listdir(root / PRIVATE / "lost+found")) == lost


_SAY_WHAT_IS = ("committed", "overwritten", "removed", "incomplete")


def assert_events(db: sqlite3.Connection) -> None:
    """The last that was told of each file is what its row says: neither is ahead of the other."""
    last = {ino: kind for ino, kind in db.execute("select ino, kind from event order by id") if kind in _SAY_WHAT_IS}
    states = dict(tuple(row) for row in db.execute("select ino, state from node where kind = 'file'"))
    whole = {ino for ino, state in states.items() if state in (*_WHOLE, *_REMOTE)}
    told = {ino for ino, kind in last.items() if kind == "committed"}
    came = {ino for (ino,) in db.execute("select ino from event where kind in ('restored', 'adopted')")} - last.keys()
    untold = {ino: last.get(ino) for ino in whole - told - came}
    assert not last or untold == {}, f"committed, and something else was told last: {untold}"
    wrong = {ino: states.get(ino) for ino in told - whole if states.get(ino) != "corrupt"}
    gone = went_with_directories(db, wrong.keys()) if wrong else set()
    wrong = {ino: state for ino, state in wrong.items() if ino not in gone}
    assert wrong == {}, f"told to be committed, and are not: {wrong}"


MOST_PATHS = 200
"""So many paths are kept of a file: renames of directories into each other make ever more of them."""


def went_with_directories(db: sqlite3.Connection, inos: Collection[int]) -> set[int]:
    """Those of some files whose end was told by that of their directory, as readers of events find them: by their
    paths, of which they may have had several.
    """
    paths: dict[int, set[bytes]] = {}
    gone: set[int] = set()
    for ino, kind, path, was, size in db.execute("select ino, kind, path, was, size_bytes from event order by id"):
        if kind == "renamed":
            for known in paths.values():
                more = {path + each[len(was) :] for each in known if each == was or each.startswith(was + b"/")}
                known.update(list(more)[: MOST_PATHS - len(known)] if len(known) < MOST_PATHS else ())
        if kind == "removed" and size is not None:
            gone |= {each for each, known in paths.items() if any(one.startswith(path + b"/") for one in known)}
        elif ino in inos:
            paths.setdefault(ino, set()).add(path)
            gone.discard(ino)
    return gone


def _assert_row(row: sqlite3.Row, folder: int, name: bytes) -> None:
    where = f"{os.fsdecode(row['name'])} ({row['state']})"
    assert row["pending"] == 0, f"{where}: pending {row['pending']}"
    assert row["home_name"] is None, f"{where}: still at {row['home_parent']}/{row['home_name']}"
    if row["kind"] == "symlink":
        assert os.readlink(name, dir_fd=folder) == row["target"], where
        return
    info = os.stat(name, dir_fd=folder, follow_symlinks=False)
    assert stat.S_ISDIR(info.st_mode) == (row["kind"] == "dir"), where
    if row["staging"] is None and row["parent"] != 1:
        assert stat.S_IMODE(info.st_mode) == row["mode"], where
        assert os.geteuid() or (info.st_uid, info.st_gid) == (row["uid"], row["gid"]), f"{where}: owner"
    if row["kind"] == "file" and row["state"] != "corrupt":
        assert info.st_size == row["size_bytes"], where
        assert row["state"] in (*_WHOLE, "incomplete", "writing"), where
        if row["state"] in _WHOLE:
            assert row["staging"] is None, where
            with open(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
                content = file.read()
            assert hashlib.sha256(content).digest() == row["sha256"], f"{where}: sha256"
            md5 = row["md5"]  # none is made before somebody needs it
            assert md5 is None or hashlib.md5(content).digest() == md5, f"{where}: md5"
            assert info.st_ino == row["home_ino"], where
            assert info.st_mtime_ns == loaded_time(row["mtime_ns"]), f"{where}: mtime"
