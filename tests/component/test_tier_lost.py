"""Local copies on their way home: cut off by a crash, or with their directories gone (or nothing but a catalogue)."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
import trio

from recfs.core.model import State
from recfs.disk.home import publisher
from recfs.errors import IoFailure
from tests.fake_object_store import FakeObjectStore
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, pattern
from .far import ask, until
from .test_tier import FILE, MIB, evict, fs, stored, tiered

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["fs"]
OTHER = f"{REC}/deep/er/other"


async def test_what_comes_home_has_its_directories_made_again(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    """Files that are fetched, and new ones."""
    expect_log("home tree: .*No such file")
    monkeypatch.setattr(publisher, "RETRY_S", 0.01)
    for path in (FILE, OTHER):
        await fs.write(path, b"data")
        await fs.drain()
        await evict(fs, path)
    shutil.rmtree(fs.root / "users/5")
    assert await fs.read(OTHER) == b"data"
    await fs.write(f"{REC}/new", b"new")
    with trio.fail_after(GUARD_S):
        await fs.drain()
        assert await fs.read(FILE) == b"data"
        await fs.drain()
    assert {path: (fs.root / path).read_bytes() for path in (FILE, OTHER, f"{REC}/new")} == stored(fs)
    await fs.reopen()
    assert await fs.read(OTHER) == b"data"


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("size", [4, 20 * MIB])
@pytest.mark.slow
async def test_a_crash_between_fetching_and_coming_home(fs: Filesystem, size: int, gone: bool) -> None:
    """The row says where the bytes are, and they are not partial any more; S3 has them in any case."""
    await fs.write(FILE, pattern(size))
    await fs.drain()
    found = await evict(fs)
    fs.parts.publisher.publish_some = trio.lowlevel.checkpoint  # type: ignore[method-assign]
    assert await fs.read(FILE) == pattern(size)
    await until(lambda: found.state is State.STORED)
    await fs.vfs.behind.flush()
    assert fs.rows("select count(*) from placement where staging is not null") == [1]
    await fs.crash()
    if gone:
        [staging] = fs.rows("select staging from placement where staging is not null")
        (fs.root / ".recfs/staging" / staging).unlink()
    await fs.reopen()
    assert await fs.read(FILE) == pattern(size)
    await until(lambda: fs.tier.copies.local_bytes == size)
    await fs.drain()
    assert (fs.root / FILE).read_bytes() == pattern(size)
    assert fs.leftovers("staging") == []


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("fetched", [False, True])
async def test_a_crash_after_coming_home_that_no_row_tells_of(fs: Filesystem, fetched: bool, renamed: bool) -> None:
    """The copy lies there, fetched or stored from staging: it is no stranger, and is not fetched again."""
    if fetched:
        await fs.write(FILE, b"data")
        await fs.drain()
        await evict(fs)
    publish_some = fs.parts.publisher.publish_some
    fs.parts.publisher.publish_some = trio.lowlevel.checkpoint  # type: ignore[method-assign]
    if fetched:
        assert await fs.read(FILE) == b"data"
    else:
        await fs.write(FILE, b"data")
    found = await fs.node(FILE)
    await until(lambda: found.state is State.STORED)
    await fs.vfs.behind.flush()
    assert fs.rows("select state, staging is not null from node join placement using (ino) where kind = 'file'") == [
        ("stored", 1)
    ]
    fs.parts.publisher._finish = lambda done, cause=None: None  # type: ignore[method-assign]
    await publish_some()
    await fs.crash()
    assert fs.rows("select state, staging is not null from node join placement using (ino) where kind = 'file'") == [
        ("stored", 1)
    ]
    if renamed:
        (fs.root / FILE).rename(fs.root / f"{FILE}2")  # as if a later step had been taken as well
    await fs.reopen()
    await fs.drain()
    assert await fs.state(FILE) == "stored"
    assert (fs.root / FILE).read_bytes() == b"data"
    assert await fs.read(FILE) == b"data"
    assert fs.tier.copies.local_bytes == 4
    await fs.assert_consistent()


async def test_a_crash_while_a_file_is_changed_that_was_just_fetched(fs: Filesystem) -> None:
    """What was written to it since is kept as for any other file."""
    await fs.write(FILE, pattern(100))
    await fs.drain()
    found = await evict(fs)
    fs.parts.publisher.publish_some = trio.lowlevel.checkpoint  # type: ignore[method-assign]
    assert await fs.read(FILE) == pattern(100)
    await until(lambda: found.state is State.STORED)
    number = await fs.open(FILE, os.O_RDWR)
    await fs.vfs.files.write(number, 100, b" and more")
    await fs.vfs.behind.flush()
    await fs.crash()
    await fs.reopen()
    assert await fs.state(FILE) == "incomplete"
    assert await fs.read(FILE) == pattern(100) + b" and more"
    await fs.drain()


@pytest.mark.parametrize("closed", [False, True])
async def test_a_rename_over_an_evicted_file_gives_old_or_new_after_a_crash(fs: Filesystem, closed: bool) -> None:
    """S3 alone has the old bytes: they are the way back until the new ones are promised."""
    fs.checked_at_end = False
    await fs.write(FILE, b"old")
    await fs.drain()
    await evict(fs)
    number = await fs.open(f"{REC}/part", os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"new")
    if closed:
        await fs.close(number)
    await fs.rename(f"{REC}/part", FILE)
    await fs.crash()
    await fs.reopen()
    assert await fs.read(FILE) == (b"new" if closed else b"old")
    await fs.drain()
    assert await fs.read(FILE) == (b"new" if closed else b"old")
    assert stored(fs) == {FILE: b"new" if closed else b"old"}
    assert fs.account() == (3, 1)


@pytest.mark.parametrize("kept", [False, True], ids=["overwritten", "removed"])
async def test_a_version_that_was_fetched_and_had_not_come_home_stays_in_the_trash(
    nursery: trio.Nursery, place: Path, kept: bool
) -> None:
    """Its bytes lie where they arrived, and a death comes before they are in the trash."""
    fs = tiered(nursery, place, trash={"retention": 3600.0})
    await fs.start()
    await fs.write(FILE, pattern(5000))
    await fs.drain()
    found = await evict(fs)
    fs.parts.publisher.publish_some = trio.lowlevel.checkpoint  # type: ignore[method-assign]
    assert await fs.read(FILE) == pattern(5000)
    await until(lambda: found.state is State.STORED)
    if kept:
        await fs.unlink(FILE)
    else:
        await fs.write(FILE, b"new")
    await fs.parts.behind.durable()
    await fs.crash()
    await fs.reopen()
    await fs.drain()
    result = await ask(fs, "trash_restore", path=FILE, to=OTHER)
    assert result["kept"] == []
    assert await fs.read(OTHER) == pattern(5000)
    assert fs.parts.problems.as_json() == []
    await fs.stop()


@pytest.mark.parametrize("size", [7000, 2_000_000], ids=["in one", "in parts"])
async def test_what_went_bad_before_its_upload_is_corrupt_and_is_not_sent_for_ever(
    nursery: trio.Nursery, place: Path, expect_log: Callable[[str], None], size: int
) -> None:
    """S3 says that it got other bytes than were committed: it is the disk's fault, and not the line's."""
    expect_log(f"{FILE} is corrupt|cannot upload|other bytes")
    fs = tiered(nursery, place, upload={"settle": 10.0})
    fs.objects = FakeObjectStore(smallest_part=500_000)
    await fs.start()
    await fs.write(FILE, pattern(size))
    await fs.write(OTHER, b"other")
    await until(lambda: (fs.root / FILE).exists())
    info = (fs.root / FILE).stat()
    with open(fs.root / FILE, "r+b") as file:
        file.write(b"rotten")
    os.utime(fs.root / FILE, ns=(info.st_atime_ns, info.st_mtime_ns))
    fs.clock.advance(11)
    fs.tier.journal.wake.set()
    node = await fs.node(FILE)
    await until(lambda: node.state is State.CORRUPT)
    fs.clock.advance(60)
    await fs.drain()
    assert stored(fs) == {OTHER: b"other"}
    assert not fs.tier.journal.rows
    with pytest.raises(IoFailure):
        await fs.read(FILE)
    await fs.write(FILE, b"anew")
    await until(lambda: node.state is not State.CORRUPT)
    fs.clock.advance(11)
    await fs.drain()
    assert stored(fs) == {FILE: b"anew", OTHER: b"other"}
    await fs.stop()
