"""Rows that recfs never writes: the store can be mounted all the same, and what cannot be understood is told."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
import trio

from .build import REC, filesystem, until

ROWS = {
    "a parent that is gone": "update node set parent = 99999, state = 'writing', sha256 = null where name = x'61'",
    "directories in a circle": (
        "update placement set pending = 2 where ino in (select ino from node where name = x'64')"
        "; update node set parent = (select ino from node where name = x'65') where name = x'64'"
    ),
    "an entry of a file": (
        "update placement set pending = 2 where ino in (select ino from node where name = x'61')"
        "; update node set parent = (select ino from node where name = x'62') where name = x'61'"
    ),
    "a place that is gone": (
        "update placement set pending = 2, home_parent = 99999, home_name = x'61' where ino in (select ino from"
        " node where name = x'61')"
    ),
    "garbage of nobody": (
        "insert into garbage (gid, ino, kind, path, size_bytes, mode, uid, gid_owner, mtime_ns, home_parent, home_name,"
        " deleted_ns, held_by) values (77, 88, 'file', x'7a', 1, 420, 0, 0, 0, 99999, x'7a', 0, 12345)"
    ),
}

REPAIRED = {
    "a staging file that is gone": (
        "update placement set staging = 'x' where ino in (select ino from node where name = x'61')"
        "; update node set state = 'writing', sha256 = null where name = x'61'"
    ),
    "one staging file for two": (
        "update placement set staging = 'x' where ino in (select ino from node where name in (x'61', x'62'))"
        "; update node set state = 'writing', sha256 = null where name in (x'61', x'62')"
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
            for each in change.split("; "):
                assert db.execute(each).rowcount > 0
            db.commit()
        await fs.reopen()
        assert await fs.read(f"{REC}/c") == b"c"
        await fs.write(f"{REC}/new", b"new")
        node = await fs.node(f"{REC}/new")
        fs.parts.committer.hurry(node.ino)
        await until(lambda: node.state.is_whole)
        told = fs.parts.problems.as_json()
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
            for each in change.split("; "):
                assert db.execute(each).rowcount > 0
            db.commit()
        await fs.reopen()
        assert [await fs.read(f"{REC}/{name}") for name in "abc"] == [b"a", b"b", b"c"]
        await fs.assert_consistent()


SILENT = {
    "a file in no directory, at home": "update node set parent = 99999 where name = x'61'",
    "a directory in none": (
        "update placement set pending = 1 where ino in (select ino from node where name = x'64')"
        "; update node set parent = 99999 where name = x'64'"
    ),
    "a directory's row without it": "delete from node where name = x'64'",
    "a recording's row without it": "delete from node where name = x'313432'",
    "a user's row without it": "delete from node where name = x'35'",
    "the row of users/ without it": "delete from node where name = x'7573657273'",
    "a file of one name with another kind": "update node set kind = 'dir', state = null where name = x'61'",
    "a directory of the kind of a file": "update node set kind = 'file', state = 'incomplete' where name = x'64'",
    "a directory that is a symlink": "update node set kind = 'symlink', target = x'61' where name = x'64'",
    "a symlink without a target": "update node set kind = 'symlink', state = null where name = x'61'",
    "a name that no level allows": (
        "update placement set pending = 2 where ino in (select ino from node where name = x'61')"
        "; update node set name = x'2e2e' where name = x'61'"
    ),
    "a name with a slash": (
        "update placement set pending = 2 where ino in (select ino from node where name = x'61')"
        "; update node set name = x'612f62' where name = x'61'"
    ),
    "an empty name": (
        "update placement set pending = 2 where ino in (select ino from node where name = x'61')"
        "; update node set name = x'' where name = x'61'"
    ),
    "a file where only users are": (
        "update placement set pending = 2 where ino in (select ino from node where name = x'61')"
        "; update node set parent = 3 where name = x'61'"
    ),
    "a user of no id": (
        "update placement set pending = 2 where ino in (select ino from node where name = x'35')"
        "; update node set name = x'78' where name = x'35'"
    ),
    "sealing, and nowhere": (
        "update placement set staging = 'gone' where ino in (select ino from node where name = x'61')"
        "; update node set state = 'sealing' where name = x'61'"
    ),
    "sealing at home": "update node set state = 'sealing', sha256 = null where name = x'61'",
    "writing where it lies, of another inode": (
        "update placement set pending = 8, home_ino = 1 where ino in (select ino from node where name = x'61')"
        "; update node set state = 'writing', sha256 = null where name = x'61'"
    ),
    "committed, in staging that is gone": (
        "update placement set staging = 'gone', pending = 2 where ino in (select ino from node where name = x'61')"
    ),
    "committed, of another size": "update node set size_bytes = 77 where name = x'61'",
    "evicted, without an object": "update node set state = 'evicted' where name = x'61'",
    "an object that is not there": "update node set has_object = 1 where name = x'61'",
    "attributes that are not there": "update node set has_xattrs = 1 where name = x'61'",
    "all pending bits": (
        "update placement set pending = 255 where ino in (select ino from node where name in (x'61', x'64'))"
    ),
    "a moved directory in itself": (
        "update placement set pending = 2, home_parent = ino, home_name = x'7a' where ino in (select ino from"
        " node where name = x'64')"
    ),
    "in limbo, and not there": (
        "update placement set pending = 2, home_parent = 0, home_name = x'7a' where ino in (select ino from node"
        " where name = x'61')"
    ),
    "two at one place": (
        "update placement set pending = 2, home_parent = (select parent from node where node.ino ="
        " placement.ino), home_name = x'7a' where ino in (select ino from node where name in (x'61', x'62'))"
    ),
    "modes of no use": (
        "update placement set pending = 4 where ino in (select ino from node where name = x'61')"
        "; update node set mode = -1, uid = -1, gid = -1 where name = x'61'"
    ),
    "times of no use": (
        "update placement set pending = 4 where ino in (select ino from node where name = x'61')"
        "; update node set atime_ns = -9223372036854775808, mtime_ns = 9223372036854775807 where name = x'61'"
    ),
    "a total of no use": "update node set size_bytes = 9223372036854775807, rfiles = -5 where name = x'64'",
    "an account of no use": "update account set used_bytes = -5, used_files = -5",
    "no account": "delete from account",
    "an account of nobody": "insert into account (user, used_bytes) values ('nobody', 5)",
    "a removed directory in itself": (
        "insert into garbage (gid, ino, kind, path, size_bytes, mode, uid, gid_owner, mtime_ns, home_parent,"
        " home_name, deleted_ns) values (77, 88, 'dir', x'7a', 1, 420, 0, 0, 0, 88, x'7a', 0)"
    ),
    "garbage in staging that is gone": (
        "insert into garbage (gid, ino, kind, path, size_bytes, mode, uid, gid_owner, mtime_ns, staging, deleted_ns)"
        " values (77, 88, 'file', x'7a', 1, 420, 0, 0, 0, 'gone', 0)"
    ),
    "garbage where a file is": (
        "insert into garbage (gid, ino, kind, path, size_bytes, mode, uid, gid_owner, mtime_ns, home_parent,"
        " home_name, deleted_ns) select 77, 88, 'file', x'7a', 1, 420, 0, 0, 0, parent, name, 0 from node"
        " where name = x'61'"
    ),
    "garbage with a path of nothing": (
        "insert into garbage (gid, ino, kind, path, size_bytes, mode, uid, gid_owner, mtime_ns, deleted_ns)"
        " values (77, 88, 'symlink', x'', 1, 420, 0, 0, 0, 0)"
    ),
    "attributes of nobody": "insert into xattr values (99999, x'757365722e61', x'61')",
    "a whiteout of nobody": "insert into whiteout values (99999, x'61')",
    "a view of nobody": "insert into view values (1, 99999)",
    "an object of nobody": (
        "insert into object values (99999, 'k', 'e', 1, zeroblob(32), zeroblob(16), 0, 'S', 0)"
        "; insert into local_copy values (1, 99999, 0, 1, 0, 0, 0)"
    ),
    "work of nobody": "insert into journal values (1, 'upload', 99999, '', '', '[]', 1, 0, 0, 0, '', 0, 1, 0)",
    "work of no sense": "insert into journal values (1, 'upload', 99999, '', 'x', '{', -1, -1, -1, 7, '', -1, 7, -1)",
    "inode numbers given out again": "update meta set value = '2' where key = 'next_ino'",
    "an inode number of no use": "update meta set value = 'x' where key = 'next_ino'",
    "a fact of no use": "insert or replace into meta values ('clean', 'x'), ('boot_id', ''), ('steady_ns', 'x')",
}


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("change", SILENT.values(), ids=SILENT.keys())
@pytest.mark.table(8)
async def test_whatever_stands_there_others_go_on(place: Path, change: str) -> None:
    """The store starts, twice; another user's files are read, made, sealed and removed; a drain and a stop end."""
    other = "users/6/recordings/7"
    async with filesystem(place) as fs:
        for name in "abc":
            await fs.write(f"{REC}/{name}", name.encode())
        await fs.write(f"{REC}/d/e/x", b"x")
        await fs.write(f"{other}/kept", b"kept")
        await fs.drain()
        await fs.stop()
        with contextlib.closing(sqlite3.connect(place / ".recfs/catalogue.db")) as db:
            for each in change.split("; "):
                assert db.execute(each).rowcount > 0
            db.commit()
        (highest,) = fs.rows("select max(ino) from node")
        for each in ("one", "two"):
            await fs.reopen()
            if change != SILENT["the row of users/ without it"]:
                assert await fs.read(f"{other}/kept") == b"kept"
                await fs.write(f"{other}/{each}", b"new")
                node = await fs.node(f"{other}/{each}")
                assert node.ino > highest, "no number is given out twice"
                fs.parts.committer.hurry(node.ino)
                await until(lambda node=node: node.state.is_whole)
                await fs.unlink(f"{other}/{each}")
            with trio.fail_after(600):
                await fs.answers()["drain"]({"timeout_s": 60.0})
            await fs.crash()
