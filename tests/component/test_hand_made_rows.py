"""Rows that recfs never writes: the store can be mounted all the same, and what cannot be understood is told."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from .build import REC, filesystem, until

ROWS = {
    "a parent that is gone": "update node set parent = 99999, state = 'writing', sha256 = null where name = x'61'",
    "directories in a circle": (
        "update node set pending = 2, parent = (select ino from node where name = x'65') where name = x'64'"
    ),
    "an entry of a file": (
        "update node set pending = 2, parent = (select ino from node where name = x'62') where name = x'61'"
    ),
    "a place that is gone": "update node set pending = 2, home_parent = 99999, home_name = x'61' where name = x'61'",
    "garbage of nobody": (
        "insert into garbage (gid, ino, kind, path, size_bytes, mode, uid, gid_owner, mtime_ns, home_parent, home_name,"
        " deleted_ns, held_by) values (77, 88, 'file', x'7a', 1, 420, 0, 0, 0, 99999, x'7a', 0, 12345)"
    ),
}

REPAIRED = {
    "a staging file that is gone": "update node set state = 'writing', sha256 = null, staging = 'x' where name = x'61'",
    "one staging file for two": (
        "update node set state = 'writing', sha256 = null, staging = 'x' where name in (x'61', x'62')"
    ),
}


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("change", ROWS.values(), ids=ROWS.keys())
async def test_they_keep_no_store_from_starting(place: Path, change: str) -> None:
    async with filesystem(place) as fs:
        for name in "abc":
            await fs.write(f"{REC}/{name}", name.encode())
        await fs.write(f"{REC}/d/e/x", b"x")
        await fs.drain()
        await fs.stop()
        with contextlib.closing(sqlite3.connect(place / ".recfs/catalogue.db")) as db:
            assert db.execute(change).rowcount > 0
            db.commit()
        await fs.reopen()
        assert await fs.read(f"{REC}/c") == b"c"
        await fs.write(f"{REC}/new", b"new")
        node = await fs.node(f"{REC}/new")
        fs.parts.committer.hurry(node.ino)
        await until(lambda: node.state.is_whole)
        told = fs.parts.problems.told()
        lost = fs.parts.recovered.lost
        assert told or lost, "somebody is told"
        assert all(item["reason"] for item in told)


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("change", REPAIRED.values(), ids=REPAIRED.keys())
async def test_bytes_that_lie_elsewhere_are_found(place: Path, change: str) -> None:
    async with filesystem(place) as fs:
        for name in "abc":
            await fs.write(f"{REC}/{name}", name.encode())
        await fs.drain()
        await fs.stop()
        with contextlib.closing(sqlite3.connect(place / ".recfs/catalogue.db")) as db:
            assert db.execute(change).rowcount > 0
            db.commit()
        await fs.reopen()
        assert [await fs.read(f"{REC}/{name}") for name in "abc"] == [b"a", b"b", b"c"]
        await fs.assert_consistent()
