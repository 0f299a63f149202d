"""Power fails before any step of what S3 has to do with: nothing is lost, here or there, and no version is mixed up."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.state.nodes import FileNode
from recfs.tier.queue.unanswered import KEPT_S
from tests.fake_object_store import FakeObjectStore

from .build import REC, Filesystem, pattern, until
from .conftest import MEMORY
from .far import tick
from .late import watched
from .powercut import Disk

OLD, NEW = pattern(9000, seed=1), pattern(14_000, seed=2)
FILE, OTHER, THIRD = f"{REC}/file", f"{REC}/other", f"{REC}/sub/third"
Procedure = Callable[[Filesystem], Awaitable[None]]
Versions = dict[str, tuple[bytes | None, ...]]
"""What each file may be afterwards; None: not there."""

SETTINGS: dict[str, Any] = {"s3": {"bucket": "bucket"}, "upload": {"settle": 0.0}}


async def evict(fs: Filesystem, *paths: str) -> None:
    tier = fs.tier
    for path in paths:
        node = await fs.node(path)
        assert isinstance(node, FileNode)
        assert tier.evictor.may_evict(node) is None
        tier.evictor.evict(node)
    await fs.drain()


async def new_files(fs: Filesystem) -> None:
    for number in range(4):
        await fs.write(f"{REC}/new{number}", NEW[: number * 4000])
        await fs.parts.behind.flush()
    await fs.drain()


async def let_go(fs: Filesystem) -> None:
    await evict(fs, OTHER)


async def fetch(fs: Filesystem) -> None:
    assert await fs.read(FILE) == OLD
    await fs.drain()


async def overwrite(fs: Filesystem) -> None:
    await fs.write(FILE, NEW)
    await fs.drain()


async def append(fs: Filesystem) -> None:
    await fs.write(FILE, NEW, append=True)
    await fs.drain()


async def rename(fs: Filesystem) -> None:
    await fs.rename(FILE, f"{REC}/renamed")
    await fs.rename(OTHER, f"{REC}/renamed too")
    await fs.drain()


async def rename_directory(fs: Filesystem) -> None:
    await fs.rename(REC, "users/5/recordings/7")
    await fs.drain()


async def rename_over(fs: Filesystem) -> None:
    await fs.rename(OTHER, FILE)
    await fs.drain()


async def delete(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    await fs.unlink(OTHER)
    await fs.drain()


BEFORE: Versions = {FILE: (OLD,), OTHER: (OLD,), THIRD: (OLD,)}
CASES: list[tuple[Procedure, Versions]] = [
    (new_files, {f"{REC}/new{n}": (None, NEW[: n * 4000]) for n in range(4)}),
    (let_go, {}),
    (fetch, {}),
    (overwrite, {FILE: (OLD, NEW)}),
    (append, {FILE: (OLD, OLD + NEW)}),
    (rename, dict.fromkeys((FILE, OTHER, f"{REC}/renamed", f"{REC}/renamed too"), (None, OLD))),
    (
        rename_directory,
        {each: (None, OLD) for path in (FILE, OTHER, THIRD) for each in (path, path.replace("/142/", "/7/"))},
    ),
    (rename_over, {FILE: (OLD,), OTHER: (None, OLD)}),
    (delete, {FILE: (None, OLD), OTHER: (None, OLD)}),
]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where stores are. Time is real: a clock that jumps does not wait for the threads that fetch."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(prefix="recfs-test-", dir=MEMORY))
    yield made
    shutil.rmtree(made)


LEFT = {"delete": 1, "rename_over": 2}
"""How many files there are at least afterwards, where that is not all three."""


async def cut_and_look(top: Path, run: Procedure, versions: Versions, step: int, *, torn: bool) -> bool:
    """One power cut before *step*; True when the procedure came to its end before it."""
    async with trio.open_nursery() as nursery:
        fs = Filesystem(nursery, top / str(step) / "store", **SETTINGS)
        fs.objects = objects = FakeObjectStore()
        fs.faults.books_watched = True
        await fs.start()
        for path in (FILE, OTHER, THIRD):
            await fs.write(path, OLD)
        await fs.drain()
        await evict(fs, FILE, THIRD)
        disk = Disk(fs.root, top / str(step) / "disk")
        disk.attach(fs.faults)

        done = await fs.until_stopped(run, step)
        disk.detach(fs.faults)
        where = f"{run.__name__}: power cut before step {step} ({' '.join(fs.faults.trace[-8:])} | …)"
        await fs.crash()
        disk.cut(torn=torn, kept="all" if torn else "none")
        fs.boot = "after the power cut"
        try:
            await fs.reopen()
            nursery.start_soon(tick, fs, 100.0)  # what was under way when power failed is waited for
            await fs.drain()
            fs.clock.advance(KEPT_S)  # … and cannot come any more
            fs.tier.journal.wake.set()
            await until(lambda: not watched(fs))
            await judge(fs, objects, BEFORE | versions, at_least=LEFT.get(run.__name__, 3))
        except BaseException as error:
            error.add_note(where)
            raise
        await fs.stop()
        nursery.cancel_scope.cancel()
    return done


async def judge(fs: Filesystem, objects: FakeObjectStore, allowed: Versions, *, at_least: int) -> None:
    """Every file that counts is one of its versions, here and in S3, and S3 has nothing else."""
    tree = {path: content for path, content in (await fs.tree("users")).items() if content is not None}
    await fs.drain()
    states = {path: await fs.state(path) for path in tree}
    counting = {path for path, state in states.items() if state != "incomplete"}
    for path in counting:
        assert tree[path] in allowed.get(path, (None,)), f"{path}, {states[path]}: wrong bytes"
    for path, versions in allowed.items():
        assert None in versions or path in tree, f"{path} is gone"
    assert len(tree) >= at_least
    assert {states[path] for path in counting} <= {"stored", "evicted"}, states
    held = {path: (await fs.node(path)).object for path in tree}
    assert set(objects.keys()) == {row.key for row in held.values() if row is not None}, "orphans, or lost objects"
    for path in counting:
        assert held[path].key == path
        assert objects.data(path) == tree[path], f"{path}: S3 has something else"


@pytest.mark.may_log("disk I/O error")  # what the catalogue of a dying process says
@pytest.mark.may_log("closed database")  # said by a task of the dead, if it is slow to notice
@pytest.mark.slow
@pytest.mark.parametrize(("run", "versions"), CASES, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_power_cut_before_any_step_loses_nothing(folder: Path, run: Procedure, versions: Versions) -> None:
    step, done = 1, False
    while not done:
        # By turns, everything that was not synced is lost, or all names survive and half of each file's data does.
        done = await cut_and_look(folder, run, versions, step, torn=step % 2 == 0)
        step += 1
    assert step > 4, "no step was stopped: nothing was tested"
