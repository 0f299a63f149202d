"""What the service manager is told: a watchdog that is fed by the mount, starts and stops that take their time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from recfs import notifying
from tests.helpers.silent_mount import silent_mount


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(address))
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        yield receiver


def told(manager: socket.socket) -> list[str]:
    """What has come since."""
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode("ascii").strip())
        except BlockingIOError:
            return found


async def heard(manager: socket.socket) -> str:
    await trio.lowlevel.wait_readable(manager)
    return manager.recv(4096).decode("ascii").strip()


def test_the_watchdog_is_for_the_main_process(monkeypatch: pytest.MonkeyPatch, manager: socket.socket) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert notifying.watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    assert notifying.watchdog_s() == 3.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notifying.watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notifying.watchdog_s() == 3.0
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert notifying.watchdog_s() is None


async def test_what_answers_feeds_the_watchdog(manager: socket.socket, tmp_path: Path) -> None:
    watchdog = notifying.Watchdog(lambda: tmp_path, 0.2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchdog.run)
        for _ in range(3):
            assert await heard(manager) == "WATCHDOG=1"
        nursery.cancel_scope.cancel()
    assert watchdog.unanswered == 0


async def test_a_mount_without_a_place_is_not_asked(manager: socket.socket) -> None:
    """It was taken away lazily, and a recorder writes to it yet: a daemon that works is not ended."""
    watchdog = notifying.Watchdog(lambda: None, 0.2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchdog.run)
        for _ in range(3):
            assert await heard(manager) == "WATCHDOG=1"
        nursery.cancel_scope.cancel()


@pytest.mark.expect_log("the mount did not answer a look at it")
async def test_what_fails_does_not(manager: socket.socket, tmp_path: Path) -> None:
    watchdog = notifying.Watchdog(lambda: tmp_path / "gone", 0.2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchdog.run)
        while watchdog.unanswered < 2:  # noqa: ASYNC110
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert told(manager) == []


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.expect_log("the mount does not answer; [123] looks at it wait")
async def test_a_mount_that_hangs_feeds_nothing_and_holds_up_nobody(manager: socket.socket, tmp_path: Path) -> None:
    point = tmp_path / "mnt"
    point.mkdir()
    with silent_mount(point):
        watchdog = notifying.Watchdog(lambda: point, 0.2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchdog.run)
            while watchdog.unanswered < 4:  # noqa: ASYNC110
                await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        assert told(manager) == []
        assert len(watchdog.waiting) == notifying.LEFT_BEHIND, "no more of them are sent"
    for probe in watchdog.waiting:
        probe.wait(30.0)


async def test_a_start_that_takes_long_says_so(manager: socket.socket, autojump_clock: trio.testing.MockClock) -> None:
    async with notifying.starting():
        await trio.sleep(35)
    assert told(manager) == ["STATUS=opening the store", *["EXTEND_TIMEOUT_USEC=60000000"] * 4]
    await trio.sleep(100)
    assert told(manager) == []


async def test_a_stop_says_what_it_waits_for(manager: socket.socket, autojump_clock: trio.testing.MockClock) -> None:
    left = ["3 files to seal"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifying.stopping, lambda: left[0])
        await trio.sleep(11.5)
        left[0] = "1 files to upload"
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    assert told(manager) == [
        "STATUS=stopping: 3 files to seal",
        "EXTEND_TIMEOUT_USEC=60000000",
        "EXTEND_TIMEOUT_USEC=60000000",
        "STATUS=stopping: 1 files to upload",
    ]
