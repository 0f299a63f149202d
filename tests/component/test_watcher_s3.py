"""What becomes of files that S3 holds when somebody does something to their local copies, and deaths in between."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recfs.core.model import State
from recfs.state.nodes import FileNode

from .build import REC, Filesystem, filesystem, pattern, until
from .test_tier import evict, node, stored, tiered
from .watching import FILE, OTHER, Watched, watching

if TYPE_CHECKING:
    import trio

ExpectLog = Callable[[str], None]


@pytest.fixture
async def watched(nursery: trio.Nursery, place: Path, autojump_clock: object) -> AsyncIterator[Watched]:
    """One with two files in S3."""
    fs = tiered(nursery, place / "root")
    await fs.start()
    await fs.write(FILE, pattern(9000))
    await fs.write(OTHER, b"other")
    await fs.drain()
    async with watching(fs) as made:
        yield made
    await fs.stop()


async def test_removing_a_local_copy_evicts_it(watched: Watched, expect_log: ExpectLog) -> None:
    expect_log("its local copy was removed out of band")
    fs, objects = watched.fs, stored(watched.fs)
    number = (await node(fs)).ino
    (watched.home / FILE).unlink()
    shutil.rmtree(watched.home / REC / "sub")
    await watched.settled()
    assert stored(fs) == objects
    assert [(await node(fs, path)).state for path in (FILE, OTHER)] == [State.EVICTED] * 2
    assert (await node(fs)).ino == number
    assert await fs.read(FILE) == pattern(9000)
    assert await fs.read(OTHER) == b"other", "its directory was made again"
    assert (watched.count("evicted"), watched.count("removed")) == (2, 0)
    await fs.assert_consistent()


async def test_any_number_of_local_copies_may_be_removed(watched: Watched, expect_log: ExpectLog) -> None:
    """Nothing is lost with them."""
    expect_log("its local copy was removed out of band")
    fs = watched.fs
    for number in range(30):
        await fs.write(f"{REC}/many/{number}", b"%d" % number)
    await fs.drain()
    for number in range(30):
        (watched.home / f"{REC}/many/{number}").unlink()
    await watched.settled()
    assert watched.count("evicted") == 30
    assert watched.problems() == {}
    assert await fs.read(f"{REC}/many/7") == b"7"


async def test_a_changed_copy_is_uploaded_as_the_next_version(watched: Watched) -> None:
    fs = watched.fs
    (watched.home / FILE).write_bytes(b"changed")
    await watched.settled()
    assert (await node(fs)).state is State.STORED
    assert stored(fs)[FILE] == b"changed"
    await fs.assert_consistent()


async def test_a_copy_that_was_only_touched_is_the_same_object(watched: Watched) -> None:
    fs = watched.fs
    (watched.home / FILE).touch()
    await watched.settled()
    found = await node(fs)
    assert (found.state, watched.count("changed")) == (State.STORED, 1)
    assert found.mtime_ns == (watched.home / FILE).stat().st_mtime_ns
    assert stored(fs)[FILE] == pattern(9000)
    await fs.assert_consistent()


async def test_what_is_put_in_the_place_of_an_evicted_file(watched: Watched) -> None:
    fs = watched.fs
    found = await evict(fs)
    (watched.home / FILE).write_bytes(b"brought back by hand")
    await watched.settled()
    assert await node(fs) is found
    assert found.state is State.STORED
    assert await fs.read(FILE) == b"brought back by hand"
    assert stored(fs)[FILE] == b"brought back by hand"
    await fs.assert_consistent()


async def test_an_object_follows_a_copy_that_was_moved(watched: Watched) -> None:
    fs = watched.fs
    number = (await node(fs)).ino
    (watched.home / FILE).rename(watched.home / REC / "moved")
    await watched.settled()
    assert (await node(fs, f"{REC}/moved")).ino == number
    assert stored(fs) == {f"{REC}/moved": pattern(9000), OTHER: b"other"}
    await fs.assert_consistent()


@pytest.mark.usefixtures("any_log")
async def test_a_version_that_s3_has_not_got_keeps_its_name(watched: Watched) -> None:
    """What is there is an earlier version: neither may it be taken for this one, nor be deleted."""
    fs = watched.fs
    assert fs.objects is not None
    fs.objects.fail("put_file", OSError("S3 is away"), times=1000)
    await fs.write(FILE, b"newer")
    found = await node(fs)
    await until(lambda: found.state in (State.COMMITTED, State.UPLOADING) and not (found.pending or found.publishing))
    await until(lambda: found.state is State.COMMITTED)
    (watched.home / FILE).unlink()
    watched.watcher.scan()
    await until(watched.problems)
    assert (await node(fs)) is found
    assert stored(fs)[FILE] == pattern(9000)
    assert "its name is kept" in watched.problems()[FILE]


# --- deaths -----------------------------------------------------------------------------------------------------------


async def _adopt(fs: Filesystem) -> None:
    """What a start finds, and makes of it."""
    async with watching(fs) as watched:
        await watched.settled()


@pytest.mark.slow
@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("act", ["new", "changed", "gone", "moved"])
async def test_a_death_before_any_step_loses_nothing(place: Path, act: str, autojump_clock: object) -> None:
    step, done = 0, False
    while not done:
        step += 2 if act in ("new", "changed") else 1
        async with filesystem(place / str(step), start=False) as fs:
            await fs.start()
            await fs.write(FILE, pattern(9000))
            await fs.write(OTHER, b"other")
            await fs.drain()
            before = {path: (await fs.node(path)).ino for path in (FILE, OTHER)}
            home = fs.root / REC
            match act:
                case "new":
                    (home / "dir").mkdir()
                    (home / "dir/new").write_bytes(pattern(5000))
                case "changed":
                    (home / "file").write_bytes(pattern(5000))
                case "gone":
                    shutil.rmtree(home / "sub")
                case _:
                    (home / "sub").rename(home / "moved")
            done = await fs.until_stopped(_adopt, step)
            await fs.crash()
            await fs.reopen()
            await _adopt(fs)
            await fs.drain()
            expected: dict[str, bytes | None] = {FILE: pattern(9000), f"{REC}/sub": None, OTHER: b"other"}
            match act:
                case "new":
                    expected |= {f"{REC}/dir": None, f"{REC}/dir/new": pattern(5000)}
                case "changed":
                    expected[FILE] = pattern(5000)
                case "gone":
                    del expected[f"{REC}/sub"], expected[OTHER]
                case _:
                    del expected[f"{REC}/sub"], expected[OTHER]
                    expected |= {f"{REC}/moved": None, f"{REC}/moved/other": b"other"}
                    assert (await fs.node(f"{REC}/moved/other")).ino == before[OTHER], step
            assert await fs.tree(REC) == expected, step
            found = await fs.node(FILE)
            assert isinstance(found, FileNode)
            assert (found.ino, found.state) == (before[FILE], State.COMMITTED)
            await fs.assert_consistent()
    assert step > 3
