"""One name for a file, then a directory, then a file again, faster than the home tree follows: nothing is logged.

What the publisher syncs are directories; by the time it does, something else may have the name. Each test would fail by
the log guard if it met one ("fsync: Not a directory; trying again").
"""

from __future__ import annotations

import os
import random

import pytest

from recfs.errors import Exists, InvalidArgument, IsADirectory, NotADirectory, NotEmpty, NotFound

from .build import OPERATOR, REC, Filesystem

NAME = f"{REC}/name"
REFUSED = (Exists, InvalidArgument, IsADirectory, NotADirectory, NotEmpty, NotFound)


async def scratch(fs: Filesystem, path: str) -> None:
    """open(O_RDWR), write, unlink, close."""
    number = await fs.open(path, os.O_RDWR | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"scratch")
    await fs.unlink(path)
    await fs.close(number)


async def kept(fs: Filesystem, path: str) -> None:
    """open(O_RDWR), write, close."""
    number = await fs.open(path, os.O_RDWR | os.O_CREAT)
    await fs.vfs.files.write(number, 0, path.encode())
    await fs.close(number)


@pytest.mark.parametrize("what", ["new file", "old file", "link"])
async def test_scratch_files_in_a_directory_that_becomes_something_else(fs: Filesystem, what: str) -> None:
    await fs.write(f"{NAME}/inside", b"inside")
    await fs.write(f"{REC}/old", b"file")
    await fs.drain()
    await scratch(fs, f"{NAME}/scratch")
    await fs.unlink(f"{NAME}/inside")
    await fs.rmdir(NAME)
    await scratch(fs, NAME)
    if what == "new file":
        await fs.write(NAME, b"file")
    elif what == "old file":
        await fs.rename(f"{REC}/old", NAME)
    else:
        await fs.vfs.symlink(*await fs.folder(NAME), b"old", OPERATOR)
    await fs.drain()
    assert (fs.root / NAME).read_bytes() == b"file"


async def test_a_file_that_becomes_a_directory_and_a_file_again(fs: Filesystem) -> None:
    for turn in range(5):
        await fs.write(NAME, b"file")
        await fs.drain()
        await scratch(fs, f"{REC}/scratch")
        await fs.unlink(NAME)
        await fs.write(f"{NAME}/inside", b"%d" % turn)
        if turn % 2:
            await fs.drain()
        await fs.rename(f"{NAME}/inside", f"{REC}/outside")
        await fs.rmdir(NAME)
    await fs.drain()
    assert await fs.tree(REC) == {f"{REC}/outside": b"4"}


@pytest.mark.parametrize("seed", range(4))
async def test_any_sequence(fs: Filesystem, seed: int) -> None:
    chance = random.Random(seed)
    places = [f"{REC}/{first}" for first in "ab"] + [f"{REC}/{first}/{second}" for first in "ab" for second in "ab"]
    await fs.mkdirs(REC)
    for _ in range(120):
        path, other = chance.sample(places, 2)
        try:
            match chance.randrange(8):
                case 0 | 1:
                    await scratch(fs, path)
                case 2:
                    await fs.vfs.mkdir(*await fs.folder(path), 0o755, OPERATOR)
                case 3:
                    await kept(fs, path)
                case 4:
                    await fs.unlink(path)
                case 5:
                    await fs.rmdir(path)
                case 6:
                    await fs.rename(path, other)
                case 7:
                    await fs.vfs.symlink(*await fs.folder(path), b"nowhere", OPERATOR)
        except REFUSED:
            continue
        if not chance.randrange(10):
            await fs.drain()
    await fs.drain()
    assert sorted(str(each.relative_to(fs.root)) for each in (fs.root / REC).rglob("*")) == sorted(await fs.tree(REC))


async def test_a_directory_that_was_replaced_past_recfs_while_it_was_to_be_synced(fs: Filesystem) -> None:
    """It is gone: there is nothing of it to be made durable."""
    await fs.write(f"{NAME}/inside", b"inside")
    await fs.drain()
    beneath = fs.parts.store.beneath
    local = os.fsencode(fs.root / NAME)
    (fs.root / NAME).rename(fs.root / ".recfs/aside")
    (fs.root / NAME).write_bytes(b"planted")
    beneath.sync(local)
    beneath.sync(local + b"/below")
    (fs.root / NAME).unlink()
    (fs.root / NAME).symlink_to(fs.root)
    beneath.sync(local)
    (fs.root / NAME).unlink()
    (fs.root / ".recfs/aside").rename(fs.root / NAME)
