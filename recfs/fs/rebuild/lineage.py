"""Which row of the old catalogue is whose: by name, and by inode number on the disk where something has another name.

A file is known by its inode number, size and mtime, a directory by its inode number and something that is in it, since
inode numbers are given out again. In a copy of a store no number is what it was, and names alone tell.
"""

from __future__ import annotations

import os
import stat
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

from recfs.core.layout import TOP_DIRS
from recfs.core.model import Kind

if TYPE_CHECKING:
    from recfs.fs.rebuild.oldrows import OldRows
    from recfs.ports.rows import NodeRow
    from recfs.stores.local import LocalStore

OWN_DEPTH = 4
"""From here on users give directories their names: users/<id>/recordings/<id>."""
PAGE = 1000
_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.DIR: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}


class Lineage:
    """Answers for one rebuild. Blocking disk calls: nothing is mounted."""

    def __init__(self, store: LocalStore, old: OldRows, *, numbers_tell: bool) -> None:
        """*numbers_tell*: the old catalogue is of this tree, and not of one that this is a copy of."""
        self._store = store
        self._old = old
        self._numbers_tell = numbers_tell
        self._folders: dict[int, bytes] | None = None
        """Directories of the home tree by inode number: looked for once, when one is not what had its name."""
        self._others = array("Q")
        """Inode numbers of everything else, sorted."""

    async def of(
        self, folder: int | None, path: bytes, info: os.stat_result | None, below: bytes | None = None
    ) -> NodeRow | None:
        """What the old catalogue has of the entry at *path*, in a directory that it knew as *folder*.

        *info*: what stands there in the home tree (None: nothing). *below*: a name that S3 has in it.
        """
        named = await self._old.child(folder, path.rpartition(b"/")[2])
        if not self._numbers_tell or path.count(b"/") + 1 < OWN_DEPTH or _is_at(named, info):
            return named
        if info is not None:
            for row in await self._old.lying_at(info.st_ino):
                if await self._is_its(row, path, info, below):
                    return row
        if named is None or (info is not None and _has_facts(named, info)) or not await self._is_elsewhere(named):
            return named
        return None

    async def _is_its(self, row: NodeRow, path: bytes, info: os.stat_result, below: bytes | None) -> bool:
        """Whether an entry with a row's inode number is the row's."""
        if stat.S_IFMT(info.st_mode) != _FORMATS[row.kind]:
            return False
        return await self._is_alike(row, path, below) if row.kind is Kind.DIR else _has_facts(row, info)

    async def _is_alike(self, row: NodeRow, path: bytes, below: bytes | None) -> bool:
        """Whether something of what was in a directory is in the one at *path*; or there is nothing, as there was."""
        entries, after = self._store.beneath.entries(self._store.home([path])), 0
        while page := await self._old.children(row, after, PAGE):
            after = page[-1].ino
            for each in page:
                info, number = entries.get(each.name), each.placement.home_ino
                if number is not None and info is not None and info.st_ino == number:
                    return True
                if number is None and each.name == below:
                    return True
        return not after and not entries

    async def _is_elsewhere(self, row: NodeRow) -> bool:
        """Whether what a row was of has another name by now."""
        number = row.placement.home_ino
        if number is None:
            return False
        if self._folders is None:
            self._folders = self._walk()
        if row.kind is not Kind.DIR:
            at = bisect_left(self._others, number)
            return at < len(self._others) and self._others[at] == number
        there = self._folders.get(number)
        return there is not None and (await self._is_alike(row, there, None) or not await self._has_local(row))

    async def _has_local(self, row: NodeRow) -> bool:
        """Whether anything in a directory was on the disk."""
        after = 0
        while page := await self._old.children(row, after, PAGE):
            after = page[-1].ino
            if any(each.placement.home_ino is not None for each in page):
                return True
        return False

    def _walk(self) -> dict[int, bytes]:
        folders: dict[int, bytes] = {}
        others = array("Q")
        pending = list(TOP_DIRS)
        while pending:
            path = pending.pop()
            try:
                entries = self._store.beneath.entries(self._store.home([path]))
            except OSError:
                continue  # the walk of the rebuild tells
            for name, info in entries.items():
                if stat.S_ISDIR(info.st_mode):
                    folders[info.st_ino] = path + b"/" + name
                    pending.append(path + b"/" + name)
                else:
                    others.append(info.st_ino)
        self._others = array("Q", sorted(others))
        return folders


def _is_at(row: NodeRow | None, info: os.stat_result | None) -> bool:
    """Whether a row and what stands under its name are of one inode number, or the row knows none."""
    if row is None:
        return False
    number = row.placement.home_ino
    return number is None or (info is not None and info.st_ino == number)


def _has_facts(row: NodeRow, info: os.stat_result) -> bool:
    """Whether a file, or a link, is of a row's size and time."""
    if row.kind is Kind.SYMLINK:
        return stat.S_ISLNK(info.st_mode)
    return stat.S_ISREG(info.st_mode) and (row.size_bytes, row.mtime_ns) == (info.st_size, info.st_mtime_ns)


__all__ = ["Lineage"]
