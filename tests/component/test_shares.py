"""Each user's share of the daemon's descriptors: one who opens without end leaves some to the others."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from recfs.disk.diskio import kept_files
from recfs.disk.shares import FLOOR, WARN_EVERY_S, Shares
from recfs.errors import TooManyFiles
from recfs.fs.caller import Caller
from recfs.fuse.guard import errno_of
from recfs.ports.objects import MIB
from recfs.tier.partials import KEPT_SHARE

from .build import OPERATOR, REC, Filesystem
from .far import ask
from .test_tier import evict, tiered

LIMIT = 240
GREEDY, SECOND, THIRD = Caller(20001, 20001), Caller(20002, 20002), Caller(20003, 20003)
CREATE = os.O_WRONLY | os.O_CREAT


def have_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the daemon few descriptors, besides those that the tests have open already."""
    limit = LIMIT + len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr("recfs.disk.diskio.resource.getrlimit", lambda which: (limit, limit))
    monkeypatch.setattr("recfs.disk.diskio._below", 0)
    for module in ("disk.shares", "tier.partials"):
        monkeypatch.setattr(f"recfs.{module}.kept_files", lambda: kept_files() + limit - LIMIT)


@pytest.fixture
async def fs(nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Filesystem]:
    """A file system whose daemon may have few descriptors."""
    have_few(monkeypatch)
    made = Filesystem(nursery, tmp_path / "root")
    await made.start()
    await made.mkdirs(REC)
    yield made
    for number in list(made.vfs.files.handles):
        await made.close(number)
    await made.stop()


def shares(fs: Filesystem) -> Shares:
    found = fs.vfs.files.shares
    assert isinstance(found, Shares)
    return found


async def take_all(fs: Filesystem, caller: Caller, prefix: str) -> list[int]:
    """Make files until that is refused."""
    taken: list[int] = []
    with refused(caller):
        while len(taken) < LIMIT:
            number = await fs.open(f"{REC}/{prefix}{len(taken)}", CREATE, caller)
            taken.append(number)
    return taken


@contextlib.contextmanager
def refused(caller: Caller) -> Iterator[None]:
    with pytest.raises(TooManyFiles, match=f"uid {caller.uid}") as caught:
        yield
    assert errno_of(caught.value) == errno.EMFILE


async def problems(fs: Filesystem) -> list[str]:
    return [each for each in (await ask(fs, "status"))["problems"] if "has files open" in each]


def told(caplog: pytest.LogCaptureFixture, caller: Caller) -> int:
    """How many lines of the log say that the user has too many files open."""
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    return sum(f"uid {caller.uid} has files open" in line for line in lines)


@pytest.mark.slow
@pytest.mark.expect_log("uid 2000[12] has files open that keep")
async def test_one_user_leaves_half_of_them_to_the_others(fs: Filesystem, caplog: pytest.LogCaptureFixture) -> None:
    await fs.write(f"{REC}/old", b"old")
    left = shares(fs)._left
    first = await take_all(fs, GREEDY, "a")
    assert len(first) == shares(fs).count(GREEDY.uid) == (left + 1) // 2
    for path in ("old", "a0"):  # whatever is open already, by name or not
        with refused(GREEDY):
            await fs.open(f"{REC}/{path}", os.O_RDONLY, GREEDY)
    second = await take_all(fs, SECOND, "b")
    assert len(second) == (left - len(first) + 1) // 2
    assert [" ".join(each.split()[:2]) for each in await problems(fs)] == ["uid 20001", "uid 20002"]
    third = [await fs.open(f"{REC}/old", os.O_RDONLY, THIRD), await fs.open(f"{REC}/c", CREATE, THIRD)]
    for number in (*second, *third):
        await fs.close(number)
    assert shares(fs).count(SECOND.uid) == 0
    assert len(await problems(fs)) == 1, "as long as it keeps so many"
    await fs.close(first.pop())
    assert await problems(fs) == []
    await fs.open(f"{REC}/old", os.O_RDONLY, GREEDY)
    assert (told(caplog, GREEDY), told(caplog, SECOND)) == (1, 1), "once a minute"


@pytest.mark.expect_log("uid 20001 has files open that keep")
async def test_refusals_are_told_once_a_minute(
    fs: Filesystem, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("recfs.disk.shares.time.monotonic", lambda: now)
    taken = await take_all(fs, GREEDY, "a")
    for number in taken:
        await fs.close(number)
    await take_all(fs, GREEDY, "b")
    assert told(caplog, GREEDY) == 1
    now += WARN_EVERY_S
    await take_all(fs, GREEDY, "c")
    assert told(caplog, GREEDY) == 2


@pytest.mark.slow
@pytest.mark.expect_log("uid 20001 has files open that keep")
async def test_opens_at_the_same_moment_come_to_no_more(fs: Filesystem) -> None:
    for n in range(LIMIT):
        await fs.write(f"{REC}/{n}", b"x")
    left = shares(fs)._left
    opened: list[int] = []

    async def open_one(n: int) -> None:
        with contextlib.suppress(TooManyFiles):
            opened.append(await fs.open(f"{REC}/{n}", os.O_RDONLY, GREEDY))

    async with trio.open_nursery() as nursery:
        for n in range(LIMIT):
            nursery.start_soon(open_one, n)
    assert shares(fs).count(GREEDY.uid) == (left + 1) // 2 == len(opened)


@pytest.fixture
async def cold(nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Filesystem]:
    """The same with 30 files whose bytes S3 has, and that an open does not fetch whole."""
    have_few(monkeypatch)
    made = tiered(nursery, tmp_path / "root", cache={"fetch_whole_below": 1, "read_ahead_max": MIB})
    await made.start()
    for n in range(30):
        await made.write(f"{REC}/{n}", b"x" * MIB + b"%d" % n)
    await made.drain()
    for n in range(30):
        await evict(made, f"{REC}/{n}")
    yield made
    await made.stop()


@pytest.mark.slow
async def test_a_file_that_is_fetched_counts_twice(cold: Filesystem) -> None:
    """The copy that all readers share has a descriptor, and they have another."""
    before = shares(cold)._left
    numbers = [await cold.open(f"{REC}/0", os.O_RDONLY, caller) for caller in (GREEDY, GREEDY, SECOND)]
    assert (shares(cold).count(GREEDY.uid), shares(cold).count(SECOND.uid), before - shares(cold)._left) == (2, 2, 2)
    for number in numbers:
        await cold.close(number)
    assert (shares(cold)._counts, shares(cold)._left) == ({}, before)


@pytest.mark.slow
async def test_copies_that_nobody_reads_any_more_give_their_descriptors_back(cold: Filesystem) -> None:
    """The heads of many cold files, one after the other, as a program that looks for their lengths reads them."""
    partials = cold.tier.partials
    most = shares(cold)._left // KEPT_SHARE
    held = await cold.open(f"{REC}/0")
    for n in range(30):
        number = await cold.open(f"{REC}/{n}")
        assert bytes(await cold.vfs.files.read(number, 0, 10)) == b"x" * 10
        await cold.close(number)
        assert len(partials.by_ino) <= most < 30
    assert bytes(await cold.vfs.files.read(held, MIB, 10)) == b"0", "who has it open keeps it"
    await cold.close(held)
    assert await cold.read(f"{REC}/1") == b"x" * MIB + b"1"


@pytest.mark.expect_log("uid 20001 has files open that keep 16")
async def test_root_the_daemons_user_and_the_operator_have_all_there_are(fs: Filesystem) -> None:
    assert {0, os.geteuid()} <= shares(fs)._excepted
    for n in range(shares(fs)._left // 2 + FLOOR):
        await fs.open(f"{REC}/{n}", CREATE, OPERATOR)
    assert await problems(fs) == []
    shares(fs)._used += shares(fs)._left
    shares(fs)._left = 0
    assert len(await take_all(fs, GREEDY, "few")) == FLOOR, "so few are no concern of anybody's"
    await fs.open(f"{REC}/last", CREATE, OPERATOR)


@pytest.mark.expect_log("uid 20001 has files open that keep 52")
async def test_a_limit_of_a_million(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recfs.disk.diskio.resource.getrlimit", lambda which: (1 << 20, 1 << 20))
    large = Shares()
    assert large._left > 1_000_000
    half = (large._left + 1) // 2
    for keeps, is_refused in ((half - 1, False), (half, True)):
        large._left += large._used - keeps
        large._counts[GREEDY.uid] = large._used = keeps
        with pytest.raises(TooManyFiles) if is_refused else contextlib.nullcontext():
            large.admit(GREEDY.uid)
        large.admit(SECOND.uid)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_the_count_is_what_is_open(fs: Filesystem, seed: int) -> None:
    """Whatever is opened, opened again, overwritten beside readers, removed while open, and closed, by whom ever."""
    chance = random.Random(seed)
    callers, paths = (GREEDY, SECOND, THIRD), [f"{REC}/{n}" for n in range(5)]
    before = shares(fs)._left
    for path in paths:
        await fs.write(path, b"x")
    await fs.drain()
    opened: list[int] = []
    for _ in range(150):
        path, caller = chance.choice(paths), chance.choice(callers)
        match chance.randrange(7):
            case 0 | 1:
                opened.append(await fs.open(path, chance.choice([os.O_RDONLY, os.O_RDWR]) | os.O_CREAT, caller))
            case 2:
                opened.append(await fs.open(path, CREATE | os.O_TRUNC, caller))
            case 3 if await fs.exists(path):
                await fs.unlink(path)
            case 4:
                await fs.drain()
            case _ if opened:
                await fs.close(opened.pop(chance.randrange(len(opened))))
        handles = fs.vfs.files.handles.values()
        for each in callers:
            backing_files = {id(handle.body): handle.body for handle in handles if handle.uid == each.uid}.values()
            assert shares(fs).count(each.uid) == sum(1 + len(body.retired) for body in backing_files)
        backing_files = {id(handle.body): handle.body for handle in handles}.values()
        assert shares(fs)._left == before - sum(1 + len(body.retired) for body in backing_files)
    for number in opened:
        await fs.close(number)
    assert (shares(fs)._counts, shares(fs)._left) == ({}, before)


async def test_a_file_rewritten_beside_its_reader_keeps_one_descriptor(fs: Filesystem) -> None:
    """A playlist that a player has open, and that is written anew every two seconds."""
    path = f"{REC}/playlist"
    await fs.write(path, b"version 0")
    await fs.drain()
    reader = await fs.open(path, os.O_RDONLY, THIRD)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1, 30):
        await fs.write(path, b"version %d" % number)
        if number % 3 == 0:
            await fs.drain()
        assert await fs.read_handle(reader) == b"version %d" % number
        assert shares(fs).count(THIRD.uid) == 1
    await fs.drain()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the pool's may vary
    await fs.close(reader)
