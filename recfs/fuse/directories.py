"""READDIR and READDIRPLUS: the entries of open directories in the kernel's buffers.

The C extension fills a buffer at a time (_fuse_listing.c); what it does not know how to tell, and everything where it
is not there, is told one by one, by pyfuse3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import pyfuse3

from recfs.errors import IoFailure
from recfs.fuse import interpose
from recfs.fuse.entries import CACHE_S
from recfs.ports.rows import NodeRow
from recfs.state.nodes import Node
from recfs.state.waits import ticket

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from recfs.fs.fallback_entries import FallbackEntry
    from recfs.fs.names.listing import Listings
    from recfs.fuse.entries import Entries
    from recfs.state.nodes import DirNode

_Entry: TypeAlias = "Node | NodeRow | FallbackEntry"
DOTS: Final = 2
"""Offsets: 1 is `.`, 2 is `..`, and an entry's is its inode number + 2."""
_NOTHING: Final = pyfuse3.EntryAttributes()
"""What `readdir_reply` is given where the extension tells what it has staged instead."""


class Directories:
    """Answers listing requests."""

    def __init__(self, listings: Listings, entries: Entries) -> None:
        self._listings = listings
        self._entries = entries
        self._extension: ModuleType | None = interpose.reply

    def names_alone(self) -> bool:
        """Whether the request of the handler that calls asks for names without attributes."""
        return self._extension is not None and bool(self._extension.is_plain(ticket.get()))

    async def read(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken, *, plain: bool) -> None:
        """Put entries of an open directory after offset *start_id* into the answer, as many as fit.

        *plain*: names alone are asked for.
        """
        after = max(0, start_id - DOTS)
        folder = (await self._listings.known(fh)).folder
        found = await self._listings.read(fh, after)
        while found or start_id < DOTS:
            if not self._put(token, found, folder, start_id, plain=plain) or not found:
                return
            after, start_id = found[-1].ino, DOTS
            found = await self._listings.read(fh, after)

    def _put(
        self, token: pyfuse3.ReaddirToken, found: Sequence[_Entry], folder: DirNode, start_id: int, *, plain: bool
    ) -> bool:
        """False when the answer is full. Atomic."""
        extension, first = self._extension, 0
        while extension is not None:
            extension.stage_entries(found, first, folder, start_id, plain, CACHE_S)
            pyfuse3.readdir_reply(token, b"", _NOTHING, 0)
            first, full = extension.entries_put()
            if first < 0:
                extension = self._extension = None  # pyfuse3 does not use its functions
                break
            if full:
                return False
            start_id = DOTS
            if first == len(found):
                return True
            if plain:
                raise IoFailure(f"{folder.path}: an entry that cannot be told: {found[first]!r}")
            if not self._put_one(token, found[first]):
                return False
            first += 1
        for offset, name, node in ((1, b".", folder), (2, b"..", folder.parent)):
            if offset > start_id and not pyfuse3.readdir_reply(token, name, self._entries.of(node), offset):
                return False
        return all(self._put_one(token, item) for item in found)

    def _put_one(self, token: pyfuse3.ReaddirToken, item: _Entry) -> bool:
        entry = self._entries.of_row(item) if isinstance(item, NodeRow) else self._entries.of(item)
        if not pyfuse3.readdir_reply(token, item.name, entry, item.ino + DOTS):
            return False
        if isinstance(item, Node):
            item.kernel_refs += 1
        return True


__all__ = ["DOTS", "Directories"]
