"""Whose is what lies in the trash: what is charged for it, and how much of it one user may leave there.

Bytes are bounded by the disk, and by `max_bytes` where the trash is charged. All else of an entry (its row, the path it
had, extended attributes, a link's target) takes room in the catalogue and in memory, and is bounded here, for each user
by itself: what was deleted first makes room. What belongs to no user (shared files) has one share together.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from recfs.core.layout import owner_of

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRY_BYTES = 1024
"""What an entry takes besides its path, attributes and target: some 400 bytes in the catalogue, the rest in memory."""
_ROOM_MADE = 4
"""Entries that make room for a new one, at most: shares that are too large shrink, and nobody is held up by it."""


class InTrash:
    """Keeps count, by numbers in the trash. All of it atomic."""

    def __init__(self, *, charges: bool, max_metadata: int | None) -> None:
        """*max_metadata*: bytes of metadata that a user may have in the trash; None: the trash keeps nothing."""
        self.charges = charges
        """Whether what users have in the trash counts towards their `max_bytes`."""
        self._max_metadata = max_metadata
        self._charged: dict[int, tuple[str, int]] = {}
        """Whose the bytes are, and how many."""
        self._shares: dict[str | None, OrderedDict[int, int]] = {}
        """The metadata of each entry of a user, oldest first."""
        self._owner: dict[int, str | None] = {}
        self._metadata: Counter[str | None] = Counter()
        self.bytes_of: Counter[str] = Counter()
        """What each user is charged."""
        self.give_up: Callable[[int], object] | None = None
        """Gives up an entry that is to make room."""

    def add(self, gid: int, path: bytes, size_bytes: int, beside_bytes: int) -> str | None:
        """An entry is in the trash, or on its way there; returns whose it is.

        *beside_bytes*: of its attributes and target.
        """
        user = owner_of(tuple(path.split(b"/", 2)[:2]))
        self._uncharge(gid)
        if self.charges and user is not None and size_bytes + beside_bytes:
            self._charged[gid] = user, size_bytes + beside_bytes
            self.bytes_of[user] += size_bytes + beside_bytes
        if self._max_metadata is not None:
            share = self._shares.setdefault(user, OrderedDict())
            metadata = ENTRY_BYTES + len(path) + beside_bytes
            self._metadata[user] += metadata - share.get(gid, 0)
            share[gid], self._owner[gid] = metadata, user
            self._make_room(user, _ROOM_MADE)
        return user

    def remove(self, gid: int) -> str | None:
        """It is gone, or has a name again; returns who was charged for it."""
        self._leave_share(gid)
        return self._uncharge(gid)

    def charged_for(self, user: str, gid: int) -> int:
        """What *user* is charged for an entry."""
        owner, charged = self._charged.get(gid, ("", 0))
        return charged if owner == user else 0

    def shrink(self) -> None:
        """All that the last run left is known: put it in order, and have what is beyond a user's share make room."""
        for user, share in list(self._shares.items()):
            self._shares[user] = OrderedDict(sorted(share.items()))
            self._make_room(user, len(share))

    def _make_room(self, user: str | None, most: int) -> None:
        share = self._shares[user]
        while self._max_metadata is not None and self._metadata[user] > self._max_metadata and len(share) > 1 and most:
            if self.give_up is None:
                return  # a start has yet to load the rest
            most -= 1
            oldest = next(iter(share))
            self._leave_share(oldest)  # its bytes may take a moment to go
            self.give_up(oldest)

    def _leave_share(self, gid: int) -> None:
        if gid in self._owner:
            user = self._owner.pop(gid)
            self._metadata[user] -= self._shares[user].pop(gid)
            if not self._shares[user]:
                del self._shares[user], self._metadata[user]

    def _uncharge(self, gid: int) -> str | None:
        user, charged = self._charged.pop(gid, (None, 0))
        if user is not None:
            self.bytes_of[user] -= charged
        return user


__all__ = ["ENTRY_BYTES", "InTrash"]
