"""Threads that are in no hurry: what takes seconds of CPU beside requests, and that nobody waits for.

On a machine with few CPUs such a thread competes with the one that answers requests, and with programs that ask. The
nice value of a thread is its own on Linux (setpriority(2), "C library/kernel differences"), and without privileges it
cannot be lowered again: so each call has a thread of its own, which ends with it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

LEISURE: Final = 19
"""The nice value: some 1.5 % of a CPU that others want, all of one that nobody does (sched(7))."""

Result = TypeVar("Result")


def at_leisure(call: Callable[[], Result], name: str) -> Result:
    """What *call* makes, in a thread called *name* that yields to all others. Blocking. Raises what it raises.

    The thread keeps no process from ending.
    """
    made: Future[Result] = Future()

    def work() -> None:
        with contextlib.suppress(OSError):  # then it is as urgent as the others
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEISURE)
        try:
            made.set_result(call())
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return made.result()


__all__ = ["LEISURE", "at_leisure"]
