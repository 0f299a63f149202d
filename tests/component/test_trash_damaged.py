"""What was not whole when it lost its name is not whole when it gets it back."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from recfs.core.model import State
from recfs.errors import IoFailure

from .build import REC, Filesystem, filesystem, pattern

FILE = f"{REC}/file"
corrupt = pytest.mark.expect_log("is corrupt|corrupt, and is right again")


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """One file that is committed, and a trash that keeps everything for an hour."""
    async with filesystem(place / "root", trash={"retention": 3600.0}) as made:
        await made.write(FILE, pattern(5_000))
        await made.drain()
        yield made


async def ask(fs: Filesystem, method: str, **params: Any) -> Any:
    """A control method."""
    return await fs.answers()[method](params)


def flip(path: Path) -> None:
    """Change a byte, and nothing that stat(2) tells."""
    info = path.stat()
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.write(bytes([data[0] ^ 1]))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


async def spoil(fs: Filesystem, how: str) -> None:
    """Have the file known as corrupt."""
    path = fs.root / FILE
    if how == "bytes":
        flip(path)
    else:
        with path.open("ab") as file:
            file.write(b"more")
    assert (await ask(fs, "verify"))["corrupt"] == 1


async def bring_back(fs: Filesystem) -> None:
    """Restore the file."""
    result = await ask(fs, "trash_restore", path=FILE)
    assert (result["files"], result["kept"]) == (1, [])
    await fs.drain()


@corrupt
@pytest.mark.parametrize("how", ["bytes", "size"])
async def test_a_corrupt_file_comes_back_corrupt(fs: Filesystem, how: str) -> None:
    await spoil(fs, how)
    recorded = (await fs.node(FILE)).sha256
    await fs.unlink(FILE)
    await fs.drain()
    await bring_back(fs)
    for _ in range(2):
        node = await fs.node(FILE)
        assert (node.state, node.sha256) == (State.CORRUPT, recorded)
        with pytest.raises(IoFailure):
            await fs.read(FILE)
        assert (await ask(fs, "verify"))["corrupt"] == 1
        await fs.drain()
        await fs.reopen()
    await fs.assert_consistent()


@corrupt
async def test_once_its_bytes_are_right_it_is_committed_and_comes_home(fs: Filesystem) -> None:
    await spoil(fs, "bytes")
    await fs.unlink(FILE)
    await fs.drain()
    await bring_back(fs)
    staging = (await fs.node(FILE)).staging
    assert staging is not None
    flip(Path(os.fsdecode(fs.root)) / ".recfs/staging" / staging)
    assert (await ask(fs, "verify"))["right"] == 1
    await fs.drain()
    assert (await fs.state(FILE), (fs.root / FILE).read_bytes()) == (State.COMMITTED, pattern(5_000))
    await fs.assert_consistent()


@corrupt
async def test_a_corrupt_file_whose_overwrite_was_cut_off_is_corrupt_again(fs: Filesystem) -> None:
    await spoil(fs, "bytes")
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, b"half")
    await fs.parts.behind.flush()
    await fs.crash()
    await fs.reopen()
    assert await fs.state(FILE) == State.CORRUPT
    with pytest.raises(IoFailure):
        await fs.read(FILE)
    await fs.assert_consistent(lost=1)  # what was written since


async def test_an_incomplete_file_comes_back_incomplete(fs: Filesystem) -> None:
    other = f"{REC}/other"
    number = await fs.open(other, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"half of it")
    await fs.parts.behind.flush()
    await fs.crash()
    await fs.reopen()
    assert await fs.state(other) == State.INCOMPLETE
    await fs.unlink(other)
    await fs.drain()
    assert (await ask(fs, "trash_restore", path=other))["files"] == 1
    for _ in range(2):
        await fs.drain()
        assert (await fs.state(other), await fs.read(other)) == (State.INCOMPLETE, b"half of it")
        await fs.reopen()
    await fs.assert_consistent()
