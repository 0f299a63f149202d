"""Programs that the daemon runs: hearing what they say, and their end, for which nothing waits long."""

from __future__ import annotations

import logging
import os
import signal
from typing import Final

import trio

REAP_AT_END_S: Final = 0.5
"""How long the end of a program that was killed is waited for: so long it holds up a stop or a hand-over."""
CHUNK_BYTES: Final = 1 << 16


class Hanging:
    """Programs that were killed and have not ended: they wait for a disk, or for an answer of this very mount."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        """*what*: one of them, for people."""
        self._log = log
        self._what = what
        self._processes: list[trio.Process] = []

    def leave(self, process: trio.Process) -> None:
        """Have a killed program that has not ended reaped on a later occasion."""
        if process.poll() is not None:
            return
        if not self._processes:
            self._log.warning(
                "%s was killed and has not ended: process %d; nothing waits for it", self._what, process.pid
            )
        self._processes.append(process)

    def reap(self) -> int:
        """Take leave of those that have ended since; how many have not."""
        if self._processes:
            self._processes = [process for process in self._processes if process.poll() is None]
            if not self._processes:
                self._log.info("all that were killed have ended")
        return len(self._processes)


async def end(process: trio.Process, hanging: Hanging, within_s: float = REAP_AT_END_S) -> None:
    """Kill a program with all that it left in its process group, whatever cancels the caller, and close its pipes."""
    with trio.CancelScope(shield=True):
        kill_group(process)
        with trio.move_on_after(within_s):
            await process.wait()
        hanging.leave(process)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await trio.aclose_forcefully(stream)


def kill_group(process: trio.Process) -> None:
    """Kill a program that leads a process group (`start_new_session`), with all of that."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


async def hear_end(stream: trio.abc.ReceiveStream, said: bytearray, most_bytes: int) -> None:
    """Take what a program says, however much, and keep the end of it."""
    while chunk := await stream.receive_some(CHUNK_BYTES):
        said += chunk
        del said[:-most_bytes]


__all__ = ["REAP_AT_END_S", "Hanging", "end", "hear_end", "kill_group"]
