"""Removing many files of a directory at once."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.ports.rows import Content
    from recfs.stores.beneath import Beneath

_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def remove_files(beneath: Beneath, folder: bytes, st_ino: int | None, files: Sequence[Content]) -> None:
    """Remove *files* from a directory, durably. Done twice, it is as if done once. Blocking.

    What lies under one of their names and is another file stays: somebody's, who has put it there. Nothing is done
    where no directory is, or one of another inode number than *st_ino* (None: any).

    Raises OSError, the first, after those that can be removed are gone.
    """
    failed: OSError | None = None
    try:
        fd = beneath.open_at(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _NOTHING:
            return
        raise
    try:
        if st_ino not in (None, os.fstat(fd).st_ino):
            return
        for file in files:
            try:
                info = os.stat(file.name, dir_fd=fd, follow_symlinks=False)
                if _is_it(info, file):
                    os.unlink(file.name, dir_fd=fd)
                elif beneath.is_mounted_on(fd, file.name):
                    raise OSError(errno.EBUSY, "another file system is mounted there")
            except FileNotFoundError:
                continue
            except OSError as error:
                failed = failed or OSError(error.errno, error.strerror, os.fsdecode(file.name))
        os.fsync(fd)
    finally:
        os.close(fd)
    if failed is not None:
        raise failed


def _is_it(info: os.stat_result, file: Content) -> bool:
    """Whether that is the file of a row. Inode numbers are given out again, so its size has to be right, too."""
    if not stat.S_ISREG(info.st_mode) or file.home_ino not in (None, info.st_ino):
        return False
    return not file.size_bytes or info.st_size == file.size_bytes


__all__ = ["remove_files"]
