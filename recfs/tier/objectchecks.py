"""Looking at what S3 holds of a file: by what the server says of it where that tells, else by reading all of it."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from recfs.core.verification.verdicts import Copy, ObjectFacts, judge_object
from recfs.errors import RecfsError
from recfs.ports.object_errors import ObjectChanged, ObjectMissing
from recfs.ports.objects import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.ports.objects import ObjectInfo
    from recfs.ports.rows import ObjectRow
    from recfs.state.nodes import FileNode
    from recfs.tier.tier import Tier

Result = TypeVar("Result")

LOST = ".recfs/lost+found/"
"""Where bad objects are kept: as in the directory of that name, only people delete here. No path begins so."""
NAME_CHARS = 100
"""So much of a file's name is kept there."""
PIECE_BYTES = 8 * MIB
"""Asked for at a time; a slower pace asks for less."""


class Paced(Protocol):
    """Who reads no faster than it was told."""

    @property
    def slice_bytes(self) -> int:
        """How much to read at a time."""

    async def took(self, read_bytes: int) -> None:
        """Wait, after so much was read."""


def facts_of(info: ObjectInfo) -> ObjectFacts:
    """What a server says of an object."""
    return ObjectFacts(info.size_bytes, info.etag, info.sha256, info.md5, info.stored_sha256)


class ObjectCheck:
    """One look at the object of one file, as its row is now."""

    def __init__(self, tier: Tier, node: FileNode, in_s3: ObjectRow) -> None:
        self._tier = tier
        self._node = node
        self._in_s3 = in_s3
        self._info: ObjectInfo | None = None
        self.reason = ""
        """What is wrong, for people."""
        self.read_bytes = 0

    @property
    def is_current(self) -> bool:
        """Whether the file's object is still that, nothing is under way with it, and S3 has answered all requests."""
        in_s3, tier = self._node.object, self._tier
        same = in_s3 is not None and in_s3.key == self._in_s3.key and in_s3.etag == self._in_s3.etag != ""
        move = tier.journal.move_of(self._node.ino)
        moves = move is not None and (move.id in tier.journal.running or move.attempts > 0)
        return same and not moves and not self._node.unlinked

    async def look(self, pace: Paced, *, read: bool = False) -> Copy:
        """What is there; *read*: by its bytes, whatever the server says. Raises nothing that S3 answers."""
        try:
            found = await self._look(pace, read=read)
            if found.is_bad and self.is_current:
                found = await self._look(pace, read=read)  # the first answer may have been a moment's
        except (RecfsError, OSError) as error:
            self.reason = f"S3: {error}"
            return Copy.UNREADABLE
        if found.is_bad and not self.is_current:
            return Copy.UNSETTLED
        if found is Copy.GONE:
            await self._tier.ownership.doubt()
        if found.is_bad and self._tier.ownership.lost is not None:
            self.reason = self._tier.ownership.lost  # all of them are gone: told once, and nothing is put there
            return Copy.UNREADABLE
        return found

    async def _look(self, pace: Paced, *, read: bool) -> Copy:
        in_s3 = self._in_s3
        self._info = info = await self._call(partial(self._tier.objects.head, in_s3.key, checksum=True))
        known = ObjectFacts(in_s3.size_bytes, in_s3.etag, in_s3.sha256, in_s3.md5)
        told = facts_of(info) if info is not None else None
        found = judge_object(told, known)
        if found is Copy.GONE:
            self.reason = f"S3 has no object {in_s3.key} any more"
        elif found is Copy.WRONG and told is not None:
            self.reason = f"S3 holds {told.size_bytes} bytes under {in_s3.key}, and {in_s3.size_bytes} were uploaded"
            if told.size_bytes == in_s3.size_bytes:
                self.reason = f"S3 holds other bytes under {in_s3.key} than were uploaded, by its own checksum"
        if found.is_bad or (found is Copy.RIGHT and not read):
            return found
        return await self._read(pace, None)

    async def fetch(self, pace: Paced, fd: int) -> Copy:
        """Bring its bytes into a file, after a `look`. Raises ObjectStoreError, OSError."""
        return await self._read(pace, fd)

    async def keep_bad(self) -> str | None:
        """Copy what S3 has, after a `look` that found it bad, to where nothing removes it; its key there.

        None where there is nothing to be kept. Raises ObjectStoreError: it is not kept.
        """
        info = self._info
        if info is None:
            return None
        name = self._in_s3.key.rsplit("/", 1)[-1][:NAME_CHARS]
        kept = f"{LOST}corrupt-{self._node.ino}-{info.etag[:12]}-{name}"
        objects, stopping = self._tier.objects, lambda: self._tier.journal.stopping
        try:
            await self._call(
                partial(objects.copy, info.key, kept, info.size_bytes, if_match=info.etag, cancel=stopping)
            )
        except ObjectMissing:
            return None
        return kept

    async def _read(self, pace: Paced, fd: int | None) -> Copy:
        """Read all of it, and compare."""
        info, size = self._info, self._in_s3.size_bytes
        assert info is not None
        digest, at = hashlib.sha256(), 0
        piece = min(PIECE_BYTES, pace.slice_bytes, max(size, 1))
        buffer = memoryview(bytearray(piece))
        try:
            while at < size:
                part = buffer[: min(piece, size - at)]
                await self._call(partial(self._piece, info, part, at, fd, digest.update))
                at += len(part)
                self.read_bytes += len(part)
                await pace.took(len(part))
        except ObjectMissing:
            self.reason = f"S3 has no object {info.key} any more"
            return Copy.GONE
        except ObjectChanged:
            return Copy.UNSETTLED
        if digest.digest() != self._in_s3.sha256:
            self.reason = f"S3 holds other bytes under {info.key} than were uploaded"
            return Copy.WRONG
        return Copy.RIGHT

    def _piece(
        self, info: ObjectInfo, part: memoryview, at: int, fd: int | None, feed: Callable[[memoryview], None]
    ) -> None:
        """In a thread."""
        self._tier.objects.get_range(info.key, at, len(part), if_match=info.etag, into=part)
        feed(part)
        view, offset = part, at
        while fd is not None and view:
            done = os.pwrite(fd, view, offset)
            view, offset = view[done:], offset + done

    async def _call(self, function: Callable[[], Result]) -> Result:
        return await trio.to_thread.run_sync(function, limiter=self._tier.limiter)


__all__ = ["ObjectCheck", "Paced"]
