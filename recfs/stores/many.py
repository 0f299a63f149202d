"""Many small files at once, where that goes as it nearly always does: by the C extension `_many`, whose calls give the
interpreter's lock away once for all files. Blocking; for threads.

What is unusual, and everything where the extension could not be built, is left to the callers, who do it file by file
(`disk/commit/digests.py`, `steps.py`). So what they do says what is right, and this is only quicker.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from recfs.stores.beneath import Beneath, Folders
    from recfs.stores.steps import Step

extension: ModuleType | None
try:
    from recfs.stores import _many as extension
except ImportError:
    extension = None

BUFFER_BYTES: Final = 1 << 20
"""So much is read in one call; a file that is as large is read by itself."""

LEASE: Final = 1
"""Of a file that is to be read: nobody may still be able to write to it (`disk/leases.py`)."""
SYNC_DATA: Final = 2
"""It is brought to stable storage before it is read, fdatasync(2)."""
SYNC_WHOLE: Final = 4
"""The same with its attributes, fsync(2)."""

_UNUSUAL: Final = frozenset((errno.EAGAIN, errno.EFBIG, errno.EINTR, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSYS))
"""A file of which the call says this is looked at by itself. None of it may be what fsync(2) says: that tells a failure
to whoever asks first, and to nobody after that.
"""


MD5: Final = 8
"""Its md5 is wanted, too."""


class Content(NamedTuple):
    """A file that was read; its content is good until the next one is asked for."""

    number: int
    content: memoryview
    st_ino: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    sha256: bytes | None
    """Of the content; None where Python is to hash it."""
    md5: bytes | None


class Unreadable(NamedTuple):
    """A file that cannot be read, or not be brought to stable storage."""

    number: int
    error: OSError


def still_written(path: bytes) -> BlockingIOError:
    """What is said of a file that somebody can still write to, where nobody is to."""
    return BlockingIOError(errno.EAGAIN, "it is still mapped for writing", os.fsdecode(path))


def read(beneath: Beneath, paths: Sequence[bytes], how: bytes) -> Iterator[Content | Unreadable]:
    """Read files, each told by its place among *paths*; those that are left out are to be read one by one.

    *how*: for each what is to be done before.
    """
    if extension is None:
        return
    buffer = memoryview(bytearray(BUFFER_BYTES))
    start = len(beneath.root) + 1
    inside = tuple(path[start:] for path in paths)
    done = 0
    while done < len(paths):
        found = extension.read(beneath.fd, inside[done:], how[done:], buffer)
        for index, (error, at, size, st_ino, mode, *more) in enumerate(found, done):
            if not error:
                yield Content(index, buffer[at : at + size], st_ino, stat.S_IMODE(mode), *more)
            elif error == errno.ETXTBSY:
                yield Unreadable(index, still_written(paths[index]))
            elif error not in _UNUSUAL:
                yield Unreadable(index, OSError(error, os.strerror(error), os.fsdecode(paths[index])))
        done += len(found)


class Moves:
    """Files that are to be moved in one call, each to the place and with the attributes that a step says."""

    def __init__(self, folders: Folders, own_access: int, *, may_chown: bool) -> None:
        self._folders = folders
        self._own_access = own_access
        self._may_chown = may_chown
        self._moves: list[tuple[object, ...]] = []
        self.steps: list[Step] = []
        """What is gathered, in order."""

    def take(self, step: Step) -> bool:
        """Gather the move of a file; False if it is to be moved by itself. Raises nothing."""
        if extension is None or self._folders.are_many:
            return False
        try:
            folder, name = self._folders.of(step.path)
            target, new_name = self._folders.of(step.to)
        except OSError:  # one of the directories is not there: whoever carries the step out meets it again
            return False
        attrs = step.attrs
        st_ino = -1 if step.home_ino is None else step.home_ino
        size = -1 if step.size_bytes is None else step.size_bytes
        if attrs is None:
            self._moves.append((folder, name, target, new_name, st_ino, size, False, 0, 0, 0, 0, 0))
        else:
            mode = attrs.mode & 0o7777 | self._own_access
            times = attrs.atime_ns, attrs.mtime_ns
            self._moves.append((folder, name, target, new_name, st_ino, size, True, mode, attrs.uid, attrs.gid, *times))
        self.steps.append(step)
        return True

    def carry_out(self) -> list[tuple[int, int]]:
        """Move them, up to the first that is unusual: (st_ino, 0) of each of those before it, or as the last (st_ino,
        error number) of one that could not be moved, or not be given its attributes.
        """
        if extension is None or not self._moves:
            return []
        try:
            done: list[tuple[int, int]] = extension.move(tuple(self._moves), self._may_chown)
        except (OverflowError, ValueError):  # a number or a name that no system call takes: nothing was done
            return []
        return done


__all__ = [
    "BUFFER_BYTES",
    "LEASE",
    "SYNC_DATA",
    "SYNC_WHOLE",
    "Content",
    "Moves",
    "Unreadable",
    "read",
    "still_written",
]
