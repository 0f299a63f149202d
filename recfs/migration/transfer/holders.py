"""Who holds a file open for writing, as far as this machine can tell."""

from __future__ import annotations

import contextlib
import os

from recfs.migration.transfer.beneath import by_descriptor

_NAMED = 3


def writers_of(descriptor: int) -> str:
    """The processes that have a file (a descriptor) open for writing, for people; "" where none is to be seen.

    By what /proc says of their descriptors (proc_pid_fd(5), proc_pid_fdinfo(5)): none of the files is asked, since one
    may be on a mount that hangs.
    """
    try:
        path = os.readlink(by_descriptor(descriptor))
    except OSError:
        return ""
    found = [f"process {pid} of uid {uid}" for pid, uid in _processes() if _writes(pid, path)]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more


def _processes() -> list[tuple[int, int]]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended
                found.append((int(name), os.stat(f"/proc/{name}").st_uid))
    return sorted(found)


def _writes(pid: int, path: str) -> bool:
    with contextlib.suppress(OSError):  # it ended, or is not ours to look at
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}") == path and _for_writing(pid, number):
                    return True
    return False


def _for_writing(pid: int, number: str) -> bool:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as info:
        for line in info:
            if line.startswith("flags:"):
                return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


__all__ = ["writers_of"]
