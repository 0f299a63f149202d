"""Read passes that stop, go on, skip holes and share their threads."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing

from recfs.core.model import State
from recfs.disk.commit import digests, hashing
from recfs.disk.commit.digests import CHUNK_BYTES, SIDE_BY_SIDE_BYTES, Digest, Pass, Source
from recfs.disk.commit.lanes import Lane
from recfs.disk.diskio import copy_bytes
from recfs.errors import Interrupted, TryAgain
from recfs.state import waits
from recfs.stores.local import LocalStore
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, filesystem, pattern, until
from .ending import ending_of

ExpectLog = Callable[[str], None]
MIB = 1 << 20
VAST = 1 << 60
HUGE = 300 << 30


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    made = LocalStore(tmp_path)  # what it opens lies below its root
    made.open()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_zeros_known() -> Iterator[None]:
    with mock.patch.object(digests, "_zeros", {}):
        yield


def never() -> bool:
    return False


def sparse(path: Path, size: int, *data: tuple[int, bytes]) -> bytes:
    """A file with holes; returns its path."""
    with path.open("wb") as file:
        for offset, part in data:
            file.seek(offset)
            file.write(part)
        file.truncate(size)
    return os.fsencode(path)


def right(found: Digest | None, path: bytes) -> bool:
    """Whether the digests are those of the file."""
    assert found is not None
    assert found.error is None
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").digest()
        file.seek(0)
        md5 = hashlib.file_digest(file, "md5").digest()
    return (found.sha256, found.md5, found.size_bytes) == (sha256, md5, os.stat(path).st_size)


# --- one pass ---------------------------------------------------------------------------------------------------------

HOLES = {
    "none": (3 * MIB + 5, [(0, pattern(3 * MIB + 5))]),
    "at the start": (5 * MIB, [(4 * MIB + 17, b"data")]),
    "at the end": (20 * MIB + 1, [(0, b"data")]),
    "at odd offsets": (30 * MIB, [(4097, b"x" * 3), (9 * MIB + 1, pattern(MIB)), (25 * MIB - 1, b"y")]),
    "all": (33 * MIB + 3, []),
    "empty": (0, []),
}


@pytest.mark.parametrize("holes", HOLES)
@pytest.mark.parametrize("every", [0.0, 100.0], ids=["stopped after every chunk", "in one go"])
@pytest.mark.table(3)
def test_holes_hash_as_zeros(store: LocalStore, tmp_path: Path, holes: str, every: float) -> None:
    size, data = HOLES[holes]
    path = sparse(tmp_path / "file", size, *data)
    passing = Pass(Source(path), size)
    slices = 1
    while (found := passing.run(store, every, lambda: True)) is None:
        slices += 1
    assert right(found, path)
    assert passing.done_bytes == passing.hashed_bytes == size
    assert passing.read_bytes <= sum(len(part) + 2 * MIB for _, part in data)
    assert every or slices >= size // CHUNK_BYTES


@pytest.mark.slow
def test_steps_of_zeros_are_hashed_once(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "ZEROS_STEP_BYTES", 4 * MIB)
    first = sparse(tmp_path / "first", 22 * MIB)
    assert right(Pass(Source(first), 0).run(store, 9.0, never), first)
    assert sorted(digests._zeros) == [1, 2, 3, 4, 5]
    for name, size, data in (
        ("same", 22 * MIB, []),
        ("tail", 30 * MIB, [(9 * MIB, b"x")]),
        ("head", 9 * MIB, [(0, b"y")]),
    ):
        path = sparse(tmp_path / name, size, *data)
        passing = Pass(Source(path), 0)
        assert right(passing.run(store, 9.0, never), path)
        known = {"same": 20 * MIB, "tail": 8 * MIB, "head": 0}[name]
        assert passing.hashed_bytes == size - known


def test_the_states_kept_of_zeros_are_bounded(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "ZEROS_STEP_BYTES", MIB)
    monkeypatch.setattr(digests, "ZEROS_STEPS", 3)
    path = sparse(tmp_path / "file", 10 * MIB)
    for _ in range(2):
        assert right(Pass(Source(path), 0).run(store, 9.0, never), path)
    assert sorted(digests._zeros) == [1, 2, 3]


def test_a_pass_that_goes_on_reads_each_byte_once(store: LocalStore, tmp_path: Path) -> None:
    path = sparse(tmp_path / "file", 0, (0, pattern(SIDE_BY_SIDE_BYTES * 2 + 3)))
    size = os.stat(path).st_size
    os.truncate(path, size)
    passing = Pass(Source(path), size)
    offsets: list[int] = []
    preadv = os.preadv

    def noting(fd: int, buffers: Any, offset: int) -> int:
        offsets.append(offset)
        return preadv(fd, buffers, offset)

    with mock.patch.object(os, "preadv", noting):
        while (found := passing.run(store, 0.0, lambda: True)) is None:
            pass
    assert right(found, path)
    assert passing.read_bytes == size
    assert offsets == sorted(set(offsets))
    assert passing.run(store, 0.0, never) == found, "asked once more, it knows"
    assert passing.read_bytes == size


@pytest.mark.parametrize("change", ["bytes", "size", "another file"])
def test_a_file_that_changed_between_slices_is_hashed_anew(store: LocalStore, tmp_path: Path, change: str) -> None:
    path = sparse(tmp_path / "file", 0, (0, pattern(5 * MIB)))
    os.truncate(path, 5 * MIB)
    passing = Pass(Source(path), 5 * MIB)
    for _ in range(3):
        assert passing.run(store, 0.0, lambda: True) is None
    if change == "bytes":
        with open(path, "r+b") as file:
            file.write(b"others")
        os.utime(path, ns=(1, 1))
    elif change == "size":
        os.truncate(path, 4 * MIB + 9)
    else:
        os.unlink(path)
        Path(os.fsdecode(path)).write_bytes(pattern(5 * MIB, seed=3))
    while (found := passing.run(store, 0.0, lambda: True)) is None:
        pass
    assert right(found, path)


def test_a_stop_is_heard_within_a_chunk(store: LocalStore, tmp_path: Path) -> None:
    path = sparse(tmp_path / "file", HUGE, (HUGE // 2, b"x"))
    passing = Pass(Source(path), HUGE)
    thread = threading.Thread(target=passing.run, args=(store, 1e9, never))
    thread.start()
    while not passing.done_bytes:
        pass
    passing.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert passing.done_bytes < HUGE


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_large_file_is_written_out_in_steps_that_a_stop_ends(store: LocalStore, tmp_path: Path, steps: int) -> None:
    path = sparse(tmp_path / "file", 130 * MIB, *((n * MIB, b"x" * MIB) for n in range(130)))
    passing, flushed = Pass(Source(path), 0), []

    def flush(fd: int, offset: int, length: int) -> bool:
        flushed.append((offset, length))
        if len(flushed) == steps:
            passing.stop()
        return True

    with mock.patch.object(digests, "flush_range", flush):
        found = passing.run(store, 0.0, lambda: passing.done_bytes > 0)
    assert found is None
    assert flushed == [(0, 64 * MIB), (64 * MIB, 64 * MIB), (128 * MIB, 2 * MIB)][:steps]
    assert bool(passing.done_bytes) == (steps > 3)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("data", [(), ((VAST - 1, b"x"),)], ids=["holes alone", "a byte at the end"])
async def test_a_file_as_large_as_can_be_leaves_its_thread_after_a_slice(place: Path, data: tuple[Any, ...]) -> None:
    """Nothing of it is to be written out but a byte, and to find that takes no time either."""
    store = LocalStore(place)
    store.open()
    passing = Pass(Source(sparse(place / "file", VAST, *data)), VAST)
    with mock.patch.object(digests, "flush_range", wraps=digests.flush_range) as flushed:
        for chunks in (1, 2):
            assert passing.run(store, 0.0, lambda: passing.done_bytes > 0) is None
            assert passing.done_bytes == chunks * CHUNK_BYTES
    assert flushed.call_count == len(data)
    store.close()


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holes", HOLES)
def test_copies_keep_holes(tmp_path: Path, holes: str) -> None:
    size, data = HOLES[holes]
    source = sparse(tmp_path / "source", size, *data)
    with open(source, "rb") as one, (tmp_path / "copy").open("w+b") as two:
        copy_bytes(one.fileno(), two.fileno(), threading.Event())
    assert (tmp_path / "copy").read_bytes() == Path(os.fsdecode(source)).read_bytes()
    assert (tmp_path / "copy").stat().st_blocks <= os.stat(source).st_blocks + 8


def test_a_copy_can_be_stopped(tmp_path: Path) -> None:
    source = sparse(tmp_path / "source", HUGE, (HUGE // 2, b"x"))
    stopped = threading.Event()
    stopped.set()
    with (
        open(source, "rb") as one,
        (tmp_path / "copy").open("w+b") as two,
        mock.patch("fcntl.ioctl", side_effect=OSError("no shared extents")),
        pytest.raises(InterruptedError),
    ):
        copy_bytes(one.fileno(), two.fileno(), stopped)


# --- lanes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def fs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Filesystem]:
    """A file system whose slices end as soon as somebody waits."""
    monkeypatch.setattr(hashing, "SLICE_S", 0.0)
    async with filesystem(tmp_path, commit={"hash_threads": 1}) as made:
        yield made


async def huge(fs: Filesystem, path: str, size: int = HUGE) -> Any:
    """A file that takes minutes to be hashed, closed. Something in its middle keeps it from being known."""
    await fs.mkdirs(path.rpartition("/")[0])
    number = await fs.open(path, os.O_WRONLY | os.O_CREAT)
    node = fs.vfs.files.handles[number].node
    await fs.vfs.files.write(number, 0, b"x")
    await fs.vfs.files.truncate(node, size)
    await fs.close(number)
    return node


async def under_way(fs: Filesystem) -> list[hashing.Work]:
    """Passes in threads, once there is one that has begun."""
    found: list[hashing.Work] = []

    def begun() -> bool:
        found[:] = [work for work in fs.parts.hashing.running(Lane.LARGE) if work.passing.done_bytes]
        return bool(found)

    await until(begun)
    return found


async def nothing_runs(fs: Filesystem) -> None:
    await until(lambda: not fs.parts.hashing.running(Lane.LARGE))


async def committed(fs: Filesystem, path: str) -> bool:
    with trio.fail_after(GUARD_S):
        while await fs.state(path) == "sealing":
            await fs.parts.committer.progress()
    return await fs.state(path) == "committed"


@pytest.mark.parametrize("size", [100, 3 * MIB])
async def test_smaller_files_never_wait_for_larger_ones(fs: Filesystem, size: int) -> None:
    for n in range(3):
        await huge(fs, f"users/5/recordings/1/huge{n}")
    await under_way(fs)
    await fs.write("users/6/recordings/1/source.mp4", pattern(size))
    assert await committed(fs, "users/6/recordings/1/source.mp4")
    assert await fs.state("users/5/recordings/1/huge0") == "sealing"
    for n in range(3):
        await fs.unlink(f"users/5/recordings/1/huge{n}")


@pytest.mark.slow
async def test_large_files_of_one_user_wait_for_a_slice_of_another_at_most(fs: Filesystem) -> None:
    for n in range(50):
        await huge(fs, f"users/5/recordings/1/huge{n}")
    [first] = await under_way(fs)
    other = "users/6/recordings/1/source.mp4"
    await fs.write(other, pattern(65 * MIB))
    assert await committed(fs, other)
    assert first.passing.done_bytes < HUGE
    for n in range(50):
        await fs.unlink(f"users/5/recordings/1/huge{n}")
    await nothing_runs(fs)


async def test_a_file_that_is_written_out_for_long_leaves_its_thread_to_others_meanwhile(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a slow disk: what was written out by then is not once more."""
    flushed: list[tuple[int, int]] = []

    def slow(fd: int, offset: int, length: int) -> bool:
        time.sleep(0.01)
        flushed.append((os.fstat(fd).st_ino, offset))
        return True

    monkeypatch.setattr(hashing, "SLICE_S", 0.03)
    monkeypatch.setattr(digests, "flush_range", slow)
    monkeypatch.setattr(digests, "SYNC_STEP_BYTES", 4 * MIB)
    one, other = "users/5/recordings/1/large", "users/6/recordings/1/source.mp4"
    await fs.mkdirs("users/6/recordings/1")
    number = await fs.open(other, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, pattern(65 * MIB))
    await fs.write(one, pattern(100 * MIB))
    await until(lambda: len(flushed) > 3)
    await fs.close(number)
    assert await committed(fs, other)
    assert await committed(fs, one)
    assert len(flushed) == len(set(flushed)) == 25 + 17
    files = [ino for ino, _ in flushed]
    assert set(files[:-1]) == set(files[5:])
    assert files.count(files[0]) == 25
    assert files[:25] != [files[0]] * 25, "one after the other"


async def change_by(fs: Filesystem, how: str) -> None:
    path = f"{REC}/huge"
    if how == "unlink":
        await fs.unlink(path)
    elif how == "rename over it":
        await fs.write(f"{REC}/new", b"new")
        await fs.rename(f"{REC}/new", path)
    elif how == "its tree":
        await fs.vfs.trees.remove(await fs.node(REC))
    elif how == "truncate":
        await fs.vfs.files.truncate(await fs.node(path), 5)
    elif how == "open with O_TRUNC":
        await fs.close(await fs.open(path, os.O_WRONLY | os.O_TRUNC))
    else:
        await fs.write(path, b"!", append=True)


@pytest.mark.parametrize("how", ["unlink", "rename over it", "its tree", "truncate", "open with O_TRUNC", "write"])
@pytest.mark.parametrize("waits", [False, True], ids=["under way", "waiting"])
@pytest.mark.table(3)
async def test_hashing_ends_when_its_file_goes_or_changes(fs: Filesystem, how: str, waits: bool) -> None:
    if waits:
        await huge(fs, "users/6/recordings/1/huge")
        with mock.patch.object(hashing, "SLICE_S", 1e9):
            await under_way(fs)
        node = await huge(fs, f"{REC}/huge")
    else:
        node = await huge(fs, f"{REC}/huge")
        await under_way(fs)
    ticket = fs.parts.committer._tickets.get(node.ino)
    await change_by(fs, how)
    assert ticket.work.passing.stopped
    assert ticket not in fs.parts.committer._tickets
    if waits:
        await fs.unlink("users/6/recordings/1/huge")
    if how == "write":
        await fs.unlink(f"{REC}/huge")
    await nothing_runs(fs)
    await fs.drain()
    assert fs.parts.committer.depth == 0


async def test_a_stop_does_not_wait_for_a_huge_file_and_the_next_start_seals_it(
    fs: Filesystem, expect_log: ExpectLog
) -> None:
    await huge(fs, f"{REC}/huge")
    await under_way(fs)
    await fs.write(f"{REC}/small", b"small")
    await fs.write(f"{REC}/medium", pattern(2 * MIB))
    expect_log("stopping: hashing would take too long .* 1 still `sealing`: .*huge")
    fs.parts.committer.hurry_all(30.0)
    await fs.drain()  # which waits for everything else
    assert fs.parts.committer.left_to_next_start == 1
    assert [await fs.state(f"{REC}/{name}") for name in ("small", "medium", "huge")] == [
        "committed", "committed", "sealing",
    ]  # fmt: skip
    await nothing_runs(fs)
    late = await huge(fs, f"{REC}/late")
    assert late.state is State.SEALING
    expect_log("1 still `sealing`: .*late")
    assert fs.parts.committer.left_to_next_start == 2
    await fs.reopen()
    work = await under_way(fs)
    assert work[0].what in (f"{REC}/huge", f"{REC}/late")
    await fs.unlink(f"{REC}/huge")
    await fs.unlink(f"{REC}/late")
    await fs.drain()


@pytest.mark.parametrize("synced", [True, False])
async def test_what_a_stop_set_aside_is_sealed_after_a_reboot_if_its_bytes_were_synced(
    fs: Filesystem, expect_log: ExpectLog, tmp_path: Path, *, synced: bool
) -> None:
    await huge(fs, f"{REC}/huge")
    await under_way(fs)
    expect_log("stopping: hashing would take too long")
    fs.parts.committer.hurry_all(30.0)
    await fs.drain()
    if not synced:
        fs.faults.fail("sync_all", errno.EIO)
        expect_log("it is not sure that they are whole")
    await ending_of(fs, tmp_path).finish()
    await fs.stop()
    fs.boot = "another"
    await fs.reopen()
    assert await fs.state(f"{REC}/huge") == ("sealing" if synced else "incomplete")
    await fs.unlink(f"{REC}/huge")


async def test_what_was_thought_to_fit_is_set_aside_when_time_is_up(fs: Filesystem, expect_log: ExpectLog) -> None:
    await huge(fs, f"{REC}/huge")
    await under_way(fs)
    expect_log("1 still `sealing`")
    fs.parts.hashing.rate = 1e15
    fs.parts.committer.hurry_all(0.05)
    await fs.drain()
    assert await fs.state(f"{REC}/huge") == "sealing"
    await nothing_runs(fs)
    await fs.unlink(f"{REC}/huge")


async def test_a_daemon_that_ends_does_not_wait_for_a_pass(fs: Filesystem) -> None:
    """Killed, or told to stop twice: nothing is drained then."""
    await huge(fs, f"{REC}/huge")
    [work] = await under_way(fs)
    with trio.fail_after(GUARD_S):
        await fs.stop()
    assert work.passing.stopped
    await fs.reopen()
    await under_way(fs)
    await fs.unlink(f"{REC}/huge")
    await fs.drain()


async def test_a_checksum_that_takes_long_is_answered_with_eagain(
    fs: Filesystem, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await huge(fs, f"{REC}/huge")
    await under_way(fs)
    monkeypatch.setattr("recfs.fs.vfs.bounded", lambda what: waits.bounded(what, 0.01))
    expect_log("a request waited .* for the checksums of .*huge")
    with pytest.raises(TryAgain):
        await fs.xattrs.get(node.ino, b"user.recfs.sha256")
    await fs.unlink(f"{REC}/huge")


async def test_who_waits_for_a_checksum_can_be_interrupted(fs: Filesystem) -> None:
    node, request = await huge(fs, f"{REC}/huge"), waits.Request()

    async def asking() -> None:
        waits.current.set(request)
        with pytest.raises(Interrupted):
            await fs.xattrs.get(node.ino, b"user.recfs.md5")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking)
        await under_way(fs)
        request.interrupt()
    await fs.unlink(f"{REC}/huge")


async def test_a_mapping_that_went_leaves_no_ticket_when_the_file_goes_while_it_is_hashed(fs: Filesystem) -> None:
    """drain waited for ever for such a file."""
    mapped = mock.patch.object(digests, "is_written", return_value=True)
    mapped.start()
    node = await huge(fs, f"{REC}/huge")
    committer = fs.parts.committer
    await until(lambda: committer._tickets.tries_in_vain(committer._tickets.get(node.ino)) >= 2)
    mapped.stop()
    await under_way(fs)
    await fs.unlink(f"{REC}/huge")
    await fs.drain()
    assert fs.parts.committer.depth == fs.parts.committer.mapped == 0


async def test_a_catalogue_that_cannot_be_written_does_not_cost_another_pass(
    fs: Filesystem, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recfs.disk.commit.committer.RETRY_S", 0.01)
    passes: list[Pass] = []
    init = Pass.__init__

    def noting(self: Pass, *args: Any) -> None:
        init(self, *args)
        passes.append(self)

    failures = [OSError(28, "the disk is full")] * 3
    durable = fs.parts.behind.durable

    async def failing() -> None:
        if failures:
            raise failures.pop()
        await durable()

    expect_log("commit: .*the disk is full")
    with mock.patch.object(Pass, "__init__", noting), mock.patch.object(fs.parts.behind, "durable", failing):
        await fs.write(f"{REC}/file", pattern(2 * MIB))
        await until(lambda: not failures)
        await fs.drain()
    [passing] = passes
    assert passing.read_bytes == 2 * MIB
    assert await fs.state(f"{REC}/file") == "committed"


async def test_a_pass_that_fails_in_any_way_is_tried_again(
    fs: Filesystem, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recfs.disk.commit.committer.RETRY_S", 0.01)
    run, failures = Pass.run, [ValueError("odd"), OverflowError("large"), OSError(13, "no")]

    def failing(self: Pass, *args: Any) -> Any:
        if failures:
            raise failures.pop()
        return run(self, *args)

    for line in ("hashing failed", "commit: "):
        expect_log(line)
    with mock.patch.object(Pass, "run", failing):
        await fs.write(f"{REC}/file", pattern(2 * MIB))
        await fs.drain()
    assert await fs.state(f"{REC}/file") == "committed"


async def test_a_file_that_is_put_off_and_begun_again_during_its_commit_is_not_begun_once_more(fs: Filesystem) -> None:
    committing, go_on = trio.Event(), trio.Event()
    begun: list[hashing.Work] = []
    submit = fs.parts.hashing.submit

    def counting(work: hashing.Work) -> None:
        begun.append(work)
        submit(work)

    async def slow() -> None:
        committing.set()
        await go_on.wait()

    mapped = mock.patch.object(digests, "is_written", side_effect=[True] + [False] * 10)
    with mapped, mock.patch.object(fs.parts.hashing, "submit", counting):
        with mock.patch.object(fs.parts.behind, "durable", slow):
            node = await huge(fs, f"{REC}/huge")
            await committing.wait()
            fs.parts.committer.hurry(node.ino)
            [work] = await under_way(fs)
            go_on.set()
            await fs.parts.committer.progress()
        assert begun == [work, work]
        await fs.unlink(f"{REC}/huge")
        await nothing_runs(fs)


async def test_a_pass_that_is_asked_for_twice_is_done_once(fs: Filesystem) -> None:
    await huge(fs, f"{REC}/large")
    (work,) = await under_way(fs)
    fs.parts.hashing.submit(work)
    assert fs.parts.hashing.waiting(Lane.LARGE) == 0
    await fs.unlink(f"{REC}/large")
    await nothing_runs(fs)


async def test_status_tells_what_is_hashed_and_what_waits(fs: Filesystem) -> None:
    for n in range(3):
        await huge(fs, f"{REC}/huge{n}")
    await under_way(fs)
    while True:  # the next of them may just have had its turn, and not begun
        told = (await fs.answers()["status"]({}))["pipeline"]
        assert told["lanes"]["large"] == {"running": 1, "waiting": 2}
        [file] = told["files"]
        if file["done_bytes"]:
            break
        await trio.sleep(0.05)
    assert file["path"].startswith(f"{REC}/huge")
    assert 0 < file["done_bytes"] < file["total_bytes"] == HUGE
    assert file["bytes_per_s"] > 0
    assert file["eta_s"] > 0
    left = (await fs.answers()["drain"]({"timeout_s": 0.01}))["left"]
    assert left["hashing"][0]["total_bytes"] == HUGE
    for n in range(3):
        await fs.unlink(f"{REC}/huge{n}")
