"""Partial local copies of what S3 holds: begun by a reader, filled by a `Download` that all readers share, verified
when they are whole, and then carried home like any committed file.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

import trio

from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.disk.commit.digests import Pass, Source
from recfs.disk.commit.hashing import Work, owner_of
from recfs.disk.diskio import file_limit, kept_files
from recfs.disk.staging import FETCH_LABEL, pool_size
from recfs.errors import IoFailure, RecfsError
from recfs.ports.object_errors import (
    BucketMissing,
    ChecksumMismatch,
    ObjectArchived,
    ObjectMissing,
    ObjectStoreError,
    TransferCancelled,
)
from recfs.ports.objects import RestoreState
from recfs.ports.rows import ObjectRow, Pending
from recfs.state.nodes import FileNode
from recfs.state.problems import reason_of
from recfs.tier.copies import Partial
from recfs.tier.downloads.download import Download, Watcher
from recfs.tier.identity import has_object
from recfs.tier.misses import Misses
from recfs.tier.queue.waits import READERS

if TYPE_CHECKING:
    from recfs.disk.commit.hashing import Hashing
    from recfs.disk.staging import DiskReserve, StagingPool
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore
    from recfs.tier.copies import Copies
    from recfs.tier.link import Link

log = logging.getLogger("recfs.tier")

KEPT_SHARE = 8
"""Which part of the descriptors for open files may be kept by copies that nobody has open, one each."""
RENEW_S = 30.0
"""How long a reader waits to learn that it was recfs that changed the object."""


def _is_away(node: FileNode) -> bool:
    return node.state.is_remote and not node.unlinked


def _is_archived(node: FileNode) -> bool:
    return node.state is State.ARCHIVED and not node.unlinked


class _Filling(Watcher):
    """What becomes of a partial copy's download concerns the cache, and what is told of reads that fail."""

    def __init__(self, copies: Copies, link: Link, misses: Misses, node: FileNode, begun: ObjectRow) -> None:
        self._copies = copies
        self._link = link
        self._misses = misses
        self._node = node
        self._begun = begun

    def grown(self) -> None:
        """There may be more than the cache's budget has room for."""
        self._misses.came(self._node.ino)
        self._copies.request_eviction()

    def missed(self, error: RecfsError) -> None:
        """`recfs status` names the file."""
        self._misses.failed(self._node.ino, error)

    async def renewed(self, key: str, etag: str) -> str | None:
        """The etag of the object that the copy is filled from, if recfs itself gave it another than *etag*."""
        node, begun, journal = self._node, self._begun, self._copies.journal
        with trio.move_on_after(RENEW_S):
            while (in_s3 := node.object) is not None and in_s3.key == key and in_s3.sha256 == begun.sha256:
                if in_s3.etag != etag:
                    return in_s3.etag
                row = journal.move_of(node.ino)
                if row is None or row.id not in journal.running:
                    return await self._known_again(in_s3)
                await journal.progress()
        return None

    async def _known_again(self, in_s3: ObjectRow) -> str | None:
        """The etag that the object has, if it is the same but for that: an answer of S3 was lost, perhaps."""
        with contextlib.suppress(ObjectStoreError):
            await has_object(self._link, self._copies, self._node)
        found = self._node.object
        is_it = found is not None and (found.key, found.sha256) == (in_s3.key, in_s3.sha256)
        return found.etag if found is not None and is_it and found.etag != in_s3.etag else None


class Partials:
    """All partial copies, and the way of a file's bytes from S3 to here."""

    def __init__(
        self, copies: Copies, link: Link, tree: Tree, pool: StagingPool, space: DiskReserve, store: LocalStore,
        hashing: Hashing,
    ) -> None:  # fmt: skip
        self._copies = copies
        self._link = link
        self._tree = tree
        self._behind = tree.behind
        self._pool = pool
        self._space = space
        self._store = store
        self._hashing = hashing
        self.nursery: trio.Nursery | None = None
        """Where downloads run."""
        self.serving = trio.Event()
        """Set once there is one."""
        self.by_ino = copies.partial
        self._early: list[Partial] = []
        """Begun before anything was served, to be filled then."""
        self.misses = Misses(tree)
        """Reads that failed."""
        self.landing: dict[int, trio.Event] = {}
        """Copies that are whole and being verified, by inode number."""
        self._deferred: dict[int, list[int]] = {}
        """Journalled deletions of objects that a copy is still filled from, by inode number."""

    async def run(self) -> None:
        """Fill them, for ever; whoever asks for one when this has ended waits until it runs again."""
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            self.serving.set()
            while self._early:
                nursery.start_soon(self._fill, self._early.pop())
            try:
                await trio.sleep_forever()
            finally:
                self.nursery, self.serving = None, trio.Event()

    def idle(self) -> list[Partial]:
        """Those that nobody wants anything of now."""
        return [each for each in self.by_ino.values() if self.is_idle(each.node)]

    def is_idle(self, node: FileNode) -> bool:
        """Whether nobody wants anything of its partial copy now, if there is one."""
        partial = self.by_ino.get(node.ino)
        return partial is None or (partial.idle and node.ino not in self.landing)

    # --- the objects they are filled from ------------------------------------------------------------------------

    def defer_delete(self, node: FileNode, row_id: int) -> None:
        """The deletion *row_id* of the object this file is filled from is due when that ends. Atomic."""
        self._deferred.setdefault(node.ino, []).append(row_id)

    def follow(self, node: FileNode) -> None:
        """The file's object lies elsewhere: a copy of it is filled from there, no longer from where it was. Atomic."""
        partial, in_s3 = self.by_ino.get(node.ino), node.object
        if partial is not None and in_s3 is not None:
            partial.key = in_s3.key
            partial.download.follow(in_s3.key, in_s3.etag)
            self._no_longer_filled(node)

    def _no_longer_filled(self, node: FileNode) -> None:
        self._copies.journal.go_on(READERS)
        for row_id in self._deferred.pop(node.ino, []):
            if not (node.unlinked and self._copies.kept_s(node)):
                self._copies.journal.retry(row_id)

    # --- filling -------------------------------------------------------------------------------------------------

    async def of(self, node: FileNode) -> Partial | None:
        """The partial copy of a file whose bytes are in S3, begun if need be; None: look again, they may be here."""
        await self._landed(node)
        if not _is_away(node):
            return None
        self.drop_failed(node)
        found = self.by_ino.get(node.ino)
        if found is not None:
            found.used_ns = self._tree.clock.steady_ns()
            self.by_ino[node.ino] = self.by_ino.pop(node.ino)
            return found
        in_s3 = node.object
        if in_s3 is None:
            raise IoFailure(f"{node.path}: its bytes are neither here nor known to be in S3")
        await self._readable(node, in_s3)
        self._space.admit_entry()
        while self.nursery is None:
            await self.serving.wait()
        found = self.by_ino.get(node.ino)
        if found is not None or not _is_away(node) or node.object is not in_s3:
            return found
        self._leave_descriptors()
        made = self._made(node, in_s3)
        self.nursery.start_soon(self._fill, made)
        self._copies.request_eviction()
        return made

    def again(self, node: FileNode) -> Partial:
        """Of a file that an earlier daemon's readers have open. It is filled as soon as anything is served. Atomic.

        S3 is asked nothing before. Raises IoFailure or OSError.
        """
        in_s3, found = node.object, self.by_ino.get(node.ino)
        if found is not None:
            return found
        if in_s3 is None or not _is_away(node):
            raise IoFailure(f"{node.path}: its bytes are neither here nor known to be in S3")
        if _is_archived(node):
            node.enter(State.EVICTED)  # until S3 says once more that it is
        made = self._made(node, in_s3)
        self._early.append(made)
        return made

    def _made(self, node: FileNode, in_s3: ObjectRow) -> Partial:
        staging, fd = self._pool.take()
        self._store.label(fd, FETCH_LABEL + b"%d" % node.ino)
        download = Download(
            self._link.objects, in_s3.key, in_s3.etag, in_s3.size_bytes, fd, self._link.limiter, self._link.slots,
            read_ahead_max=self._copies.settings.read_ahead_max,
            watcher=_Filling(self._copies, self._link, self.misses, node, in_s3),
        )  # fmt: skip
        made = self.by_ino[node.ino] = Partial(node, in_s3.key, staging, fd, download, self._tree.clock.steady_ns())
        if node.body is not None:  # its readers' bytes were given up
            node.body.swap(os.dup(fd), writable=False)
            node.body.download = download
        if node.state is not State.FETCHING:
            node.enter(State.FETCHING)
            self._behind.node(node)
        return made

    def _leave_descriptors(self) -> None:
        """Give the oldest copies up that nobody has open, where they are so many that others miss their descriptors."""
        most = (file_limit() - kept_files() - pool_size()) // KEPT_SHARE
        if len(self.by_ino) < most:
            return
        for partial in list(self.by_ino.values()):
            if self.is_idle(partial.node):
                self.drop(partial.node)
                if len(self.by_ino) < most:
                    return

    async def _readable(self, node: FileNode, in_s3: ObjectRow) -> None:
        if not _is_archived(node):
            return
        info = await trio.to_thread.run_sync(
            self._link.objects.head, in_s3.key, limiter=self._link.limiter, abandon_on_cancel=True
        )
        if node.object is not in_s3 or not _is_archived(node):
            return  # it was overwritten meanwhile, say, or others have asked, too: what is so now is looked at again
        if info is not None and info.restore_state in (RestoreState.ARCHIVED, RestoreState.RESTORING):
            raise ObjectArchived(f"{node.path} is {info.restore_state} ({in_s3.storage_class}); see `recfs restore`")
        node.enter(State.EVICTED)
        self._tree.events.noted(EventKind.RESTORED, node, "from its archive class")
        self._behind.node(node)

    async def _fill(self, partial: Partial) -> None:
        try:
            await self._filled(partial)
        except Exception as error:  # other people's downloads run beside it
            log.exception("%s: unexpected error with its fetched bytes", partial.node.path)
            self._give_up(partial, IoFailure(f"{partial.node.path}: {reason_of(error)}"))

    async def _filled(self, partial: Partial) -> None:
        await partial.download.run()
        node, failed = partial.node, partial.download.failed
        if partial.download.complete:
            await self._verify(partial)
        elif failed is not None and self.by_ino.get(node.ino) is partial:
            log.error("%s: %s", node.path, failed)
            if isinstance(failed, ObjectMissing | BucketMissing) and self.nursery is not None:
                self.nursery.start_soon(self._link.ownership.doubt)
            if isinstance(failed, ObjectArchived) or partial.idle:
                self.drop(node)  # else with the last close: who has it open gets this error at every read

    async def bring(self, node: FileNode) -> None:
        """Have the whole file here, verified. Raises what went wrong."""
        while node.state.is_remote and not node.unlinked:
            partial = await self.of(node)
            if partial is None:
                continue
            partial.waiting += 1
            try:
                await partial.download.whole()
            except TransferCancelled:
                if partial.wrong is not None or self.by_ino.get(node.ino) is partial:
                    raise
                continue  # it was given up: the file is overwritten, perhaps, and its old bytes are wanted no more
            finally:
                partial.waiting -= 1
            await self._landed(node)
            if self.by_ino.get(node.ino) is partial and partial.download.complete:
                await self._begin_verifying(partial)
                await self._landed(node)
            if partial.wrong is not None:
                raise partial.wrong  # else a store that lies would be asked for ever

    async def _begin_verifying(self, partial: Partial) -> None:
        """Verify in a task of its own: whoever asks for it may leave before its end. Raises IoFailure at a stop."""
        if self.nursery is None:
            raise IoFailure(f"{partial.node.path}: recfs is stopping")
        await self.nursery.start(self._verify, partial)

    async def _verify(self, partial: Partial, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            await self._land(partial)
        except IoFailure as error:
            self._give_up(partial, error)

    async def _landed(self, node: FileNode) -> None:
        while node.ino in self.landing:
            await self.landing[node.ino].wait()

    async def _land(self, partial: Partial) -> None:
        """A partial copy is whole: verify it, and let the publisher carry it home."""
        node = partial.node
        if node.ino in self.landing or self.by_ino.get(node.ino) is not partial:
            return
        done = self.landing[node.ino] = trio.Event()
        try:
            sha256 = await self._checksum(partial)
            in_s3 = node.object
            if self.by_ino.get(node.ino) is not partial or node.unlinked or in_s3 is None:
                return
            if sha256 != in_s3.sha256:
                what = f"{node.path}: S3 holds other bytes under {in_s3.key} than were uploaded"
                self._give_up(partial, ChecksumMismatch(f"{what}; restore the version recfs wrote"))
                return
            del self.by_ino[node.ino]
            self._no_longer_filled(node)
            node.enter(State.STORED)
            node.sha256, node.md5 = in_s3.sha256, in_s3.md5
            node.staging, node.home_ino = partial.staging, os.fstat(partial.fd).st_ino
            node.pending |= Pending.MOVE
            if node.body is not None:
                node.body.download = None
            os.close(partial.fd)
            self._copies.local_bytes += in_s3.size_bytes
            self._copies.remember(node, in_s3.here(local=1, used_ns=self._tree.clock.steady_ns()))
            self._tree.events.noted(EventKind.FETCHED, node)
            self._behind.publish(node)
            self._copies.request_eviction()
        finally:
            del self.landing[node.ino]
            done.set()

    async def _checksum(self, partial: Partial) -> bytes | None:
        """Of a copy that is on stable storage then; None if it was given up meanwhile."""
        node = partial.node
        passing = Pass(Source(self._store.staging(partial.staging), alone=False, md5=False), node.bytes)
        partial.verifying = Work(passing, owner_of(node), node.path)
        found = await self._hashing.digest(partial.verifying)
        if found is None or self.by_ino.get(node.ino) is not partial:
            return None
        if found.error is not None:
            raise IoFailure(f"{node.path}: its fetched bytes cannot be read: {found.error}") from found.error
        return found.sha256

    def _give_up(self, partial: Partial, error: RecfsError) -> None:
        log.error("%s", error)
        partial.wrong = error
        self.misses.failed(partial.node.ino, error)
        self.drop(partial.node)

    def drop_failed(self, node: FileNode) -> None:
        """What failed for good is begun anew by the next who opens the file. Atomic."""
        partial = self.by_ino.get(node.ino)
        if partial is not None and partial.download.failed is not None and partial.idle:
            self.drop(node)

    def drop(self, node: FileNode) -> None:
        """Give a partial copy up. Who has the file open gets errors from then on: what is here has holes. Atomic."""
        partial = self.by_ino.pop(node.ino, None)
        if partial is None:
            return
        partial.download.close()
        if partial.verifying is not None:
            self._hashing.stop(partial.verifying)
        self._no_longer_filled(node)
        os.close(partial.fd)
        self._store.drop_staging([partial.staging])
        if node.state is State.FETCHING and not node.unlinked:
            node.enter(State.EVICTED)
            if isinstance(partial.download.failed, ObjectArchived):
                node.enter(State.ARCHIVED)
            self._behind.node(node)
