"""What lost its name and still lies on the disk, by number; where the configuration says so, its owners are charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from recfs.core.model import Kind
from recfs.state.nodes import Garbage

if TYPE_CHECKING:
    from recfs.state.accounts import Accounts


class Removed(dict[int, Garbage]):
    """All garbage entries. A user is charged for bytes from their entry on until they are gone or have a name again."""

    def __init__(self, accounts: Accounts) -> None:
        super().__init__()
        self._accounts = accounts
        self._wholes: set[int] = set()
        """Directories that lost their names with everything in them, and lie there yet."""
        self._fewer = trio.Event()

    def __setitem__(self, gid: int, entry: Garbage) -> None:
        super().__setitem__(gid, entry)
        is_counted = entry.size_bytes or self._accounts.in_trash.knows(gid)  # else its row is all the trash has of it
        if entry.kind is Kind.FILE and is_counted:
            self._accounts.trashed(gid, entry.path, entry.size_bytes)
        if entry.with_content:
            self._wholes.add(gid)

    def __delitem__(self, gid: int) -> None:
        super().__delitem__(gid)
        self._accounts.left_trash(gid)
        if gid in self._wholes:
            self._wholes.discard(gid)
            self._fewer.set()
            self._fewer = trio.Event()

    @property
    def wholes(self) -> int:
        """How many directories lost their names with everything in them, and lie there yet. Atomic."""
        return len(self._wholes)

    async def until_fewer_wholes(self, than: int) -> None:
        """Wait until there are fewer."""
        while len(self._wholes) >= than:
            await self._fewer.wait()

    def drop(self, gid: int) -> None:
        """Forget an entry, if it is there."""
        if gid in self:
            del self[gid]


__all__ = ["Removed"]
