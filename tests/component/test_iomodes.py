"""Passthrough without a kernel: modes, backing ids, and the metadata when writes happen unseen."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from recfs.core.model import State
from recfs.errors import FileTooLarge, FsError, OutOfSpace, QuotaExceeded
from recfs.fs import iomodes
from recfs.fs.attributes import Changes
from recfs.fs.handles import Mode
from recfs.parts import NoKernelFiles
from recfs.state.nodes import FileNode
from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem, pattern, until

ExpectLog = Callable[[str], None]
FILE = f"{REC}/file"
RW = os.O_RDWR
NEW = os.O_RDWR | os.O_CREAT
AGES_NS = 10**12


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """A file system whose files the kernel may read and write by itself."""
    made = await passing(nursery, place)
    yield made
    await made.stop()


async def passing(nursery: trio.Nursery, root: Path, **settings: object) -> Filesystem:
    """Start one with the settings."""
    made = Filesystem(nursery, root, **settings)
    made.files = FakeKernelFiles()
    await made.start()
    await made.mkdirs(REC)
    return made


async def test_a_file_opened_before_the_kernel_could_goes_on_so(fs: Filesystem) -> None:
    """The kernel takes one way for an inode at a time: another open that got another would fail (EIO)."""
    kernel = fs.files
    assert isinstance(kernel, FakeKernelFiles)
    on, kernel.acceleration = kernel.acceleration, NoKernelFiles.acceleration
    early, mode = await fs.pass_open(FILE, NEW)
    assert mode is Mode.CACHED
    kernel.acceleration = on
    late, mode = await fs.pass_open(FILE)
    assert mode is Mode.CACHED
    await fs.close(early)
    await fs.close(late)
    last, mode = await fs.pass_open(FILE)
    assert mode is Mode.PASS
    await fs.close(last)


async def committed(fs: Filesystem, data: bytes, *, aged: bool = False) -> FileNode:
    """A committed file; *aged*: its bytes were last changed long ago."""
    await fs.write(FILE, data)
    await fs.drain()
    if aged:
        long_ago = time.time_ns() - AGES_NS
        os.utime(fs.root / FILE, ns=(long_ago, long_ago))
    node = await fs.node(FILE)
    assert isinstance(node, FileNode)
    return node


def backing(fs: Filesystem) -> dict[int, int]:
    """The ids the kernel holds."""
    assert fs.files is not None
    return fs.files.backing


# --- modes -----------------------------------------------------------------------------------------------------------


async def test_all_opens_share_one_backing_id(fs: Filesystem) -> None:
    """One id from the first open to the last release, then none."""
    one, mode = await fs.pass_open(FILE, NEW)
    two, other = await fs.pass_open(FILE)
    assert (mode, other) == (Mode.PASS, Mode.PASS)
    assert len(backing(fs)) == 1
    await fs.close(one)
    assert len(backing(fs)) == 1
    await fs.close(two)
    assert not backing(fs)


async def test_a_reader_of_a_closed_file_passes(fs: Filesystem) -> None:
    """A committed file stays committed and at home."""
    node = await committed(fs, b"data")
    number, mode = await fs.pass_open(FILE)
    assert mode is Mode.PASS
    assert node.state is State.COMMITTED
    await fs.close(number)


async def test_where_only_reads_pass_a_writer_is_asked(nursery: trio.Nursery, place: Path) -> None:
    """`passthrough = "read"`: alone through the page cache, beside readers directly."""
    fs = Filesystem(nursery, place)
    fs.files = FakeKernelFiles(writes=False)
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.drain()
    writer, mode = await fs.pass_open(FILE, RW)
    assert mode is Mode.CACHED
    reader, mode = await fs.pass_open(FILE)
    assert mode is Mode.CACHED, "one mode for an inode from the first open to the last release"
    await fs.close(writer)
    await fs.close(reader)
    reader, mode = await fs.pass_open(FILE)
    assert mode is Mode.PASS
    writer, mode = await fs.pass_open(FILE, RW)
    assert mode is Mode.DIRECT
    assert await fs.vfs.files.write(writer, 0, b"more than before") == 16
    await fs.close(writer)
    await fs.close(reader)
    await fs.drain()
    assert await fs.read(FILE) == b"more than before"
    await fs.stop()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC, errno.ENOMEM])
async def test_without_a_backing_id_the_daemon_does_it(fs: Filesystem, number: int, expect_log: ExpectLog) -> None:
    """Backing ids exhausted: slower, and right; said once."""
    expect_log("the kernel takes no more files")
    assert fs.files is not None
    fs.files.error = number
    writer, mode = await fs.pass_open(FILE, NEW)
    assert mode is Mode.CACHED
    assert await fs.vfs.files.write(writer, 0, b"data") == 4
    fs.files.error = None
    reader, mode = await fs.pass_open(FILE)
    assert mode is Mode.CACHED
    await fs.close(writer)
    await fs.close(reader)
    reader, mode = await fs.pass_open(FILE)
    assert mode is Mode.PASS
    await fs.close(reader)


# --- the metadata ----------------------------------------------------------------------------------------------------


async def test_what_the_kernel_wrote_is_measured_and_committed(fs: Filesystem) -> None:
    """Size, usage, totals and activity at each look, the checksums of all of it at the end."""
    number, _ = await fs.pass_open(FILE, NEW)
    fs.pass_write(number, b"x" * 1000)
    fs.vfs.files.modes.measure()
    node = await fs.node(FILE)
    assert (node.bytes, fs.account()) == (1000, (1000, 1))
    assert (await fs.node(REC)).rbytes == 1000
    fs.pass_write(number, b"y" * 500, 1000)
    await fs.close(number)
    assert fs.account() == (1500, 1)
    await fs.drain()
    assert node.state is State.COMMITTED
    assert (fs.root / FILE).read_bytes() == b"x" * 1000 + b"y" * 500


async def test_a_committed_file_is_taken_to_staging_before_the_kernel_has_it(fs: Filesystem) -> None:
    """The row says `writing` durably: nobody tells of the first byte."""
    await committed(fs, b"data")
    number, mode = await fs.pass_open(FILE, RW)
    assert mode is Mode.PASS
    assert not (fs.root / FILE).exists()
    assert fs.rows("select state, sha256 from node where name = ?", b"file") == [("writing", None)]
    fs.pass_write(number, b"DATA")
    await fs.close(number)
    await fs.drain()
    assert (fs.root / FILE).read_bytes() == b"DATA"


async def test_a_file_nobody_wrote_to_is_committed_as_it_was(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """touch(1) opens for writing; nothing is hashed for that."""
    node = await committed(fs, b"data", aged=True)
    checksums = (node.sha256, node.md5)
    monkeypatch.setattr("recfs.disk.commit.digests._pass", None)  # would raise
    number, _ = await fs.pass_open(FILE, RW)
    await fs.vfs.setattr(node.ino, Changes(mtime_ns=77), OPERATOR)
    await fs.close(number)
    await fs.drain()
    assert (node.state, node.sha256, node.md5) == (State.COMMITTED, *checksums)
    assert (fs.root / FILE).read_bytes() == b"data"
    assert node.mtime_ns == 77


async def test_bytes_changed_in_place_are_hashed_again(fs: Filesystem) -> None:
    """The same size, other bytes."""
    node = await committed(fs, b"data", aged=True)
    before = node.sha256
    number, _ = await fs.pass_open(FILE, RW)
    fs.pass_write(number, b"DATA")
    await fs.close(number)
    await fs.drain()
    assert node.state is State.COMMITTED
    assert node.sha256 not in (None, before)


async def test_a_file_changed_just_before_it_was_opened_is_hashed_again(fs: Filesystem) -> None:
    """Within a tick of the clock a write leaves no trace in the time: then nothing is proven."""
    node = await committed(fs, b"data")
    os.utime(fs.root / FILE)
    number, _ = await fs.pass_open(FILE, RW)
    await fs.close(number)
    assert node.untouched is not None
    info = os.stat(fs.root / ".recfs/staging" / str(node.staging))
    assert not node.untouched.describes(info.st_size, info.st_mtime_ns)


async def test_a_mapping_that_outlives_the_close_is_waited_for(fs: Filesystem) -> None:
    """What can still change is not committed; the checksum is that of what it became."""
    number, _ = await fs.pass_open(FILE, NEW)
    fs.pass_write(number, b"early")
    assert fs.files is not None
    with mmap.mmap(fs.files.backing[fs.vfs.files.handles[number].body.backing], 5) as mapping:
        await fs.close(number)
        node = await fs.node(FILE)
        with trio.move_on_after(0.1):
            await fs.drain()
        assert node.state is State.SEALING
        mapping[:] = b"later"
    await fs.drain()
    assert node.state is State.COMMITTED
    assert node.sha256 == hashlib.sha256(b"later").digest()


async def test_times_set_by_hand_stay(fs: Filesystem) -> None:
    """rsync and cp -p write, set the time, and close."""
    number, _ = await fs.pass_open(FILE, NEW)
    fs.pass_write(number, b"data")
    node = await fs.node(FILE)
    await fs.vfs.setattr(node.ino, Changes(mtime_ns=77), OPERATOR)
    await fs.close(number)
    assert (node.mtime_ns, node.bytes) == (77, 4)


async def test_the_kernel_is_told_of_what_a_mapping_wrote(fs: Filesystem) -> None:
    """Writing through a mapping changes the times only, and the kernel does not notice; growing, it does itself."""
    number, _ = await fs.pass_open(FILE, NEW)
    node = await fs.node(FILE)
    fs.pass_write(number, b"data")
    fs.vfs.files.modes.measure()
    assert node.ino not in fs.kernel.inodes
    fs.pass_write(number, b"DATA")
    fs.vfs.files.modes.measure()
    assert node.ino in fs.kernel.inodes
    await fs.close(number)


async def test_truncating_under_a_writer(fs: Filesystem) -> None:
    """ftruncate(2) down and up while the kernel writes."""
    number, _ = await fs.pass_open(FILE, NEW)
    fs.pass_write(number, b"x" * 100)
    node = await fs.node(FILE)
    await fs.vfs.setattr(node.ino, Changes(size=10), OPERATOR)
    assert fs.account() == (10, 1)
    fs.pass_write(number, b"y", 19)
    await fs.vfs.setattr(node.ino, Changes(size=30), OPERATOR)
    await fs.close(number)
    await fs.drain()
    assert (fs.root / FILE).read_bytes() == b"x" * 10 + bytes(9) + b"y" + bytes(10)
    assert fs.account() == (30, 1)


async def test_the_daemon_writes_beside_the_kernel(fs: Filesystem) -> None:
    """A write that comes to the daemon starts from the size the file really has."""
    number, _ = await fs.pass_open(FILE, NEW)
    fs.pass_write(number, b"x" * 100)
    assert await fs.vfs.files.write(number, 0, b"y" * 50) == 50
    assert fs.account() == (100, 1)
    assert await fs.read_handle(number) == b"y" * 50 + b"x" * 50
    await fs.close(number)


async def test_fsync_records_what_the_kernel_wrote(fs: Filesystem) -> None:
    """The durable row has the size of the moment."""
    number, _ = await fs.pass_open(FILE, NEW)
    fs.pass_write(number, b"x" * 100)
    await fs.vfs.files.fsync(number)
    assert fs.rows("select size_bytes, promised from node join placement using (ino) where name = ?", b"file") == [
        (100, 1)
    ]
    await fs.close(number)


async def test_an_unlinked_file_is_nobodys(fs: Filesystem) -> None:
    """Its growth is not charged, and it leaves nothing."""
    number, _ = await fs.pass_open(FILE, NEW)
    fs.pass_write(number, b"x" * 100)
    await fs.unlink(FILE)
    fs.pass_write(number, b"x" * 1000)
    fs.vfs.files.modes.measure()
    assert fs.account() == (0, 0)
    await fs.close(number)
    await fs.drain()
    assert not backing(fs)


async def test_set_user_id_is_cleared_by_writing(fs: Filesystem) -> None:
    """A file that has it is written through the daemon; given it while open, it loses it with the next byte."""
    number, _ = await fs.pass_open(FILE, NEW)
    node = await fs.node(FILE)
    await fs.vfs.setattr(node.ino, Changes(mode=0o6755), OPERATOR)
    fs.pass_write(number, b"x")
    fs.vfs.files.modes.measure()
    assert node.mode == 0o755
    await fs.vfs.setattr(node.ino, Changes(mode=0o6755), OPERATOR)
    await fs.close(number)
    await fs.drain()
    number, mode = await fs.pass_open(FILE, RW)
    assert (mode, node.mode) == (Mode.CACHED, 0o6755)
    await fs.vfs.files.write(number, 0, b"y")
    assert node.mode == 0o755
    assert node.ino in fs.kernel.inodes
    await fs.close(number)


# --- emptying a file others have open --------------------------------------------------------------------------------


async def test_o_trunc_keeps_the_file_below_and_the_committed_bytes(fs: Filesystem) -> None:
    """The kernel reads on from the same file, now empty; the old bytes are a copy, until the new ones count."""
    node = await committed(fs, pattern(100_000))
    old = os.stat(fs.root / FILE).st_ino
    reader, _ = await fs.pass_open(FILE)
    writer, mode = await fs.pass_open(FILE, RW | os.O_TRUNC)
    assert mode is Mode.PASS
    assert len(backing(fs)) == 1
    fs.pass_write(writer, b"new")
    assert await fs.read_handle(reader) == b"new"
    (held,) = fs.parts.tree.garbage.values()
    assert (held.held_by, held.size_bytes) == (node.ino, 100_000)
    assert (fs.root / ".recfs/staging" / str(held.staging)).read_bytes() == pattern(100_000)
    await fs.close(writer)
    await fs.close(reader)
    await fs.drain()
    assert os.stat(fs.root / FILE).st_ino == old
    assert (fs.root / FILE).read_bytes() == b"new"
    assert not fs.parts.tree.garbage


async def test_an_overwrite_beside_a_reader_is_taken_back_after_a_crash(fs: Filesystem) -> None:
    """As any other unfinished overwrite."""
    await committed(fs, pattern(100_000))
    await fs.pass_open(FILE)
    writer, _ = await fs.pass_open(FILE, RW | os.O_TRUNC)
    fs.pass_write(writer, b"half")
    await fs.crash()
    fs.files = FakeKernelFiles()
    await fs.reopen()
    await fs.drain()
    assert await fs.read(FILE) == pattern(100_000)
    assert await fs.state(FILE) == "committed"


async def test_no_room_for_the_copy(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the file cannot be emptied, and stays as it was."""
    await committed(fs, b"data")

    def full(source: int, target: int, stopped: threading.Event) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("recfs.disk.unsealing.copy_bytes", full)
    reader, _ = await fs.pass_open(FILE)
    with pytest.raises(OSError, match="full"):
        await fs.pass_open(FILE, RW | os.O_TRUNC)
    assert await fs.read_handle(reader) == b"data"
    assert await fs.state(FILE) == "committed"
    await fs.close(reader)


# --- limits ----------------------------------------------------------------------------------------------------------

MIB = 1 << 20


async def limited(nursery: trio.Nursery, root: Path, **limits: object) -> Filesystem:
    """10 MiB a user, 2 MiB of it kept as room for each writer."""
    return await passing(nursery, root, quota={"max_bytes": 10 * MIB} | limits, passthrough_headroom=2 * MIB)


async def test_near_the_limit_every_write_is_checked(nursery: trio.Nursery, place: Path) -> None:
    """The headroom is for each writer; a closed one gives its part back."""
    fs = await limited(nursery, place)
    opened = [await fs.pass_open(f"{REC}/file{n}", NEW) for n in range(6)]
    assert [mode for _, mode in opened] == [Mode.PASS] * 5 + [Mode.CACHED]
    await fs.close(opened[0][0])
    number, mode = await fs.pass_open(f"{REC}/another", NEW)
    assert mode is Mode.PASS
    for each in (number, *(number for number, _ in opened[1:])):
        await fs.close(each)
    await fs.write(f"{REC}/large", bytes(9 * MIB))
    number, mode = await fs.pass_open(f"{REC}/last", NEW)
    assert mode is Mode.CACHED
    assert await fs.vfs.files.write(number, 0, bytes(2 * MIB)) == MIB
    with pytest.raises(QuotaExceeded):
        await fs.vfs.files.write(number, MIB, b"x")
    assert fs.account()[0] == 10 * MIB
    await fs.close(number)
    await fs.stop()


async def test_max_file_size_needs_room_too(nursery: trio.Nursery, place: Path) -> None:
    """A file near its own limit is written through the daemon."""
    fs = await limited(nursery, place, max_bytes=None, max_file_size=3 * MIB)
    await fs.write(FILE, bytes(2 * MIB))
    number, mode = await fs.pass_open(FILE, RW)
    assert mode is Mode.CACHED
    await fs.close(number)
    await fs.stop()


@pytest.mark.parametrize(("limits", "error"), [({}, QuotaExceeded), ({"max_file_size": 4 * MIB}, FileTooLarge)])
async def test_a_runaway_is_stopped_told_and_kept(
    nursery: trio.Nursery, place: Path, limits: dict[str, object], error: type[FsError], expect_log: ExpectLog
) -> None:
    """A writer that passes a limit unseen: at the next look nothing more, at its close the error, then `incomplete`."""
    expect_log("is passed")
    fs = await limited(nursery, place, **limits)
    number, mode = await fs.pass_open(FILE, NEW)
    assert mode is Mode.PASS
    assert fs.vfs.files.modes.needs_flush(fs.vfs.files.handles[number])
    fs.vfs.files.flush(number)
    fs.pass_write(number, bytes(11 * MIB))
    with pytest.raises(error):
        fs.vfs.files.flush(number)
    with pytest.raises(error):
        await fs.vfs.files.fsync(number)
    with pytest.raises(error):
        await fs.vfs.files.write(number, 0, b"x")
    await fs.close(number)
    await fs.drain()
    assert (await fs.state(FILE), fs.account()) == ("incomplete", (11 * MIB, 1))
    number, mode = await fs.pass_open(FILE, RW)
    assert mode is Mode.CACHED
    await fs.vfs.files.write(number, 0, b"it can be changed again")
    await fs.close(number)
    await fs.unlink(FILE)
    await fs.drain()
    assert fs.account() == (0, 0)
    await fs.stop()


async def test_a_stopped_writer_is_stopped_on_disk(nursery: trio.Nursery, place: Path, expect_log: ExpectLog) -> None:
    """Where the file system can: the kernel's next write fails, and cutting the file down lets it go on."""
    expect_log("is passed")
    fs = await limited(nursery, place)
    number, _ = await fs.pass_open(FILE, NEW)
    fs.pass_write(number, bytes(11 * MIB))
    fs.vfs.files.modes.measure()
    node = await fs.node(FILE)
    fs.vfs.files.modes.freeze(nursery)
    await until(lambda: node.body is not None and node.body.freezing is None)
    if fs.vfs.files.modes.can_stop:
        with pytest.raises(PermissionError):
            fs.pass_write(number, b"x")
    await fs.vfs.setattr(node.ino, Changes(size=MIB), OPERATOR)
    fs.pass_write(number, b"x")
    await fs.close(number)
    await fs.drain()
    assert (await fs.state(FILE), fs.account()) == ("committed", (MIB, 1))
    await fs.stop()


async def test_what_a_dead_daemon_froze_is_thawed(nursery: trio.Nursery, place: Path, expect_log: ExpectLog) -> None:
    """A runaway stopped, then kill -9: the file can be removed after the start."""
    expect_log("is passed")
    fs = await limited(nursery, place)
    number, _ = await fs.pass_open(FILE, NEW)
    fs.pass_write(number, bytes(11 * MIB))
    fs.vfs.files.modes.measure()
    await fs.crash()
    fs.files = FakeKernelFiles()
    await fs.reopen()
    assert await fs.state(FILE) == "incomplete"
    await fs.unlink(FILE)
    await fs.drain()
    assert fs.leftovers("staging") == []
    await fs.stop()


async def test_the_reserve_is_kept_from_writers_nobody_checks(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    """Little room on the disk: writers are checked; one that used it up is stopped where that is possible."""
    expect_log("the disk's reserve is reached")
    number, mode = await fs.pass_open(FILE, NEW)
    assert mode is Mode.PASS
    space, modes = fs.vfs.files.space, fs.vfs.files.modes
    monkeypatch.setattr(space, "left", lambda: iomodes.SPACE_HEADROOM_BYTES)
    other, mode = await fs.pass_open(f"{REC}/other", NEW)
    assert mode is Mode.CACHED
    await fs.close(other)
    monkeypatch.setattr(space, "left", lambda: 0)
    monkeypatch.setattr(modes, "_can_freeze", True)
    fs.pass_write(number, b"data")
    modes.measure()
    with pytest.raises(OutOfSpace):
        fs.vfs.files.flush(number)
    await fs.close(number)
    assert await fs.state(FILE) == "incomplete"
