"""`recfs rebuild --salvage`: what the old catalogue knows goes with what was renamed past it, and not with names."""

from __future__ import annotations

import os
import shutil

import pytest

from recfs.state.nodes import DirNode

from .build import OPERATOR, REC, Filesystem
from .test_rebuild import far, fs, rebuild
from .test_restore_catalogue import attribute, note
from .test_tier import evict

__all__ = ["far", "fs"]

pytestmark = pytest.mark.usefixtures("any_log")

OTHER_REC = "users/5/recordings/200"


async def dated(fs: Filesystem, path: str) -> None:
    """Give a recording a date."""
    await fs.xattrs.set((await fs.node(path)).ino, b"user.recfs.expires_at", b"2040-01-01T00:00:00Z", OPERATOR)


async def has_date(fs: Filesystem, path: str) -> bool:
    """Whether it has one."""
    node = await fs.node(path)
    assert isinstance(node, DirNode)
    return node.life is not None and node.life.expires_ns is not None


async def salvaged(fs: Filesystem) -> None:
    """The store is at rest, and its catalogue is made anew; it is in use afterwards."""
    assert (await rebuild(fs, salvage=True)).salvaged > 0
    await fs.reopen()


async def test_a_recording_that_was_renamed_keeps_its_date(fs: Filesystem) -> None:
    """A new one of its name has none: else that would be removed in its place."""
    await fs.write(f"{REC}/source.mp4", b"data")
    await note(fs, f"{REC}/source.mp4", b"note")
    await dated(fs, REC)
    numbers = [(await fs.node(path)).ino for path in (REC, f"{REC}/source.mp4")]
    await fs.drain()
    await fs.stop()
    home = fs.root / REC
    home.rename(fs.root / OTHER_REC)
    home.mkdir()
    (home / "source.mp4").write_bytes(b"another one")
    await salvaged(fs)
    assert [(await fs.node(path)).ino for path in (OTHER_REC, f"{OTHER_REC}/source.mp4")] == numbers
    assert await attribute(fs, f"{OTHER_REC}/source.mp4") == b"note"
    assert await has_date(fs, OTHER_REC)
    assert not await has_date(fs, REC)
    assert await fs.parts.catalogue.xattrs((await fs.node(f"{REC}/source.mp4")).ino) == {}


async def test_recordings_and_files_that_have_changed_places(fs: Filesystem) -> None:
    for path in (REC, OTHER_REC):
        for name in ("a", "b"):
            await fs.write(f"{path}/{name}", b"data of " + name.encode())
            await note(fs, f"{path}/{name}", f"{path}/{name}".encode())
    await dated(fs, REC)
    await fs.drain()
    await fs.stop()
    one, other = fs.root / REC, fs.root / OTHER_REC
    for first, second in ((one, other), (one / "a", one / "b")):
        first.rename(one.parent / "held")
        second.rename(first)
        (one.parent / "held").rename(second)
    await salvaged(fs)
    assert await has_date(fs, OTHER_REC)
    assert not await has_date(fs, REC)
    assert await attribute(fs, f"{OTHER_REC}/a") == f"{REC}/a".encode()
    assert await attribute(fs, f"{REC}/a") == f"{OTHER_REC}/b".encode()
    assert await attribute(fs, f"{REC}/b") == f"{OTHER_REC}/a".encode()


async def test_what_was_copied_back_is_known_by_its_name(fs: Filesystem) -> None:
    """Inode numbers are others then; what they were is nowhere, or something else has them by chance."""
    await fs.write(f"{REC}/file", b"data")
    await note(fs, f"{REC}/file", b"note")
    await dated(fs, REC)
    await fs.drain()
    await fs.stop()
    home = fs.root / REC
    shutil.copytree(home, home.with_name("copy"))
    shutil.rmtree(home)
    os.makedirs(fs.root / OTHER_REC)
    home.with_name("copy").rename(home)
    await salvaged(fs)
    assert await attribute(fs, f"{REC}/file") == b"note"
    assert await has_date(fs, REC)
    assert not await has_date(fs, OTHER_REC)


async def test_of_what_s3_alone_has_too(far: Filesystem) -> None:
    """The recording's directory is empty on the disk: its number, and what the bucket has below it, tell."""
    await far.write(f"{REC}/file", b"data")
    await dated(far, REC)
    await far.drain()
    await evict(far, f"{REC}/file")
    await far.drain()
    database = far.root / ".recfs/catalogue.db"
    await far.stop()
    before = database.with_name("before")
    shutil.copy(database, before)
    await far.reopen()
    await far.rename(REC, OTHER_REC)
    await far.mkdirs(REC)
    await far.drain()
    await far.stop()
    shutil.move(before, database)
    await salvaged(far)
    assert await has_date(far, OTHER_REC)
    assert not await has_date(far, REC)
    assert await far.read(f"{OTHER_REC}/file") == b"data"
