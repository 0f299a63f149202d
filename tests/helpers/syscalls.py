"""System calls that Python has no names for. For clients as well, which load the standard library alone."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_FDCWD = -100
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16

_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: str | Path, new: str | Path, flags: int) -> None:
    """Rename with flags (renameat2(2)); OSError on failure."""
    if _libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(old), None, str(new))


def fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    """fallocate(2)."""
    if _libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(size)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
