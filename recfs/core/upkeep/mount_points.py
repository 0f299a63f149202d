"""Mount points, as the kernel lists them (proc_pid_mountinfo(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


def lines_of(table: bytes) -> list[bytes]:
    """The lines of the table. A name may have a carriage return in it, which ends none."""
    return [line for line in table.split(b"\n") if line]


def points_below(lines: Iterable[bytes], top: bytes) -> frozenset[bytes]:
    """Of the mount points that *lines* tell of, those below a directory: as paths below it."""
    found = set()
    for line in lines:
        point = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
        if point.startswith(top + b"/"):
            found.add(point[len(top) + 1 :])
    return frozenset(found)


__all__ = ["lines_of", "points_below"]
