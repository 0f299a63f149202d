"""Time for tests without a mount: it jumps to the next timer when nothing else can happen, so that no wait takes long.

trio's own MockClock jumps while a thread works, too: the loop spins, and seconds pass within one fsync, more of them
the busier the machine is. Here time stands still for as long as threads are expected to work. One that waits for time
to pass would wait for ever; so after `PATIENCE_S` it jumps all the same, but no further than `LONGEST_S`: one that is
merely slow, on a busy machine, would end the longest wait of a test at once, where that is the only timer there is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import trio
from trio.testing import MockClock

PATIENCE_S = 0.1
"""How many real seconds time stands still for threads: on a busy machine, none takes time away from who waits."""
NEXT_S = 0.01
"""… and before each further jump, until one of them is done: they seem to wait for time to pass."""
LONGEST_S = 1.0
"""How far it jumps at a time, in seconds, while threads work."""
GUARD_S = 600.0
"""How long a test waits, in seconds of this clock, for what is due at once, before it says that it hangs. While threads
work that is some 6 s of real time, which no fsync on a busy machine takes; else it takes no time at all.
"""


class _Threads:
    """Counts the threads that work for a run, and tells its clock."""

    def __init__(self, clock: MockClock, run_sync: Callable[..., Awaitable[Any]]) -> None:
        self._clock = clock
        self._run_sync = run_sync
        self._working = 0
        self._jump = clock.jump
        clock.jump = self.jump  # type: ignore[method-assign]

    def jump(self, seconds: float) -> None:
        """MockClock.jump."""
        if self._working:
            self._clock.autojump_threshold = NEXT_S
            seconds = min(seconds, LONGEST_S)
        self._jump(seconds)

    async def run_sync(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """trio.to_thread.run_sync."""
        self._working += 1
        self._clock.autojump_threshold = PATIENCE_S
        try:
            return await self._run_sync(function, *args, **options)
        finally:
            self._working -= 1
            self._clock.autojump_threshold = PATIENCE_S if self._working else 0


def run(*args: Any, clock: trio.abc.Clock | None = None, **options: Any) -> Any:
    """trio.run; without a clock of the caller's, with time that jumps."""
    if clock is not None:
        return trio.run(*args, clock=clock, **options)
    jumping = MockClock(autojump_threshold=0)
    threads = _Threads(jumping, trio.to_thread.run_sync)
    with mock.patch.object(trio.to_thread, "run_sync", threads.run_sync):
        return trio.run(*args, clock=jumping, **options)
