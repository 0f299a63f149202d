"""Open files that a daemon takes over before it serves anything: also those whose bytes only S3 has."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import pytest
import trio

from recfs.core.model import State
from recfs.fs.handles import Mode
from recfs.fs.handover.kept_files import KeptFiles
from recfs.ports.object_errors import ObjectArchived
from recfs.state.ledger import LEFT, WRITES, Ledger, Opened, flags_of
from recfs.stores.local import LocalStore
from recfs.stores.steps import Outcome, Step
from tests.fakes import FakeKernelFiles

from .build import Filesystem, pattern, until
from .far import fs
from .test_tier import FILE, MIB, evict, node

__all__ = ["fs"]

HANDLE = 7


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    made = Ledger.fresh()
    yield made
    os.close(made.fd)


async def taken_over(fs: Filesystem, ledger: Ledger, *, flags: int = 0) -> None:
    """The daemon dies while somebody has the file open, and another one begins. Nothing waits for what it serves."""
    found = await node(fs)
    ledger.opened(Opened(HANDLE, found.ino, found.ino, 0, 0, flags, 1))
    await fs.crash()
    await fs.reopen(services=False)
    with trio.fail_after(60):
        await KeptFiles(fs.vfs, ledger, {}).take_over()


async def go_on(fs: Filesystem, nursery: trio.Nursery) -> None:
    await fs.parts.serve(nursery, mounted=False)


@pytest.mark.parametrize("size", [1000, 9 * MIB], ids=["small", "large"])
async def test_who_reads_what_s3_has_goes_on(fs: Filesystem, ledger: Ledger, size: int) -> None:
    """Fetching begins with the services; what the next daemon starts with does not wait for S3."""
    data = pattern(size)
    await fs.write(FILE, data)
    await fs.drain()
    await evict(fs)
    await taken_over(fs, ledger)
    async with trio.open_nursery() as services:
        await go_on(fs, services)
        assert await fs.read_handle(HANDLE) == data
        assert await fs.read(FILE) == data
        await fs.close(HANDLE)
        found = await node(fs)
        await until(lambda: found.state is State.STORED)
        services.cancel_scope.cancel()


async def test_who_reads_what_is_archived_is_told_so_and_the_start_asks_s3_nothing(
    fs: Filesystem, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs.write(FILE, pattern(1000))
    await fs.drain()
    await evict(fs)
    (await node(fs)).enter(State.ARCHIVED)
    fs.parts.behind.node(await node(fs))
    await fs.parts.behind.flush()

    def archived(key: str, *_args: object, **_more: object) -> None:
        asked.append(key)
        raise ObjectArchived(f"{key} is archived")

    asked: list[str] = []
    monkeypatch.setattr(fs.objects, "head", archived)
    monkeypatch.setattr(fs.objects, "get_range", archived)
    await taken_over(fs, ledger)
    assert asked == []
    async with trio.open_nursery() as services:
        await go_on(fs, services)
        with pytest.raises(ObjectArchived):
            await fs.read_handle(HANDLE)
        await fs.close(HANDLE)
        found = await node(fs)
        await until(lambda: found.state is State.ARCHIVED)
        services.cancel_scope.cancel()


async def test_a_writer_of_what_only_s3_has_is_told_to_have_lost_it(
    fs: Filesystem, ledger: Ledger, expect_log: Callable[[str], None]
) -> None:
    """No writer has such a file; should one, the start does not wait for S3."""
    await fs.write(FILE, pattern(1000))
    await fs.drain()
    await evict(fs)
    expect_log("is lost")
    await taken_over(fs, ledger, flags=WRITES)
    assert HANDLE not in fs.vfs.files.handles


async def test_a_copy_that_is_not_at_home_yet_stays_where_the_kernel_reads_it(fs: Filesystem, ledger: Ledger) -> None:
    """Who opens it after the start is served as those are that have it open: the kernel refuses anything else (EIO)."""
    fs.files = FakeKernelFiles()
    await fs.reopen()
    data = pattern(1000)
    await fs.write(FILE, data)
    await fs.drain()
    await evict(fs)
    found = await node(fs)

    def stay(_store: LocalStore, steps: Sequence[Step], **_more: bool) -> list[Outcome]:
        return [Outcome(error=errno.EROFS) for _ in steps]

    with mock.patch.object(LocalStore, "apply", stay):
        number, mode = await fs.pass_open(FILE)
        assert (mode, found.state, found.staging is not None) == (Mode.PASS, State.STORED, True)
        await fs.parts.behind.flush()
        flags = flags_of(writes=False, direct=False, counted=False, mode=mode.value)
        backing = fs.vfs.files.handles[number].body.backing
        ledger.opened(Opened(HANDLE, found.ino, found.ino, 0, backing, flags, 1))
        place = fs.parts.store.staging(found.staging)
        await fs.crash()
    fs.files.backing[backing] = os.open(place, os.O_RDWR | os.O_CLOEXEC)  # the kernel's own outlives the process
    fs.rows_come_first = True
    await fs.reopen(services=False)
    await KeptFiles(fs.vfs, ledger, {}).take_over()
    async with trio.open_nursery() as services:
        await go_on(fs, services)
        another, mode = await fs.pass_open(FILE)
        assert mode is Mode.PASS
        assert await fs.read_handle(HANDLE) == data
        for each in (HANDLE, another):
            await fs.close(each)
        await fs.drain()
        assert (await node(fs)).staging is None, "it has come home"
        assert (fs.root / FILE).read_bytes() == data
        services.cancel_scope.cancel()


async def test_what_the_kernel_has_let_go_of_is_not_fetched(fs: Filesystem, ledger: Ledger) -> None:
    await fs.write(FILE, pattern(1000))
    await fs.drain()
    await evict(fs)
    await taken_over(fs, ledger, flags=LEFT)
    assert HANDLE not in fs.vfs.files.handles
    assert (await node(fs)).state is State.EVICTED
    assert ledger.open_files() == []
