"""Whatever one call of the store, the catalogue or S3 raises, of whatever class: the parts go on, for everybody else.

Every public method is found by introspection, so that new ones are covered as they come. A fault strikes once, or every
time a call speaks of one user's file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.errors import StoreError
from recfs.fs.attributes import Changes
from recfs.stores.local import LocalStore

from .build import OPERATOR, Filesystem, filesystem, pattern, until
from .curses import ERRORS, MARK, Call, Cases, Curse, ids, methods, refused

BAD = f"users/5/recordings/{MARK}"
GOOD = "users/6/recordings/1/good"
CALLS = [(owner, name) for owner in (LocalStore, SqliteCatalogue) for name in methods(owner)]


async def work(fs: Filesystem) -> None:
    """One user's ordinary acts; each may fail."""
    with refused():
        await fs.write(f"{BAD}/new", pattern(3000))
    with refused():
        await fs.write(f"{BAD}/kept", pattern(2000, seed=1))
    with refused():
        await fs.rename(f"{BAD}/moved", f"{BAD}/away")
    with refused():
        await fs.unlink(f"{BAD}/gone")
    with refused():
        await fs.vfs.symlink((await fs.node(BAD)).ino, b"link", b"kept", OPERATOR)
    with refused():
        await fs.vfs.setattr((await fs.node(f"{BAD}/kept")).ino, Changes(mode=0o600), OPERATOR)
    with refused():
        await fs.xattrs.set((await fs.node(f"{BAD}/kept")).ino, b"user.note", MARK.encode(), OPERATOR)
    with refused():
        await fs.names(BAD)
    with refused():
        await fs.parts.work.upkeep.sweeper.sweep_temp(dry_run=False)


def told(fs: Filesystem) -> list[dict[str, Any]]:
    """What is set aside."""
    return fs.parts.behind.problems.as_json()


async def prepare(fs: Filesystem) -> None:
    for name in ("kept", "moved", "gone"):
        await fs.write(f"{BAD}/{name}", pattern(1000))
    await fs.write("users/6/recordings/1/before", b"before")
    await fs.drain()


async def others_go_on(fs: Filesystem, curse: Curse) -> None:
    """Another user's file is committed and comes home while the fault is there; with a fault of one call, after it."""
    if curse.once:
        with refused():  # the one call may be this one's
            await fs.write(GOOD, b"good")
            await fs.read(GOOD)
    await fs.write(GOOD, b"good")
    node = await fs.node(GOOD)
    fs.parts.committer.hurry(node.ino)
    with trio.fail_after(300):
        await until(lambda: node.state.is_whole and not node.pending and not node.publishing)
    assert await fs.read(GOOD) == b"good"
    assert (fs.root / GOOD).read_bytes() == b"good"


async def at_work(place: Path, calls: Collection[Call], curse: Curse) -> None:
    """Strike a running file system, and look whether it is whole when the fault is gone."""
    with curse.on(calls):
        async with filesystem(place) as fs:
            await prepare(fs)
            curse.armed = True
            await work(fs)
            await others_go_on(fs, curse)
            struck_later = fs.parts.behind.problems.as_json()
            for item in struck_later:
                assert item["reason"], item
            curse.armed = False
            with trio.fail_after(3600):
                await until(lambda: not fs.parts.behind.problems.as_json())
            await fs.drain()
            await fs.assert_consistent(lost=len(os.listdir(fs.root / ".recfs/lost+found")))
            assert await fs.read(GOOD) == b"good"


async def at_start(place: Path, calls: Collection[Call], curse: Curse) -> None:
    """Strike a start that has everything to repair: it comes up, or says why the store as a whole cannot be used."""
    async with filesystem(place) as fs:
        fs.checked_at_end = False
        await prepare(fs)
        await fs.write(f"{BAD}/closed", pattern(4000))
        number = await fs.open(f"{BAD}/open", os.O_WRONLY | os.O_CREAT)
        await fs.vfs.files.write(number, 0, b"half")
        await fs.write("users/6/recordings/1/late", b"late")
        await fs.rename(f"{BAD}/moved", f"{BAD}/away")
        await fs.unlink(f"{BAD}/gone")
        await fs.crash()
        refusals: list[ExceptionGroup[StoreError]] = []
        with curse.on(calls):
            curse.armed = True
            try:
                await fs.reopen()
            except* StoreError as group:
                refusals.append(group)
            else:
                await others_go_on(fs, curse)
            curse.armed = False
        one_files = not curse.once and LocalStore in {owner for owner, _ in calls}
        assert not one_files or not refusals, f"one file kept the store from starting: {refusals}"
        if not fs._ended.is_set():
            with trio.fail_after(3600):
                await until(lambda: not [each for each in told(fs) if each["part"] != "recovery"])
            await fs.drain()
        await fs.reopen()  # what a start has set aside, the next one takes up
        with trio.fail_after(3600):
            await until(lambda: not told(fs))
        await fs.drain()
        assert await fs.read("users/6/recordings/1/late") == b"late"
        assert await fs.read(f"{BAD}/closed") == pattern(4000)
        fs.parts.tree.check_invariants()


CASES = {scenario.__name__: Cases(scenario, CALLS) for scenario in (at_work, at_start)}


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("once", [True, False], ids=["once", "one file's"])
@pytest.mark.parametrize("call", CALLS, ids=ids)
@pytest.mark.table(4)
async def test_at_work(place: Path, call: Call, once: bool) -> None:
    error = ERRORS[(CALLS.index(call) + once) % len(ERRORS)]
    await CASES["at_work"].run(place, call, Curse(error, once=once))


@pytest.mark.slow
@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize("strike", CASES)
@pytest.mark.parametrize("owner", [LocalStore, SqliteCatalogue], ids=lambda owner: owner.__name__)
async def test_with_every_error(place: Path, owner: type, strike: str, error: Exception) -> None:
    """In all that speaks of one user's file."""
    struck = [call for call in await CASES[strike].struck(place, once=False) if call[0] is owner]
    assert struck
    for call in struck:
        await CASES[strike].run(place, call, Curse(error))
        shutil.rmtree(place / "store")


@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("once", [True, False], ids=["once", "one file's"])
@pytest.mark.parametrize("call", CALLS, ids=ids)
@pytest.mark.table(4)
async def test_at_start(place: Path, call: Call, once: bool) -> None:
    error = ERRORS[(CALLS.index(call) + 4 + once) % len(ERRORS)]
    await CASES["at_start"].run(place, call, Curse(error, once=once))
