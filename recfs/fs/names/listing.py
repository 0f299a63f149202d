"""Open directories: what readdir shows, and in which order.

Entries come in order of inode number, and the offset a reader goes on from is the last inode number it saw: removing
or adding names meanwhile never shows one twice and never skips one that stays. Views follow, their numbers being the
highest.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.fs.fallback_entries import FallbackEntries, FallbackEntry
    from recfs.ports.rows import NodeRow
    from recfs.state.nodes import DirNode, Node
    from recfs.state.tree import Tree

PAGE_ROWS = 1000
SLICE_NODES = 256
"""So many entries of a directory in memory are given at a time: a bit more than fit into a buffer of the usual size."""
_INO_BITS = 40
_COUNTS = 1 << 23
KEPT_ENTRIES = 1_000_000
"""So many entries all handles together keep; those that were read longest ago collect theirs anew."""
_by_ino = attrgetter("ino")


class Listing:
    """One opendir(3)."""

    __slots__ = ("entries", "folder", "names", "page", "seen", "views")

    def __init__(self, folder: DirNode) -> None:
        self.folder = folder
        self.entries: Sequence[Node] | None = None
        """A complete directory's entries, taken when reading began."""
        self.views: list[FallbackEntry] | None = None
        self.names: set[bytes] | None = None
        """Own names, where views must not repeat them."""
        self.page: Sequence[Node | NodeRow] = ()
        """The last page of an incomplete directory; good while `seen` is the number of changes made so far."""
        self.seen = -1

    @property
    def weight(self) -> int:
        """How many entries it keeps."""
        return len(self.entries or ()) + len(self.views or ()) + len(self.names or ()) + len(self.page)

    def shed(self) -> None:
        """Keep nothing. Order and offset are those of inode numbers, so reading goes on all the same."""
        self.entries = self.views = self.names = None
        self.page, self.seen = (), -1


class Listings:
    """All open directories, by handle number."""

    def __init__(self, tree: Tree, views: FallbackEntries) -> None:
        self._tree = tree
        self._views = views
        self.next_number = 1
        self.open_dirs: dict[int, Listing] = {}
        self._keeping: dict[int, int] = {}
        """Handle → how many entries it keeps; read last, last in order."""
        self._kept = 0

    async def open(self, ino: int) -> int:
        """Open directory *ino*. Raises NotADirectory."""
        folder = await self._tree.directory(ino)
        number = 0
        while not number or number in self.open_dirs:  # it tells which directory it is of, so the count starts over
            number = self.next_number % _COUNTS << _INO_BITS | folder.ino
            self.next_number += 1
        self.open_dirs[number] = Listing(folder)
        return number

    async def known(self, number: int) -> Listing:
        """The listing of a handle, also of one that a daemon gave to the kernel which has died. Raises Stale."""
        listing = self.open_dirs.get(number)
        if listing is None:
            folder = await self._tree.directory(number & ((1 << _INO_BITS) - 1))
            listing = self.open_dirs.setdefault(number, Listing(folder))
        return listing

    def inherit(self, number: int, folder: DirNode) -> None:
        """A handle that an earlier daemon gave to the kernel; reading goes on by the offset. Atomic."""
        self.open_dirs[number] = Listing(folder)

    def release(self, number: int) -> None:
        """Close."""
        self.open_dirs.pop(number, None)
        self._kept -= self._keeping.pop(number, 0)

    async def read(self, number: int, after: int) -> Sequence[Node | NodeRow | FallbackEntry]:
        """Entries after offset *after* (0 = from the start): as many as are cheap to have, none at the end."""
        listing = await self.known(number)
        found = await self._read(listing, after)
        if self.open_dirs.get(number) is listing:
            self._keep(number, listing)
        return found

    def _keep(self, number: int, listing: Listing) -> None:
        """Count what the handle keeps, and have others shed theirs."""
        weight = listing.weight
        self._kept += weight - self._keeping.pop(number, 0)
        self._keeping[number] = weight
        while self._kept > KEPT_ENTRIES and len(self._keeping) > 1:
            other = next(iter(self._keeping))
            self.open_dirs[other].shed()
            self._kept -= self._keeping.pop(other)

    async def _read(self, listing: Listing, after: int) -> Sequence[Node | NodeRow | FallbackEntry]:
        folder = listing.folder
        if after == 0:
            listing.entries = self._tree.snapshot(folder) if folder.complete else None
            listing.views = None
            if folder.fallback is not None:
                listing.names = await self._own_names(folder)
        found: Sequence[Node | NodeRow | FallbackEntry]
        if listing.entries is not None:
            start = bisect_right(listing.entries, after, key=_by_ino)
            found = []
            while not found and start < len(listing.entries):
                some = listing.entries[start : start + SLICE_NODES]
                found = [node for node in some if node.parent is folder and not node.unlinked]
                start += SLICE_NODES
        elif folder.unlinked:
            found = []
        else:
            found = await self._page(listing, after)
        if found or folder.fallback is None or folder.unlinked:
            return found
        views = listing.views
        if views is None:
            names = await self._own_names(folder) if listing.names is None else listing.names
            views = listing.views = await self._views.shown(folder, names)
        return views[bisect_right(views, after, key=_by_ino) :]

    async def _page(self, listing: Listing, after: int) -> Sequence[Node | NodeRow]:
        # The kernel takes some 200 entries a request. The rest of the page is still true as long as nothing at all
        # changed: an outdated entry would bring a deleted name back to life in the kernel's cache.
        changes = self._tree.behind.changes
        page = listing.page
        if listing.seen == changes and page and page[0].ino <= after < page[-1].ino:
            return page[bisect_right(page, after, key=_by_ino) :]
        listing.page = page = await self._tree.page(
            listing.folder, after, PAGE_ROWS if listing.seen in (-1, changes) else 250
        )
        listing.seen = self._tree.behind.changes
        return page

    async def _own_names(self, folder: DirNode) -> set[bytes]:
        if folder.complete:
            return set(folder.children)
        names: set[bytes] = set()
        after = 0
        while page := await self._tree.page(folder, after, PAGE_ROWS):
            names.update(entry.name for entry in page)
            after = page[-1].ino
        return names
