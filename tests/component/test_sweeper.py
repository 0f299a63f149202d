"""Temp jobs and trash: what goes, what stays, and what the service survives."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs.errors import IoFailure, OutOfSpace
from recfs.ports.rows import NodeRow
from recfs.state.nodes import DirNode

from .build import OPERATOR, REC, Filesystem, filesystem, pattern, until

ExpectLog = Callable[[str], None]
HOUR = 3600.0
JOB = "temp/5/1"


async def sweep(fs: Filesystem, *, dry_run: bool = False) -> dict[str, str]:
    """Sweep now; what became of each job."""
    told = await fs.parts.work.upkeep.sweeper.sweep_temp(dry_run=dry_run, kept=True)
    return {entry["path"]: entry["action"] for entry in told}


async def test_a_job_goes_a_day_after_its_last_change(fs: Filesystem) -> None:
    await fs.write(f"{JOB}/deep/er/file", pattern(5000))
    await fs.write("temp/5/2/file", b"young")
    await fs.drain()
    fs.clock.advance(23.99 * HOUR)
    assert await sweep(fs) == {JOB: "kept", "temp/5/2": "kept"}
    await fs.write("temp/5/2/file", b"still young", append=True)
    fs.clock.advance(0.02 * HOUR)
    assert await sweep(fs, dry_run=True) == {JOB: "expired", "temp/5/2": "kept"}
    assert await fs.exists(f"{JOB}/deep/er/file")
    assert await sweep(fs) == {JOB: "expired", "temp/5/2": "kept"}
    assert await fs.names("temp/5") == ["2"]
    assert fs.account() == (16, 1)


@pytest.mark.parametrize("change", ["write", "create", "unlink", "rename", "chmod", "xattr", "truncate", "mkdir"])
async def test_every_change_inside_a_job_counts(fs: Filesystem, change: str) -> None:
    await fs.write(f"{JOB}/sub/file", b"bytes")
    await fs.write(f"{JOB}/sub/second", b"bytes")
    await fs.drain()
    fs.clock.advance(23 * HOUR)
    file = f"{JOB}/sub/file"
    node = await fs.node(file)
    if change == "write":
        await fs.write(file, b"more", append=True)
    elif change == "create":
        await fs.write(f"{JOB}/sub/third", b"")
    elif change == "unlink":
        await fs.unlink(f"{JOB}/sub/second")
    elif change == "rename":
        await fs.rename(file, f"{JOB}/sub/other")
    elif change == "mkdir":
        await fs.mkdirs(f"{JOB}/sub/sub")
    elif change == "xattr":
        await fs.xattrs.set(node.ino, b"user.note", b"1", OPERATOR)
    else:
        from recfs.fs.attributes import Changes

        await fs.vfs.setattr(node.ino, Changes(mode=0o600) if change == "chmod" else Changes(size=1), OPERATOR)
    fs.clock.advance(2 * HOUR)
    assert await sweep(fs) == {JOB: "kept"}
    fs.clock.advance(23 * HOUR)
    assert await sweep(fs) == {JOB: "expired"}


async def test_reading_is_no_change(fs: Filesystem) -> None:
    await fs.write(f"{JOB}/file", b"bytes")
    fs.clock.advance(23 * HOUR)
    assert await fs.read(f"{JOB}/file") == b"bytes"
    fs.clock.advance(2 * HOUR)
    assert await sweep(fs) == {JOB: "expired"}


async def test_a_job_with_an_open_file_stays(fs: Filesystem) -> None:
    await fs.write(f"{JOB}/sub/file", b"bytes")
    number = await fs.open(f"{JOB}/sub/file")
    fs.clock.advance(100 * HOUR)
    assert await sweep(fs) == {JOB: "kept"}
    assert await fs.read_handle(number) == b"bytes"
    await fs.close(number)
    assert await sweep(fs) == {JOB: "expired"}


async def test_the_reason_counts_the_open_files_and_not_their_handles(fs: Filesystem) -> None:
    await fs.write(f"{JOB}/sub/file", b"bytes")
    await fs.write(f"{JOB}/second", b"bytes")
    fs.clock.advance(100 * HOUR)
    numbers = [await fs.open(f"{JOB}/{name}") for name in ("sub/file", "sub/file", "second")]
    [kept] = await fs.parts.work.upkeep.sweeper.sweep_temp(dry_run=True, kept=True)
    assert kept["reason"].endswith("but 2 files are open")
    for number in numbers:
        await fs.close(number)


@pytest.mark.parametrize("put", [-1000 * HOUR, 72 * HOUR])
async def test_a_clock_that_is_put_back_or_ahead_neither_expires_nor_keeps_a_job(fs: Filesystem, put: float) -> None:
    await fs.write(f"{JOB}/file", b"bytes")
    fs.clock.put(put)
    assert await sweep(fs) == {JOB: "kept"}
    await fs.write(f"{JOB}/file", b"!", append=True)
    fs.clock.advance(23.9 * HOUR)
    assert await sweep(fs) == {JOB: "kept"}
    fs.clock.put(-put)
    assert await sweep(fs) == {JOB: "kept"}
    fs.clock.advance(0.1 * HOUR)
    assert await sweep(fs) == {JOB: "expired"}


async def test_times_that_programs_set_do_not_count_as_changes(fs: Filesystem) -> None:
    """`touch -d 2100` is a change of now."""
    from recfs.fs.attributes import Changes

    await fs.write(f"{JOB}/file", b"bytes")
    ino = (await fs.node(f"{JOB}/file")).ino
    await fs.vfs.setattr(ino, Changes(mtime_ns=4_102_444_800 * 10**9), OPERATOR)
    fs.clock.advance(24 * HOUR)
    assert await sweep(fs) == {JOB: "expired"}


async def test_what_a_wrong_clock_recorded_earlier_has_its_full_time_from_the_start_on(fs: Filesystem) -> None:
    await fs.write(f"{JOB}/file", b"bytes")
    await fs.drain()
    await fs.stop()
    fs.clock.passed_ns -= 1000 * 3600 * 10**9  # as if the times in the catalogue lay ahead
    await fs.reopen()
    fs.clock.advance(23.9 * HOUR)
    assert await sweep(fs) == {JOB: "kept"}
    fs.clock.advance(0.1 * HOUR)
    assert await sweep(fs) == {JOB: "expired"}


async def test_jobs_of_an_earlier_run_are_found_without_their_directories_being_loaded(fs: Filesystem) -> None:
    for n in range(20):
        await fs.write(f"temp/{n}/1/file", b"bytes")
    await fs.drain()
    await fs.stop()
    fs.clock.advance(25 * HOUR)
    await fs.reopen()
    loaded = len(fs.parts.tree.nodes)
    assert loaded < 10
    assert set((await sweep(fs)).values()) == {"expired"}
    assert fs.parts.tree.root.rfiles == 0


async def test_a_job_that_is_removed_while_others_are_looked_at_is_no_problem(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        await fs.write(f"temp/{number}/1/file", b"bytes")
    await fs.drain()
    fs.clock.advance(25 * HOUR)
    jobs = fs.parts.tree.catalogue.jobs

    async def late(before_ns: int) -> Sequence[NodeRow]:
        found = await jobs(before_ns)
        await fs.unlink("temp/1/1/file")
        await fs.rmdir("temp/1/1")
        await fs.parts.behind.flush()
        return found

    monkeypatch.setattr(fs.parts.tree.catalogue, "jobs", late)
    assert await sweep(fs) == {"temp/2/1": "expired"}
    assert fs.parts.problems.as_json() == []


@pytest.mark.parametrize("target", [REC, "users/5/recordings/142/part", "temp/5/3"])
async def test_a_job_that_was_moved_away_after_it_was_found_due_is_none(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """It is a recording by now, say, or one that somebody is about to use again."""
    if target.endswith("part"):
        await fs.mkdirs(REC)
    else:
        await fs.mkdirs("users/5/recordings")
    for job in ("temp/5/1", "temp/5/2"):
        await fs.write(f"{job}/source.mp4", pattern(5000))
    await fs.drain()
    fs.clock.advance(25 * HOUR)
    remove = fs.vfs.trees.remove

    async def removed(folder: DirNode, **how: Any) -> int:
        if await fs.exists("temp/5/2"):
            await fs.rename("temp/5/2", target)
        return int(await remove(folder, **how))

    monkeypatch.setattr(fs.vfs.trees, "remove", removed)
    assert "temp/5/1" in await sweep(fs)
    assert await fs.names("temp/5") == (["3"] if target == "temp/5/3" else [])
    assert await fs.read(f"{target}/source.mp4") == pattern(5000)
    await fs.drain()
    await fs.assert_consistent()


@pytest.mark.parametrize("error", [OutOfSpace("the disk is full"), IoFailure("the disk said no")])
@pytest.mark.slow
async def test_the_service_survives_a_catalogue_that_cannot_be_written(
    fs: Filesystem, expect_log: ExpectLog, error: Exception
) -> None:
    await fs.write(f"{JOB}/file", b"bytes")
    await fs.drain()
    fs.clock.advance(25 * HOUR)
    full = fs.faults.fail("apply", error, times=10)
    await fs.mkdirs("temp/5/77")  # something to write
    expect_log("recfs.(problems|catalogue)")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.parts.sweeps.repeat, "temp")
        await until(lambda: full.hits > 10)
        await until(lambda: fs.account() == (0, 0))
        nursery.cancel_scope.cancel()


async def test_the_housekeeper_survives_a_checkpoint_that_fails(fs: Filesystem, expect_log: ExpectLog) -> None:
    calls = 0

    async def failing() -> None:
        nonlocal calls
        calls += 1
        raise OutOfSpace("the disk is full")

    expect_log("checkpoint|catalogue")
    with mock.patch.object(fs.parts.catalogue, "checkpoint", failing):
        await until(lambda: calls >= 3)
        await fs.write("users/5/recordings/1/file", b"alive")


# --- trash ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def keeper(place: Path) -> AsyncIterator[Filesystem]:
    """A file system that keeps deleted bytes for an hour."""
    async with filesystem(place, trash={"retention": "1h"}) as fs:
        yield fs


async def test_deleted_and_overwritten_bytes_stay_for_the_retention(keeper: Filesystem) -> None:
    fs = keeper
    await fs.write("users/5/recordings/1/file", b"first")
    await fs.write("users/5/recordings/1/gone", b"gone")
    await fs.drain()
    await fs.write("users/5/recordings/1/file", b"second")
    await fs.unlink("users/5/recordings/1/gone")
    await fs.assert_consistent(trash=2)
    kept = sorted(path.read_bytes() for path in (fs.root / ".recfs/trash").iterdir())
    assert kept == [b"first", b"gone"]
    assert fs.account() == (6, 1)
    fs.clock.advance(0.99 * HOUR)
    fs.parts.work.upkeep.sweeper.sweep_trash()
    await fs.assert_consistent(trash=2)
    fs.clock.advance(0.01 * HOUR)
    fs.parts.work.upkeep.sweeper.sweep_trash()
    await fs.assert_consistent()


async def test_trash_of_an_earlier_run_goes_too(keeper: Filesystem) -> None:
    fs = keeper
    await fs.write("users/5/recordings/1/gone", b"gone")
    await fs.drain()
    await fs.unlink("users/5/recordings/1/gone")
    await fs.drain()
    await fs.crash()
    await fs.reopen()
    await fs.assert_consistent(trash=1)
    await fs.stop()
    fs.clock.advance(HOUR)
    await fs.reopen()
    await fs.assert_consistent()


async def test_empty_files_links_and_directories_leave_no_trash(keeper: Filesystem) -> None:
    fs = keeper
    await fs.write("users/5/recordings/1/empty", b"")
    folder = await fs.mkdirs("users/5/recordings/1/sub")
    await fs.vfs.symlink(folder.ino, b"link", b"nowhere", OPERATOR)
    await fs.drain()
    await fs.unlink("users/5/recordings/1/empty")
    await fs.unlink("users/5/recordings/1/sub/link")
    await fs.rmdir("users/5/recordings/1/sub")
    await fs.assert_consistent()


async def test_bytes_in_the_trash_survive_their_deleted_directory(keeper: Filesystem) -> None:
    fs = keeper
    await fs.write("users/5/recordings/1/sub/file", b"bytes")
    await fs.drain()
    await fs.vfs.trees.remove(await fs.node("users/5/recordings/1"))
    await fs.assert_consistent(trash=1)
    assert not os.path.exists(fs.root / "users/5/recordings/1")


async def test_a_trash_of_any_size_is_looked_through_in_turns(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is brought back meanwhile stays."""
    monkeypatch.setattr("recfs.state.work.turns.TURN_S", 0.0)
    async with filesystem(place / "root", trash={"retention": HOUR}) as fs:
        for number in range(200):
            await fs.write(f"{REC}/{number}", b"")
        await fs.drain()
        for number in range(200):
            await fs.unlink(f"{REC}/{number}")
        await fs.drain()
        fs.clock.advance(2 * HOUR)
        (sweep,) = [each for each in fs.parts.upkeep.sweeps() if each.name == "trash"]
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        due = sweep.decide(await sweep.look())
        assert due is not None
        assert len(due) == 200
        assert steps.count >= 200 // 50
        steps.count = 0
        chosen = await fs.parts.work.upkeep.trash.chosen(lambda each: True)
        assert steps.count >= 200 // 50
        trio.lowlevel.remove_instrument(steps)
        assert [each.number for each in chosen] == sorted(fs.parts.trash_index.rows)
        await fs.answers()["trash_restore"]({"path": f"{REC}/7"})
        await sweep.act(due, fs._nursery)
        await fs.drain()
        assert await fs.names(REC) == ["7"]
        assert (await fs.answers()["trash_list"]({}))["entries"] == []


class Steps(trio.abc.Instrument):
    """Counts the steps of tasks."""

    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1
