"""Objects below the store's prefix that no row knows, and rows whose object is not there.

The listing and the rows are both read in the order of keys, a page of each at a time: memory does not grow with
either, and a million objects of others cost no request of their own but for the first of them. What the queue has to
do with a key (a deletion that waits, a move, an upload of which nobody knows what became) keeps it from being an
orphan.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import trio

from recfs.core.keys import key_for, path_for
from recfs.core.layout import role_of
from recfs.core.model import State
from recfs.core.upkeep.leftovers import QUIET_S, Deed, Missing, Now, Stray, Where
from recfs.errors import FsError, RecfsError
from recfs.state.walk import file_at
from recfs.tier.trashed import TRASH
from recfs.tier.uploads.holders import ASIDE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from recfs.ports.objects import ObjectInfo
    from recfs.ports.rows import ObjectRow
    from recfs.ports.sweep import Progress
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree
    from recfs.tier.tier import Tier

    Tell = Callable[["Strange | Lost"], Awaitable[None]]

PAGE = 1000
AT_ONCE = 50
ASKED = 1000
"""So many objects that no row knows are asked what their metadata says, where nothing is to be done about them."""
OWN = ".recfs/"
"""Where recfs keeps what is no file's: the mark, backups; but for what lies in `ASIDE` and `TRASH`."""


class Strange(NamedTuple):
    """An object that no row knows."""

    stray: Stray
    info: ObjectInfo
    """With its metadata, if that was asked for."""


class Lost(NamedTuple):
    """A row whose object is gone."""

    missing: Missing
    ino: int


class BucketLeftovers:
    """What is left over in the bucket."""

    def __init__(self, tier: Tier, tree: Tree) -> None:
        self._tier = tier
        self._tree = tree

    async def look(self, progress: Progress, tell: Tell, *, ask_all: bool) -> None:
        """Tell of all of it, one by one; *ask_all*: with the metadata of every object that could be recfs's.

        *progress* counts the objects, and ends it early. Raises ObjectStoreError.
        """
        await self._tier.ownership.ensure()
        listing = iter(self._tier.objects.list())
        rows, asked = RowsByKey(self._tree), 0
        while not progress.is_stopping:
            page = await self._in_thread(partial(next_page, listing))
            for count, info in enumerate(page, 1):
                progress.done += 1
                if count % AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()  # requests come first
                while (row := await rows.before(info.key)) is not None:
                    if (lost := await self._lost(row)) is not None:
                        await tell(lost)
                is_own = info.key.startswith(OWN) and not info.key.startswith((ASIDE, TRASH))
                if await rows.takes(info.key) or is_own:
                    continue
                if self._tier.journal.tally.at(info.key) or self._tier.trashed.index.at(info.key):
                    continue
                strange = await self._strange(info, ask=ask_all or asked < ASKED)
                if strange is not None:
                    asked += strange.info is not info
                    await tell(strange)
            if len(page) < PAGE:
                break
        else:
            return
        while (row := await rows.before(None)) is not None:
            if (lost := await self._lost(row)) is not None:
                await tell(lost)

    async def _in_thread(self, call: partial[Sequence[ObjectInfo]]) -> Sequence[ObjectInfo]:
        return await trio.to_thread.run_sync(call, limiter=self._tier.limiter, abandon_on_cancel=True)

    def _is_claimed(self, key: str) -> bool:
        journal = self._tier.journal
        return (
            journal.is_deleted(key) or key in journal.leaving or journal.unanswered.may_put(key)
            or self._tier.copies.is_read(key, 0) or bool(self._tier.trashed.index.at(key))
            or bool(journal.tally.at(key))
        )  # fmt: skip

    async def are_nobodys(self, keys: Sequence[str]) -> frozenset[str]:
        """Those of *keys* that no row has, and with which nothing is to be done, as of the last batch.

        Atomic from its last await on. What is not written yet counts as far as memory has it: who needs to be sure has
        everything written before, and looks afterwards whether a batch was written meanwhile (`WriteBehind.written`).
        """
        free = await self._without_row(keys)
        dirty = self._tree.behind.object_keys()
        return frozenset(key for key in free if key not in dirty and not self._is_claimed(key))

    async def _without_row(self, keys: Sequence[str]) -> Sequence[str]:
        """Those of *keys* that no row has, as of the last batch: in one question, unless much lies between them."""
        if not keys:
            return keys
        catalogue = self._tree.catalogue
        ordered = sorted(keys, key=str.encode)
        rows = await catalogue.objects_by_key(ordered[0][:-1], PAGE)
        if len(rows) < PAGE or rows[-1].key.encode() >= ordered[-1].encode():
            taken = {row.key for row in rows}
            return [key for key in keys if key not in taken]
        return [key for key in keys if await catalogue.object_at(key, 0) is None]

    def _now(self) -> Now:
        return Now(self._tree.clock.now_ns(), self._tree.clock.calendar_ns())

    async def _strange(self, info: ObjectInfo, *, ask: bool) -> Strange | None:
        """What it is, if no row knows it."""
        if self._now().age_s(info.last_modified_ns) < QUIET_S:
            return None
        is_path = _is_path(info.key)
        if is_path and ask:
            found = await trio.to_thread.run_sync(self._tier.objects.head, info.key, limiter=self._tier.limiter)
            if found is None or not await self.is_nobodys(found):
                return None
            info = found
        is_ours, adopts, why = info.sha256 is not None and info.md5 is not None, False, "no row has this object"
        if not is_path:
            why = "its key is no path of a file"
        elif not ask:
            why = "no row has this object; more of them than are asked what they are"
        elif not is_ours:
            why = "no row has this object, and recfs did not write it"
        else:
            adopts = not info.key.startswith((ASIDE, TRASH))
            if info.key.startswith(TRASH):
                why = "it was kept for the trash, which has no such entry any more"
        removal = Deed.DELETE if is_path and is_ours else Deed.NONE
        stray = Stray(Where.BUCKET, info.key, info.size_bytes, info.last_modified_ns, why, adopts, removal)
        return Strange(stray, info)

    async def is_nobodys(self, info: ObjectInfo) -> bool:
        """Whether no row has the object, and nothing is to be done with its key. Atomic from its last await on."""
        try:
            await self._tree.behind.flush()
        except RecfsError:
            return False  # nobody knows what is not written yet
        return await self._tree.catalogue.object_at(info.key, 0) is None and not self._is_claimed(info.key)

    async def _lost(self, row: ObjectRow) -> Lost | None:
        """The row of a file whose object is not there, if it is still so."""
        node = await file_at(self._tree, row.ino)
        if node is None or not self._has(node, row):
            return None
        if await trio.to_thread.run_sync(self._tier.objects.head, row.key, limiter=self._tier.limiter) is not None:
            return None
        if not self._has(node, row):
            return None
        self._tier.ownership.forget()  # the whole prefix may have been emptied: what changes something looks first
        here = node.state is State.STORED
        why = "S3 has its object no more; the bytes are here alone" if here else "S3 has its object no more: it is lost"
        return Lost(Missing(Where.BUCKET, row.key, row.size_bytes, why, is_here=here), row.ino)

    def _has(self, node: FileNode, row: ObjectRow) -> bool:
        """Whether the object of the file is to lie where that row says, and nobody is at it."""
        journal = self._tier.journal
        busy = journal.upload_of(node.ino) is not None or journal.move_of(node.ino) is not None
        return not node.unlinked and not busy and node.object is not None and node.object.key == row.key

    # --- acting --------------------------------------------------------------------------------------------------

    async def delete(self, strange: Strange) -> bool:
        """Have an object deleted, by the queue; False: it is somebody's by now. What carries it out looks again."""
        if not await self.is_nobodys(strange.info):
            return False
        self._tier.journal.delete(strange.info.key)
        return True

    async def upload_again(self, lost: Lost) -> bool:
        """Have a file whose object is gone uploaded again, from the copy here; False: it was changed meanwhile."""
        node = await file_at(self._tree, lost.ino)
        if node is None or node.unlinked or node.state is not State.STORED:
            return False
        return await self._tier.store_anew(node)


class RowsByKey:
    """Rows of objects in the order of their keys, a page at a time, beside a listing."""

    def __init__(self, tree: Tree, prefix: str = "") -> None:
        """*prefix*: none of those before it are wanted."""
        self._tree = tree
        self._page: deque[ObjectRow] = deque()
        self._after: str | None = prefix[:-1]

    async def _first(self) -> ObjectRow | None:
        if not self._page and self._after is not None:
            page = await self._tree.catalogue.objects_by_key(self._after, PAGE)
            self._page.extend(page)
            self._after = page[-1].key if page else None
        return self._page[0] if self._page else None

    async def before(self, key: str | None) -> ObjectRow | None:
        """The next one whose key comes before *key*, or (None) of all that are left; None when there is none."""
        row = await self._first()
        return self._page.popleft() if row is not None and (key is None or row.key < key) else None

    async def takes(self, key: str) -> bool:
        """Whether a row has *key*; it is done with."""
        known = False
        while (row := await self._first()) is not None and row.key == key:
            self._page.popleft()
            known = True
        return known


def next_page(listing: Iterator[ObjectInfo]) -> Sequence[ObjectInfo]:
    """Up to PAGE objects. In a thread."""
    return list(islice(listing, PAGE))


def _is_path(key: str) -> bool:
    """Whether a file of a store may have its object there."""
    if key.startswith(TRASH):
        return True
    if key.startswith(ASIDE):
        return key.removeprefix(ASIDE).isdigit()
    try:
        path = path_for(key)
        role_of(tuple(path.split(b"/")), is_dir=False)
    except (FsError, ValueError):
        return False
    return key_for(path) == key


__all__ = ["OWN", "PAGE", "BucketLeftovers", "Lost", "RowsByKey", "Strange", "next_page"]
