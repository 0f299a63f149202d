"""Whose is what lies in the trash: what is charged for it, and how much of it one user may leave there.

Bytes are bounded by the disk, and by `max_bytes` where the trash is charged. All else of an entry (its row, the path it
had, extended attributes, a link's target) takes room in the catalogue and in memory, and is bounded here, for each user
by itself: what was deleted first makes room. What belongs to no user (shared files) has one share together.

The share holds again after each entry that comes: one takes some 140 KiB at most, so that no more than 140 others make
room for it. What cannot go yet (an unfinished file holds it, or somebody is bringing it back) counts all the while, and
goes as soon as it can.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

from recfs.core.layout import owner_of

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRY_BYTES = 1024
"""What an entry takes besides its path, attributes and target: some 400 bytes in the catalogue, the rest in memory."""


class InTrash:
    """Keeps count, by numbers in the trash. All of it atomic."""

    def __init__(self, *, charges: bool, max_metadata: int | None) -> None:
        """*max_metadata*: bytes of metadata that a user may have in the trash; None: the trash keeps nothing."""
        self.charges = charges
        """Whether what users have in the trash counts towards their `max_bytes`."""
        self.max_metadata = max_metadata
        """As it was given."""
        self._owned: dict[int, tuple[str, int]] = {}
        """Whose the bytes are, and how many, whether they are charged or not: that may change."""
        self._shares: dict[str | None, OrderedDict[int, int]] = {}
        """The metadata of each entry of a user that could make room, oldest first."""
        self._held: dict[int, int] = {}
        """The metadata of each that was to make room and could not go yet: all older than those of its user's share."""
        self._going: set[int] = set()
        """Those that made room and are not gone yet."""
        self._beside: dict[int, int] = {}
        """Bytes of attributes and target, of entries that have any."""
        self._owner: dict[int, str | None] = {}
        self._metadata: Counter[str | None] = Counter()
        self.bytes_of: Counter[str] = Counter()
        """What each user is charged; of nobody anything unless `charges`."""
        self.give_up: Callable[[int], bool] | None = None
        """Gives up an entry that is to make room; False: it cannot go before it was `released`."""

    def reconfigure(self, *, charges: bool, max_metadata: int | None) -> None:
        """Have what is in the trash count, or not count any more, and make room for another share.

        Where the trash kept nothing, its entries are leaving it: they are counted in no share.
        """
        if charges != self.charges:
            self.charges = charges
            self.bytes_of.clear()
            for user, owned in self._owned.values() if charges else ():
                self.bytes_of[user] += owned
        if max_metadata != self.max_metadata:
            self.max_metadata = max_metadata
            self.shrink()

    def add(self, gid: int, path: bytes, size_bytes: int, beside_bytes: int | None = None) -> str | None:
        """An entry is in the trash, or on its way there, or its size is another by now; returns whose it is.

        *beside_bytes*: of its attributes and target; None: as many as were told before.
        """
        user = owner_of(tuple(path.split(b"/", 2)[:2]))
        self._disown(gid)
        if beside_bytes is None:
            beside_bytes = self._beside.get(gid, 0)
        elif beside_bytes:
            self._beside[gid] = beside_bytes
        else:
            self._beside.pop(gid, None)
        if user is not None and size_bytes + beside_bytes:
            self._owned[gid] = user, size_bytes + beside_bytes
            if self.charges:
                self.bytes_of[user] += size_bytes + beside_bytes
        if self.max_metadata is not None and gid not in self._going:
            share = self._shares.setdefault(user, OrderedDict())
            counted: dict[int, int] = self._held if gid in self._held else share
            metadata = ENTRY_BYTES + len(path) + beside_bytes
            self._metadata[user] += metadata - counted.get(gid, 0)
            counted[gid], self._owner[gid] = metadata, user
            self._make_room(user)
        return user

    def knows(self, gid: int) -> bool:
        """Whether anything is counted of an entry."""
        return gid in self._owner or gid in self._owned

    def released(self, gid: int) -> None:
        """Nothing holds an entry any more: should it have been its turn to make room, it is now."""
        if gid in self._held:
            user = self._owner[gid]
            share = self._shares[user]
            share[gid] = self._held.pop(gid)
            share.move_to_end(gid, last=False)
            self._make_room(user)

    def remove(self, gid: int) -> str | None:
        """It is gone, or has a name again; returns who was charged for it."""
        self._leave_share(gid)
        self._going.discard(gid)
        self._beside.pop(gid, None)
        return self._disown(gid)

    def charged_for(self, user: str, gid: int) -> int:
        """What *user* is charged for an entry."""
        owner, owned = self._owned.get(gid, ("", 0))
        return owned if owner == user and self.charges else 0

    def shrink(self) -> None:
        """All that the last run left is known: put it in order, and have what is beyond a user's share make room."""
        for user, share in list(self._shares.items()):
            self._shares[user] = OrderedDict(sorted(share.items()))
            self._make_room(user)

    def _make_room(self, user: str | None) -> None:
        """Have the oldest go until the share holds; what was deleted last stays, however large it is."""
        if self.max_metadata is None or self.give_up is None:
            return  # a start has yet to load the rest
        share = self._shares[user]
        while self._metadata[user] > self.max_metadata and len(share) > 1:
            oldest = next(iter(share))
            self._going.add(oldest)  # its bytes may take a moment to go
            if self.give_up(oldest):
                self._leave_share(oldest)
            else:
                self._going.discard(oldest)
                self._held[oldest] = share.pop(oldest)

    def _leave_share(self, gid: int) -> None:
        if gid in self._owner:
            user = self._owner.pop(gid)
            held = self._held.pop(gid, None)
            self._metadata[user] -= self._shares[user].pop(gid) if held is None else held
            if not self._metadata[user]:
                del self._shares[user], self._metadata[user]

    def _disown(self, gid: int) -> str | None:
        user, owned = self._owned.pop(gid, (None, 0))
        if user is not None and self.charges:
            self.bytes_of[user] -= owned
        return user


__all__ = ["ENTRY_BYTES", "InTrash"]
