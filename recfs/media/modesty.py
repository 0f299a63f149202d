"""Has a program give way to all others: to who records, to whom the file system answers, and to who waits for neither.

A low priority alone is a small share of a CPU. But once a program runs, Linux lets it go on to the end of its slice
(EEVDF: some 3 ms), also where somebody wakes up who has a hundred times its weight: a writer that talks to the daemon
waits for that at each of its requests. Since Linux 6.12 a program may have a shorter slice (sched_setattr(2), the
runtime of SCHED_OTHER), down to 0.1 ms.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from contextlib import suppress
from typing import Final

from recfs.media.sandbox import NICE

SLICE_NS: Final = 100_000
_SYS_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
_OTHER: Final = 0
_ATTR: Final = struct.Struct("=IIQiIQQQ")
"""sched_attr, as of its first version: size, policy, flags, nice, priority, runtime, deadline, period."""

_libc = ctypes.CDLL(None, use_errno=True)


def be_modest(pid: int) -> None:
    """Have a child give way from now on, and what it becomes and starts. What cannot be is left. Raises nothing."""
    with suppress(OSError):  # it has ended
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
        number = _SYS_SCHED_SETATTR.get(platform.machine())
        if number is not None:
            attr = _ATTR.pack(_ATTR.size, _OTHER, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, pid)), 0, SLICE_NS, 0, 0)
            _libc.syscall(number, pid, attr, 0)  # an older kernel takes no notice of the slice


__all__ = ["SLICE_NS", "be_modest"]
