"""Power fails while files are changed, uploaded and moved in S3: in the end S3 alone has every byte."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .build import REC, Filesystem
from .far import tick
from .powercut import Disk
from .test_crash_steps import files
from .test_power_cut import CASES, FILE, OLD, OTHER, Case, Promise
from .test_tier import evict, stored, tiered

if TYPE_CHECKING:
    import trio

STRIDE = 8
"""Power is not cut before every step, for time's sake; the cases start at different ones."""


async def cut_and_look(nursery: trio.Nursery, place: Path, case: Case, step: int, *, away: bool, torn: bool) -> bool:
    """One power cut before *step*; True when the procedure came to its end before it."""
    fs = tiered(nursery, place / "store")
    fs.faults.books_watched = True
    nursery.start_soon(tick, fs)
    await fs.start()
    await fs.mkdirs(REC)
    await fs.write(FILE, OLD)
    await fs.write(OTHER, OLD)
    await fs.drain()
    if away:
        await evict(fs, FILE)
        await evict(fs, OTHER)
    await fs.vfs.behind.durable()
    disk = Disk(fs.root, place / "disk")
    disk.attach(fs.faults)
    promise: Promise = {}

    async def run(fs: Filesystem) -> None:
        await case.run(fs, promise)

    done = await fs.until_stopped(run, step)
    disk.detach(fs.faults)
    where = f"{case}: power cut before step {step} ({' '.join(fs.faults.trace[-8:])} | …)"
    await fs.crash()
    disk.cut(torn=torn, kept="all" if torn else "none")
    fs.boot = "after the power cut"
    try:
        await fs.reopen()
        await fs.drain()
        fs.clock.advance(2 * 3600)  # whatever nobody knows of is gone by then
        fs.tier.journal.wake.set()
        await fs.drain()
        tree = files(await fs.tree("users"))
        states = {path: await fs.state(path) for path in tree}
        whole = {FILE: (OLD,), OTHER: (OLD,)} | case.whole
        sound = {path: data for path, data in tree.items() if states[path] != "incomplete"}
        for path, data in sound.items():
            assert data in whole[path], f"{path}: wrong bytes are called {states[path]}"
        for path in (FILE, OTHER):
            assert path in tree or path in case.may_go, f"{path} is gone"
        for path, content in promise.items():
            found = tree.get(path)
            kept = found is None if content is None else found is not None and found.startswith(content)
            assert kept, f"{path}: what was promised is not there"
        in_s3 = stored(fs)
        assert {path: in_s3.get(path) for path in sound} == {
            path: data for path, data in sound.items() if not path.endswith(".part")
        } | {path: None for path in sound if path.endswith(".part")}
        assert in_s3.keys() <= tree.keys(), "objects of no file"
        for path, data in sound.items():
            await fs.drain()
            if await fs.state(path) == "stored":
                await evict(fs, path)
                assert await fs.read(path) == data
        await fs.drain()
        assert fs.leftovers("staging") == [] or sound != tree
    except BaseException as error:
        error.add_note(where)
        raise
    await fs.stop()
    return done


@pytest.mark.slow
@pytest.mark.may_log("disk I/O error")  # what the catalogue of a dying process says
@pytest.mark.parametrize("away", [False, True], ids=["here", "away"])
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_s3_alone_has_every_byte_after_a_power_cut(
    place: Path, case: Case, away: bool, nursery: trio.Nursery
) -> None:
    step, done = 1 + (CASES.index(case) + away * STRIDE // 2) % STRIDE, False
    cuts = 0
    while not done:
        done = await cut_and_look(nursery, place / str(step), case, step, away=away, torn=step // STRIDE % 2 == 0)
        step += STRIDE
        cuts += not done
    assert cuts, "no step was stopped: nothing was tested"
    nursery.cancel_scope.cancel()
