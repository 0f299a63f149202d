"""Files that are being placed: nobody else can open one before it is proven, then it is given to whom it belongs."""

from __future__ import annotations

import os

from recfs.migration.transfer.beneath import by_descriptor

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o600


def made(folder: int, name: bytes) -> tuple[int, tuple[int, int]]:
    """Make a file of one's own, in place of what a transfer has left there that was killed. Raises OSError.

    A descriptor, and the uid and gid that the file system gave it: a mount gives what root makes to the user whose tree
    it is in. That user could open it at once and keep it from being whole, so it has no permissions until it is one's
    own.
    """
    try:
        file = os.open(name, _FLAGS, 0, dir_fd=folder)
    except FileExistsError:
        os.unlink(name, dir_fd=folder)
        file = os.open(name, _FLAGS, 0, dir_fd=folder)
    try:
        info = os.fstat(file)
        if info.st_uid != os.geteuid():
            os.fchown(file, os.geteuid(), -1)
        os.fchmod(file, _MODE)
    except BaseException:
        os.close(file)
        os.unlink(name, dir_fd=folder)
        raise
    return file, (info.st_uid, info.st_gid)


def give(file: int, owner: tuple[int, int], mode: int) -> None:
    """Let a file (O_PATH) be whose it is to be, with its permission bits. Raises OSError."""
    path, there = by_descriptor(file), os.fstat(file)
    if (there.st_uid, there.st_gid) != owner:
        os.chown(path, *owner)
    os.chmod(path, mode)


__all__ = ["give", "made"]
