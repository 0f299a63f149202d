"""Objects that follow their files: to the key of a new name, and to what the file's attributes are now.

A move is a copy in S3 and the removal of what was copied. What cannot be put where it belongs yet, since two files
change places or S3 refuses to move what is there, goes aside first.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.core.model import State
from recfs.ports.object_errors import (
    NotOffered,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    ObjectStoreError,
    RequestRefused,
)
from recfs.ports.objects import ARCHIVE_CLASSES, ObjectInfo, ObjectMeta
from recfs.state.nodes import DirNode
from recfs.state.walk import Walk, file_at
from recfs.state.work.turns import Turn
from recfs.tier import sending
from recfs.tier.identity import has_object
from recfs.tier.queue.reasons import NOT_YET, UNDECIDED
from recfs.tier.tier import CURRENT, description_of, key_of
from recfs.tier.uploads.holders import ASIDE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from recfs.ports.rows import JournalRow, ObjectRow
    from recfs.state.nodes import FileNode, Node
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind
    from recfs.tier.tier import Tier
    from recfs.tier.uploads.holders import Holders

log = logging.getLogger("recfs.uploader")

WRITTEN_LOOK_S = 3600.0
"""How long the metadata of a file that is being written is left alone; its commit or its upload tells before that."""
UNDECIDED_S = 1.0
"""How long after the time for late requests what lies under a name is looked at."""
_NS = 10**9


class ObjectMoves:
    """The journal's moves, carried out."""

    def __init__(
        self, tier: Tier, tree: Tree, behind: WriteBehind, holders: Holders, limiter: trio.CapacityLimiter,
        clear: Callable[[JournalRow], Awaitable[bool]], claim: Callable[[JournalRow, str], bool],
    ) -> None:  # fmt: skip
        self._tier = tier
        self._journal = tier.journal
        self._tree = tree
        self._behind = behind
        self._holders = holders
        self._limiter = limiter
        self._clear = clear
        """Has removed what a row may have put under its key, if no file's object is there; False: not yet."""
        self._claim = claim
        """Keeps everybody else from a key until the row's work ends; False: somebody works there."""

    async def folder(self, row: JournalRow, folder: Node) -> None:
        """A directory was renamed: the objects of everything below are to follow. Raises IoFailure or OutOfSpace."""
        await self._reassign_users(folder)
        await self._behind.flush()
        after = 0
        while page := await self._tree.catalogue.objects_below(folder.ino, after, 500):
            for ino in page:
                if (node := await file_at(self._tree, ino)) is not None:
                    self._tier.queue_move(node)
            after = page[-1]
            await self._behind.flush()
        await self._send_what_arrived(folder)
        self._journal.done(row.id)

    async def _send_what_arrived(self, folder: Node) -> None:
        """Of what S3 has nothing of, and came below a directory that was renamed, the rules may want it there now."""
        if not isinstance(folder, DirNode):
            return
        async for found in Walk(self._tree, folder):
            is_here = found.state is State.COMMITTED and not found.has_object
            if is_here and (node := await file_at(self._tree, found.ino)) is not None:
                sending.arrived(self._tier.copies, self._tier.decide, node)

    async def _reassign_users(self, folder: Node) -> None:
        """What waits below a directory that came from another user counts as this one's."""
        user = folder.user if isinstance(folder, DirNode) else None
        turn = Turn()
        for ino in await self._journal.uploads_of_others(user):
            if turn.is_over:
                await turn.pass_on()
            if (node := await file_at(self._tree, ino)) is not None:
                self._journal.owned(node)

    async def file(self, row: JournalRow, node: FileNode) -> None:
        """The object is to lie where its file does, or to say what the file is. Raises what S3 refuses."""
        if node.object is not None and not node.object.etag and not await self._decided(row, node, node.object):
            return
        in_s3, key = node.object, key_of(node)
        if in_s3 is None or in_s3.key == key:
            if (in_s3 is None or row.key != key) and not await self._clear(row):
                return
            if in_s3 is None:
                self._journal.done(row.id)
                return
            row = row._replace(key="")
            await self._describe(row, node, in_s3)
            return
        if not self._claim(row, key):
            return
        await self._holders.make_durable(node, key)
        await self._tier.trashed.make_way(key)
        holder = await self._holders.holder(key, node.ino)
        if row.id in self._holders.to_go_aside or (holder is not None and await self._holders.in_circle(node, holder)):
            key = f"{ASIDE}{node.ino}"
            if not self._claim(row, key):
                return
            await self._tier.trashed.make_way(key)
        elif await self._holders.in_the_way(row, key, holder):
            return
        if self._journal.unanswered.others(key, in_s3.sha256):  # perhaps it would be all there is of the file
            self._journal.waiting(row._replace(next_try_ns=self._journal.unanswered.until_ns(key), error=NOT_YET))
            return
        if row.key != key:
            if not await self._clear(row):
                return
            row = row._replace(key=key)  # a copy of which nobody knows would be an orphan
            self._journal.update(row)
        await self._behind.durable()  # … and so would one be whose file has its old name after a power cut
        if not _has(node, in_s3) or key not in (key_of(node), f"{ASIDE}{node.ino}"):
            self._journal.again(row)
            return
        description = description_of(node, in_s3)
        try:
            info = await self._copy(in_s3, key, description)
        except (ObjectMissing, ObjectChanged) as error:
            is_lost = await self._holders.is_lost(node)
            if node.object is not in_s3:  # it has another etag, which is known now
                self._journal.again(row)
                return
            if is_lost and self._tier.lost(node):
                log.warning("%s: what lies under %s is not its object, and goes: %s", node.path, in_s3.key, error)
                self._journal.again(row)
                return
            if is_lost and node.state is State.STORED:
                log.warning("%s: its object %s was lost, the file is uploaded anew: %s", node.path, in_s3.key, error)
                await self._tier.store_anew(node)
                self._journal.done(row.id)
                return
            if isinstance(error, ObjectMissing) and not row.attempts:
                log.error("%s: its object %s is gone from S3", node.path, in_s3.key)
            raise
        self._journal.done(row.id)
        self._holders.to_go_aside.discard(row.id)
        self._journal.keep_new_object(key)
        if node.object is None or node.object.key != in_s3.key or node.unlinked:
            self._journal.delete(key)  # uploaded anew, or removed, meanwhile
            return
        self._tier.copies.remember(
            node, node.object._replace(key=key, etag=info.etag, mtime_ns=description.mtime_ns or 0)
        )
        self._tier.moved(node, in_s3.key)
        self._tier.queue_move(node)
        if description_of(node, node.object) != description:
            self._tier.described(node)
        await self._behind.durable()  # before another object may be put where this one was

    async def _decided(self, row: JournalRow, node: FileNode, in_s3: ObjectRow) -> bool:
        """An upload had no answer, and its bytes may lie in the place of the object. Finds out, as far as can be.

        False: the row is looked at again. Raises ObjectStoreError.
        """
        key, unanswered = in_s3.key, self._journal.unanswered
        if key == key_of(node):
            now, until_ns = self._tree.clock.steady_ns(), unanswered.until_ns(key)
            is_sent = self._journal.upload_of(node.ino) is not None  # it says, when it is done, what is there
            if is_sent or unanswered.others(key, in_s3.sha256):
                wait_ns = round((WRITTEN_LOOK_S if is_sent else UNDECIDED_S) * _NS)
                self._journal.watch(row._replace(next_try_ns=max(until_ns, now) + wait_ns, error=UNDECIDED))
                return False
        is_there = await has_object(self._tier.link, self._tier.copies, node)
        if is_there is False:
            self._tier.lost(node)
        elif is_there is None:
            self._journal.again(row)
        return is_there is not None

    async def _describe(self, row: JournalRow, node: FileNode, in_s3: ObjectRow) -> None:
        """The object is where it belongs; its metadata follows the file's attributes, by a copy onto itself."""
        if node.state in (State.WRITING, State.SEALING):
            # The upload that follows says it; without one, nothing was changed, and the commit tells.
            next_ns = self._tree.clock.steady_ns() + round(WRITTEN_LOOK_S * _NS)
            self._journal.waiting(row._replace(next_try_ns=next_ns, error="the file is being written"))
            return
        if node.state not in CURRENT or in_s3.storage_class in ARCHIVE_CLASSES:
            self._journal.done(row.id)
            return
        await self._behind.durable()  # should the answer be lost, this row tells whose doing the new etag is
        if not _has(node, in_s3):
            self._journal.again(row)
            return
        description = description_of(node, in_s3)
        try:
            info = await self._copy(in_s3, in_s3.key, description)
        except (ObjectMissing, ObjectChanged, ObjectArchived, NotOffered, RequestRefused) as error:
            if isinstance(error, ObjectChanged) and not await self._holders.is_lost(node) and not _has(node, in_s3):
                self._journal.again(row)  # it has another etag, which is known now
                return
            log.warning("%s: its metadata in S3 stays as it is: %s", node.path, error)
            self._journal.done(row.id)
            return
        self._journal.done(row.id)
        if node.object is not None and (node.object.key, node.object.etag) == (in_s3.key, in_s3.etag):
            self._tier.copies.remember(node, node.object._replace(etag=info.etag, mtime_ns=description.mtime_ns or 0))
            if description_of(node, node.object) != description:
                self._tier.described(node)
            elif (until_ns := self._journal.unanswered.until_ns(in_s3.key)) > self._tree.clock.steady_ns():
                # The same bytes with what was true before may come to lie there.
                self._journal.describe_again(node.ino, in_s3.key, until_ns + _NS)

    async def _copy(self, in_s3: ObjectRow, key: str, meta: ObjectMeta) -> ObjectInfo:
        """Copy a file's object to *key*, described anew."""
        copy = partial(
            self._tier.objects.copy, in_s3.key, key, in_s3.size_bytes, meta=meta,
            if_match=in_s3.etag, cancel=lambda: self._journal.stopping,
        )  # fmt: skip
        try:
            return await trio.to_thread.run_sync(copy, limiter=self._limiter)
        except ObjectStoreError as error:
            if error.unanswered:
                self._journal.unanswered.note(key, in_s3.sha256)
            raise


def _has(node: FileNode, in_s3: ObjectRow) -> bool:
    return node.object is in_s3 and not node.unlinked
