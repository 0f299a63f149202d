"""The commit pipeline with files nobody can read, with files that never rest, and with a full catalogue."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing

from recfs.disk.commit import batches, digests
from recfs.disk.commit.digests import Pass
from recfs.errors import OutOfSpace
from recfs.fs import backlog
from recfs.stores import many

from .build import REC, Filesystem, filesystem, pattern, until

ExpectLog = Callable[[str], None]


async def staging_of(fs: Filesystem, path: str) -> str:
    """Where the bytes of a file that is not at home lie."""
    return f"staging/{(await fs.node(path)).staging}"


# --- read errors --------------------------------------------------------------------------------------------------


async def test_one_unreadable_file_does_not_keep_others_of_its_batch_from_home(
    fs: Filesystem, expect_log: ExpectLog
) -> None:
    for n in range(6):
        await fs.write(f"{REC}/file{n}", pattern(5000, seed=n))
    bad = fs.faults.fail("preadv", errno.EIO, await staging_of(fs, f"{REC}/file3"), times=3)
    expect_log("commit: .*Input/output error")
    while bad.hits < 3:
        await fs.parts.committer.progress()
    fs.faults.heal()
    await fs.drain()
    for n in range(6):
        assert await fs.state(f"{REC}/file{n}") == "committed"
        assert (fs.root / REC / f"file{n}").read_bytes() == pattern(5000, seed=n)


async def test_a_lasting_read_error_is_told_and_the_file_stays_readable(fs: Filesystem, expect_log: ExpectLog) -> None:
    await fs.write(f"{REC}/good", b"good")
    await fs.write(f"{REC}/bad", b"not readable for the committer")
    bad = fs.faults.fail("preadv", errno.EIO, await staging_of(fs, f"{REC}/bad"), times=1000)
    expect_log("commit: .*Input/output error")
    while bad.hits < 5 or await fs.state(f"{REC}/good") != "committed":
        await fs.parts.committer.progress()
    assert fs.parts.committer.problem
    assert await fs.state(f"{REC}/bad") == "sealing"
    fs.faults.heal()
    assert await fs.read(f"{REC}/bad") == b"not readable for the committer"
    await fs.drain()
    assert fs.parts.committer.problem is None
    assert await fs.state(f"{REC}/bad") == "committed"


async def test_a_file_whose_bytes_vanished_from_staging_becomes_incomplete(
    fs: Filesystem, expect_log: ExpectLog
) -> None:
    await fs.write(f"{REC}/gone", b"some bytes")
    await fs.write(f"{REC}/here", b"other bytes")
    os.unlink(fs.root / ".recfs" / await staging_of(fs, f"{REC}/gone"))
    expect_log("its bytes are gone from staging")
    await fs.drain()
    assert await fs.state(f"{REC}/gone") == "incomplete"
    assert await fs.state(f"{REC}/here") == "committed"
    await fs.unlink(f"{REC}/gone")


async def test_bytes_beyond_the_books_are_counted(fs: Filesystem, expect_log: ExpectLog) -> None:
    await fs.write(f"{REC}/file", b"12345")
    with (fs.root / ".recfs" / await staging_of(fs, f"{REC}/file")).open("ab") as stranger:
        stranger.write(b"678")
    expect_log("8 bytes on disk, 5 in the catalogue")
    await fs.drain()
    assert (await fs.node(f"{REC}/file")).bytes == 8
    assert fs.account() == (8, 1)


# --- a catalogue that cannot be written ------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["apply", "sync"])
async def test_a_commit_that_cannot_be_recorded_is_taken_back_and_tried_again(
    fs: Filesystem, expect_log: ExpectLog, step: str
) -> None:
    behind, attempts = fs.parts.behind, 0
    durable = behind.durable

    async def failing() -> None:
        nonlocal attempts
        attempts += 1
        if attempts > 2:
            return await durable()
        if step == "sync":
            await behind.flush()
        raise OutOfSpace("the disk is full")

    await fs.write(f"{REC}/file", b"bytes")
    expect_log("commit: the disk is full")
    behind.durable = failing  # type: ignore[method-assign]
    while not attempts:
        await fs.parts.committer.progress()
    assert await fs.state(f"{REC}/file") == "sealing"
    await fs.drain()
    assert await fs.state(f"{REC}/file") == "committed"
    assert fs.rows("select state from node where name = ?", b"file") == ["committed"]


async def test_a_file_hashed_again_while_its_batch_is_committed_comes_home(fs: Filesystem) -> None:
    """It had been put off, for it was mapped; the task that put it off may not touch what another commits by now."""
    reached, go_on, durable = [trio.Event(), trio.Event()], [trio.Event(), trio.Event()], fs.parts.behind.durable
    calls = 0

    async def slow() -> None:
        nonlocal calls
        number, calls = calls, calls + 1
        reached[number].set()
        await go_on[number].wait()
        await durable()

    with (
        mock.patch.object(digests, "is_written", side_effect=[True, False]),
        mock.patch.object(fs.parts.behind, "durable", slow),
    ):
        await fs.write(f"{REC}/file", b"bytes")
        for each in reached:
            await each.wait()
        go_on[0].set()
        await fs.parts.committer.progress()
        go_on[1].set()
    await fs.drain()
    assert await fs.state(f"{REC}/file") == "committed"
    assert (fs.root / REC / "file").read_bytes() == b"bytes"
    assert fs.parts.committer.depth == 0


async def test_a_file_changed_while_its_commit_fails_is_not_taken_back(fs: Filesystem, expect_log: ExpectLog) -> None:
    await fs.write(f"{REC}/file", b"bytes")
    await fs.parts.behind.flush()
    reached, go_on = trio.Event(), trio.Event()

    async def slow_and_failing() -> None:
        reached.set()
        await go_on.wait()
        raise OutOfSpace("the disk is full")

    expect_log("commit: the disk is full")
    with mock.patch.object(fs.parts.behind, "durable", slow_and_failing):
        await reached.wait()
        await fs.unlink(f"{REC}/file")
        go_on.set()
        await fs.parts.committer.progress()
    await fs.drain()
    assert not await fs.exists(f"{REC}/file")
    assert fs.account() == (0, 0)


async def test_a_file_committed_anew_while_its_commit_fails_is_not_taken_back(
    fs: Filesystem, expect_log: ExpectLog
) -> None:
    """It was overwritten meanwhile, and the next commit has been recorded: that one counts."""
    await fs.write(f"{REC}/file", b"bytes")
    reached, go_on, durable = trio.Event(), trio.Event(), fs.parts.behind.durable

    async def first_fails() -> None:
        if reached.is_set():
            return await durable()
        reached.set()
        await go_on.wait()
        raise OutOfSpace("the disk is full")

    expect_log("commit: the disk is full")
    with mock.patch.object(fs.parts.behind, "durable", first_fails):
        await reached.wait()
        await fs.write(f"{REC}/file", b"others")
        while await fs.state(f"{REC}/file") != "committed" or fs.parts.committer.depth:
            await fs.parts.committer.progress()
        go_on.set()
        await fs.parts.committer.progress()
    assert await fs.state(f"{REC}/file") == "committed"
    await fs.drain()
    assert (fs.root / REC / "file").read_bytes() == b"others"


# --- written to meanwhile --------------------------------------------------------------------------------------------


@pytest.fixture
def passes() -> Iterator[list[list[bytes]]]:
    """The read passes made so far, each with its paths; they run as ever."""
    made: list[list[bytes]] = []
    digest = batches.digest_files

    def noting(paths: list[bytes], *args: Any) -> Any:
        made.append(list(paths))
        return digest(paths, *args)

    with mock.patch.object(batches, "digest_files", noting):
        yield made


async def test_a_pass_over_bytes_that_changed_meanwhile_proves_nothing(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", pattern(3 << 20))
    started, run = trio.Event(), Pass.run
    token = trio.lowlevel.current_trio_token()
    release = threading.Event()

    def held(*args: Any) -> Any:
        found = run(*args)
        token.run_sync_soon(started.set)
        release.wait(10)
        return found

    with mock.patch.object(Pass, "run", held):
        fs.parts.committer.hurry((await fs.node(f"{REC}/file")).ino)
        await started.wait()
        await fs.write(f"{REC}/file", b"!", append=True)
        release.set()
        await fs.drain()
    assert await fs.state(f"{REC}/file") == "committed"
    assert await fs.read(f"{REC}/file") == pattern(3 << 20) + b"!"


async def step_time(clock: Any, seconds: float) -> None:
    """Let time pass in the daemon, and let it do what became due, threads included."""
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked()


async def until_state(fs: Filesystem, path: str, state: str) -> None:
    """Wait for the pipeline, which needs no more time for it."""
    while await fs.state(path) != state:
        await fs.parts.committer.progress()


@pytest.mark.slow
async def test_a_file_taken_up_every_second_is_not_hashed_every_second(
    place: Path, mock_clock: Any, passes: list[list[bytes]]
) -> None:
    async with filesystem(place) as fs:
        await fs.write(f"{REC}/log", b"")
        for n in range(90):
            await fs.write(f"{REC}/log", b"%d\n" % n, append=True)
            await step_time(mock_clock, 1.0)
        assert len(passes) <= 8
        await step_time(mock_clock, 31.0)
        await until_state(fs, f"{REC}/log", "committed")
        assert len(passes) <= 9
        await fs.unlink(f"{REC}/log")


@pytest.mark.parametrize("by", ["checksum", "fsync", "drain", "stop"])
async def test_who_waits_for_a_busy_file_ends_its_delay(
    place: Path, mock_clock: Any, passes: list[list[bytes]], by: str
) -> None:
    async with filesystem(place) as fs:
        for n in range(12):
            await fs.write(f"{REC}/log", b"%d\n" % n, append=n > 0)
        await step_time(mock_clock, 5.0)
        before = len(passes)
        assert await fs.state(f"{REC}/log") == "sealing"
        node = await fs.node(f"{REC}/log")
        if by == "checksum":
            assert len(await fs.xattrs.get(node.ino, b"user.recfs.sha256")) == 64
        elif by == "fsync":
            number = await fs.open(f"{REC}/log")
            await fs.vfs.files.fsync(number)
            await fs.close(number)
        elif by == "drain":
            mock_clock.autojump_threshold = 0.01
            await fs.drain()
        else:
            fs.parts.committer.hurry_all()
        await until_state(fs, f"{REC}/log", "committed")
        assert len(passes) == before + 1


async def test_a_quiet_time_ends_the_growing_delay(place: Path, mock_clock: Any) -> None:
    async with filesystem(place) as fs:
        for n in range(12):
            await fs.write(f"{REC}/log", b"%d\n" % n, append=n > 0)
        await step_time(mock_clock, 31.0)
        await until_state(fs, f"{REC}/log", "committed")
        await step_time(mock_clock, 100.0)
        await fs.write(f"{REC}/log", b"once more", append=True)
        await step_time(mock_clock, 1.0)
        await until_state(fs, f"{REC}/log", "committed")


# --- back-pressure ---------------------------------------------------------------------------------------------------


async def test_a_full_pipeline_holds_new_files_back(
    place: Path, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "PAUSE_S", 1e9)  # the clock may jump while a thread works
    async with filesystem(place, commit={"max_pending": 3}) as fs:
        most = 0
        for n in range(40):
            await fs.write(f"{REC}/file{n}", b"%d" % n)
            most = max(most, fs.parts.committer.depth)
        assert 3 <= most < 30  # pauses end at once where the clock jumps past them while a thread hashes
        await fs.assert_consistent()


async def test_checksums_do_not_wait_for_ever_on_a_file_that_is_removed(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", b"bytes")
    node = await fs.node(f"{REC}/file")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.vfs.wait_sealed, node)
        await trio.testing.wait_all_tasks_blocked()
        await fs.unlink(f"{REC}/file")


@pytest.mark.parametrize("size", [5000, 2 << 20], ids=["small", "a pass of its own"])
@pytest.mark.parametrize("act", ["unlink", "write"])
async def test_no_ticket_is_left_of_a_file_that_was_mapped_and_goes_while_it_is_hashed(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, size: int, act: str
) -> None:
    begun, go_on, looks = threading.Event(), threading.Event(), iter([True, True])
    open_it = digests._open

    def slow(*args: Any) -> int:
        fd = open_it(*args)
        begun.set()
        go_on.wait()
        return fd

    monkeypatch.setattr(digests, "is_written", lambda fd: next(looks, False))
    monkeypatch.setattr(many, "extension", None)
    monkeypatch.setattr(digests, "_open", slow)
    await fs.write(f"{REC}/file", pattern(size))
    fs.parts.committer.hurry((await fs.node(f"{REC}/file")).ino)
    await until(begun.is_set)
    if act == "unlink":
        await fs.unlink(f"{REC}/file")
    else:
        await fs.write(f"{REC}/file", b"others")
    go_on.set()
    await fs.drain()
    assert fs.parts.committer.depth == 0
    assert len(fs.parts.committer._tickets) == 0
    assert act == "unlink" or (fs.root / REC / "file").read_bytes() == b"others"
