"""Holes, allocation and copies between open files: charged like writes, and the metadata follows the file."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from recfs.core.model import State
from recfs.disk import diskio
from recfs.errors import FileTooLarge, InvalidArgument, IoFailure, NotSupported, OutOfSpace, QuotaExceeded
from recfs.fs import ranges
from recfs.fs.handles import Mode
from recfs.fs.ranges import COPY_BYTES, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from tests.fakes import FakeKernelFiles

from .build import REC, Filesystem, pattern

if TYPE_CHECKING:
    from recfs.state.nodes import FileNode

ExpectLog = Callable[[str], None]
FILE = f"{REC}/file"
OTHER = f"{REC}/other"
RW = os.O_RDWR
NEW = os.O_RDWR | os.O_CREAT
KIB = 1 << 10
MIB = 1 << 20
PUNCH = PUNCH_HOLE | KEEP_SIZE


@pytest.fixture
async def at(fs: Filesystem) -> AsyncIterator[Callable[[str, bytes], Awaitable[int]]]:
    """`at(path, data)`: a handle of a new file with these bytes; closed at the end."""
    opened: list[int] = []
    await fs.mkdirs(REC)

    async def make(path: str, data: bytes = b"") -> int:
        number = await fs.open(path, NEW)
        opened.append(number)
        if data:
            assert await fs.vfs.files.write(number, 0, data) == len(data)
        return number

    yield make
    for number in opened:
        if number in fs.vfs.files.handles:
            await fs.close(number)


Make = Callable[..., Awaitable[int]]


@pytest.fixture
def in_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy is so small that it is read and written instead."""
    monkeypatch.setattr(ranges, "SMALL_BYTES", 0)


@pytest.fixture(params=["read and written", "in a thread"])
def either_way(request: pytest.FixtureRequest) -> None:
    """Small copies, done in both ways."""
    if request.param == "in a thread":
        request.getfixturevalue("in_thread")


async def limit(fs: Filesystem, **limits: int) -> None:
    """Set limits of user 5."""
    await fs.answers()["quota_set"]({"user": "5"} | limits)


def blocks(fs: Filesystem, number: int) -> int:
    """Bytes the file takes on disk."""
    return os.fstat(fs.vfs.files.handles[number].body.fd).st_blocks * 512


# --- holes -----------------------------------------------------------------------------------------------------------


async def test_data_and_holes_are_found(fs: Filesystem, at: Make) -> None:
    number = await at(FILE)
    await fs.vfs.files.write(number, 256 * KIB, bytes(b"x" * 4096))
    await fs.vfs.files.truncate(await fs.node(FILE), MIB)
    seek = fs.vfs.ranges.seek
    assert await seek(number, 0, os.SEEK_DATA) == 256 * KIB
    assert await seek(number, 0, os.SEEK_HOLE) == 0
    assert await seek(number, 256 * KIB, os.SEEK_HOLE) == 260 * KIB
    assert await seek(number, 260 * KIB, os.SEEK_DATA) is None
    assert await seek(number, MIB - 1, os.SEEK_HOLE) == MIB - 1
    assert await seek(number, MIB, os.SEEK_HOLE) is None
    assert await seek(number, -1, os.SEEK_DATA) is None
    for whence in (os.SEEK_SET, os.SEEK_END, 99):
        with pytest.raises(InvalidArgument):
            await seek(number, 0, whence)


async def test_holes_of_a_committed_file_and_of_an_empty_one(fs: Filesystem, at: Make) -> None:
    await fs.write(FILE, b"data")
    await fs.drain()
    number = await fs.open(FILE)
    assert await fs.vfs.ranges.seek(number, 1, os.SEEK_HOLE) == 4
    assert await fs.state(FILE) == "committed"
    await fs.close(number)
    assert await fs.vfs.ranges.seek(await at(OTHER), 0, os.SEEK_DATA) is None


async def test_a_disk_that_cannot_tell(fs: Filesystem, at: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    number = await at(FILE, b"data")

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "no more")

    monkeypatch.setattr(os, "lseek", broken)
    with pytest.raises(IoFailure):
        await fs.vfs.ranges.seek(number, 0, os.SEEK_DATA)


# --- allocating ------------------------------------------------------------------------------------------------------


async def test_allocating_grows_and_is_charged(fs: Filesystem, at: Make) -> None:
    number = await at(FILE, b"head")
    node = await fs.node(FILE)
    before = node.mtime_ns
    fs.clock.advance(5)
    await fs.vfs.ranges.allocate(number, 0, 0, MIB)
    assert (node.bytes, fs.account(), blocks(fs, number)) == (MIB, (MIB, 1), MIB)
    assert node.mtime_ns == node.ctime_ns == before + 5 * 10**9
    assert (await fs.node(REC)).rbytes == MIB
    await fs.vfs.ranges.allocate(number, 0, 100, 100)
    assert (node.bytes, fs.account()) == (MIB, (MIB, 1))
    assert await fs.read_handle(number) == b"head" + bytes(MIB - 4)


async def test_keeping_the_size_costs_disk_only(fs: Filesystem, at: Make) -> None:
    await limit(fs, max_bytes=10)
    number = await at(FILE, b"data")
    await fs.vfs.ranges.allocate(number, KEEP_SIZE, 0, MIB)
    assert ((await fs.node(FILE)).bytes, fs.account(), blocks(fs, number)) == (4, (4, 1), MIB)


async def test_punching_frees_the_disk_and_nothing_else(fs: Filesystem, at: Make) -> None:
    number = await at(FILE, pattern(MIB))
    await fs.vfs.ranges.allocate(number, PUNCH, 4096, MIB)
    assert blocks(fs, number) == 4096
    assert ((await fs.node(FILE)).bytes, fs.account()) == (MIB, (MIB, 1))
    assert await fs.read_handle(number) == pattern(MIB)[:4096] + bytes(MIB - 4096)


async def test_zeroing(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Where the file system below can: not tmpfs."""
    fs = Filesystem(nursery, tmp_path / "root")
    await fs.start()
    await fs.write(FILE, pattern(16 * KIB))
    number = await fs.open(FILE, RW)
    try:
        await fs.vfs.ranges.allocate(number, ZERO_RANGE, 4096, 4096)
    except NotSupported:
        assert await fs.read_handle(number) == pattern(16 * KIB)
    else:
        await fs.vfs.ranges.allocate(number, ZERO_RANGE | KEEP_SIZE, 12 * KIB, MIB)
        assert fs.account() == (16 * KIB, 1)
        await fs.vfs.ranges.allocate(number, ZERO_RANGE, 16 * KIB, 4096)
        assert fs.account() == (20 * KIB, 1)
        expected = pattern(16 * KIB)
        expected = expected[:4096] + bytes(4096) + expected[8192 : 12 * KIB] + bytes(8 * KIB)
        assert await fs.read_handle(number) == expected
    await fs.close(number)
    await fs.stop()


@pytest.mark.parametrize("mode", [PUNCH_HOLE, 0x04, 0x08, 0x20, 0x40, ZERO_RANGE | PUNCH])
async def test_other_modes_are_not_offered(fs: Filesystem, at: Make, mode: int) -> None:
    number = await at(FILE, b"data")
    with pytest.raises(NotSupported):
        await fs.vfs.ranges.allocate(number, mode, 0, 4096)
    for offset, length in ((-1, 1), (0, 0), (0, -1)):
        with pytest.raises(InvalidArgument):
            await fs.vfs.ranges.allocate(number, 0, offset, length)


async def test_growth_is_allowed_whole_or_refused(fs: Filesystem, at: Make) -> None:
    await limit(fs, max_bytes=MIB)
    number = await at(FILE, b"data")
    with pytest.raises(QuotaExceeded):
        await fs.vfs.ranges.allocate(number, 0, 0, MIB + 1)
    assert (fs.account(), blocks(fs, number)) == ((4, 1), 4096)
    await fs.vfs.ranges.allocate(number, 0, 0, MIB)
    assert fs.account() == (MIB, 1)
    await limit(fs, max_file_size=2 * MIB, max_bytes=10 * MIB)
    with pytest.raises(FileTooLarge):
        await fs.vfs.ranges.allocate(number, 0, 2 * MIB, 1)
    await fs.vfs.ranges.allocate(number, KEEP_SIZE, 2 * MIB, 1)


async def test_the_reserve_is_kept(fs: Filesystem, at: Make) -> None:
    """Of what is there already nothing is demanded again."""
    number = await at(FILE, b"data")
    await fs.vfs.ranges.allocate(number, 0, 0, MIB)
    fs.vfs.files.space.min_free = 1 << 62
    fs.vfs.files.space._checked = float("-inf")
    for mode in (0, KEEP_SIZE):
        with pytest.raises(OutOfSpace):
            await fs.vfs.ranges.allocate(number, mode, 0, 2 * MIB)
    await fs.vfs.ranges.allocate(number, 0, 0, MIB)
    await fs.vfs.ranges.allocate(number, PUNCH, 0, MIB)
    assert fs.account() == (MIB, 1)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, OutOfSpace),
        (errno.EDQUOT, OutOfSpace),
        (errno.EOPNOTSUPP, NotSupported),
        (errno.EFBIG, FileTooLarge),
        (errno.EIO, IoFailure),
    ],
)
async def test_what_grew_in_vain_is_given_back(
    fs: Filesystem, at: Make, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    handle = await at(FILE, b"data")
    mtime = (await fs.node(FILE)).mtime_ns
    fs.clock.advance(5)

    def half(fd: int, _mode: int, offset: int, length: int) -> int:
        os.ftruncate(fd, offset + length // 2)
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(diskio._libc, "fallocate", half)
    with pytest.raises(error):
        await fs.vfs.ranges.allocate(handle, 0, 0, MIB)
    node = await fs.node(FILE)
    assert (node.bytes, fs.account(), node.mtime_ns) == (4, (4, 1), mtime)
    assert await fs.read_handle(handle) == b"data"


async def test_a_signal_in_between(fs: Filesystem, at: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """EINTR (tmpfs): once more."""
    handle = await at(FILE)
    calls: list[int] = []
    real = diskio._libc.fallocate

    def interrupted(*args: int) -> int:
        calls.append(args[0])
        if len(calls) > 1:
            return int(real(*args))
        ctypes.set_errno(errno.EINTR)
        return -1

    monkeypatch.setattr(diskio._libc, "fallocate", interrupted)
    await fs.vfs.ranges.allocate(handle, 0, 0, 8192)
    assert (len(calls), fs.account()) == (2, (8192, 1))


async def test_a_committed_file_is_opened_up_first(fs: Filesystem) -> None:
    """Its row says `writing` before a byte changes, and it is hashed again."""
    await fs.write(FILE, pattern(8192))
    await fs.drain()
    node: FileNode = await fs.node(FILE)
    before = node.sha256
    number = await fs.open(FILE, RW)
    assert node.state is State.COMMITTED
    await fs.vfs.ranges.allocate(number, PUNCH, 0, 4096)
    assert node.state is State.WRITING
    assert not (fs.root / FILE).exists()
    assert fs.rows("select state, sha256 from node where name = ?", b"file") == [("writing", None)]
    await fs.close(number)
    await fs.drain()
    assert node.sha256 not in (None, before)
    assert (fs.root / FILE).read_bytes() == bytes(4096) + pattern(8192)[4096:]


# --- copying ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("either_way")
async def test_ranges_are_copied_between_files_and_within_one(fs: Filesystem, at: Make) -> None:
    data = pattern(100_000)
    source, target = await at(FILE, data), await at(OTHER, b"x" * 10)
    copy = fs.vfs.ranges.copy
    assert await copy(source, 50_000, target, 5, 1000) == 1000
    assert await fs.read_handle(target) == b"x" * 5 + data[50_000:51_000]
    assert fs.account() == (101_005, 2)
    assert await copy(source, 99_000, target, 0, MIB) == 1000, "to the end of the source"
    assert await copy(source, 100_000, target, 0, MIB) == 0
    assert await copy(source, 200_000, target, 0, MIB) == 0
    assert await copy(source, 0, target, 200_000, 10) == 10, "beyond the end: a hole, and it is charged"
    assert fs.account() == (300_010, 2)
    assert await copy(source, 0, source, 100_000, 100_000) == 100_000
    assert await fs.read_handle(source) == data + data
    assert (await fs.node(REC)).rbytes == 400_010


async def test_a_copy_keeps_holes(fs: Filesystem, at: Make) -> None:
    source, target = await at(FILE), await at(OTHER, b"y" * (2 * MIB))
    for offset in (MIB, 3 * MIB):
        await fs.vfs.files.write(source, offset, b"x" * 8192)
    await fs.vfs.files.truncate(await fs.node(FILE), 4 * MIB)
    assert await fs.vfs.ranges.copy(source, 0, target, 0, 100 * MIB) == 4 * MIB
    assert blocks(fs, target) == blocks(fs, source) == 16 * KIB
    assert await fs.read_handle(target) == await fs.read_handle(source)
    assert fs.account() == (8 * MIB, 2)


@pytest.mark.slow
async def test_a_copy_is_bounded(fs: Filesystem, at: Make) -> None:
    source, target = await at(FILE), await at(OTHER)
    await fs.vfs.files.truncate(await fs.node(FILE), 2 * COPY_BYTES + 1)
    done = [await fs.vfs.ranges.copy(source, 0, target, 0, 1 << 40)]
    while step := await fs.vfs.ranges.copy(source, sum(done), target, sum(done), 1 << 40):
        done.append(step)
    assert done == [COPY_BYTES, COPY_BYTES, 1]
    assert (await fs.node(OTHER)).bytes == 2 * COPY_BYTES + 1


@pytest.mark.usefixtures("either_way")
async def test_the_limit_holds_to_the_byte(fs: Filesystem, at: Make) -> None:
    source, target = await at(FILE, pattern(8000)), await at(OTHER)
    await limit(fs, max_bytes=10_000)
    copy = fs.vfs.ranges.copy
    assert await copy(source, 0, target, 0, 8000) == 2000, "what fits"
    for offset in (2000, 5000):
        with pytest.raises(QuotaExceeded):
            await copy(source, 0, target, offset, 100)
    assert await copy(source, 100, target, 0, 2000) == 2000, "rewriting is free"
    assert await copy(source, 0, target, 1999, 8000) == 1
    assert await fs.vfs.files.write(target, 1999, pattern(2)) == 1, "the same for a write"
    assert fs.account() == (10_000, 2)
    assert await fs.read_handle(target) == pattern(8000)[100:2099] + pattern(8000)[:1]
    await limit(fs, max_bytes=100_000, max_file_size=8100)
    assert await copy(source, 0, source, 8000, 8000) == 100
    with pytest.raises(FileTooLarge):
        await copy(source, 0, source, 8100, 1)


@pytest.mark.usefixtures("either_way")
async def test_no_room_for_a_copy(fs: Filesystem, at: Make) -> None:
    source, target = await at(FILE, b"data"), await at(OTHER)
    fs.vfs.files.space.min_free = 1 << 62
    fs.vfs.files.space._checked = float("-inf")
    with pytest.raises(OutOfSpace):
        await fs.vfs.ranges.copy(source, 0, target, 0, 4)
    assert fs.account() == (4, 2)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.EXDEV, NotSupported), (errno.EOPNOTSUPP, NotSupported), (errno.ENOSPC, OutOfSpace), (errno.EIO, IoFailure)],
)
@pytest.mark.usefixtures("in_thread")
async def test_a_copy_that_fails(
    fs: Filesystem, at: Make, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    """At once: the error. Later: what was done."""
    source, target = await at(FILE, pattern(100_000)), await at(OTHER)
    room = 0
    real = os.copy_file_range

    def fails(source: int, target: int, count: int, at: int, to: int) -> int:
        if to >= room:
            raise OSError(number, "no more")
        return real(source, target, min(count, room - to), at, to)

    monkeypatch.setattr(os, "copy_file_range", fails)
    with pytest.raises(error):
        await fs.vfs.ranges.copy(source, 0, target, 0, 100_000)
    assert fs.account() == (100_000, 2)
    room = 5000
    assert await fs.vfs.ranges.copy(source, 0, target, 0, 100_000) == 5000
    assert fs.account() == (105_000, 2)
    assert await fs.read_handle(target) == pattern(100_000)[:5000]


class Held:
    """Keeps a copy in its thread until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self._on = trio.Event(), threading.Event()
        real, token = os.copy_file_range, trio.lowlevel.current_trio_token()

        def late(*args: Any) -> int:
            token.run_sync_soon(self.begun.set)
            assert self._on.wait(20)
            return real(*args)

        monkeypatch.setattr(os, "copy_file_range", late)

    def go_on(self) -> None:
        self._on.set()


@pytest.mark.usefixtures("in_thread")
async def test_the_source_is_cut_meanwhile(fs: Filesystem, at: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = await at(FILE, pattern(100_000)), await at(OTHER)
    held, done = Held(monkeypatch), []

    async def copying() -> None:
        done.append(await fs.vfs.ranges.copy(source, 0, target, 0, 100_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(copying)
        await held.begun.wait()
        assert fs.account() == (200_000, 2), "charged before it is done"
        await fs.vfs.files.truncate(await fs.node(FILE), 1000)
        held.go_on()
    assert done == [1000]
    assert fs.account() == (2000, 2)


@pytest.mark.usefixtures("in_thread")
async def test_both_lose_their_names_meanwhile(fs: Filesystem, at: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = await at(FILE, pattern(100_000)), await at(OTHER)
    held = Held(monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.vfs.ranges.copy, source, 0, target, 0, 100_000)
        await held.begun.wait()
        await fs.unlink(FILE)
        await fs.unlink(OTHER)
        held.go_on()
    assert fs.account() == (0, 0)
    assert await fs.read_handle(target) == pattern(100_000)


# --- files the kernel writes by itself -------------------------------------------------------------------------------


@pytest.fixture
async def passing(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """A file system whose files the kernel may read and write by itself."""
    fs = Filesystem(nursery, place)
    fs.files = FakeKernelFiles()
    await fs.start()
    await fs.mkdirs(REC)
    yield fs
    await fs.stop()


@pytest.mark.usefixtures("either_way")
async def test_what_the_kernel_wrote_counts(passing: Filesystem) -> None:
    """Sizes are those of the files at the moment."""
    fs = passing
    source, mode = await fs.pass_open(FILE, NEW)
    assert mode is Mode.PASS
    target, _ = await fs.pass_open(OTHER, NEW)
    fs.pass_write(source, pattern(10_000))
    fs.pass_write(target, b"x" * 5000)
    assert await fs.vfs.ranges.copy(source, 1000, target, 2000, MIB) == 9000
    assert fs.account() == (21_000, 2)
    fs.pass_write(target, b"y" * 10, 11_000)
    await fs.vfs.ranges.allocate(target, 0, 0, 20_000)
    assert fs.account() == (30_000, 2)
    assert await fs.vfs.ranges.seek(source, 9999, os.SEEK_HOLE) == 10_000
    for number in (source, target):
        await fs.close(number)
    await fs.drain()
    content = b"x" * 2000 + pattern(10_000)[1000:] + b"y" * 10
    assert (fs.root / OTHER).read_bytes() == content + bytes(20_000 - len(content))


@pytest.mark.usefixtures("in_thread")
async def test_the_meter_leaves_what_is_charged_ahead(passing: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or somebody else would be given the room that a copy is going to need."""
    fs = passing
    source, _ = await fs.pass_open(FILE, NEW)
    target, _ = await fs.pass_open(OTHER, NEW)
    fs.pass_write(source, pattern(100_000))
    held = Held(monkeypatch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.vfs.ranges.copy, source, 0, target, 0, 100_000)
        await held.begun.wait()
        fs.pass_write(target, b"half")
        fs.vfs.files.modes.measure()
        assert fs.account() == (200_000, 2)
        held.go_on()
    fs.vfs.files.modes.measure()
    assert fs.account() == (200_000, 2)
    for number in (source, target):
        await fs.close(number)


@pytest.mark.usefixtures("either_way")
async def test_a_stopped_file_takes_nothing(
    passing: Filesystem, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("is passed")
    fs = passing
    await limit(fs, max_bytes=20 << 30)
    source, _ = await fs.pass_open(FILE, NEW)
    fs.pass_write(source, b"data")
    target, mode = await fs.pass_open(OTHER, NEW)
    assert mode is Mode.PASS
    fs.pass_write(target, b"x" * 5000)
    fs.vfs.files.modes.measure()
    fs.parts.tree.accounts._known["5"].limits = type(fs.parts.tree.accounts._known["5"].limits)(1000, None, None, None)
    fs.pass_write(target, b"x" * 6000)
    fs.vfs.files.modes.measure()
    with pytest.raises(QuotaExceeded):
        await fs.vfs.ranges.copy(source, 0, target, 0, 4)
    with pytest.raises(QuotaExceeded):
        await fs.vfs.ranges.allocate(target, PUNCH, 0, 4096)
    for number in (source, target):
        await fs.close(number)
    await fs.drain()
    assert await fs.state(OTHER) == "incomplete"
