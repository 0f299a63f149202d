"""Whole copies of files that a request makes: they keep holes, and end when their caller does."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing

from recfs.disk.commit import digests, small
from recfs.disk.commit.digests import Source
from recfs.disk.commit.small import digest_files
from recfs.disk.diskio import copy_bytes, stoppable
from recfs.errors import Interrupted
from recfs.state import waits
from recfs.state.waits import Request
from recfs.stores import many
from recfs.stores.beneath import Beneath
from tests.fakes import FakeKernelFiles
from tests.helpers import one_by_one

from .build import REC, USER, Filesystem, filesystem, pattern, until
from .test_tier import evict, node, tiered

MIB = 1 << 20
FILE = f"{REC}/file"
SHARED = "shared/thumbnails/a.png"
SHOWN = "users/5/thumbnails/a.png"


@pytest.fixture
async def fs(tmp_path: Path) -> AsyncIterator[Filesystem]:
    """A file system whose files the kernel may read and write by itself."""
    async with filesystem(tmp_path / "root", start=False) as made:
        made.files = FakeKernelFiles()
        await made.start()
        yield made


async def sparse(fs: Filesystem, path: str, size: int, *data: tuple[int, bytes]) -> None:
    """A committed file with holes."""
    await fs.mkdirs(path.rpartition("/")[0])
    number = await fs.open(path, os.O_WRONLY | os.O_CREAT)
    for offset, part in data:
        await fs.vfs.files.write(number, offset, part)
    await fs.vfs.files.truncate(fs.vfs.files.handles[number].node, size)
    await fs.close(number)
    await fs.drain()


async def interrupted(request: Request, function: Callable[..., Any], *args: Any) -> None:
    """Do what a request does, until its caller is killed."""
    token = waits.current.set(request)
    with pytest.raises(Interrupted):
        await function(*args)
    waits.current.reset(token)


@pytest.mark.parametrize("data", [[], [(0, b"head")], [(17 * MIB + 3, b"middle")], [(40 * MIB - 4, b"tail")]])
@pytest.mark.table
async def test_a_sparse_shared_file_is_copied_up_with_its_holes(fs: Filesystem, data: list[tuple[int, bytes]]) -> None:
    await sparse(fs, SHARED, 40 * MIB, *data)
    await fs.mkdirs("users/5")
    number = await fs.open(SHOWN, os.O_RDWR, USER)
    assert os.fstat(fs.vfs.files.handles[number].body.fd).st_blocks * 512 <= 9 * MIB
    await fs.close(number)
    await fs.drain()
    assert (fs.root / SHOWN).read_bytes() == (fs.root / SHARED).read_bytes()
    assert fs.account() == (40 * MIB, 1)


@pytest.mark.slow
async def test_a_copy_up_whose_caller_is_killed_leaves_the_shared_file_shown(fs: Filesystem) -> None:
    await fs.write(SHARED, pattern(20 * MIB))
    await fs.mkdirs("users/5")
    await fs.drain()
    view, request = await fs.node(SHOWN), Request()
    pread = os.pread

    def reading(*args: Any) -> bytes:
        trio.from_thread.run_sync(request.interrupt)
        return pread(*args)

    with mock.patch.object(os, "pread", reading):
        await interrupted(request, fs.vfs.open, view.ino, os.O_RDWR, USER)
    await fs.drain()
    assert fs.account() == (0, 0)
    assert not fs.vfs.files.handles
    assert (await fs.node(SHOWN)).shared is await fs.node(SHARED)
    assert await fs.read(SHOWN) == pattern(20 * MIB)


@pytest.mark.slow
async def test_emptying_beside_a_reader_ends_when_its_caller_is_killed(fs: Filesystem) -> None:
    """The copy of the old bytes takes as long as they are many; meanwhile nothing has changed."""
    await fs.write(FILE, pattern(20 * MIB))
    await fs.drain()
    reader, _ = await fs.pass_open(FILE)
    request, begun = Request(), threading.Event()

    def copying(source: int, target: int, stopped: threading.Event) -> None:
        begun.set()
        assert stopped.wait(20)
        copy_bytes(source, target, stopped)

    async with trio.open_nursery() as nursery:
        with (
            mock.patch("recfs.disk.unsealing.copy_bytes", copying),
            mock.patch("fcntl.ioctl", side_effect=OSError(errno.EOPNOTSUPP, "no shared extents")),
        ):
            nursery.start_soon(interrupted, request, fs.open, FILE, os.O_RDWR | os.O_TRUNC)
            await until(begun.is_set)
            request.interrupt()
            await until(lambda: not nursery.child_tasks)
    assert await fs.read_handle(reader) == pattern(20 * MIB)
    await fs.close(reader)
    await fs.drain()
    assert await fs.state(FILE) == "committed"
    assert not [path for path in (fs.root / ".recfs/staging").rglob("*") if path.is_file() and path.stat().st_size]


async def test_a_sparse_file_beside_a_reader_needs_room_for_its_bytes_alone(fs: Filesystem) -> None:
    await sparse(fs, FILE, 40 * MIB, (0, b"x"))
    reader, _ = await fs.pass_open(FILE)
    space = fs.vfs.files.space
    with mock.patch.object(space, "admit", side_effect=space.admit) as admit:
        writer, _ = await fs.pass_open(FILE, os.O_RDWR | os.O_TRUNC)
    assert 0 < max(call.args[0] for call in admit.call_args_list) < MIB
    await fs.close(writer)
    await fs.close(reader)
    await fs.drain()
    assert await fs.read(FILE) == b""


async def test_a_thread_is_told_that_its_caller_is_gone() -> None:
    limiter, ended = trio.CapacityLimiter(1), threading.Event()

    def working(stopped: threading.Event) -> int:
        assert stopped.wait(20)
        ended.set()
        return 1

    with trio.CancelScope() as scope:
        scope.deadline = trio.current_time() + 0.01
        await stoppable(working, limiter=limiter)
    assert scope.cancelled_caught
    assert ended.is_set(), "it was waited for"
    assert limiter.borrowed_tokens == 0


async def test_what_a_thread_returns_and_raises_is_what_its_caller_gets() -> None:
    limiter = trio.CapacityLimiter(1)
    assert await stoppable(lambda one, stopped: one + stopped.is_set(), 1, limiter=limiter) == 1
    with pytest.raises(OSError, match="disk"):
        await stoppable(mock.Mock(side_effect=OSError(errno.EIO, "disk")), limiter=limiter)


# --- fetched copies ---------------------------------------------------------------------------------------------------


async def test_the_check_of_a_fetched_copy_ends_when_its_file_goes(nursery: trio.Nursery, tmp_path: Path) -> None:
    fs = tiered(nursery, tmp_path / "root")
    await fs.start()
    await fs.mkdirs(REC)
    await fs.write(FILE, pattern(3 * MIB))
    await fs.drain()
    await evict(fs)
    found, tier = await node(fs), fs.tier
    run, begun, release = digests.Pass.run, threading.Event(), threading.Event()

    def slow(self: digests.Pass, *args: Any) -> Any:
        begun.set()
        assert release.wait(20)
        assert self.stopped
        return run(self, *args)

    with mock.patch.object(digests.Pass, "run", slow):
        async with trio.open_nursery() as asking:
            asking.start_soon(tier.partials.bring, found)
            await until(begun.is_set)
            await fs.unlink(FILE)
            release.set()
    assert found.ino not in tier.partials.landing
    await fs.drain()
    await fs.stop()


async def test_a_fetched_copy_is_checked_even_if_who_asked_for_it_leaves(nursery: trio.Nursery, tmp_path: Path) -> None:
    fs = tiered(nursery, tmp_path / "root")
    await fs.start()
    await fs.mkdirs(REC)
    await fs.write(FILE, pattern(3 * MIB))
    await fs.drain()
    await evict(fs)
    found, tier = await node(fs), fs.tier
    run, begun, release = digests.Pass.run, threading.Event(), threading.Event()

    def slow(self: digests.Pass, *args: Any) -> Any:
        begun.set()
        assert release.wait(20)
        return run(self, *args)

    with mock.patch.object(digests.Pass, "run", slow):
        async with trio.open_nursery() as asking:
            asking.start_soon(tier.partials.bring, found)
            await until(begun.is_set)
            asking.cancel_scope.cancel()
        release.set()
        await until(lambda: found.state == "stored")
    await fs.drain()
    assert await fs.read(FILE) == pattern(3 * MIB)
    await fs.stop()


# --- a batch's bytes to stable storage --------------------------------------------------------------------------------


@pytest.mark.parametrize(("dirty", "grouped"), [(0, True), (40 * MIB, True), (48 * MIB, False)])
def test_small_files_do_not_wait_for_what_others_have_to_write(tmp_path: Path, dirty: int, *, grouped: bool) -> None:
    """syncfs(2) waits for everybody's bytes; fdatasync(2) for the file's own."""
    store = mock.Mock()
    store.beneath = Beneath(os.fsencode(tmp_path))
    store.beneath.open(())
    sources = []
    for n in range(9):
        (tmp_path / f"file{n}").write_bytes(b"x")
        sources.append(Source(os.fsencode(tmp_path / f"file{n}")))
    with (
        contextlib.closing(store.beneath),
        mock.patch.object(many, "extension", one_by_one),
        mock.patch.object(small, "_dirty_bytes", return_value=dirty),
        mock.patch.object(os, "fdatasync", side_effect=os.fdatasync) as each,
    ):
        found = digest_files(sources, store)
    assert [digest.error for digest in found] == [None] * 9
    assert (store.sync_all.call_count, each.call_count) == ((1, 0) if grouped else (0, 9))


def test_what_the_system_has_to_write_is_known() -> None:
    assert small._dirty_bytes() >= 0
    with mock.patch("builtins.open", mock.mock_open(read_data=b"MemTotal: 9 kB\nDirty: 12 kB\nWriteback: 3 kB\n")):
        assert small._dirty_bytes() == 15 * 1024
    with mock.patch("builtins.open", side_effect=OSError):
        assert small._dirty_bytes() == 0
