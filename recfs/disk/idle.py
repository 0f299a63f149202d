"""A thread of its own for work that nobody waits for: at the lowest priority of CPU and disk.

Not one of trio's: those are handed from task to task, and a priority that was lowered cannot be raised again without
CAP_SYS_NICE (setpriority(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

Args = TypeVarTuple("Args")
Result = TypeVar("Result")

NICE: Final = 10
"""Not 19: who is held up with the interpreter's lock in hand holds up everybody who waits for that."""
# ioprio_set(2), linux/ioprio.h
_SYS_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30, "riscv64": 30}.get(platform.machine())
_WHO_PROCESS, _CLASS_IDLE, _CLASS_SHIFT = 1, 3, 13


class IdleThread:
    """One thread, begun when it is needed first, which ends with this; what it is given is done in turn."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._threads: ThreadPoolExecutor | None = None
        self._turns = trio.CapacityLimiter(1)  # fair: whoever asked first

    async def run(self, function: Callable[[Unpack[Args]], Result], *args: *Args) -> Result:
        """Call it there. Not to be cancelled once it has begun: pieces of work are to be short."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, self._name, initializer=_be_idle)
        waited_for = self._threads.submit
        return await trio.to_thread.run_sync(lambda: waited_for(function, *args).result(), limiter=self._turns)


def _be_idle() -> None:
    """Lower the priorities of the calling thread, as far as the kernel lets it."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    if _SYS_IOPRIO_SET is not None:
        # By its number: glibc has no wrapper. 0 is the calling thread.
        ctypes.CDLL(None).syscall(_SYS_IOPRIO_SET, _WHO_PROCESS, 0, _CLASS_IDLE << _CLASS_SHIFT)


__all__ = ["IdleThread"]
