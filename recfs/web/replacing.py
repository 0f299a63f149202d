"""What stands under a name, looked at and then replaced or removed: by one at a time in this process.

So a condition of RFC 9110, 13.1 that held still holds when the change is made. What takes long (a checksum that has to
be waited for) is looked at before: then only whether it is still the same file. Blocking calls, for threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

Identity = tuple[int, ...]
"""Which file it is, and when it was last changed."""

_guard = threading.Lock()
_busy: dict[tuple[int, int, str], tuple[threading.Lock, int]] = {}


def identity(info: os.stat_result) -> Identity:
    """Tell a file, as it is now, from any other and from itself after a change."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def standing(folder: int, name: str) -> Identity | None:
    """`identity` of what has a name in an open directory; None where nothing has. Raises OSError."""
    try:
        return identity(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return None


@contextmanager
def alone(folder: int, name: str) -> Iterator[None]:
    """Be the one who changes what a name in an open directory stands for, for a block. Raises OSError."""
    info = os.fstat(folder)
    key = info.st_dev, info.st_ino, name
    with _guard:
        lock, users = _busy.get(key, (threading.Lock(), 0))
        _busy[key] = lock, users + 1
    try:
        with lock:
            yield
    finally:
        with _guard:
            users = _busy[key][1] - 1
            if users:
                _busy[key] = lock, users
            else:
                del _busy[key]


__all__ = ["Identity", "alone", "identity", "standing"]
