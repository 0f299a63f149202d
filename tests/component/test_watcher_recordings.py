"""Recordings that are renamed in the home tree while another takes the number at once: each keeps its own date."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from recfs.state.nodes import DirNode

from .build import OPERATOR, REC, Filesystem, filesystem
from .watching import Watched, watching

if TYPE_CHECKING:
    from pathlib import Path

OTHER_REC, THIRD_REC = "users/5/recordings/200", "users/5/recordings/201"
FULL = "users/77/recordings"
DATE = b"2040-01-01T00:00:00Z"


async def dated(fs: Filesystem, path: str) -> int:
    """A recording with a date to expire at; its inode number."""
    await fs.write(f"{path}/source.bin", b"of " + path.encode())
    node = await fs.node(path)
    await fs.xattrs.set(node.ino, b"user.recfs.expires_at", DATE, OPERATOR)
    await fs.drain()
    return node.ino


async def has_date(fs: Filesystem, path: str) -> bool:
    """Whether a recording has a date of its own."""
    node = await fs.node(path)
    assert isinstance(node, DirNode)
    assert node.life is not None
    return node.life.expires_ns is not None


async def test_a_new_recording_does_not_expire_for_the_one_that_had_its_number(watched: Watched) -> None:
    fs, home = watched.fs, watched.home
    ino = await dated(fs, REC)
    (home / REC).rename(home / OTHER_REC)
    (home / REC).mkdir()
    (home / REC / "source.bin").write_bytes(b"another one")
    await watched.settled()
    assert (await fs.node(OTHER_REC)).ino == ino
    assert await has_date(fs, OTHER_REC)
    assert not await has_date(fs, REC)
    assert await fs.read(f"{OTHER_REC}/source.bin") == b"of " + REC.encode()
    assert await fs.read(f"{REC}/source.bin") == b"another one"
    (home / OTHER_REC / "late").write_bytes(b"both are watched")
    (home / REC / "late").write_bytes(b"both are watched")
    await watched.seen(lambda: watched.count("adopted") >= 4)
    await watched.settled()
    assert await fs.exists(f"{OTHER_REC}/late")
    assert await fs.exists(f"{REC}/late")
    await fs.assert_consistent()


async def test_recordings_that_were_rotated(watched: Watched) -> None:
    """The one that had the number has moved on itself, to one that is free."""
    fs, home = watched.fs, watched.home
    numbers = [await dated(fs, REC), await dated(fs, OTHER_REC)]
    (home / OTHER_REC).rename(home / THIRD_REC)
    (home / REC).rename(home / OTHER_REC)
    await watched.settled()
    await watched.settled()
    assert [(await fs.node(path)).ino for path in (OTHER_REC, THIRD_REC)] == numbers
    assert not await fs.exists(REC)
    assert await fs.read(f"{OTHER_REC}/source.bin") == b"of " + REC.encode()
    assert await fs.read(f"{THIRD_REC}/source.bin") == b"of " + OTHER_REC.encode()
    await fs.assert_consistent()


async def test_recordings_that_have_changed_places(watched: Watched) -> None:
    """Each keeps its date, and what is in it; and both go on being watched."""
    fs, home = watched.fs, watched.home
    await fs.write(f"{OTHER_REC}/source.bin", b"other")
    numbers = [await dated(fs, REC), (await fs.node(OTHER_REC)).ino]
    (home / REC).rename(home / THIRD_REC)
    (home / OTHER_REC).rename(home / REC)
    (home / THIRD_REC).rename(home / OTHER_REC)
    await watched.settled()
    assert [(await fs.node(path)).ino for path in (OTHER_REC, REC)] == numbers
    assert await has_date(fs, OTHER_REC)
    assert not await has_date(fs, REC)
    assert await fs.read(f"{OTHER_REC}/source.bin") == b"of " + REC.encode()
    assert await fs.read(f"{REC}/source.bin") == b"other"
    assert watched.count("changed") == 0
    adopted = watched.count("adopted")
    (home / OTHER_REC / "late").write_bytes(b"both are watched")
    (home / REC / "late").write_bytes(b"both are watched")
    await watched.seen(lambda: watched.count("adopted") == adopted + 2)
    await fs.assert_consistent()


@pytest.mark.expect_log("max_bytes")
async def test_what_may_not_be_where_it_lies_is_what_has_its_name(place: Path, autojump_clock: object) -> None:
    """The other user has no room left for it: under either name what lies there is shown all the same."""
    async with filesystem(place / "root", quota={"max_bytes": 100}) as fs:
        for path in (REC, f"{FULL}/2"):
            await fs.write(f"{path}/source.bin", bytes(60))
        await fs.drain()
        async with watching(fs) as watched:
            home = watched.home
            (home / REC).rename(home / FULL / "1")
            (home / REC).mkdir()
            (home / REC / "source.bin").write_bytes(b"another one")
            await watched.seen(lambda: watched.count("adopted") == 2 and not watched.waiting)
            await watched.settled()
            assert await fs.read(f"{REC}/source.bin") == b"another one"
            assert await fs.read(f"{FULL}/1/source.bin") == bytes(60)
        await fs.assert_consistent()


async def test_one_that_left_the_store_gives_its_place(watched: Watched) -> None:
    """It is nowhere: what is there now is the one of that number, as before."""
    fs, home = watched.fs, watched.home
    ino = await dated(fs, REC)
    (home / REC).rename(home.parent / "away")
    (home / REC).mkdir()
    (home / REC / "source.bin").write_bytes(b"put back from somewhere")
    await watched.settled()
    assert (await fs.node(REC)).ino == ino
    assert await fs.read(f"{REC}/source.bin") == b"put back from somewhere"
    shutil.rmtree(home.parent / "away")
    await fs.assert_consistent()
