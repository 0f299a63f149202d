"""Mount points, as the kernel lists them (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


def points_below(lines: Iterable[bytes], top: bytes) -> frozenset[bytes]:
    """Of the mount points that *lines* tell of, those below a directory: as paths below it."""
    found = set()
    for line in lines:
        point = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
        if point.startswith(top + b"/"):
            found.add(point[len(top) + 1 :])
    return frozenset(found)


__all__ = ["points_below"]
