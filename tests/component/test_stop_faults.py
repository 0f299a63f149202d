"""A stop that meets faults at each of its steps: it comes to its end, and says what was left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing

from recfs import ending, parts
from recfs.config import Config
from recfs.errors import MountError, OutOfSpace, StoreError
from recfs.fuse.mounting import Detached
from recfs.services.draining import Draining
from recfs.stores.local import LocalStore
from recfs.stores.steps import Outcome, Step
from tests.fakes import KernelRecorder
from tests.helpers.virtual_time import GUARD_S

from .build import REC, filesystem
from .ending import ending_of

ERRORS: list[Exception] = [
    *(OSError(number, os.strerror(number)) for number in (errno.EIO, errno.EACCES, errno.ENOSPC, errno.EMFILE)),
    ValueError("embedded null byte"),
    OverflowError("int too large to convert"),
    OutOfSpace("the disk is full"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize("step", ["settle", "detach", "_last_releases"])
@pytest.mark.table(5)
async def test_every_step_of_a_stop_may_fail(
    place: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None], step: str, error: Exception
) -> None:
    expect_log("while stopping: ")
    if step == "settle":
        expect_log("stopped before everything was committed")
    called: list[str] = []

    def failing(name: str) -> Callable[..., Any]:
        def act(*_args: Any, **_kwargs: Any) -> Any:
            called.append(name)
            if name == step:
                raise error
            return Detached.IDLE

        return act

    def awaited(name: str) -> Callable[..., Any]:
        async def act(*_args: Any, **_kwargs: Any) -> None:
            await trio.lowlevel.checkpoint()
            failing(name)()

        return act

    monkeypatch.setattr(ending.OwnMount, "detach", failing("detach"))
    monkeypatch.setattr(ending.Ending, "_last_releases", awaited("_last_releases"))
    monkeypatch.setattr(Draining, "drain", awaited("settle"))
    async with filesystem(place) as fs:
        await ending_of(fs, place).end()
    assert [name for name in called if name != "settle"] == ["detach", "_last_releases"], "the next steps are taken"
    assert called.count("settle") >= 2


@pytest.mark.expect_log("stopped before everything was committed")
@pytest.mark.slow
async def test_a_second_signal_ends_the_waiting(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def waits(*_args: Any, **_kwargs: Any) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Draining, "drain", waits)
    async with filesystem(place) as fs, trio.open_nursery() as nursery:
        stopping = ending_of(fs, place)
        nursery.start_soon(stopping.end)
        await trio.testing.wait_all_tasks_blocked()
        stopping.hurry()


async def test_what_could_not_be_unmounted_is_told_with_the_way_out(place: Path) -> None:
    async with filesystem(place) as fs:
        stopping = ending_of(fs, place)
        stopping.left.append(f"{place} could not be unmounted")
        with pytest.raises(MountError, match="recfs umount"):
            await stopping.finish()


async def test_a_last_write_on_a_full_disk_is_told_without_a_traceback(place: Path) -> None:
    config = Config.model_validate({"root": place, "min_free": 0})

    async def opened_until_the_disk_is_full() -> None:
        async with parts.opened(config, KernelRecorder()) as opened:
            opened.behind.meta("last", "write")
            opened.catalogue.apply = full  # type: ignore[method-assign]

    with pytest.raises(StoreError, match=r"to the end: .*full"):
        await opened_until_the_disk_is_full()
    async with parts.opened(config, KernelRecorder()):
        pass  # the next start goes on


async def full(*_args: Any, **_kwargs: Any) -> None:
    await trio.lowlevel.checkpoint()
    raise OutOfSpace("the disk is full")


@pytest.mark.expect_log("Read-only file system")
async def test_a_stop_does_not_wait_for_what_waits_for_what_failed(place: Path) -> None:
    """A removed directory cannot go before what lies in it, and that cannot go at all."""
    original = LocalStore.apply

    def refuses(store: LocalStore, steps: Sequence[Step], **more: bool) -> list[Outcome]:
        if any(b"/stuck/" in step.path for step in steps):
            return [Outcome(error=errno.EROFS) for _ in steps]
        return original(store, steps, **more)

    async with filesystem(place) as fs:
        await fs.write(f"{REC}/stuck/file", b"1")
        await fs.drain()
        with mock.patch.object(LocalStore, "apply", refuses):
            await fs.unlink(f"{REC}/stuck/file")
            await fs.rmdir(f"{REC}/stuck")
            with trio.fail_after(GUARD_S):
                await fs.parts.work.draining.drain(uploads=False, mapped=False)
            assert fs.parts.publisher.depth == 2, "they are left for later"
        await fs.drain()
