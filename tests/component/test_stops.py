"""A writer that is stopped at a limit while its file is cut, cut down or written to by others."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import trio

from recfs.disk import diskio, stops
from recfs.disk.contended import Contended
from recfs.errors import Interrupted, QuotaExceeded
from recfs.fs.attributes import Changes

from .build import OPERATOR, REC, Filesystem, pattern
from .test_iomodes import FILE, MIB, NEW, limited

ExpectLog = Callable[[str], None]


class Flag:
    """An immutable flag that takes its time, and what is refused while it is set."""

    def __init__(self) -> None:
        self.is_set = False
        self.calls: list[bool] = []
        self.waits = False
        """Whether each change needs a permit."""
        self.asked, self.permits = threading.Semaphore(0), threading.Semaphore(0)

    def freeze(self, fd: int, *, frozen: bool) -> bool:
        self.calls.append(frozen)
        self.asked.release()
        assert not self.waits or self.permits.acquire(timeout=10)
        self.is_set = frozen
        return True

    def refuse(self, call: Callable[..., int], *args: object) -> int:
        if self.is_set:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return call(*args)


@pytest.fixture
def flag(monkeypatch: pytest.MonkeyPatch) -> Flag:
    """In the place of the file system's."""
    made = Flag()
    for module in (stops, diskio):
        monkeypatch.setattr(module, "freeze", made.freeze)
    monkeypatch.setattr(os, "ftruncate", partial(made.refuse, os.ftruncate))
    return made


async def stopped(nursery: trio.Nursery, root: Path) -> tuple[Filesystem, int]:
    """A file system with a writer that ran past its limit, and is to be stopped."""
    fs = await limited(nursery, root)
    number, _ = await fs.pass_open(FILE, NEW)
    fs.vfs.files.modes._can_freeze = True
    fs.pass_write(number, bytes(11 * MIB))
    fs.vfs.files.modes.measure()
    return fs, number


@pytest.mark.parametrize("again", [1, 2, 3])
async def test_the_flag_is_what_the_books_say_however_often_they_change(
    nursery: trio.Nursery, tmp_path: Path, expect_log: ExpectLog, flag: Flag, again: int
) -> None:
    """Thawed while it is being frozen, stopped again while it is being thawed, and so on."""
    expect_log("is passed")
    fs, number = await stopped(nursery, tmp_path / "root")
    node = await fs.node(FILE)
    body, modes = node.body, fs.vfs.files.modes
    reason = body.stopped
    flag.waits = True
    modes.freeze(nursery)
    for count in range(again):
        assert await trio.to_thread.run_sync(partial(flag.asked.acquire, timeout=10))
        if count % 2 == 0:
            assert fs.vfs.backing_files.stops.thaw(node)
        else:
            body.stopped = reason
            modes.stops.stop(node)
            modes.freeze(nursery)
        flag.permits.release()
    flag.permits.release()
    while body.freezing is not None:
        await body.freezing.wait()
    assert flag.is_set is (body.stopped is not None), flag.calls
    body.stopped = None
    flag.is_set = False
    await fs.close(number)
    await fs.stop()


async def test_cutting_a_file_whose_writer_is_stopped_again_meanwhile(
    nursery: trio.Nursery, tmp_path: Path, expect_log: ExpectLog, flag: Flag
) -> None:
    """The stop comes between the thaw and the cut: that is no error of who cuts it."""
    expect_log("is passed")
    fs, number = await stopped(nursery, tmp_path / "root")
    node = await fs.node(FILE)
    body, modes = node.body, fs.vfs.files.modes
    modes.freeze(nursery)
    while body.freezing is not None:
        await body.freezing.wait()
    assert flag.is_set
    reason, unseal = body.stopped, fs.vfs.backing_files.unsealing.unseal

    async def unsealed(*args: object) -> None:
        await unseal(*args)
        if reason not in told:
            told.append(reason)
            body.stopped = reason
            flag.is_set = True

    told: list[object] = []
    nursery.start_soon(fs.parts.sweeps.repeat, "usage")
    with mock.patch.object(fs.vfs.backing_files.unsealing, "unseal", unsealed):
        await fs.vfs.setattr(node.ino, Changes(size=MIB), OPERATOR)
    assert told
    assert (node.bytes, os.fstat(body.fd).st_size, flag.is_set) == (MIB, MIB, False)
    await fs.close(number)
    await fs.drain()
    assert await fs.state(FILE) == "committed"
    await fs.stop()


async def test_a_write_that_a_stop_overtakes_says_which_limit(
    nursery: trio.Nursery, tmp_path: Path, expect_log: ExpectLog
) -> None:
    expect_log("is passed")
    fs = await limited(nursery, tmp_path / "root")
    number, _ = await fs.pass_open(FILE, NEW)
    node = await fs.node(FILE)
    pwrite = os.pwrite

    def refused(fd: int, data: bytes, offset: int) -> int:
        pwrite(fd, bytes(11 * MIB), 0)  # the kernel's writer
        trio.from_thread.run_sync(fs.vfs.files.modes.measure)
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with mock.patch.object(os, "pwrite", refused), pytest.raises(QuotaExceeded):
        await fs.vfs.files.write(number, 0, b"x")
    assert node.bytes == 11 * MIB
    await fs.close(number)
    await fs.stop()


@pytest.mark.parametrize("what", ["write", "truncate"])
async def test_the_books_have_the_size_of_the_disk_when_a_caller_is_killed(fs: Filesystem, what: str) -> None:
    """Killed while it waited for a thread: nothing was done, and nothing is charged."""
    fs.checked_at_end = False
    await fs.write(FILE, b"bytes")
    await fs.drain()
    number = await fs.open(FILE, os.O_RDWR)
    node = await fs.node(FILE)

    async def killed(*args: object) -> int:
        raise Interrupted("killed")

    change = {
        "write": partial(fs.vfs.files.write, number, 5, b"more"),
        "truncate": partial(fs.vfs.setattr, node.ino, Changes(size=100), OPERATOR),
    }[what]
    disk = fs.vfs.files.disk
    patches = mock.patch.object(Contended, "run", killed), mock.patch.object(disk, "write_at", killed)
    with patches[0], patches[1], pytest.raises(Interrupted):
        await change()
    assert (node.bytes, fs.account()) == (5, (5, 1))
    await fs.close(number)
    await fs.assert_consistent()


async def test_the_books_have_the_size_of_the_disk_when_another_write_fails(fs: Filesystem) -> None:
    """One that succeeds later has grown the file, though the one that failed went by what was there then."""
    await fs.mkdirs(REC)
    number = await fs.open(FILE, os.O_RDWR | os.O_CREAT)
    node = await fs.node(FILE)
    write_at = fs.vfs.files.disk.write_at
    slow, failed = trio.Event(), trio.Event()

    async def written(fd: int, data: bytes, offset: int) -> int:
        if offset == 0:
            slow.set()
            await failed.wait()
            return int(await write_at(fd, data, offset))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    data = pattern(5000)
    with mock.patch.object(fs.vfs.files.disk, "write_at", written):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fs.vfs.files.write, number, 0, data)
            await slow.wait()
            with pytest.raises(Exception, match="Input/output error"):
                await fs.vfs.files.write(number, 9000, b"x")
            failed.set()
    assert (node.bytes, fs.account()) == (5000, (5000, 1))
    await fs.close(number)
