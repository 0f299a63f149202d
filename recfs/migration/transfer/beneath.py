"""Trees by descriptors of their directories: no link is followed, whatever somebody swaps meanwhile (open(2))."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def by_descriptor(descriptor: int) -> str:
    """A path by which an open file is reached that was opened with O_PATH (proc_pid_fd(5))."""
    return f"/proc/self/fd/{descriptor}"


@contextlib.contextmanager
def opened(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_below(top: int, parts: tuple[bytes, ...]) -> int:
    """Open a directory below *top*, name by name; a descriptor. Raises OSError: NotADirectoryError for a link."""
    folder = os.dup(top)
    try:
        for part in parts:
            below = os.open(part, FOLDER, dir_fd=folder)
            above, folder = folder, below
            os.close(above)
    except BaseException:
        os.close(folder)
        raise
    return folder


def names_in(folder: int) -> list[bytes]:
    """What is in a directory, sorted. Raises OSError."""
    return sorted(os.fsencode(name) for name in os.listdir(folder))


def looked_at(folder: int, name: bytes) -> os.stat_result | None:
    """What is under a name, links not followed; None: nothing. Raises OSError."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


class Branch:
    """The directories on the way to where something is placed, kept open from one entry to the next."""

    def __init__(self, top: int) -> None:
        self._open: list[tuple[bytes, int]] = []
        self._top = top

    def folder(self, parts: tuple[bytes, ...]) -> int:
        """Give the directory at *parts* below the top, for the time until the next call. Raises OSError."""
        depth = 0
        while depth < min(len(parts), len(self._open)) and self._open[depth][0] == parts[depth]:
            depth += 1
        self._shorten(depth)
        for part in parts[depth:]:
            above = self._open[-1][1] if self._open else self._top
            self._open.append((part, os.open(part, FOLDER, dir_fd=above)))
        return self._open[-1][1] if self._open else self._top

    def _shorten(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])

    def close(self) -> None:
        """Let go of all but the top."""
        self._shorten(0)


def is_directory(info: os.stat_result | None) -> bool:
    """Whether something is a directory."""
    return info is not None and stat.S_ISDIR(info.st_mode)


__all__ = ["FOLDER", "Branch", "by_descriptor", "is_directory", "looked_at", "names_in", "open_below", "opened"]
