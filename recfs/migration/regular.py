"""Files in trees of others, opened so that nobody can have this wait, or be led elsewhere, by what he puts there."""

from __future__ import annotations

import errno
import os
import stat

from recfs.core.migration.escapes import escaped
from recfs.errors import InvalidArgument
from recfs.migration.transfer.beneath import open_below
from recfs.migration.transfer.beneath import opened as closed_after

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""The open of a pipe comes back at once (fifo(7)); regular files do not know the difference."""


def opened(path: str) -> int:
    """Open a regular file that a person named, through links; a descriptor. Raises InvalidArgument, OSError."""
    return _checked(os.open(path, _READ), os.fsencode(path))


def opened_below(top: bytes, path: bytes) -> int:
    """Open a regular file at *path* below *top*; a descriptor. No link below *top* is followed, also in its last name.

    Raises InvalidArgument for what is no regular file, and OSError: NotADirectoryError or ELOOP for links.
    """
    *folders, name = path.split(b"/")
    with (
        closed_after(os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as above,
        closed_after(open_below(above, tuple(folders))) as folder,
    ):
        return _checked(os.open(name, _READ | os.O_NOFOLLOW, dir_fd=folder), path)


def _checked(fd: int, path: bytes) -> int:
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):  # as a read of it says
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise InvalidArgument(f"{escaped(path)} is no regular file")


__all__ = ["opened", "opened_below"]
