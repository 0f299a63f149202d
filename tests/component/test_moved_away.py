"""What is moved out of a directory that recfs is removing stays where it is moved to, and what comes in keeps it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.errors import FsError, NotFound, Stale
from recfs.state.nodes import DirNode

from .build import OPERATOR, Filesystem, filesystem

JOB, SAVED = "temp/5/1", "users/1/recordings/2000/saved"
NAMES = [f"{number}" for number in range(12)]


@pytest.fixture(params=[False, True], ids=["with-links", "plain"])
async def fs(place: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Filesystem]:
    """With a job that has a directory, of links and files or of files alone; one entry goes in each turn."""
    monkeypatch.setattr("recfs.state.work.turns.TURN_S", 0.0)
    async with filesystem(place / "root", watch={"enabled": False}) as made:
        for name in NAMES:
            await made.write(f"{JOB}/big/{name}", b"bytes")
        for name in NAMES if not request.param else ():
            await made.vfs.symlink((await made.node(f"{JOB}/big")).ino, b"link" + name.encode(), b"target", OPERATOR)
        await made.mkdirs("users/1/recordings/2000")
        await made.mkdirs("users/1/recordings/77")
        await made.write("users/1/recordings/77/result", b"result")
        await made.drain()
        await made.reopen()
        yield made


async def beside_a_removal(fs: Filesystem, after: int, source: str, target: str, **how: Any) -> bool:
    """Rename while the job goes, after so many turns; whether that was done."""
    done: list[bool] = []
    job = await fs.node(JOB)

    async def remove() -> None:
        try:
            await fs.vfs.trees.remove(job, **how)
        except FsError:
            pass

    async def rename() -> None:
        for _ in range(after):
            await trio.lowlevel.checkpoint()
        fs.clock.advance(1)
        try:
            await fs.rename(source, target)
        except (NotFound, Stale):
            done.append(False)
        else:
            done.append(True)
            saved.update(await fs.tree(target) if isinstance(await fs.node(target), DirNode) else {target: b""})

    saved: dict[str, Any] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(remove)
        nursery.start_soon(rename)
    await fs.drain()
    for path in saved:
        assert await fs.exists(path), f"{path} was there when the rename returned"
    await fs.assert_consistent()
    return done[0]


@pytest.mark.parametrize("after", range(1, 40, 3))
@pytest.mark.table(5)
async def test_a_directory_that_is_moved_out(fs: Filesystem, after: int) -> None:
    await beside_a_removal(fs, after, f"{JOB}/big", SAVED)


@pytest.mark.parametrize("after", range(1, 40, 3))
@pytest.mark.table(5)
async def test_the_whole_that_is_moved_away(fs: Filesystem, after: int) -> None:
    if await beside_a_removal(fs, after, JOB, SAVED):
        assert await fs.exists(SAVED)


@pytest.mark.parametrize("after", range(1, 40, 3))
@pytest.mark.table(5)
async def test_a_file_that_is_moved_into_a_job(fs: Filesystem, after: int) -> None:
    if await beside_a_removal(fs, after, "users/1/recordings/77/result", f"{JOB}/result", keep=lambda _: False):
        assert await fs.exists(JOB), "somebody is back in it"
