"""One file on its way to S3: in one request, or part by part with every part recorded.

It counts only if the file is at the end as it was at the beginning: it stays in state `uploading`, which the first
write ends. All bytes of all parts have been read before that is looked at for the last time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from recfs.core.model import State
from recfs.ports.object_errors import (
    AccessRefused,
    BadAnswer,
    ChecksumMismatch,
    NotOffered,
    ObjectChanged,
    ObjectMissing,
    ObjectStoreError,
    RequestRefused,
    ServerFault,
    SourceChanged,
    TransferCancelled,
    UploadGone,
    UploadInvalid,
)
from recfs.ports.objects import MAX_PUT_BYTES, ObjectInfo, ObjectMeta, ObjectStore, PartInfo
from recfs.tier.queue import sent
from recfs.tier.uploads.suspicion import digest_of
from recfs.tier.uploads.twins import is_proven

if TYPE_CHECKING:
    from recfs.ports.rows import JournalRow, ObjectRow
    from recfs.state.nodes import FileNode
    from recfs.state.writebehind import WriteBehind
    from recfs.tier.queue.journal import Journal
    from recfs.tier.queue.running import Running

log = logging.getLogger("recfs.uploader")

Result = TypeVar("Result")

TRIES = 4
"""A multipart upload that failed so often while the server answered is begun anew: it may be one that never ends."""
_REFUSED = (UploadGone, UploadInvalid, RequestRefused)
_BROKEN = (BadAnswer, ChecksumMismatch, ObjectChanged, ObjectMissing, ServerFault)
RECORDS = 32
"""Parts are recorded when more than one in so many is not: at most that share is sent again after a crash."""


class Transfer:
    """The upload of one file, once."""

    def __init__(
        self, node: FileNode, key: str, fd: int, meta: ObjectMeta, row: JournalRow, running: Running,
        *, tried: bool, recheck: bool, twin: ObjectRow | None,
        objects: ObjectStore, journal: Journal, behind: WriteBehind,
        limiter: trio.CapacityLimiter, part_limiter: trio.CapacityLimiter,
    ) -> None:  # fmt: skip
        """*tried*: earlier attempts may have begun something under the key. *recheck*: the bytes are there already,
        unless something came in between. *twin*: another file's object with the same bytes, which may be copied.
        """
        self._node, self._key, self._fd, self._meta = node, key, fd, meta
        self._row, self._running = row, running
        self._objects, self._journal, self._behind = objects, journal, behind
        self._limiter, self._part_limiter = limiter, part_limiter
        self._sha256, self._size = node.sha256, node.bytes
        self._done: dict[int, PartInfo] = {}
        self._failure: Exception | None = None
        self._unrecorded = 0
        self._in_vain = 0
        """How often this multipart upload failed while the server was there."""
        self.stored = False
        """Whether S3 has put these bytes under the key, be they what the file is or not."""
        self._tried, self._recheck, self._twin = tried, recheck, twin
        self.found = False
        """Whether an earlier attempt had put them there, with the attributes of that time."""
        self.unanswered = False
        """Whether it was given up while S3 may still come to put them there."""

    def is_stale(self) -> bool:
        """Whether the file is not any more what is being sent. Asked from the sending threads, too: it only reads."""
        node = self._node
        return node.state is not State.UPLOADING or node.sha256 != self._sha256 or node.unlinked

    def _unwanted(self) -> bool:
        return self._journal.stopping or self.is_stale()

    async def send(self) -> ObjectInfo | None:
        """Send it; None if it was changed meanwhile. Raises ObjectStoreError or OSError."""
        info: ObjectInfo | None
        try:
            most = MAX_PUT_BYTES if self._row.id in self._journal.in_one else self._objects.part_size(self._size)
            if self._recheck and (info := await self._already_there()) is not None:
                self.found = True
            elif self._twin is not None and (info := await self._copied(self._twin)) is not None:
                log.debug("%s was copied from %s in S3", self._key, self._twin.key)
            elif self._size <= min(most, MAX_PUT_BYTES):
                self._journal.in_one.discard(self._row.id)  # should that fail, it is the parts' turn again
                if self._row.upload_id:
                    self._begin_anew()  # of the larger file that it was
                if self._tried:
                    await self._abort_unknown()
                info = await self._in_one()
            else:
                info = await self._in_parts()
        except TransferCancelled as error:
            self.unanswered = error.unanswered
            await trio.lowlevel.checkpoint_if_cancelled()  # the daemon stops: this is to be done by the next one
            return None
        except SourceChanged:
            if not self.is_stale():
                raise  # somebody writes to it out of band
            return None
        self.stored = info is not None
        return None if self.is_stale() else info

    async def _call(self, function: Callable[[], Result]) -> Result:
        return await trio.to_thread.run_sync(function, limiter=self._limiter)

    def _sent(self, count: int) -> None:
        self._running.done_bytes = count

    async def _in_one(self) -> ObjectInfo:
        put = partial(
            self._objects.put_file, self._fd, self._size, self._key, self._meta, progress=self._sent,
            cancel=self._unwanted,
        )  # fmt: skip
        return await self._call(put)

    async def _copied(self, twin: ObjectRow) -> ObjectInfo | None:
        """Have S3 copy another file's object; None: it does not, or not surely, and the bytes are to be sent.

        Raises TransferCancelled, and ObjectStoreError for a request that has no answer and may be carried out yet.
        """
        if self._tried:
            await self._abort_unknown()
        copy = partial(
            self._objects.copy, twin.key, self._key, self._size, meta=self._meta, if_match=twin.etag, fresh=True,
            cancel=self._unwanted,
        )  # fmt: skip
        try:
            info = await self._call(copy)
            if await is_proven(self._objects, self._limiter, info, twin):
                self._sent(self._size)
                return info
            # Nobody takes it for what its metadata says, should nothing be sent after this.
            await self._call(partial(self._objects.delete, [self._key]))
            log.warning("%s was copied from %s, and may have other bytes: it is sent", self._key, twin.key)
        except TransferCancelled:
            raise
        except ObjectStoreError as error:
            if error.unanswered:
                raise
            log.info("%s is sent, as S3 does not copy %s: %s", self._key, twin.key, error)
        return None

    # --- part by part --------------------------------------------------------------------------------------------

    async def _in_parts(self) -> ObjectInfo | None:
        if await self._take_up() and (info := await self._already_there()) is not None:
            self.found = True
            return info
        if not self._row.upload_id:
            if self._row.attempts or self._row.id in self._journal.tried_before:
                await self._abort_unknown()
            upload_id = await self._call(partial(self._objects.start_multipart, self._key, self._meta))
            self._record(
                self._row._replace(key=self._key, upload_id=upload_id, parts=self._begun(), size_bytes=self._size)
            )
            await self._behind.durable()  # an upload nobody remembers would cost rent for ever
        part_bytes = self._objects.part_size(self._size)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_whole)
            for number in range(1, -(-self._size // part_bytes) + 1):
                if number not in self._done:
                    await self._part_limiter.acquire_on_behalf_of(number_of := (self, number))
                    nursery.start_soon(self._part, number, part_bytes, number_of)
        if self._failure is not None:
            if isinstance(self._failure, _REFUSED):
                await self._was_in_vain()
            raise self._failure
        if self.is_stale():
            return None
        parts = [self._done[number] for number in sorted(self._done)]
        finish = partial(
            self._objects.finish_multipart, self._key, self._row.upload_id, parts, self._meta, self._size
        )  # fmt: skip
        try:
            info = await self._call(finish)
        except _REFUSED:
            self._begin_anew()  # what is there will not make an object the next time either
            raise
        except _BROKEN:
            if (there := await self._was_in_vain()) is None:
                raise
            info, self.found = there, True
        self._record(self._row._replace(upload_id="", parts=self._begun()))
        return info

    def _begin_anew(self) -> None:
        """Drop the multipart upload: the next attempt starts another."""
        self._journal.abort(self._row.key, self._row.upload_id)
        self._record(self._row._replace(upload_id="", parts=self._begun()))

    async def _was_in_vain(self) -> ObjectInfo | None:
        """Some work on the multipart upload failed. If the server answers all the same, it is begun anew after a while.

        Returns the object if it is there nevertheless. Raises nothing that a server does.
        """
        try:
            info = await self._already_there()
        except ObjectStoreError:
            return None  # the server is away: another upload would fare no better
        if info is not None:
            return info
        self._in_vain += 1
        if self._in_vain >= TRIES:
            log.warning("the upload of %s is begun anew: after %d tries S3 has not taken it", self._key, self._in_vain)
            self._begin_anew()
            self._journal.in_one.add(self._row.id)
        elif self._row.upload_id:
            self._record(self._row._replace(parts=self._progress()))
        return None

    async def _already_there(self) -> ObjectInfo | None:
        """The object that an earlier attempt finished without learning of it; None if there is none."""
        info = await self._call(partial(self._objects.head, self._key))
        if info is None or info.size_bytes != self._size or info.sha256 != self._sha256:
            return None
        wanted = self._meta.storage_class
        return info if wanted in (None, info.storage_class) else None

    async def _take_up(self) -> bool:
        """Go on with a multipart upload that an earlier attempt began, if it is of just these bytes.

        True if it is gone: aborted by others, or finished by an attempt that did not live to record it.
        """
        row = self._row
        if not row.upload_id:
            return False
        recorded = sent.parts(row.parts)
        # Without a part that tells, nobody knows with which checksums it began.
        if (
            not recorded or row.key != self._key or row.size_bytes != self._size
            or sent.sha256_in(row.parts) != self._sha256
        ):  # fmt: skip
            self._begin_anew()
            return False
        try:
            listed = await self._call(partial(self._objects.list_parts, self._key, row.upload_id, recorded))
        except UploadGone:
            self._record(row._replace(upload_id="", parts=self._begun()))
            return True
        except (AccessRefused, NotOffered, RequestRefused, UploadInvalid):
            self._begin_anew()
            return False
        except _BROKEN:
            self._done = {part.number: part for part in recorded}
            self._in_vain = sent.in_vain(row.parts)
            await self._was_in_vain()
            raise
        there = {part.number: part.etag for part in listed}
        checked = any(part.checksum for part in recorded)
        self._done = {
            part.number: part for part in recorded
            if there.get(part.number) == part.etag and (part.checksum or not checked)
        }  # fmt: skip
        self._in_vain = sent.in_vain(row.parts)
        self._sent(sum(part.size_bytes for part in self._done.values()))
        return False

    async def _abort_unknown(self) -> None:
        await abort_unknown(self._objects, self._journal, self._limiter, self._key)

    async def _read_whole(self) -> None:
        """See, while the parts are sent, that the bytes are those that were committed.

        S3 checks each part against what was read for it, and nothing against the checksum of all that the metadata has.
        """
        try:
            found = await self._call(partial(digest_of, self._fd, self._unwanted))
            if found not in (None, self._sha256) and not self.is_stale():
                raise ChecksumMismatch(f"{self._key}: the local copy has other bytes than were committed")
        except Exception as error:  # of any class: the parts end by themselves
            self._failure = self._failure or error

    async def _part(self, number: int, part_bytes: int, token: object) -> None:
        offset = (number - 1) * part_bytes
        length = min(part_bytes, self._size - offset)
        try:
            if self._failure is not None or self.is_stale():
                return
            send = partial(
                self._objects.upload_part, self._key, self._row.upload_id, number, self._fd, offset, length,
                progress=partial(self._running.parts.__setitem__, number), cancel=self._unwanted,
            )  # fmt: skip
            self._done[number] = await self._call(send)
        except Exception as error:  # of any class: the other parts end by themselves
            self._failure = self._failure or error
            return
        finally:
            self._running.parts.pop(number, None)
            self._part_limiter.release_on_behalf_of(token)
        self._sent(self._running.done_bytes + length)
        self._unrecorded += 1
        # Each record has all parts so far: one for every part would be gigabytes for the 10,000 of a large file.
        if self._unrecorded * RECORDS > len(self._done):
            self._unrecorded = 0
            self._record(self._row._replace(parts=self._progress()))

    def _begun(self) -> str:
        """What a later attempt has to know before a part is confirmed."""
        return sent.record(self._sha256, others=sent.others_in(self._row.parts))

    def _progress(self) -> str:
        """What a later attempt has to know of the multipart upload."""
        parts = [self._done[each] for each in sorted(self._done)]
        return sent.record(self._sha256, others=sent.others_in(self._row.parts), parts=parts, in_vain=self._in_vain)

    def _record(self, row: JournalRow) -> None:
        self._row = row
        self._journal.update(row)


async def abort_unknown(objects: ObjectStore, journal: Journal, limiter: trio.CapacityLimiter, key: str) -> None:
    """Drop uploads under a key that were begun and not recorded: the answer was lost, or the daemon died.

    A server that does not list them, or not to us, keeps nobody's file from being stored.
    """
    try:
        there = await trio.to_thread.run_sync(partial(objects.list_multiparts, key), limiter=limiter)
    except (AccessRefused, NotOffered, RequestRefused) as error:
        log.warning("what was begun to be sent to %s stays, until a rule of the bucket aborts it: %s", key, error)
        return
    known = {journal.rows[row_id].upload_id for row_id in journal.tally.at(key)}
    for found in there:
        if found.key == key and found.upload_id not in known:
            journal.abort(found.key, found.upload_id)
