"""Recordings that are renamed in the home tree while another takes the number at once: each keeps its own date."""

from __future__ import annotations

import shutil

from recfs.state.nodes import DirNode

from .build import OPERATOR, REC, Filesystem
from .watching import Watched

OTHER_REC, THIRD_REC = "users/5/recordings/200", "users/5/recordings/201"
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
