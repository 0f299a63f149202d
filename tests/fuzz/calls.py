"""System calls that Python has no names for."""

from __future__ import annotations

import ctypes
import os

EXCHANGE, NOREPLACE = 2, 1
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16

_libc = ctypes.CDLL(None, use_errno=True)


def rename(old: str, new: str, flags: int) -> None:
    """renameat2(2)."""
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), old, None, new)


def fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    """fallocate(2)."""
    if _libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(size)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
