"""Makes the next numbered version of a file: `topics_v1.json`, `topics_v2.json` …, each number for one caller.

A number is one more than the highest there is in the directory, and than the last that was given out there: that is
kept with the directory, so a number is not given out again when its file was removed, and follows the directory through
renames, the trash and backups of the catalogue. The name is taken with O_EXCL, as programs on the mount take theirs.
The path is walked once: all is done in the directory that it led to, whatever the links on it lead to meanwhile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import trio

from recfs.core.model import Kind
from recfs.core.reuse.numbering import RESERVED, forgotten, last_given
from recfs.errors import Exists, NotADirectory, TryAgain
from recfs.fs.session import At

if TYPE_CHECKING:
    from recfs.core.reuse.numbering import Series
    from recfs.fs.session import Session
    from recfs.state.tree import Tree

TRIES: Final = 100
"""So often programs on the mount may take the very number first."""
PAGE: Final = 1000


class Numbering:
    """Gives out numbers."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._locks: WeakValueDictionary[int, trio.Lock] = WeakValueDictionary()
        """Of directories, by inode number: of several that ask at once, each sees what the one before was given."""

    async def next(self, session: Session, folder: str, which: Series, mode: int = 0o666) -> tuple[str, int]:
        """Make the next version in a directory, an empty file; its name and its number.

        When this returns, the name and that its number was given out survive a power cut. Raises FsError.
        """
        stat = await session.stat(folder)
        if stat.kind is not Kind.DIR:
            raise NotADirectory(f"{folder} is not a directory")
        lock = self._locks.get(stat.ino)
        if lock is None:
            lock = self._locks[stat.ino] = trio.Lock()
        async with lock:
            for _ in range(TRIES):
                made = await self._make(session, stat.ino, which, mode)
                if made is not None:
                    return made
        raise TryAgain(f"{folder}: others have taken each number of {os.fsdecode(which.name(0))} first")

    async def _make(self, session: Session, ino: int, which: Series, mode: int) -> tuple[str, int] | None:
        number = 1 + max(
            await self._highest(session, ino, which),
            last_given(await self._tree.xattrs(await self._tree.directory(ino)), which),
        )
        name = which.name(number)
        try:
            await session.create(At(ino, name), mode, mark=RESERVED)
        except Exists:
            return None
        await self._given(ino, which, number)
        await self._tree.behind.durable()
        return os.fsdecode(name), number

    async def _highest(self, session: Session, ino: int, which: Series) -> int:
        found, after = 0, 0
        while entries := await session.list(At(ino), after, PAGE):
            after = entries[-1].stat.ino
            found = max(found, *(which.number(each.name) or 0 for each in entries))
        return found

    async def _given(self, ino: int, which: Series, number: int) -> None:
        """Remember it with the directory."""
        node = await self._tree.directory(ino)
        own = await self._tree.xattrs(node)
        if node.unlinked or number <= last_given(own, which):
            return
        for name in forgotten(own, which):
            del own[name]
            self._tree.behind.xattr(ino, name, None)
        own[which.mark] = value = b"%d" % number
        self._tree.behind.xattr(ino, which.mark, value)
        self._tree.behind.node(node)


__all__ = ["Numbering"]
