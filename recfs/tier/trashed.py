"""Versions in the trash whose bytes only S3 has.

Their objects stay for the retention, and make way when somebody else's bytes are put under their keys.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.core.keys import key_for
from recfs.core.model import State
from recfs.errors import Busy, Stale
from recfs.ports.object_errors import ObjectArchived, ObjectChanged, ObjectMissing, ObjectStoreError
from recfs.ports.rows import LocalCopy, ObjectRow

if TYPE_CHECKING:
    from recfs.disk.trash_index import TrashIndex
    from recfs.ports.objects import ObjectInfo
    from recfs.ports.rows import TrashRow
    from recfs.state.nodes import FileNode, Garbage
    from recfs.state.tree import Tree
    from recfs.tier.copies import Copies
    from recfs.tier.link import Link

log = logging.getLogger("recfs.tier")

TRASH = ".recfs/trash/"
"""Where the object of a version in the trash lies, once another is put under its key. No path of a file begins so."""
_NS = 10**9


class TrashedObjects:
    """Looks after them."""

    def __init__(self, tree: Tree, copies: Copies, link: Link, index: TrashIndex) -> None:
        self.index = index
        self._tree = tree
        self._copies = copies
        self._journal = copies.journal
        self._link = link
        self._going_aside: set[str] = set()
        """Keys to which S3 is just copying something."""

    async def make_way(self, key: str) -> None:
        """Something is about to be put under *key*: copy what is a version in the trash aside, on the server.

        What cannot be copied for its own sake is not kept any longer. Raises what S3 refuses otherwise, or does not
        answer, and IoFailure or OutOfSpace.
        """
        for row in self.index.at(key):
            # A restored catalogue may give the number out again: what lies there from before is not to be overwritten.
            aside = f"{TRASH}{row.gid}-{row.deleted_ns:x}-{row.object_etag[:12] or 'unknown'}"
            left_ns = self._until_ns(row) - self._tree.clock.steady_ns()
            # Should the daemon die in between, or no answer come, what nobody knows of goes all the same.
            is_first = not self._journal.is_deleted(aside)
            if is_first:
                self._journal.delete(aside, max(0.0, left_ns / _NS), ino=row.ino)
            await self._tree.behind.durable()
            self._going_aside.add(aside)
            try:
                info = await self._copied(row, aside, is_first=is_first)
            except (ObjectMissing, ObjectChanged, ObjectArchived, Stale) as error:
                log.warning("trash: %r, number %d, is not kept any longer: %s", row.path, row.gid, error)
                self.index.drop(row.gid)
                continue
            finally:
                self._went_aside(row.gid, aside)
            if row.gid in self.index.rows:  # else it was restored, or given up, meanwhile
                whole = await self.index.whole(row)
                if row.gid in self.index.rows:
                    self.index.moved(whole, aside, info.etag)
                    await self._tree.behind.durable()

    def _went_aside(self, number: int, aside: str) -> None:
        """S3 has copied it, or has not. Nobody wants a copy of what was restored or given up meanwhile. Atomic."""
        self._going_aside.discard(aside)
        if number not in self.index.rows:
            self._journal.keep_new_object(aside)  # one deletion is enough
            self._journal.delete(aside)

    async def _copied(self, row: TrashRow, aside: str, *, is_first: bool) -> ObjectInfo:
        """Copy it. The object may have another etag, by a request that S3 did not answer, or that was under way when
        its file was removed: it is copied if it is the same but for that. Raises Stale if it is another one.
        """
        try:
            return await self._copy(row, aside, is_first=is_first)
        except ObjectChanged:
            await self.check(row)
            return await self._copy(self.index.rows.get(row.gid, row), aside, is_first=is_first)

    async def _copy(self, row: TrashRow, aside: str, *, is_first: bool) -> ObjectInfo:
        assert row.object_key is not None
        copy = partial(
            self._link.objects.copy, row.object_key, aside, row.size_bytes,
            if_match=row.object_etag, cancel=lambda: self._journal.stopping,
        )  # fmt: skip
        try:
            return await trio.to_thread.run_sync(copy, limiter=self._link.limiter)
        except ObjectStoreError as error:
            if error.unanswered:
                self._journal.unanswered.note(aside, row.sha256)
            elif is_first and not isinstance(error, ObjectChanged):  # else another try has put it there, or is about to
                self._journal.keep_new_object(aside)
            raise

    def kept_until_ns(self, key: str) -> int:
        """Until when versions in the trash keep the object under *key* (`Clock.steady_ns`); 0: none has it. Atomic."""
        return max((self._until_ns(row) for row in self.index.at(key)), default=0)

    def _until_ns(self, row: TrashRow) -> int:
        return row.deleted_ns + round(self.index.retention_s * _NS)

    async def check(self, row: TrashRow) -> None:
        """See that the object is there, and what it was. Raises Stale, and what S3 refuses."""
        number = row.gid
        while (found := self.index.rows.get(number)) is not None:
            assert found.object_key is not None
            info = await trio.to_thread.run_sync(self._link.objects.head, found.object_key, limiter=self._link.limiter)
            whole = await self.index.whole(found)
            if self.index.rows.get(number) is not found:
                continue  # it was copied aside meanwhile
            if info is None or (info.sha256, info.size_bytes) != (found.sha256, found.size_bytes):
                self.index.drop(number)
                raise Stale(
                    f"its object {found.object_key} {'is gone from S3' if info is None else 'is another one by now'}"
                )
            if info.etag != found.object_etag:  # recfs's own doing, without an answer
                self.index.moved(whole, found.object_key, info.etag)
            return
        raise Stale("the trash does not have it any more")

    def take(self, row: TrashRow) -> None:
        """Nothing is to delete the object any more. Raises Busy where S3 is just being asked to. Atomic."""
        assert row.object_key is not None
        if not self._journal.deletions_of(row.object_key).isdisjoint(self._journal.running):
            raise Busy("its object is just being deleted")
        self._journal.keep_new_object(row.object_key)

    def enter(self, node: FileNode, row: TrashRow) -> None:
        """*node*, which is new, has the bytes of a version in the trash. Atomic."""
        assert row.object_key is not None
        assert row.sha256 is not None
        assert row.md5 is not None
        node.enter(State.EVICTED)
        node.sha256, node.md5 = row.sha256, row.md5
        self._copies.remember(
            node,
            ObjectRow(
                node.ino, row.object_key, row.object_etag, row.size_bytes, row.sha256, row.md5, row.mtime_ns,
                row.storage_class, row.uploaded_ns, LocalCopy(),
            ),
        )  # fmt: skip
        if row.object_key != key_for(b"/".join(node.parts())):
            self._journal.move(node.ino, row.object_key)

    def give_up(self, row: TrashRow) -> None:
        """Nobody wants the version any more: its object goes now, unless a file has it. Atomic."""
        self.index.drop(row.gid)
        assert row.object_key is not None
        self._hurry(row.object_key)
        self._hurry_all(row.ino)  # a copy that was to go aside, perhaps, of which nobody heard

    def give_up_copy(self, entry: Garbage | TrashRow) -> None:
        """Nobody wants a version any more whose bytes lie here, or that has none: the objects that its file had go now,
        too, whether they had followed it to its last name or not, unless a file or another version in the trash has
        them. Atomic.
        """
        self._hurry(key_for(entry.path))
        self._hurry_all(entry.ino)

    def _hurry_all(self, ino: int) -> None:
        """All that a file had in S3, under whatever key."""
        for row_id in self._journal.deletions_of_file(ino):
            self._hurry(self._journal.rows[row_id].key)

    def _hurry(self, key: str) -> None:
        if self.index.at(key) or key in self._going_aside:  # deleted before it is there it would stay for ever
            return
        for row_id in self._journal.deletions_of(key) - self._journal.running.keys():
            self._journal.retry(row_id)


__all__ = ["TRASH", "TrashedObjects"]
