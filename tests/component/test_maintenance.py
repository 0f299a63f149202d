"""The check of the catalogue by schedule: what it says, and that it changes nothing."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from .build import REC, Filesystem
from .sweeping import swept


async def test_a_catalogue_that_is_right(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", b"data")
    ended = await swept(fs, "catalogue")
    assert ended["outcome"] == "done"
    assert ended["result"].startswith("1 files, all counters right; ")
    assert fs.parts.problems.as_json() == []


@pytest.mark.expect_log("catalogue check: 1 counters are off, user 5 first")
async def test_counters_that_are_off_are_told_until_they_are_right_and_not_changed(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", b"data")
    await fs.drain()
    with contextlib.closing(sqlite3.connect(fs.parts.store.catalogue_path)) as db:
        db.execute("update account set used_bytes = 7 where user = '5'")
        db.commit()
    for _ in range(2):
        assert "1 counters are off, user 5 first" in (await swept(fs, "catalogue"))["result"]
        assert [each["part"] for each in fs.parts.problems.as_json()] == ["catalogue check"]
    assert (await fs.answers()["quota_check"]({"repair": False}))["differences"]
    with contextlib.closing(sqlite3.connect(fs.parts.store.catalogue_path)) as db:
        db.execute("update account set used_bytes = 4 where user = '5'")
        db.commit()
    await swept(fs, "catalogue")
    assert fs.parts.problems.as_json() == []


@pytest.mark.expect_log("catalogue check: the catalogue is damaged")
async def test_damage_is_told(fs: Filesystem) -> None:
    for number in range(50):
        await fs.write(f"{REC}/{number}", b"data")
    await fs.drain()
    path = fs.parts.store.catalogue_path
    with contextlib.closing(sqlite3.connect(path)) as db:
        # An index that lacks an entry of its table: what a lost write leaves.
        db.execute("pragma writable_schema = on")
        db.execute("update sqlite_master set sql = replace(sql, 'md5         blob', 'md5         blob not null')")
        db.commit()
    assert "the catalogue is damaged" in (await swept(fs, "catalogue"))["result"]
