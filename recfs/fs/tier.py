"""The files of the mount and S3: what goes there, what comes back, and which local copies may leave.

A whole local copy of what S3 holds lies in the home tree like any committed file; a partial one is a staging file,
filled by a `Download` that all readers share. Copies leave when the budget is exceeded, the least recently used
first, and only those of files in state `stored`. Where no S3 is configured every file stays `committed`, and this is
never asked.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from recfs.core.model import State, check_transition
from recfs.core.routing import Decision, RouteRule, route
from recfs.errors import IoFailure, OutOfSpace, RecfsError
from recfs.fs.download import Download
from recfs.fs.nodes import DirNode, FileNode, Node
from recfs.fs.room import Room
from recfs.fs.staging import FETCH_LABEL
from recfs.object_errors import ChecksumMismatch, ObjectArchived, ObjectMissing
from recfs.objects import ObjectInfo, ObjectStore, RestoreState, key_for
from recfs.ports import ObjectRow, Pending

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.fs.fetchslots import FetchSlots
    from recfs.fs.journal import Journal
    from recfs.fs.staging import Space, StagingPool
    from recfs.fs.tree import Tree
    from recfs.fs.writebehind import WriteBehind
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.tier")

USED_EVERY_NS = 60 * 10**9
"""How precisely the last use of a local copy is recorded."""
PRESSURE_S = 30.0
"""How long a new file waits for uploads when what is not yet uploaded fills the budget."""
OPEN_S = 3600.0
"""How long the object of a removed file that is still open stays, should the daemon die before its last close."""
_NS = 10**9


@dataclass(frozen=True, slots=True)
class TierSettings:
    """What the configuration says of S3 and the local copies."""

    rules: tuple[RouteRule, ...]
    max_bytes: int
    """Budget of everything local that S3 has or will have."""
    fetch_whole_below: int
    read_ahead_max: int
    settle_s: float
    """How long a committed file waits before it is uploaded."""
    retention_s: float
    """How long a deleted file's object stays."""


@dataclass(slots=True)
class Partial:
    """A partial local copy."""

    node: FileNode
    key: str
    staging: str
    fd: int
    download: Download
    used_ns: int
    waiting: int = 0
    """How many wait for all of it."""
    wrong: RecfsError | None = None
    """Why it was given up when all of it was here."""

    @property
    def idle(self) -> bool:
        """Whether nobody wants anything of it now."""
        return self.node.body is None and not self.waiting


def _is_away(node: FileNode) -> bool:
    return node.state.is_remote and not node.unlinked


def key_of(node: FileNode) -> str:
    """Where the object of a file belongs: the path is the key."""
    return key_for(b"/".join(node.parts()))


class Tier:
    """Where each file's bytes are between here and S3."""

    def __init__(
        self, settings: TierSettings, tree: Tree, behind: WriteBehind, journal: Journal, pool: StagingPool,
        space: Space, store: LocalStore, objects: ObjectStore, slots: FetchSlots, limiter: trio.CapacityLimiter,
        hash_limiter: trio.CapacityLimiter, digest: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self.settings = settings
        self._tree = tree
        self._behind = behind
        self.journal = journal
        self._pool = pool
        self._space = space
        self._store = store
        self.objects = objects
        self._slots = slots
        self.limiter = limiter
        self._hash_limiter = hash_limiter
        self._digest = digest
        self.partials: dict[int, Partial] = {}
        """By inode number."""
        self.landing: dict[int, trio.Event] = {}
        """Partial copies that are whole and being verified."""
        self._doomed: dict[int, list[int]] = {}
        """Journalled deletions of objects that a partial copy is still filled from, by inode number."""
        self._nursery: trio.Nursery | None = None
        self.local_bytes = 0
        """Bytes of whole local copies of what S3 holds."""
        self.room = Room(self, tree, behind, space)

    # --- where a file belongs ------------------------------------------------------------------------------------

    def decide(self, node: FileNode) -> Decision:
        """What the rules say of a file."""
        age_s = max(0.0, (self._tree.clock.now_ns() - node.mtime_ns) / _NS)
        return route(self.settings.rules, tuple(node.parts()), node.bytes, age_s)

    def committed(self, node: FileNode) -> None:
        """The file was committed just now: journal its upload if that is where it belongs. Atomic."""
        held = node.object
        if held is not None and held.sha256 == node.sha256 and held.size_bytes == node.bytes:
            self._is_stored(node, held)
            return
        if self.decide(node).store == "s3":
            self.journal.upload(node, self.settings.settle_s)
            self.room.press()  # copies of other files have to make room
        elif held is not None:
            # It belongs here now: what S3 has of it is an earlier version under its name.
            self.journal.delete(held.key, self.settings.retention_s)
            node.object = None
            self._behind.object_gone(node.ino)
            self._behind.node(node)

    def _is_stored(self, node: FileNode, held: ObjectRow) -> None:
        check_transition(node.state, State.STORED)
        node.state = State.STORED
        if not held.local:
            self.local_bytes += node.bytes
        self.remember(node, held._replace(local=1, held=0, used_ns=self._tree.clock.now_ns()))

    def uploaded(self, node: FileNode, info: ObjectInfo) -> None:
        """S3 has confirmed these bytes. Atomic."""
        assert node.sha256 is not None
        assert node.md5 is not None
        before, now, decision = node.object, self._tree.clock.now_ns(), self.decide(node)
        if before is not None and before.key != info.key:
            self.journal.delete(before.key)
        row = ObjectRow(
            node.ino, info.key, info.etag, node.bytes, node.sha256, node.md5, node.mtime_ns, info.storage_class, now,
            now, 0, before.pinned if before is not None else 0, now + round(decision.keep_local_s * _NS), 0,
        )  # fmt: skip
        node.object = row
        self._is_stored(node, row)
        self.room.press()

    def outdated(self, node: FileNode, key: str) -> None:
        """S3 has put bytes under *key* that the file has no more. The next upload replaces them. Atomic."""
        if node.object is not None and node.object.key == key and not node.unlinked:
            self._lose_object(node)
        self.journal.delete(key, 0.0 if node.unlinked else OPEN_S)

    def remember(self, node: FileNode, row: ObjectRow) -> None:
        """Record what S3 holds. Atomic."""
        node.object = row
        self.journal.hold(node.ino, row.key)
        self._behind.object(row)
        self._behind.node(node)

    # --- names ---------------------------------------------------------------------------------------------------

    def changed(self, node: FileNode) -> None:
        """The local bytes are about to differ from what S3 holds. Atomic."""
        held = node.object
        if held is not None and held.local:
            self.local_bytes -= held.size_bytes
            self.remember(node, held._replace(local=0))

    def superseded(self, node: FileNode) -> None:
        """A file whose bytes only S3 has is overwritten: the object is the way back until the commit. Atomic."""
        self.drop_partial(node)
        if node.object is not None:
            self.remember(node, node.object._replace(held=1))

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """The file loses its name: so does the object, after the trash's retention. Atomic.

        *successor*: the file that takes over the name. The object stays as an earlier version of it, to be replaced
        by its upload.
        """
        self.changed(node)
        queued = self.journal.upload_of(node.ino)
        self.journal.forget(node)
        tried = queued is not None and (queued.attempts or queued.id in self.journal.inherited)
        if tried and node.object is None:
            self.journal.delete(key_of(node))  # it may have arrived, and only the answer was lost
        held, open_from_afar = node.object, node.body is not None and node.body.download is not None
        if not open_from_afar:
            self.drop_partial(node)
        if held is None:
            return
        if successor is not None and successor.object is None:
            self.remember(successor, held._replace(ino=successor.ino, local=0, held=0, pinned=0))
        elif open_from_afar:
            self.retire(node, held.key)
        else:
            self.journal.delete(held.key, self.settings.retention_s)

    def retire(self, node: FileNode, key: str) -> None:
        """An object is superfluous, as soon as nothing is filled from it any more. Atomic.

        Should the daemon die before, it goes an hour later.
        """
        if node.ino not in self.partials:
            self.journal.delete(key, self.settings.retention_s if node.unlinked else 0.0)
            return
        row_id = self.journal.delete(key, max(OPEN_S, self.settings.retention_s))
        self._doomed.setdefault(node.ino, []).append(row_id)

    def _no_longer_filled(self, node: FileNode) -> None:
        for row_id in self._doomed.pop(node.ino, []):
            if not (node.unlinked and self.settings.retention_s):
                self.journal.retry(row_id)

    def released(self, node: FileNode) -> None:
        """Nobody has the file open any more. Atomic."""
        if node.unlinked:
            self.drop_partial(node)
            return
        self._drop_failed(node)
        if node.object is not None:
            if node.object.local:
                self.used(node)
            self.room.press()

    def renamed(self, node: Node) -> None:
        """The object, or those of everything below, are to follow. Reads go on under the old key. Atomic."""
        if isinstance(node, FileNode):
            self.follow(node)
            self.journal.renamed(node, self.settings.settle_s)
        elif isinstance(node, DirNode):
            self.journal.move(node.ino, None)

    def follow(self, node: FileNode) -> None:
        """Have the object of a file moved if it is not where its name says. Atomic."""
        if node.object is not None and not node.unlinked and node.object.key != key_of(node):
            self.journal.move(node.ino, node.object.key)

    def is_read(self, key: str, ino: int) -> bool:
        """Whether another file than *ino* is being read from the object under *key*, it may be a removed one."""
        return any(partial.key == key and partial.node.ino != ino for partial in self.partials.values())

    # --- reading what is not here --------------------------------------------------------------------------------

    async def admit(self) -> None:
        """Hold new files back while what is not yet uploaded fills the budget. Raises OutOfSpace after a while."""
        limit = self.settings.max_bytes
        with trio.move_on_after(PRESSURE_S):
            while self.journal.unsent_bytes() > limit:
                await self.journal.progress()
            return
        raise OutOfSpace(
            f"{self.journal.unsent_bytes()} bytes wait to be uploaded, and [cache] max_size is {limit}; "
            f"`recfs queue` tells what holds them up"
        )

    async def partial(self, node: FileNode) -> Partial | None:
        """The partial copy of a file whose bytes are in S3, begun if need be; None if they are here by now."""
        await self._landed(node)
        if not _is_away(node):
            return None
        self._drop_failed(node)
        found = self.partials.get(node.ino)
        if found is not None:
            found.used_ns = self._tree.clock.now_ns()
            return found
        held = node.object
        if held is None:
            raise IoFailure(f"{node.path}: its bytes are neither here nor known to be in S3")
        await self._readable(node, held)
        self._space.admit(0)
        staging, fd = await self._pool.take()
        found = self.partials.get(node.ino)
        if found is not None or not _is_away(node):
            os.close(fd)
            self._store.drop_staging([staging])
            return found
        self._store.label(fd, FETCH_LABEL + b"%d" % node.ino)
        assert self._nursery is not None
        download = Download(
            self.objects, held.key, held.etag, held.size_bytes, fd, self.limiter, self._slots,
            read_ahead_max=self.settings.read_ahead_max,
        )  # fmt: skip
        download.grown = self.room.press
        made = self.partials[node.ino] = Partial(node, held.key, staging, fd, download, self._tree.clock.now_ns())
        if node.body is not None:  # its readers' bytes were given up
            node.body.swap(os.dup(fd), writable=False)
            node.body.download = download
        if node.state is not State.FETCHING:
            check_transition(node.state, State.FETCHING)
            node.state = State.FETCHING
            self._behind.node(node)
        self._nursery.start_soon(self._fill, made)
        self.room.press()
        return made

    async def _readable(self, node: FileNode, held: ObjectRow) -> None:
        if node.state is not State.ARCHIVED:
            return
        info = await trio.to_thread.run_sync(self.objects.head, held.key, limiter=self.limiter)
        if info is not None and info.restore_state in (RestoreState.ARCHIVED, RestoreState.RESTORING):
            raise ObjectArchived(f"{node.path} is {info.restore_state} ({held.storage_class}); see `recfs restore`")
        check_transition(node.state, State.EVICTED)
        node.state = State.EVICTED
        self._behind.node(node)

    async def _fill(self, partial: Partial) -> None:
        await partial.download.run()
        node, failed = partial.node, partial.download.failed
        if partial.download.complete:
            try:
                await self._land(partial)
            except IoFailure as error:
                self._give_up(partial, error)
        elif failed is not None and self.partials.get(node.ino) is partial:
            log.error("%s: %s", node.path, failed)
            if isinstance(failed, ObjectArchived) or partial.idle:
                self.drop_partial(node)  # else with the last close: who has it open gets this error at every read

    async def bring(self, node: FileNode) -> None:
        """Have the whole file here, verified. Raises what went wrong."""
        while node.state.is_remote and not node.unlinked:
            partial = await self.partial(node)
            if partial is None:
                continue
            partial.waiting += 1
            try:
                await partial.download.whole()
            except ObjectMissing:
                if node.object is None or node.object.key == partial.key:
                    raise
                self.drop_partial(node)  # the object has followed its file's new name
                continue
            finally:
                partial.waiting -= 1
            await self._landed(node)
            if self.partials.get(node.ino) is partial and partial.download.complete:
                await self._land(partial)
            if partial.wrong is not None:
                raise partial.wrong  # else a store that lies would be asked for ever

    async def _landed(self, node: FileNode) -> None:
        while node.ino in self.landing:
            await self.landing[node.ino].wait()

    async def _land(self, partial: Partial) -> None:
        """A partial copy is whole: verify it, and let the settler carry it home."""
        node = partial.node
        if node.ino in self.landing or self.partials.get(node.ino) is not partial:
            return
        done = self.landing[node.ino] = trio.Event()
        try:
            sha256 = await self._checksum(partial)
            held = node.object
            if self.partials.get(node.ino) is not partial or node.unlinked or held is None:
                return
            if sha256 != held.sha256:
                what = f"{node.path}: S3 holds other bytes under {held.key} than were uploaded"
                self._give_up(partial, ChecksumMismatch(f"{what}; restore the version recfs wrote"))
                return
            del self.partials[node.ino]
            self._no_longer_filled(node)
            check_transition(node.state, State.STORED)
            node.state = State.STORED
            node.sha256, node.md5 = held.sha256, held.md5
            node.staging, node.home_ino = partial.staging, os.fstat(partial.fd).st_ino
            node.pending |= Pending.MOVE
            if node.body is not None:
                node.body.download = None
            os.close(partial.fd)
            self.local_bytes += held.size_bytes
            self.remember(node, held._replace(local=1, used_ns=self._tree.clock.now_ns()))
            self._behind.settle(node)
            self.room.press()
        finally:
            del self.landing[node.ino]
            done.set()

    async def _checksum(self, partial: Partial) -> bytes:
        fd = os.dup(partial.fd)  # it may be given up meanwhile
        try:
            return await trio.to_thread.run_sync(self._synced_digest, fd, limiter=self._hash_limiter)
        except OSError as error:
            raise IoFailure(f"{partial.node.path}: its fetched bytes cannot be read: {error}") from error
        finally:
            os.close(fd)

    def _synced_digest(self, fd: int) -> bytes:
        os.fdatasync(fd)  # a row must not promise bytes that are not there
        return self._digest(fd)

    def _give_up(self, partial: Partial, error: RecfsError) -> None:
        log.error("%s", error)
        partial.wrong = error
        self.drop_partial(partial.node)

    def _drop_failed(self, node: FileNode) -> None:
        """What failed for good is begun anew by the next who opens the file. Atomic."""
        partial = self.partials.get(node.ino)
        if partial is not None and partial.download.failed is not None and partial.idle:
            self.drop_partial(node)

    def drop_partial(self, node: FileNode) -> None:
        """Give a partial copy up. Who has the file open gets errors from then on: what is here has holes. Atomic."""
        partial = self.partials.pop(node.ino, None)
        if partial is None:
            return
        partial.download.close()
        self._no_longer_filled(node)
        os.close(partial.fd)
        self._store.drop_staging([partial.staging])
        if node.state is State.FETCHING and not node.unlinked:
            check_transition(node.state, State.EVICTED)
            node.state = State.EVICTED
            if isinstance(partial.download.failed, ObjectArchived):
                check_transition(node.state, State.ARCHIVED)
                node.state = State.ARCHIVED
            self._behind.node(node)

    def used(self, node: FileNode) -> None:
        """A local copy is being used. Atomic."""
        held, now = node.object, self._tree.clock.now_ns()
        if held is not None and now - held.used_ns > USED_EVERY_NS:
            self.remember(node, held._replace(used_ns=now))

    @property
    def fetch_whole_below(self) -> int:
        """Size up to which a file is fetched whole when it is opened."""
        return self.settings.fetch_whole_below

    # --- the service ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Fill partial copies, and let copies leave, for ever."""
        self.local_bytes = await self._tree.catalogue.local_object_bytes()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self.room.run()

    # --- to where the rules want it (recfs tier run) -------------------------------------------------------------

    async def bring_home(self, node: FileNode) -> bool:
        """Have the file here for good, verified, and S3 without it. False when it was changed meanwhile."""
        await self.bring(node)
        if node.unlinked or node.state is not State.STORED or node.object is None:
            return False
        check_transition(node.state, State.COMMITTED)
        node.state = State.COMMITTED
        self.changed(node)
        held = self._part_with_object(node)
        # Only when the rows say that the file is here may the object go.
        row_id = self.journal.delete(held.key, OPEN_S)
        await self._behind.durable()
        self.journal.retry(row_id)
        return True

    async def store_anew(self, node: FileNode) -> bool:
        """Upload a stored file again, as to another storage class. False when it was changed meanwhile."""
        await self.bring(node)
        if node.unlinked or node.state is not State.STORED or node.object is None:
            return False
        check_transition(node.state, State.COMMITTED)
        node.state = State.COMMITTED
        self.changed(node)
        self.journal.upload(node, 0.0)
        return True

    def unwanted(self, node: FileNode) -> None:
        """A committed file belongs here: nothing of it is to go to S3, or stay there. Atomic."""
        self.journal.forget(node)
        if node.object is not None:
            self.journal.delete(self._part_with_object(node).key, self.settings.retention_s)

    def _part_with_object(self, node: FileNode) -> ObjectRow:
        held = node.object
        assert held is not None
        self.journal.forget(node)
        self._lose_object(node)
        return held

    def _lose_object(self, node: FileNode) -> None:
        node.object = None
        self._behind.object_gone(node.ino)
        self._behind.node(node)
