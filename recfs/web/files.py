"""Files of the tree, reached without following any symbolic link: by directory descriptors, name by name.

All here are blocking calls, for threads (`limiters`). Nothing keeps a descriptor of the mount longer than a request,
so that it can be unmounted and mounted again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.convertors import Convertor, register_url_convertor

from recfs.client.tree import NAME_MAX_BYTES, PATH_MAX_BYTES, id_of
from recfs.client.writing import open_folder
from recfs.web.problems import Problem


class _Inside(Convertor[str]):
    """A path in a recording, as part of a route: `{path:inside}`. Starlette's own knows no names with line breaks."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("inside", _Inside())

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Not to wait for the writer of a FIFO that somebody has put there."""


class Tree:
    """The tree below the mount."""

    def __init__(self, root: Path, *, mounted: bool) -> None:
        self._root = root
        self._mounted = mounted

    def check(self) -> None:
        """Raise Problem("DaemonGone") where the mount is away: what lies there then is not ours. Raises OSError."""
        if self._mounted and os.stat(self._root).st_dev == os.stat(self._root.parent).st_dev:
            raise Problem("DaemonGone")

    def folder(self, *parts: str, make: bool = False, on_the_way: bool = False) -> int:
        """Open a directory; returns a descriptor, as `open_folder` does. Raises OSError, Problem."""
        self.check()
        try:
            return open_folder(self._root, parts, make=make, on_the_way=on_the_way)
        except NotADirectoryError as error:  # a link, or a file on the way
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error

    @contextmanager
    def inside(self, *parts: str, make: bool = False, on_the_way: bool = False) -> Iterator[int]:
        """A directory for a block."""
        folder = self.folder(*parts, make=make, on_the_way=on_the_way)
        try:
            yield folder
        finally:
            os.close(folder)

    def require(self, *parts: str) -> None:
        """Raise OSError or Problem where there is no such directory, as `folder` does."""
        os.close(self.folder(*parts, on_the_way=True))

    def file(self, *parts: str) -> int:
        """Open a regular file for reading; returns a descriptor.

        Raises OSError: IsADirectoryError for a directory; what is neither is not there.
        """
        with self.inside(*parts[:-1], on_the_way=True) as folder:
            return open_file(folder, parts[-1])


def open_file(folder: int, name: str) -> int:
    """Open a regular file in a directory for reading, as `Tree.file` does."""
    file = os.open(name, _READ, dir_fd=folder)
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    os.close(file)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOENT
    raise OSError(code, os.strerror(code))


def user_of(text: str) -> str:
    """Give a user's id. Raises Problem("NotFound") for what can be none."""
    return _id("user", text)


def recording_of(text: str) -> str:
    """Give a recording's id, likewise."""
    return _id("recording", text)


def _id(what: str, text: str) -> str:
    try:
        return id_of(what, text)
    except ValueError:
        raise Problem("NotFound") from None


def names_of(path: str) -> tuple[str, ...]:
    """Give the names of a path inside a recording, as a request has it (percent-decoded, with surrogates).

    Raises Problem("InvalidPath") for what leads elsewhere or can be no path.
    """
    names = tuple(path.split("/"))
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        raise Problem("InvalidPath") from None
    if any(name in ("", ".", "..") for name in names) or b"\0" in raw:
        raise Problem("InvalidPath")
    if len(raw) > PATH_MAX_BYTES or any(len(name) > NAME_MAX_BYTES for name in raw.split(b"/")):
        raise Problem("NameTooLong")
    return names


__all__ = ["Tree", "names_of", "open_file", "recording_of", "user_of"]
