"""Back-pressure: creating never waits, writes pause, and what cannot leave keeps nobody from writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing

from recfs.disk.commit import digests
from recfs.disk.staging import DiskReserve
from recfs.errors import Exists, OtherDevice, OutOfSpace, Stale
from recfs.fs import backlog
from recfs.fs.handles import Mode
from recfs.ports.object_errors import AccessRefused, KeyTooLong
from recfs.tier import budget
from recfs.tier.queue.unsent import Why
from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem, filesystem, pattern
from .far import ask, bucket, down, failing, no_route, until
from .test_tier import MIB, stored, tiered

FILE = f"{REC}/file"
MINE = f"{REC}/mine"
THEIRS = "users/6/recordings/7"
CACHE = {"max_size": MIB, "read_ahead_max": MIB // 2, "fetch_whole_below": MIB // 2}
NEW = os.O_WRONLY | os.O_CREAT


def small(nursery: trio.Nursery, tmp_path: Path, **settings: Any) -> Filesystem:
    """A tier with a budget of 1 MiB, not started."""
    return tiered(nursery, tmp_path / "root", cache=CACHE, **settings)


async def create_at_once(fs: Filesystem, path: str) -> int:
    """Create a file; fails if that takes any time at all. No clock moves meanwhile."""
    before = trio.current_time()
    number = await fs.open(path, NEW)
    assert trio.current_time() == before
    return number


async def full(fs: Filesystem, path: str = FILE) -> None:
    """Fill the budget with a file that S3, being down, does not take."""
    down(fs)
    await fs.write(path, pattern(2 * MIB))
    await failing(fs)


def unsent(fs: Filesystem) -> int:
    """What counts in the budget."""
    return int(fs.tier.journal.unsent_bytes())


# --- names never wait ------------------------------------------------------------------------------------------------


async def test_names_do_not_wait_for_the_pipeline(place: Path, mock_clock: trio.testing.MockClock) -> None:
    """Nothing is committed, for the clock stands: every name is made, listed and removed all the same."""
    async with filesystem(place, commit={"max_pending": 1}) as fs:
        await fs.mkdirs(REC)
        for n in range(4):
            await fs.close(await create_at_once(fs, f"{REC}/file{n}"))
        assert fs.parts.committer.depth == 4
        await fs.mkdirs(f"{REC}/dir")
        await fs.rename(f"{REC}/file0", f"{REC}/dir/moved")
        await fs.unlink(f"{REC}/file1")
        assert await fs.names(REC) == ["dir", "file2", "file3"]
        mock_clock.autojump_threshold = 0


async def test_a_first_write_waits_for_the_pipeline_and_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "PAUSE_S", float("inf"))
    async with filesystem(place, commit={"max_pending": 1}) as fs:
        await fs.mkdirs(REC)
        committer, waits = fs.parts.committer, 0
        progress = committer.progress

        async def counted() -> None:
            nonlocal waits
            waits += 1
            await progress()

        monkeypatch.setattr(committer, "progress", counted)
        number = await fs.open(MINE, NEW)
        for n in range(2):
            await fs.write(f"{REC}/file{n}", b"")
        assert committer.depth == 2
        await fs.vfs.files.write(number, 0, b"first")
        assert (committer.depth <= 1, waits > 0) == (True, True), "it let the others go first"
        waits = 0
        for n in range(2):
            await fs.write(f"{REC}/other{n}", b"")
        await fs.vfs.files.write(number, 5, b"second")
        assert waits == 0, "a recording under way does not pay for others' files"
        await fs.close(number)


@pytest.mark.slow
async def test_files_that_somebody_keeps_mapped_hold_nobody_back(place: Path) -> None:
    """One process can map ten thousand, for ever, and no work catches up with them."""
    async with filesystem(place, commit={"max_pending": 1}) as fs:
        await fs.mkdirs(REC)
        committer, files = fs.parts.committer, fs.vfs.files
        with mock.patch.object(digests, "is_written", return_value=True):
            for n in range(backlog.REFUSED_FROM + 5):
                await fs.close(await create_at_once(fs, f"{REC}/mapped{n}"))
                await until(lambda: committer.busy_with == 0)
            assert committer.depth == backlog.REFUSED_FROM + 5
            assert not files.backlog.is_full
            await fs.close(await create_at_once(fs, f"{REC}/new"))
        await fs.drain()


async def test_new_files_are_refused_when_pausing_did_not_help(place: Path, mock_clock: trio.testing.MockClock) -> None:
    async with filesystem(place, commit={"max_pending": 1}) as fs:
        await fs.mkdirs(REC)
        for n in range(backlog.REFUSED_FROM + 1):
            await fs.close(await create_at_once(fs, f"{REC}/file{n}"))
        with pytest.raises(OutOfSpace, match="max_pending"):
            await fs.open(MINE, NEW)
        await fs.unlink(f"{REC}/file0")
        mock_clock.autojump_threshold = 0
        await fs.drain()
        await fs.write(MINE, b"bytes")


async def test_creating_does_not_wait_for_the_thread_that_makes_staging_files(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.mkdirs(REC)
        pool, store, gate = fs.parts.backing_files.pool, fs.parts.store, trio.Event()
        make = store.make_staging

        def held_up(ids: list[str]) -> list[int]:
            trio.from_thread.run(gate.wait)
            return make(ids)

        store.make_staging = held_up
        made = [await create_at_once(fs, f"{REC}/file{n}") for n in range(40)]
        assert not pool._ready
        await fs.vfs.files.write(made[-1], 0, b"bytes")
        await fs.vfs.files.fsync(made[-1])
        for number in made:
            await fs.close(number)
        gate.set()
        await fs.drain()
        assert await fs.read(f"{REC}/file39") == b"bytes"


async def test_without_staging_files_the_true_error_is_told(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.mkdirs(REC)
        pool = fs.parts.backing_files.pool

        def refuse(*_: object) -> list[int]:
            raise OSError(24, "too many open files")

        fs.parts.store.make_staging = fs.parts.store.make_one_staging = refuse
        numbers = [await fs.open(f"{REC}/file{n}", NEW) for n in range(len(pool._ready))]
        with pytest.raises(OSError, match="too many open files"):
            await fs.open(f"{REC}/one-too-many", NEW)
        for number in numbers:
            await fs.close(number)


async def test_a_large_shared_file_is_not_copied_while_names_are_held(place: Path, monkeypatch: Any) -> None:
    """A rename is told to copy by itself, a create to look again."""
    monkeypatch.setattr("recfs.fs.vfs.COPIED_AT_ONCE_BYTES", 10)
    async with filesystem(place) as fs:
        await fs.write("shared/thumbnails/large.png", b"0123456789a")
        await fs.write("shared/thumbnails/small.png", b"0123456789")
        await fs.mkdirs("users/5")
        shown = "users/5/thumbnails"
        with pytest.raises(OtherDevice):
            await fs.rename(f"{shown}/large.png", f"{shown}/mine.png")
        await fs.rename(f"{shown}/small.png", f"{shown}/mine.png")
        assert await fs.names(shown) == ["large.png", "mine.png"]
        parent, name = await fs.folder(f"{shown}/large.png")
        with pytest.raises(Stale):
            await fs.vfs.create(parent, name, 0o644, NEW, OPERATOR)
        with pytest.raises(Exists):
            await fs.vfs.create(parent, name, 0o644, NEW | os.O_EXCL, OPERATOR)
        number = await fs.open(f"{shown}/large.png", os.O_RDWR)
        assert await fs.read_handle(number) == b"0123456789a"
        await fs.close(number)


# --- the budget of what waits for S3 -------------------------------------------------------------------------------


@no_route
async def test_a_full_budget_pauses_writers_and_then_refuses_at_once(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = small(nursery, tmp_path)
    await fs.start()
    await full(fs)
    monkeypatch.setattr(backlog, "PAUSE_S", 0.01)
    await fs.write(MINE, b"slowed, not refused")
    monkeypatch.setattr(budget, "PATIENCE_S", 0.0)
    with pytest.raises(OutOfSpace, match="wait to be uploaded"):
        await fs.open(f"{REC}/more", NEW)
    number = await fs.open(MINE, os.O_RDWR)
    with pytest.raises(OutOfSpace, match="wait to be uploaded"):
        await fs.vfs.files.write(number, 0, b"and not here either")
    await fs.close(number)
    await fs.unlink(FILE)  # makes room
    await fs.write(f"{REC}/more", b"bytes")
    bucket(fs).heal()
    for row_id in list(fs.tier.journal.rows):
        fs.tier.journal.retry(row_id)
    await until(lambda: stored(fs) == {MINE: b"slowed, not refused", f"{REC}/more": b"bytes"})
    await fs.stop()


@no_route
async def test_what_the_rules_keep_here_is_not_held_back(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = small(nursery, tmp_path)
    await fs.start()
    await full(fs)
    monkeypatch.setattr(budget, "PATIENCE_S", 0.0)
    monkeypatch.setattr(backlog, "PAUSE_S", 1000.0)
    await fs.write("temp/5/7/file", b"local")
    await fs.write("shared/thumbnails/one.png", b"local")
    assert await fs.read("temp/5/7/file") == b"local"
    await fs.stop()


@no_route
async def test_one_user_does_not_use_up_the_budget_of_the_others(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = small(nursery, tmp_path)
    await fs.start()
    await full(fs)
    monkeypatch.setattr(budget, "PATIENCE_S", 0.0)
    monkeypatch.setattr(backlog, "PAUSE_S", 1000.0)
    await fs.write(f"{THEIRS}/file", pattern(MIB // 2))
    await until(lambda: unsent(fs) == 5 * MIB // 2)
    with pytest.raises(OutOfSpace):
        await fs.open(f"{THEIRS}/more", NEW)  # their half is full now
    await fs.reopen()  # whose it is has to be found out again
    monkeypatch.setattr(budget, "PATIENCE_S", 0.0)
    await fs.write("users/7/recordings/1/file", b"a third one's")
    with pytest.raises(OutOfSpace):
        await fs.open(f"{THEIRS}/more", NEW)
    await fs.stop()


async def test_a_temporary_name_counts_in_no_budget(nursery: trio.Nursery, tmp_path: Path) -> None:
    fs = small(nursery, tmp_path)
    await fs.start()
    part = f"{REC}/show.mp4.part"
    await fs.write(part, pattern(2 * MIB))
    await fs.drain()
    assert unsent(fs) == 0
    await fs.reopen()
    assert unsent(fs) == 0
    await fs.write(MINE, b"bytes")
    told = await ask(fs, "drain")
    assert told["stays"] | {"oldest_s": 0} == {"files": 1, "bytes": 2 * MIB, "oldest_s": 0, "paths": [part]}
    status = await ask(fs, "status")
    assert (status["s3"]["stays"]["paths"], status["problems"]) == ([part], [])
    fs.clock.advance(3601)
    (problem,) = (await ask(fs, "status"))["problems"]
    assert part in problem
    assert "rename" in problem
    await fs.rename(part, FILE)
    assert unsent(fs) == 2 * MIB
    await fs.drain()
    assert stored(fs).keys() == {MINE, FILE}
    assert (await ask(fs, "drain"))["stays"]["files"] == 0
    await fs.stop()


@pytest.mark.expect_log("next try in")
async def test_what_s3_refuses_for_its_own_sake_counts_in_no_budget(nursery: trio.Nursery, tmp_path: Path) -> None:
    fs = small(nursery, tmp_path)
    await fs.start()
    bucket(fs).fail("put_file", KeyTooLong("too long"))
    await fs.write(FILE, pattern(2 * MIB))
    await failing(fs)
    assert unsent(fs) == 0
    assert "too long" in (await ask(fs, "status"))["s3"]["problem"]
    fs.tier.journal.retry(1)
    await fs.drain()
    assert stored(fs).keys() == {FILE}
    await fs.stop()


@pytest.mark.expect_log("next try in")
async def test_a_refusal_counts_until_others_are_stored(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Credentials that have expired are no reason to fill the disk."""
    fs = small(nursery, tmp_path)
    await fs.start()
    journal = fs.tier.journal
    bucket(fs).fail("put_file", AccessRefused("denied"), times=2)
    await fs.write(FILE, pattern(2 * MIB))
    await failing(fs)
    (row_id,) = journal.rows
    journal.retry(row_id)
    await until(lambda: journal.rows[row_id].attempts == 2)
    assert (unsent(fs), journal.unsent.why_aside(row_id)) == (2 * MIB, None)
    await fs.write(f"{THEIRS}/file", b"stored")
    await until(lambda: f"{THEIRS}/file" in stored(fs))
    bucket(fs).fail("put_file", AccessRefused("denied"))
    journal.retry(row_id)
    await until(lambda: journal.rows[row_id].attempts == 3)
    assert (unsent(fs), journal.unsent.why_aside(row_id)) == (0, Why.REFUSED)
    await fs.stop()


async def test_what_is_settling_goes_at_once_when_the_budget_is_full(nursery: trio.Nursery, tmp_path: Path) -> None:
    fs = small(nursery, tmp_path, upload={"settle": 3600.0})
    await fs.start()
    await fs.write(FILE, pattern(MIB // 2))
    await until(lambda: unsent(fs) == MIB // 2)
    assert stored(fs) == {}
    await fs.write(MINE, pattern(MIB))
    await until(lambda: stored(fs).keys() == {FILE, MINE})
    await fs.stop()


@no_route
async def test_writes_that_have_to_pause_are_not_the_kernels(nursery: trio.Nursery, tmp_path: Path) -> None:
    fs = small(nursery, tmp_path)
    fs.files = FakeKernelFiles()
    await fs.start()
    await fs.mkdirs(REC)
    number, mode = await fs.pass_open(FILE, NEW)
    assert mode is Mode.PASS
    fs.pass_write(number, pattern(2 * MIB))
    await fs.close(number)
    down(fs)
    await failing(fs)
    number, mode = await fs.pass_open(MINE, NEW)
    assert mode is Mode.CACHED
    await fs.close(number)
    await fs.stop()


# --- the reserve -----------------------------------------------------------------------------------------------------


class Disk:
    """What a store says of its disk."""

    root = Path("/store")
    max_file_bytes = 1 << 60

    def __init__(self, free: int, inodes: int = 0, of: int = 0) -> None:
        self.free, self.inodes, self.of = free, inodes, of

    def space(self) -> os.statvfs_result:
        """statvfs(3)."""
        return os.statvfs_result((4096, 1, 1 << 30, self.free, self.free, self.of, self.inodes, self.inodes, 0, 255))


def admitted(ask: Callable[[], None], times: int) -> int:
    """How many of so many are."""
    count = 0
    for _ in range(times):
        try:
            ask()
        except OutOfSpace:
            continue
        count += 1
    return count


@pytest.mark.parametrize("free", [0, 99, 100])
def test_below_the_reserve_nothing_is_made(free: int) -> None:
    """All or nothing: not one a second."""
    disk = Disk(free)
    space = DiskReserve(disk, 100)  # type: ignore[arg-type]
    assert admitted(space.admit_entry, 50) == 0
    assert "down to min_free" in (space.problem or "")
    disk.free = 101
    assert admitted(space.admit_entry, 50) == 50
    assert space.problem is None


def test_inodes_can_run_out_too() -> None:
    """Some are kept for what has been taken and is yet to be made in the home tree."""
    disk = Disk(1 << 40, inodes=101, of=6400)
    space = DiskReserve(disk, 0)  # type: ignore[arg-type]
    assert admitted(space.admit_entry, 1) == 1
    assert space.problem is None
    disk.inodes = 100
    assert admitted(space.admit_entry, 50) == 0
    assert "no inodes left" in (space.problem or "")
    space.admit(4096)  # files that are there may grow
    disk.of = disk.inodes = 0  # btrfs, which counts none
    assert admitted(space.admit_entry, 50) == 50
    assert space.problem is None


async def test_directories_and_links_need_room_as_files_do(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.mkdirs(f"{REC}/dir")
        await fs.write(FILE, b"bytes")
        space = fs.vfs.files.space
        space.min_free = 1 << 60
        space.forget()
        folder = (await fs.node(REC)).ino
        for _ in range(3):
            with pytest.raises(OutOfSpace):
                await fs.open(MINE, NEW)
            with pytest.raises(OutOfSpace):
                await fs.vfs.mkdir(folder, b"new", 0o755, OPERATOR)
            with pytest.raises(OutOfSpace):
                await fs.vfs.symlink(folder, b"link", b"file", OPERATOR)
        await fs.rename(FILE, f"{REC}/dir/moved")
        number = await fs.open(f"{REC}/dir/moved", os.O_RDWR)
        assert await fs.vfs.files.write(number, 0, b"BYTES") == 5
        await fs.close(number)
        await fs.unlink(f"{REC}/dir/moved")
        await fs.rmdir(f"{REC}/dir")
        assert await fs.names(REC) == []
        await fs.drain()


async def test_what_waits_of_a_moved_directory_counts_as_its_new_owners(nursery: trio.Nursery, tmp_path: Path) -> None:
    fs = small(nursery, tmp_path, upload={"settle": 3600.0})
    await fs.start()
    await fs.mkdirs(REC)
    await fs.mkdirs("users/6/recordings")
    await fs.write(FILE, pattern(MIB // 2))
    journal = fs.tier.journal
    await until(lambda: journal.unsent.of("5") == MIB // 2)
    await fs.rename(REC, "users/6/recordings/142")
    await until(lambda: journal.unsent.of("6") == MIB // 2)
    assert (journal.unsent.of("5"), unsent(fs)) == (0, MIB // 2)
    await fs.stop()
