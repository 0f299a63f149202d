"""What the service manager is told of the daemon (sd_notify(3)), where there is one.

With a watchdog (WatchdogSec=) it hears WATCHDOG=1 only after a request went through the kernel and was answered. A
program of its own makes that request: whoever waits for an answer of a daemon that hangs cannot be ended, and no thread
of the daemon may be kept from ending with it.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

log = logging.getLogger("recfs.daemon")

READY: Final = "READY=1"
EXTEND_S: Final = 60.0
"""For so long more the manager is to wait, each time it is told …"""
TELL_S: Final = 10.0
"""… which is this often …"""
START_AT_MOST_S: Final = 4 * 3600.0
"""… but a start that takes longer is no start."""
STATUS_S: Final = 1.0
HEARD_S: Final = 5.0
"""How long a daemon that ends waits until the manager has heard what it said last."""
LEFT_BEHIND: Final = 3
"""Where so many probes wait for an answer, no more are sent."""


def tell(state: str) -> None:
    """Tell it; without one nothing happens. Never waits, and raises nothing."""
    if "NOTIFY_SOCKET" in os.environ:
        try:
            send(state)
        except OSError as error:
            log.debug("the service manager was not told %r: %s", state, error.strerror)


def send(state: str, fd: int = -1) -> None:
    """Tell it, with a copy of *fd* where there is one. Not waited for: the daemon serves on the thread that says this.

    Raises OSError.
    """
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        fds = [fd] if fd >= 0 else []
        socket.send_fds(channel, [state.encode("utf-8", "backslashreplace")], fds, socket.MSG_DONTWAIT)


def has_heard() -> bool:
    """Wait until it has taken what it was told so far (sd_notify_barrier(3)); False: it has not, or there is none.

    What a process says that ends at once may come after its successor has started. Raises OSError.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            send("BARRIER=1", write)
        finally:
            os.close(write)
        poll = select.poll()
        poll.register(read, 0)
        return bool(poll.poll(HEARD_S * 1000))  # it closes its copy
    finally:
        os.close(read)


def tell_of_reload(state: str) -> None:
    """Tell that a reload begins ("RELOADING"), or is over ("READY").

    With the time, since systemd 253 (Type=notify-reload): it ignores what was said before the reload that it asked for.
    """
    if state == "RELOADING":
        tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
    else:
        tell(READY)


@asynccontextmanager
async def starting() -> AsyncIterator[None]:
    """While this lasts the manager is told that the start goes on: what a crash left is taken up, however long."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_extend)
        yield
        nursery.cancel_scope.cancel()


async def _extend() -> None:
    tell("STATUS=opening the store")
    deadline_s = trio.current_time() + START_AT_MOST_S
    while trio.current_time() < deadline_s:
        tell(f"EXTEND_TIMEOUT_USEC={int(EXTEND_S * 1e6)}")
        await trio.sleep(TELL_S)


async def stopping(what_is_left: Callable[[], str]) -> None:
    """Tell what a stop waits for, until cancelled, and that it goes on."""
    last, told_s = "", float("-inf")
    while True:
        status = f"stopping: {what_is_left()}"
        if status != last:
            tell(f"STATUS={status}")
            last = status
        if trio.current_time() - told_s >= TELL_S:
            tell(f"EXTEND_TIMEOUT_USEC={int(EXTEND_S * 1e6)}")
            told_s = trio.current_time()
        await trio.sleep(STATUS_S)


def watchdog_s() -> float | None:
    """How often the manager wants to hear that this process is well (sd_watchdog_enabled(3)); None: it does not."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    is_meant = not pid or pid == str(os.getpid())
    return int(usec) / 1e6 if usec.isdecimal() and int(usec) and is_meant and "NOTIFY_SOCKET" in os.environ else None


class Watchdog:
    """Feeds the manager's watchdog by what the mount answers."""

    def __init__(self, mounted_on: Callable[[], Path | None], every_s: float) -> None:
        """*mounted_on*: where the mount is now, None if it has no place any more; *every_s*: as `watchdog_s`."""
        self._mounted_on = mounted_on
        self._every_s = every_s
        self.waiting: list[subprocess.Popen[bytes]] = []
        """Looks that have had no answer."""
        self.unanswered = 0
        """Round trips that did not come back in time, one after another."""

    async def run(self) -> None:
        """Ask for ever, twice as often as is wanted."""
        pause_s = self._every_s / 2
        while True:
            with trio.move_on_after(pause_s) as scope:
                if await self._round_trip():
                    tell("WATCHDOG=1")
                    self.unanswered = 0
                    await trio.sleep(pause_s)
                    continue
                self.unanswered += 1
                log.error("the mount did not answer a look at it")
                await trio.sleep(pause_s)
            if scope.cancelled_caught and self.waiting:
                self.unanswered += 1
                log.error("the mount does not answer; %d looks at it wait", len(self.waiting))

    async def _round_trip(self) -> bool:
        """Ask the mount how much room there is, which no cache answers (statfs(2))."""
        self.waiting = [each for each in self.waiting if each.poll() is None]
        while len(self.waiting) >= LEFT_BEHIND:
            await trio.sleep(STATUS_S)
            self.waiting = [each for each in self.waiting if each.poll() is None]
        point = self._mounted_on()
        if point is None:  # taken away lazily (umount -l): files are open in it, and nobody can ask it by a path
            return True
        probe = await trio.to_thread.run_sync(self._ask, str(point))
        self.waiting.append(probe)
        pidfd = os.pidfd_open(probe.pid)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        self.waiting.remove(probe)
        return probe.wait() == 0

    @staticmethod
    def _ask(point: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["stat", "--file-system", "--format=", "--", point],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip


__all__ = ["READY", "Watchdog", "send", "starting", "stopping", "tell", "tell_of_reload", "watchdog_s"]
