"""A tree on a disk or a mount, read entry by entry: never through a link, nor through what was swapped for one."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from recfs.core.migration.manifest import is_own_attribute
from recfs.migration.transfer.beneath import FOLDER, by_descriptor, names_in, open_below, opened
from recfs.migration.transfer.items import BLOCK_BYTES, Item, Kind, Problem, Unusable, Why

if TYPE_CHECKING:
    from collections.abc import Iterator

Judge = Callable[[Item, int], Item | Problem | None]
"""Is given an entry, and a descriptor (O_PATH) of it; gives what is to be said of it. None: it is left out. What is in
a directory is given only if the directory itself is.
"""
_OPEN_LEVELS = 64
"""So many directories on the way down are kept open at most: trees may be deeper than a process may have files."""
_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.LINK}


class _Level:
    """A directory on the way down, and what of it is still to be given."""

    def __init__(self, parts: tuple[bytes, ...], folder: int) -> None:
        self.parts = parts
        self.folder = folder
        """A descriptor; -1: closed, since there were too many."""
        info = os.fstat(folder)
        self.identity = (info.st_dev, info.st_ino)
        self.names = names_in(folder)[::-1]

    def take_up(self, folder: int) -> bool:
        """Go on with a descriptor, if it is of this directory; it is closed otherwise."""
        info = os.fstat(folder)
        if (info.st_dev, info.st_ino) != self.identity:
            os.close(folder)
            return False
        self.folder = folder
        return True

    def put_down(self) -> None:
        if self.folder >= 0:
            os.close(self.folder)
            self.folder = -1


class Walk:
    """Gives entries below a directory, of which *top* is a descriptor."""

    def __init__(self, top: int, judge: Judge) -> None:
        self._top = top
        self._judge = judge
        self._levels: list[_Level] = []

    def below(self, parts: tuple[bytes, ...]) -> Iterator[Item | Problem]:
        """The directory at *parts* and all below it, sorted, a directory before what is in it."""
        try:
            folder = open_below(self._top, parts)
        except OSError as error:
            yield unreadable(parts, error)
            return
        try:
            yield from self._entered(parts, folder)
            while self._levels:
                yield from self._next()
        finally:
            while self._levels:
                self._levels.pop().put_down()

    def _entered(self, parts: tuple[bytes, ...], folder: int) -> Iterator[Item | Problem]:
        """Give a directory, whose descriptor is the walk's from now on, and go into it."""
        found: Item | Problem | None = None
        try:
            found = self._given(parts, folder, os.fstat(folder)) if parts else Item((), Kind.DIRECTORY)
            if parts and found is not None:
                yield found
        except BaseException:
            os.close(folder)
            raise
        if not isinstance(found, Item):
            os.close(folder)
            return
        try:
            self._levels.append(_Level(parts, folder))
        except OSError as error:
            os.close(folder)
            yield unreadable(parts, error)
            return
        if len(self._levels) > _OPEN_LEVELS:
            self._levels[-1 - _OPEN_LEVELS].put_down()

    def _next(self) -> Iterator[Item | Problem]:
        level = self._levels[-1]
        if not level.names:
            self._left(self._levels.pop())
            return
        if level.folder < 0 and (lost := self._taken_up(level)) is not None:
            yield lost
            return
        parts = (*level.parts, level.names.pop())
        try:
            descriptor = os.open(parts[-1], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=level.folder)
        except FileNotFoundError:
            return  # it went meanwhile
        except OSError as error:
            yield unreadable(parts, error)
            return
        with opened(descriptor):
            info = os.fstat(descriptor)
            if not stat.S_ISDIR(info.st_mode):
                if (found := self._given(parts, descriptor, info)) is not None:
                    yield found
                return
            try:
                below = os.open(".", FOLDER, dir_fd=descriptor)
            except OSError as error:
                yield unreadable(parts, error)
                return
        yield from self._entered(parts, below)

    def _left(self, level: _Level) -> None:
        """Go back up. If the directory above is closed, the way to it is short from here."""
        above = self._levels[-1] if self._levels else None
        if above is not None and above.folder < 0 and level.folder >= 0:
            with contextlib.suppress(OSError):
                above.take_up(os.open("..", FOLDER, dir_fd=level.folder))
        level.put_down()

    def _taken_up(self, level: _Level) -> Problem | None:
        """Open a directory again. Somebody may have moved it meanwhile."""
        try:
            folder = open_below(self._top, level.parts)
        except OSError as error:
            level.names.clear()
            return unreadable(level.parts, error)
        if not level.take_up(folder):
            level.names.clear()
            return Problem(b"/".join(level.parts), Why.UNREADABLE, "it was replaced while it was read")
        return None

    def _given(self, parts: tuple[bytes, ...], descriptor: int, info: os.stat_result) -> Item | Problem | None:
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            reason = "it is neither a file, nor a directory, nor a symbolic link"
            return Problem(b"/".join(parts), Why.REFUSED, reason)
        size = info.st_size if kind is Kind.FILE else 0
        mode = stat.S_IMODE(info.st_mode)
        item = Item(parts, kind, mode, info.st_mtime_ns, info.st_uid, info.st_gid, size)
        try:
            if kind is Kind.LINK:
                item.target = os.readlink(b"", dir_fd=descriptor)
            elif kind is Kind.FILE:
                item.chunks = lambda: _chunks(descriptor)
            return self._judge(item, descriptor)
        except OSError as error:
            return unreadable(parts, error)


def _chunks(descriptor: int) -> Iterator[bytes]:
    """The bytes of a file. Raises OSError; Unusable when it changed meanwhile."""
    with opened(os.open(by_descriptor(descriptor), os.O_RDONLY | os.O_CLOEXEC)) as file:
        before, size = os.fstat(file), 0
        while size <= before.st_size and (block := os.read(file, BLOCK_BYTES)):  # it may grow as fast as it is read
            size += len(block)
            yield block
        after = os.fstat(file)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise Unusable(Why.WRITING, "it was written to while it was read")


def own_attributes(item: Item, descriptor: int) -> dict[bytes, bytes]:
    """The extended attributes of a file or directory that are its own. Raises OSError."""
    if item.kind is Kind.LINK:
        return {}  # xattr(7): user.* is not for links
    path = by_descriptor(descriptor)
    names = filter(is_own_attribute, map(os.fsencode, os.listxattr(path)))
    return {name: os.getxattr(path, name) for name in names}


def unreadable(parts: tuple[bytes, ...], error: OSError) -> Problem:
    """What is said of an entry that could not be read or looked at."""
    return Problem(b"/".join(parts), Why.UNREADABLE, error.strerror or str(error))


__all__ = ["Judge", "Walk", "own_attributes", "unreadable"]
