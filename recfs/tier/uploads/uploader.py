"""Works the journal off: uploads, deletions, moves and aborts on S3.

A row may be worked on when it is due, nobody works on one of its keys, and no other file's object is where it would
put one. What fails is tried again after a growing, jittered delay; the row says what went wrong. Nothing is done twice
that must not be: an upload counts only while the file is just as it was when it began, and S3 has confirmed size and
checksum.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from recfs.core.model import State
from recfs.core.naming import is_temporary_name
from recfs.errors import Stale
from recfs.ports.object_errors import (
    ChecksumMismatch,
    KeyTooLong,
    NotOffered,
    ObjectMissing,
    ObjectStoreError,
    RequestRefused,
    UploadGone,
)
from recfs.ports.rows import ABORT, MOVE, UPLOAD
from recfs.state.nodes import FileNode
from recfs.state.problems import forever
from recfs.tier.queue import sent, waited_for
from recfs.tier.queue.reasons import LOOKED_AT
from recfs.tier.queue.running import Running
from recfs.tier.queue.unanswered import LATE_S
from recfs.tier.queue.unsent import Why
from recfs.tier.tier import Attributes, attributes_of, key_of, meta_of
from recfs.tier.uploads.deletions import Deletions
from recfs.tier.uploads.failures import Failures
from recfs.tier.uploads.holders import Holders
from recfs.tier.uploads.moves import ObjectMoves
from recfs.tier.uploads.suspicion import condemn_if_bad
from recfs.tier.uploads.transfer import Transfer, abort_unknown
from recfs.tier.uploads.twins import Twins

if TYPE_CHECKING:
    from recfs.disk.commit.md5s import Md5s
    from recfs.disk.committed import CommittedFiles
    from recfs.ports.objects import ObjectInfo, ObjectMeta
    from recfs.ports.rows import JournalRow, ObjectRow
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind
    from recfs.tier.queue.journal import Journal
    from recfs.tier.tier import Tier
    from recfs.tier.uploads.broken import BrokenFiles

log = logging.getLogger("recfs.uploader")

Result = TypeVar("Result")

PART = "uploads"
LOOK_S = 60.0
AGAIN_S = 1.0
"""How soon a row is looked at again that has to wait for another one's key."""
NAME_LOOK_S = 3600.0
"""How long a file with a temporary name is left alone before its row is looked at again; a rename wakes it."""
_NS = 10**9


class Uploader:
    """The journal's service."""

    def __init__(
        self, tier: Tier, tree: Tree, behind: WriteBehind, committed: CommittedFiles, md5s: Md5s,
        broken: BrokenFiles,
        *, threads: int, concurrency: int, part_threads: int, retry_max_s: float,
    ) -> None:  # fmt: skip
        self._tier = tier
        self._journal: Journal = tier.journal
        self._tree = tree
        self._behind = behind
        self._committed = committed
        self._md5s = md5s
        self._broken = broken
        self._limiter = trio.CapacityLimiter(threads)
        """Not the readers' one: they do not wait until a part has gone through a slow line."""
        self._slots = trio.CapacityLimiter(concurrency)
        self._parts = trio.CapacityLimiter(part_threads)
        self._holders = Holders(tier, tree, behind)
        self._moves = ObjectMoves(tier, tree, behind, self._holders, self._limiter, self._clear, self._claim)
        self._keys = tier.holds.keys
        """Keys being worked on …"""
        self._twins = Twins(tier, tree, self._keys)
        self._keys_of_row: dict[int, set[str]] = {}
        """… and which of them by which row."""
        self._failures = Failures(tier.journal, tree, retry_max_s=retry_max_s)
        self._deletions = Deletions(tier, behind, self._holders, self._failures, self._limiter, self._keys)
        self._rechecks: dict[int, Recheck] = {}
        """Rows whose bytes S3 has taken, and which are looked at again."""

    # --- choosing ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work for ever."""
        async with trio.open_nursery() as nursery:
            await forever(PART, partial(self._step, nursery), self._behind.problems)

    async def _step(self, nursery: trio.Nursery) -> None:
        self._journal.wake = wake = trio.Event()
        self._journal.forget_answered()
        if self._journal.is_short:
            self._journal.is_short = False
            await waited_for.hurry(self._journal, set())
        wait_s = await self._start(nursery)
        with trio.move_on_after(wait_s):
            await wake.wait()

    async def _start(self, nursery: trio.Nursery) -> float:
        """Start what can be; returns how long nothing else will be due."""
        blocked: list[int] = []
        self._journal.due.arrive()
        while self._slots.available_tokens > 0 and (row := self._journal.due.take(deletions=False)) is not None:
            try:
                keys = await self._keys_of(row)
            except Exception as error:
                self._failures.failed(row, error)
                continue
            if not self._keys.isdisjoint(keys):
                blocked.append(row.id)
            elif row.id in self._journal.rows:
                self._keys |= keys
                self._keys_of_row[row.id] = keys
                self._journal.running[row.id] = Running(row.kind)
                await nursery.start(self._work, row, keys)
        self._journal.due.put_back(blocked + self._deletions.start(nursery))
        soonest = self._journal.due.next_ns()
        return LOOK_S if soonest is None else min(LOOK_S, max(0.01, (soonest - self._tree.clock.steady_ns()) / _NS))

    async def _keys_of(self, row: JournalRow) -> set[str]:
        if not row.ino:
            return {row.key}
        try:
            node = await self._tree.get(row.ino)
        except Stale:
            return set()
        keys = {key_of(node)} if isinstance(node, FileNode) else set()
        if isinstance(node, FileNode) and node.object is not None:
            keys.add(node.object.key)
        return keys

    def _claim(self, row: JournalRow, key: str) -> bool:
        """Have nobody else put, move or delete what is under *key* until the row's work ends. Atomic.

        A file may have another name by now than when its row was taken up, or its object has to go aside. False:
        somebody works there, and the row is looked at again soon.
        """
        own = self._keys_of_row[row.id]
        if key in self._keys and key not in own:
            later_ns = round(AGAIN_S * random.uniform(0.5, 1.0) * _NS)
            self._journal.update(row._replace(next_try_ns=self._tree.clock.steady_ns() + later_ns))
            return False
        own.add(key)
        self._keys.add(key)
        return True

    # --- working -------------------------------------------------------------------------------------------------

    async def _work(
        self, row: JournalRow, keys: set[str], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with self._slots:
            task_status.started()
            try:
                await self._tier.ownership.ensure()
                if row.kind == ABORT:
                    await self._abort(row)
                else:
                    node = await self._tree.get(row.ino)
                    if node.unlinked:
                        await self._drop(row)
                    elif isinstance(node, FileNode) and row.kind == MOVE:
                        await self._moves.file(row, node)
                    elif isinstance(node, FileNode):
                        await self._upload(row, node)
                    else:
                        await self._moves.folder(row, node)
            except Stale:
                await self._drop(row)
            except Exception as error:
                await trio.lowlevel.checkpoint_if_cancelled()  # the daemon stops: no failure
                self._failures.failed(row, error)
            finally:
                self._keys -= keys
                self._keys_of_row.pop(row.id, None)
                if row.id not in self._journal.rows:
                    self._holders.ended(row.id)
                    self._failures.ended(row.id)
                    self._rechecks.pop(row.id, None)
                self._journal.ended(row.id)

    async def _call(self, function: Callable[[], Result]) -> Result:
        return await trio.to_thread.run_sync(function, limiter=self._limiter)

    async def _abort(self, row: JournalRow) -> None:
        try:
            if row.upload_id:
                await self._call(partial(self._tier.objects.abort_multipart, row.key, row.upload_id))
            else:
                await abort_unknown(self._tier.objects, self._journal, self._limiter, row.key)
        except (UploadGone, ObjectMissing, KeyTooLong):
            pass  # there is nothing to be aborted
        except (NotOffered, RequestRefused) as error:
            log.warning("what was begun to be sent stays, until a lifecycle rule of the bucket aborts it: %s", error)
        self._journal.done(row.id)

    # --- uploading -----------------------------------------------------------------------------------------------

    async def _upload(self, row: JournalRow, node: FileNode) -> None:
        if not _is_to_go(node):
            # Being written: its next commit journals it again. Stored: nothing to do.
            await self._drop(row)
            return
        if is_temporary_name(node.name):
            self._journal.unsent.set_aside(row.id, Why.NAME)
            self._journal.update(row._replace(next_try_ns=self._tree.clock.steady_ns() + round(NAME_LOOK_S * _NS)))
            return
        if self._journal.unsent.why_aside(row.id) is Why.NAME:
            self._journal.unsent.count_again(row.id)
        if await self._broken.hold(row, node):
            return
        key = key_of(node)
        tried = bool(row.key) and self._journal.was_tried(row.id)
        if row.key != key:
            if not await self._clear(row):
                return
            row = row._replace(key=key, parts=sent.begun("", node.sha256, tried=False))
            self._journal.update(row)
        elif not row.upload_id and (begun := sent.begun(row.parts, node.sha256, tried=True)) != row.parts:
            row = row._replace(parts=begun)
            self._journal.update(row)
        # What may be put somewhere is known before it is, and its file is there after a power cut: no object is left
        # that nobody knows of.
        await self._behind.durable()
        if not self._claim(row, key):
            return
        await self._holders.make_durable(node, key)
        await self._tier.trashed.make_way(key)
        # Not before: what is copied aside may have been restored meanwhile, and be a file's again.
        if await self._holders.in_the_way(row, key, await self._holders.holder(key, node.ino)):
            return
        if node.md5 is None:
            await self._md5s.of(node)
        is_first = not row.attempts and not row.upload_id and row.id not in self._rechecks
        async with self._twins.of(node, key, wanted=is_first) as twin:
            await self._transfer(row, node, key, twin, tried=tried)

    async def _transfer(
        self, row: JournalRow, node: FileNode, key: str, twin: ObjectRow | None, *, tried: bool
    ) -> None:  # fmt: skip
        async with self._committed.open(node) as file:
            if not _is_to_go(node) or node.md5 is None or key_of(node) != key:
                self._journal.again(row)
                return
            sent_attributes, sha256 = attributes_of(node), node.sha256
            transfer = Transfer(
                node, key, file.fd, self._meta(node), row, self._journal.running[row.id],
                tried=tried, recheck=row.id in self._rechecks, twin=twin,
                objects=self._tier.objects, journal=self._journal, behind=self._behind,
                limiter=self._limiter, part_limiter=self._parts,
            )  # fmt: skip
            try:
                info = await self._send(transfer, node, key)
            except ChecksumMismatch:
                await condemn_if_bad(self._tree, node, file, self._limiter, lambda: self._journal.stopping)
                raise
        if info is None:
            self._give_up(node)
            self._journal.cancel(row.id)
            if transfer.stored:
                self._tier.outdated(node, key)
            elif transfer.unanswered:
                self._tier.perhaps_outdated(node, key)
            return
        self._journal.keep_new_object(key)
        recheck = self._rechecks.get(row.id) if transfer.found else None
        if self._journal.unanswered.others(key, sha256):
            self._look_again(row, node, key, recheck or Recheck(sent_attributes))
            return
        if recheck is not None:
            transfer.found = recheck.sent_attributes != sent_attributes
        before = node.object
        self._tier.uploaded(node, info)
        self._failures.stored += 1
        self._journal.done(row.id)
        self._tier.queue_move(node)
        move, says = self._journal.move_of(node.ino), not transfer.found and attributes_of(node) == sent_attributes
        is_here = info.key == key_of(node)
        if move is not None and self._journal.unsent.why_aside(move.id) is not None:
            self._journal.retry(move.id)  # it was refused for the sake of the object that was there before
        elif move is not None and says and is_here and not move.key and move.id not in self._journal.running:
            self._journal.cancel(move.id)  # this upload did what it was put off for
        else:
            self._journal.resume_move(node.ino)
        if not says:
            self._tier.described(node)
        if before is not None and before.key != key:
            await self._behind.durable()  # as after a move

    async def _send(self, transfer: Transfer, node: FileNode, key: str) -> ObjectInfo | None:
        """Send it; None if the file was changed meanwhile. Raises ObjectStoreError or OSError."""
        sha256 = node.sha256
        if node.state is State.COMMITTED:
            node.enter(State.UPLOADING)
            self._behind.node(node)
        try:
            return await transfer.send()
        except BaseException as error:
            transfer.unanswered = transfer.unanswered or (isinstance(error, ObjectStoreError) and error.unanswered)
            self._give_up(node)
            if node.unlinked:
                self._journal.delete(key)  # it may have arrived all the same
            raise
        finally:
            if transfer.unanswered:
                self._journal.unanswered.note(key, sha256)
                self._tier.unsure(node, key, sha256)

    def _look_again(self, row: JournalRow, node: FileNode, key: str, recheck: Recheck) -> None:
        """S3 has the bytes, and may replace them by what it was asked before. Atomic.

        They do not count as long as it may, so that the local copy stays; but once they have outlasted the time in
        which that mostly happens, nobody waits for it.
        """
        journal, now = self._journal, self._tree.clock.steady_ns()
        self._rechecks = {each: before for each, before in self._rechecks.items() if each in journal.rows}
        self._rechecks[row.id] = Recheck(recheck.sent_attributes, 2 * recheck.wait_s)
        self._give_up(node)
        next_ns = now + round(recheck.wait_s * _NS)
        if recheck.wait_s > LATE_S:
            next_ns = min(next_ns, max(now, journal.unanswered.until_ns(key)) + _NS)
            journal.unsent.set_aside(row.id, Why.WATCHED)
        else:
            journal.unsent.count_again(row.id)
        row = journal.rows.get(row.id, row)
        journal.update(row._replace(attempts=max(1, row.attempts), error=LOOKED_AT, next_try_ns=next_ns))

    async def _drop(self, row: JournalRow) -> None:
        """The row is not wanted any more. What an upload or a move may have put in S3 goes, too. Raises nothing."""
        try:
            if row.kind not in (UPLOAD, MOVE) or await self._clear(row):
                self._journal.cancel(row.id)
        except Exception as error:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._failures.failed(row, error)

    async def _clear(self, row: JournalRow) -> bool:
        """Have removed what an attempt may have put where it does not belong any more, if no file's object is there.

        False: somebody works there, and the row is looked at again soon. Raises IoFailure, OutOfSpace
        or what S3 refuses.
        """
        key = row.key
        if not key:
            return True
        is_busy = key in self._keys and key not in self._keys_of_row.get(row.id, ())
        if is_busy or self._tier.copies.is_read(key, row.ino):
            self._journal.update(row._replace(next_try_ns=self._tree.clock.steady_ns() + round(AGAIN_S * _NS)))
            return False
        claimed = key not in self._keys
        self._keys.add(key)  # nobody puts anything there meanwhile
        try:
            await self._behind.flush()
            if row.kind == UPLOAD and self._journal.was_tried(row.id):
                await abort_unknown(self._tier.objects, self._journal, self._limiter, key)
            if await self._holders.holder(key, 0) is None:
                self._journal.delete(key)
        finally:
            if claimed:
                self._keys.discard(key)
        return True

    def _meta(self, node: FileNode) -> ObjectMeta:
        storage_class, now_ns = self._tier.decide(node).storage_class, self._tree.clock.now_ns()
        return meta_of(node, node, mtime_ns=node.mtime_ns, storage_class=storage_class, uploaded_ns=now_ns)

    def _give_up(self, node: FileNode) -> None:
        if node.state is State.UPLOADING and not node.unlinked:
            node.enter(State.COMMITTED)
            self._behind.node(node)


@dataclass(frozen=True, slots=True)
class Recheck:
    """An upload that S3 has confirmed and that is looked at again."""

    sent_attributes: Attributes
    """The attributes that were sent with it."""
    wait_s: float = LATE_S
    """How long until then."""


def _is_to_go(node: FileNode) -> bool:
    return node.state in (State.COMMITTED, State.UPLOADING) and not node.unlinked
