"""The files of the mount and S3: what goes there, what comes back, and which local copies may leave.

A whole local copy of what S3 holds lies in the home tree like any committed file; a partial one is a staging file,
filled by a `Download` that all readers share. Copies leave when the budget is exceeded, the least recently used
first, and only those of files in state `stored`. Where no S3 is configured every file stays `committed`, and this is
never asked.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.keys import key_for
from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.core.retention import archive_of
from recfs.core.routing import Decision, age_of, route
from recfs.ports.objects import ARCHIVE_CLASSES, ObjectInfo, ObjectMeta
from recfs.ports.rows import UPLOAD, LocalCopy, ObjectRow
from recfs.state.events import Subscriber
from recfs.state.nodes import DirNode, FileNode, Node
from recfs.state.walk import file_at
from recfs.tier import sending
from recfs.tier.queue import sent
from recfs.tier.queue.holds import Holds
from recfs.tier.queue.reasons import COMES_HOME, OUTDATED, UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Collection

    from recfs.ports.catalogue import Catalogue
    from recfs.ports.objects import ObjectStore
    from recfs.ports.rows import JournalRow
    from recfs.state.tree import Tree
    from recfs.tier.copies import Copies, TierSettings
    from recfs.tier.evictor import CacheEvictor
    from recfs.tier.link import Link
    from recfs.tier.partials import Partials
    from recfs.tier.trashed import TrashedObjects

log = logging.getLogger("recfs.tier")

USED_EVERY_NS = 60 * 10**9
"""How precisely the last use of a local copy is recorded."""
OPEN_S = 3600.0
"""How long the object of a removed file that is still open stays, should the daemon die before its last close."""
HERE = (State.WRITING, State.SEALING, State.COMMITTED, State.UPLOADING, State.INCOMPLETE)
"""States in which all of a file is here, but for the way back of an unfinished overwrite (`LocalCopy.held`)."""
CURRENT = (State.STORED, State.EVICTED, State.FETCHING)
"""States in which a file's object has just its bytes."""
DESCRIBE_S = 2.0
"""How long further changes of attributes are waited for, so that touch, chmod and chown cost one copy."""
_NS = 10**9


def key_of(node: FileNode) -> str:
    """Where the object of a file belongs: the path is the key."""
    return key_for(b"/".join(node.parts()))


def description_of(node: FileNode, in_s3: ObjectRow) -> ObjectMeta:
    """What the metadata of a file's object is to say: of the bytes it has, and under which name and attributes."""
    mtime_ns = node.mtime_ns if node.state in CURRENT else in_s3.mtime_ns
    return meta_of(node, in_s3, mtime_ns=mtime_ns, storage_class=in_s3.storage_class)


def meta_of(
    node: FileNode, content: FileNode | ObjectRow, *, mtime_ns: int, storage_class: str | None,
    uploaded_ns: int | None = None,
) -> ObjectMeta:  # fmt: skip
    """The metadata of an object that has the bytes of *content*, under the file's name and attributes."""
    return ObjectMeta(
        sha256=content.sha256, md5=content.md5, original_filename=node.name, uploaded_ns=uploaded_ns, mode=node.mode,
        owner=f"{node.uid}:{node.gid}", mtime_ns=mtime_ns, storage_class=storage_class,
    )  # fmt: skip


class Attributes(NamedTuple):
    """What of a file its object's metadata repeats, but for the checksums."""

    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int


def attributes_of(node: FileNode) -> Attributes:
    """As they are now."""
    return Attributes(node.name, node.mode, node.uid, node.gid, node.mtime_ns)


class Tier(Subscriber):
    """Where each file's bytes are between here and S3."""

    def __init__(
        self, copies: Copies, partials: Partials, evictor: CacheEvictor, link: Link, tree: Tree, trashed: TrashedObjects
    ) -> None:
        self.trashed = trashed
        self.copies = copies
        self.partials = partials
        self.evictor = evictor
        self.journal = copies.journal
        self.holds = Holds(copies.journal)
        self.link = link
        self.ownership = link.ownership
        self.limiter = link.limiter
        self._tree = tree
        self._behind = tree.behind

    @property
    def settings(self) -> TierSettings:
        """What the configuration says just now."""
        return self.copies.settings

    @property
    def objects(self) -> ObjectStore:
        """The object store."""
        return self.link.objects

    # --- where a file belongs ------------------------------------------------------------------------------------

    def decide(self, node: FileNode) -> Decision:
        """What the rules say of a file."""
        age_s = age_of(self._tree.clock.now_ns(), node.mtime_ns, node.ctime_ns)
        decision = route(self.settings.rules, tuple(node.parts()), node.bytes, age_s)
        return self.archived(decision, node.parent.recording)

    def archived(self, decision: Decision, recording: DirNode | None, current: str | None = None) -> Decision:
        """A decision about a file with the storage class that its recording has come of age for.

        *current*: the class of its object.
        """
        policy = self.settings.policy
        if not policy.rules or recording is None or recording.life is None or decision.store != "s3":
            return decision
        steady_ns = self._tree.clock.steady_ns()
        found = archive_of(policy, tuple(recording.parts()), recording.life, steady_ns, current)
        if found is None:
            return decision
        return replace(decision, storage_class=found.storage_class, reason=f"{decision.reason}; {found.why}")

    def committed(self, node: FileNode) -> None:
        """The file was committed just now: journal its upload if that is where it belongs. Atomic."""
        in_s3 = node.object
        same = in_s3 is not None and in_s3.etag and (in_s3.sha256, in_s3.size_bytes) == (node.sha256, node.bytes)
        if in_s3 is not None and same and not self.journal.may_have_put(node.ino):
            self._mark_stored(node, in_s3)
            self.journal.resume_move(node.ino)
            if in_s3.mtime_ns != node.mtime_ns:
                self.described(node)
            return
        if in_s3 is not None and in_s3.copy.held:
            self.trashed.index.keep_object(node, in_s3)  # it was the way back: now it is an earlier version
        if self.decide(node).store == "s3":
            sending.send(self.copies, node)
        elif in_s3 is not None:
            # It belongs here now: what S3 has of it is an earlier version under its name.
            self.journal.delete(in_s3.key, self.copies.kept_s(node), ino=node.ino)
            self._lose_object(node)

    def _mark_stored(self, node: FileNode, in_s3: ObjectRow) -> None:
        node.enter(State.STORED)
        if not in_s3.copy.local:
            self.copies.local_bytes += node.bytes
        self.copies.remember(node, in_s3.here(local=1, held=0, used_ns=self._tree.clock.steady_ns()))

    def uploaded(self, node: FileNode, info: ObjectInfo) -> None:
        """S3 has confirmed these bytes. Atomic."""
        assert node.sha256 is not None
        assert node.md5 is not None
        before, now, decision = node.object, self._tree.clock.steady_ns(), self.decide(node)
        if before is not None and before.key != info.key:
            self.journal.delete(before.key)
        self._hurry_outdated(node)
        row = ObjectRow(
            node.ino, info.key, info.etag, node.bytes, node.sha256, node.md5, node.mtime_ns, info.storage_class,
            self._tree.clock.now_ns(),
            LocalCopy(
                now, 0, before.copy.pinned if before is not None else 0, now + round(decision.keep_local_s * _NS), 0
            ),
        )  # fmt: skip
        node.object = row
        self._mark_stored(node, row)
        self._tree.events.noted(EventKind.UPLOADED, node)
        self.copies.request_eviction()

    def outdated(self, node: FileNode, key: str) -> None:
        """S3 has put bytes under *key* that the file has no more. The next upload replaces them. Atomic."""
        if node.object is not None and node.object.key == key and not node.unlinked:
            self._lose_object(node)
        self.perhaps_outdated(node, key)

    def perhaps_outdated(self, node: FileNode, key: str) -> None:
        """S3 may have put bytes under *key*, or may yet, that the file has no more, and nobody tries again. Atomic.

        They go, unless the next upload replaces them: the file may never have one, or under another name.
        """
        self.journal.delete(key, 0.0 if node.unlinked else OPEN_S, OUTDATED, ino=node.ino)

    def _hurry_outdated(self, node: FileNode) -> None:
        """No version of the file is going to replace what was stored too late, or was to be the way back."""
        for row_id in self.journal.deletions_of_file(node.ino) - self.journal.running.keys():
            if self.journal.rows[row_id].error in (OUTDATED, COMES_HOME):
                self.journal.retry(row_id)

    def unsure(self, node: FileNode, key: str, sha256: bytes | None) -> None:
        """S3 may have these bytes (None: any) under *key*, and not what the row says: an upload had no answer. Atomic.

        If no other upload decides it, that is looked at (`tier/uploads/moves.py`).
        """
        if node.object is not None and node.object.key == key and node.object.sha256 != sha256:
            self.copies.remember(node, node.object._replace(etag=""))
            self.journal.describe_again(node.ino, key, self.journal.unanswered.until_ns(key) + _NS, UNDECIDED)

    def lost(self, node: FileNode) -> bool:
        """S3 does not hold what the file's row says. If all of the file is here, there is no such row any more, and
        what lies in its place goes; else False. Atomic.
        """
        in_s3 = node.object
        if in_s3 is None or in_s3.copy.held or node.state not in HERE or node.unlinked:
            return False
        self._lose_object(node)
        if not self.trashed.index.at(in_s3.key):
            self.journal.delete(in_s3.key, ino=node.ino)
        return True

    def abandoned(self, node: FileNode) -> None:
        """What was put off until the end of its writing is to be done."""
        self.journal.resume_move(node.ino)

    # --- names ---------------------------------------------------------------------------------------------------

    def modified(self, node: FileNode) -> None:
        """The local bytes are about to differ from what S3 holds. Atomic."""
        in_s3 = node.object
        if in_s3 is not None and in_s3.copy.local:
            self.copies.local_bytes -= in_s3.size_bytes
            self.copies.remember(node, in_s3.here(local=0))

    def superseded(self, node: FileNode) -> None:
        """A file whose bytes only S3 has is overwritten: the object is the way back until the commit. Atomic."""
        self.partials.drop(node)
        if node.object is not None:
            self.copies.remember(node, node.object.here(held=1))

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """The file loses its name: so does the object, after the trash's retention. Atomic.

        *successor*: the file that takes over the name. The object stays as an earlier version of it, to be replaced
        by its upload.
        """
        self.modified(node)
        in_doubt = self.journal.may_have_put(node.ino) or (node.object is not None and not node.object.etag)
        self._forget(node)
        self._hurry_outdated(node)
        in_s3, open_from_afar = node.object, node.body is not None and node.body.download is not None
        if not open_from_afar:
            self.partials.drop(node)
        if in_s3 is None:
            return
        if node.state.is_remote or in_s3.copy.held:
            self.trashed.index.keep_object(node, in_s3)
        if successor is not None and successor.object is None and not in_doubt:
            # Until an unfinished successor is committed, the object may be all there is of what was promised.
            kept = node.state.is_remote or (in_s3.copy.held and not node.state.is_whole)
            way_back = int(kept and not successor.state.is_whole)
            self.copies.remember(successor, in_s3.here(local=0, held=way_back, pinned=0)._replace(ino=successor.ino))
        elif open_from_afar:
            self._retire(node, in_s3.key)
        else:
            kept_s = self.copies.kept_s(node) if in_s3.size_bytes else 0.0  # of nothing nothing is kept
            self.journal.delete(in_s3.key, kept_s, ino=node.ino)

    def follows(self, inos: Collection[int]) -> Collection[int]:
        """Those of which something is to be done in S3, or may have been put there, or comes from there. Atomic."""
        return [ino for ino in inos if self.journal.knows(ino) or ino in self.partials.by_ino]

    def _forget(self, node: FileNode) -> None:
        """Nothing of it is to be uploaded any more; what has arrived of it all the same, or is about to, goes."""
        key = key_of(node)
        under_way = (self.journal.upload_of(node.ino), self.journal.move_of(node.ino))
        put = any(row is not None and row.key == key for row in under_way)
        self.journal.forget(node, key)
        if put and (node.object is None or node.object.key != key):
            self.journal.delete(key)

    def moved(self, node: FileNode, key: str) -> None:
        """The file's object lies under another key than *key*: what reads from afar goes on there. Atomic."""
        self.partials.follow(node)
        self.journal.delete(key, ino=node.ino)

    def _retire(self, node: FileNode, key: str) -> None:
        """The object of a removed file is superfluous, as soon as nothing is filled from it any more. Atomic.

        Should the daemon die before, it goes an hour later.
        """
        if node.ino not in self.partials.by_ino:
            self.journal.delete(key, self.copies.kept_s(node) if node.unlinked else 0.0, ino=node.ino)
            return
        row_id = self.journal.delete(key, max(OPEN_S, self.copies.kept_s(node)), "it is being read", ino=node.ino)
        self.partials.defer_delete(node, row_id)

    def released(self, node: FileNode) -> None:
        """Nobody has the file open any more. Atomic."""
        if node.unlinked:
            self.partials.drop(node)
            return
        self.partials.drop_failed(node)
        if node.object is not None:
            if node.object.copy.local:
                self.used(node)
            self.copies.request_eviction()

    def renamed(self, node: Node, old: DirNode, old_name: bytes) -> None:
        """The object, or those of everything below, are to follow. Reads go on under the old key until then. Atomic."""
        if isinstance(node, FileNode):
            self.queue_move(node)
            self.journal.renamed(node, self.settings.settle_s)
            sending.arrived(self.copies, self.decide, node)
        elif isinstance(node, DirNode):
            self.journal.move(node.ino, None)

    def queue_move(self, node: FileNode) -> None:
        """Have the object of a file moved if it is not where its name says. Atomic."""
        if node.object is not None and not node.unlinked and node.object.key != key_of(node):
            self.journal.move(node.ino, node.object.key)

    def described(self, node: FileNode) -> None:
        """Mode, owner or time of the file changed: so has its object's metadata. Atomic.

        What is being written says it with its next upload, or when it is found to be what it was; the object of an
        archived one cannot be changed.
        """
        in_s3 = node.object
        if in_s3 is not None and not node.unlinked and in_s3.storage_class not in ARCHIVE_CLASSES:
            self.journal.describe(node.ino, in_s3.key, self._describe_s)

    @property
    def _describe_s(self) -> float:
        return max(DESCRIBE_S, self.settings.settle_s)

    # --- use -----------------------------------------------------------------------------------------------------

    def used(self, node: FileNode) -> None:
        """A local copy is being used. Atomic."""
        in_s3, now = node.object, self._tree.clock.steady_ns()
        if in_s3 is not None and now - in_s3.copy.used_ns > USED_EVERY_NS:
            self.copies.remember(node, in_s3.here(used_ns=now))

    # --- the service ---------------------------------------------------------------------------------------------

    async def load(self, catalogue: Catalogue) -> None:
        """Take up what the last run left, before anything of it changes."""
        await self.journal.load(catalogue)
        for row in list(self.journal.rows.values()):
            await self._doubt(row, catalogue)
            if row.error == OUTDATED and self.journal.upload_of(row.ino) is None:
                self.journal.retry(row.id)  # a death has cut the next version off, perhaps
            elif row.error == COMES_HOME:
                self.journal.retry(row.id)  # the row of the file was written with this one
        self.copies.local_bytes = await catalogue.local_object_bytes()

    async def _doubt(self, row: JournalRow, catalogue: Catalogue) -> None:
        """An upload that the last run had under way may have put its bytes in the place of the file's object."""
        in_s3 = await catalogue.object(row.ino) if row.kind == UPLOAD and row.key else None
        if in_s3 is None or in_s3.key != row.key:
            return
        node = await file_at(self._tree, row.ino)
        if node is not None and not node.unlinked:
            self.unsure(node, row.key, None if sent.others_in(row.parts) else sent.sha256_in(row.parts))

    async def run(self) -> None:
        """Let copies leave, for ever."""
        await self.evictor.run()

    # --- to where the rules want it (recfs tier run) -------------------------------------------------------------

    async def bring_home(self, node: FileNode) -> bool:
        """Have the file here for good, verified, and S3 without it. False when it was changed meanwhile."""
        await self.partials.bring(node)
        if node.unlinked or node.state is not State.STORED or node.object is None:
            return False
        node.enter(State.COMMITTED)
        self.modified(node)
        in_s3 = self._part_with_object(node)
        # Only when the rows say that the file is here may the object go.
        row_id = self.journal.delete(in_s3.key, OPEN_S, COMES_HOME, ino=node.ino)
        await self._behind.durable()
        self.journal.retry(row_id)
        return True

    async def store_anew(self, node: FileNode) -> bool:
        """Upload a stored file again, as to another storage class. False when it was changed meanwhile."""
        await self.partials.bring(node)
        if node.unlinked or node.state is not State.STORED or node.object is None:
            return False
        node.enter(State.COMMITTED)
        self.modified(node)
        self.journal.upload(node, 0.0)
        return True

    def unwanted(self, node: FileNode) -> None:
        """A committed file belongs here: nothing of it is to go to S3, or stay there. Atomic."""
        self._forget(node)
        if node.object is not None:
            self.journal.delete(self._part_with_object(node).key, self.copies.kept_s(node), ino=node.ino)

    def _part_with_object(self, node: FileNode) -> ObjectRow:
        in_s3 = node.object
        assert in_s3 is not None
        self._forget(node)
        self._lose_object(node)
        return in_s3

    def _lose_object(self, node: FileNode) -> None:
        node.object = None
        self.journal.resume_move(node.ino)  # which finds that there is nothing to be moved
        self._behind.object_gone(node.ino)
        self._behind.node(node)
