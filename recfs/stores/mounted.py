"""What is mounted inside the home tree: it is no part of the store, and hides what is.

Its files are on another disk, or lie somewhere else as well (a bind mount): nothing can be renamed between it and the
store, and what it covers is back when it is unmounted. `stores/beneath.py` resolves no path across a mount point.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from pathlib import Path

from recfs.core.layout import TOP_DIRS
from recfs.core.upkeep.mount_points import lines_of, points_below
from recfs.errors import StoreError

TABLE = Path("/proc/self/mountinfo")


def mounted_in(root: Path) -> frozenset[bytes]:
    """Mount points in the home tree below *root*, as mount paths; none where nobody says."""
    try:
        lines = lines_of(TABLE.read_bytes())
    except OSError:
        return frozenset()
    top = os.path.realpath(os.fsencode(root))
    return frozenset(point for point in points_below(lines, top) if point.partition(b"/")[0] in TOP_DIRS)


def remedy_of(root: Path, point: bytes) -> str:
    """What is to be said of one, and what helps."""
    return (
        f"another file system is mounted there, which is no part of the store: nothing in it is taken over or served,"
        f" and what it covers cannot be read. Unmount it: umount {os.fsdecode(os.path.join(os.fsencode(root), point))}"
    )


def require_bare(root: Path) -> None:
    """Raise StoreError where anything is mounted in the home tree: rows that are compared with what lies there would
    take what is covered for gone, and what covers it for the store's.
    """
    points = sorted(mounted_in(root))
    if points:
        more = f" (and {len(points) - 1} more)" if len(points) > 1 else ""
        raise StoreError(f"store {root}: {os.fsdecode(points[0])}{more}: {remedy_of(root, points[0])}")


class Mounted:
    """Of one store, as it was at the last look. Blocking, for a moment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.points: frozenset[bytes] = frozenset()
        self._table: int | None = None
        self._poll = select.poll()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Begin to look. Without /proc nothing is ever found."""
        with contextlib.suppress(OSError):
            self._table = os.open(TABLE, os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(self._table, select.POLLPRI)
        self.points = mounted_in(self.root)

    def look(self) -> None:
        """Read the table of mounts again if it has changed: the kernel tells that, once. But it does not tell that a
        directory was renamed in which something is mounted. From any thread.
        """
        with self._lock:
            if self._table is not None and (self.points or self._poll.poll(0)):
                self.points = mounted_in(self.root)

    def close(self) -> None:
        """Look no more."""
        with self._lock:
            if self._table is not None:
                self._poll.unregister(self._table)
                os.close(self._table)
                self._table = None


__all__ = ["Mounted", "mounted_in", "remedy_of", "require_bare"]
