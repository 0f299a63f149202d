"""Files whose bytes S3 has already, as another file's object: these are copied there instead of being sent.

Only in the same bucket, and only from an object that S3 has confirmed and that costs nothing to be read. It is looked
at once more when it is copied (If-Match of its ETag), and afterwards whether just these bytes were copied: by the ETag
of the copy, where that is an MD5, by the server's own checksum, or because what was copied is still the same.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from recfs.ports.objects import ARCHIVE_CLASSES, RETRIEVAL_CLASSES
from recfs.state.walk import file_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from recfs.ports.objects import ObjectInfo, ObjectStore
    from recfs.ports.rows import ObjectRow
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree
    from recfs.tier.tier import Tier

TRIED: Final = 8
"""So many objects of the same bytes are looked at."""


class Twins:
    """Finds what can be copied."""

    def __init__(self, tier: Tier, tree: Tree, keys: set[str]) -> None:
        """*keys*: those being worked on, which nobody else puts, moves or deletes anything under."""
        self._tier = tier
        self._tree = tree
        self._keys = keys
        self._readers: Counter[str] = Counter()
        """Which of them are copied from, and by how many: several may do so at once."""

    @contextlib.asynccontextmanager
    async def of(self, node: FileNode, key: str, *, wanted: bool) -> AsyncIterator[ObjectRow | None]:
        """The object of another file with the same bytes, to be copied to *key*, which stays as it is in this block.

        None: there is none that can be copied, or none is *wanted*.
        """
        twin = await self._find(node, key) if wanted else None
        try:
            yield twin
        finally:
            if twin is not None:
                self._leave(twin.key)

    async def _find(self, node: FileNode, key: str) -> ObjectRow | None:
        least = self._tier.settings.copy_from_bytes
        if least is None or node.bytes < least or node.sha256 is None:
            return None
        sha256 = node.sha256
        for ino in await self._tree.catalogue.objects_of(sha256, node.ino, TRIED):
            other = await file_at(self._tree, ino)
            if other is None or other.unlinked or node.sha256 != sha256:
                continue
            in_s3 = other.object
            if in_s3 is not None and _is_good(in_s3, node) and in_s3.key != key and self._take(in_s3.key):
                return in_s3
        return None

    def _take(self, key: str) -> bool:
        """Atomic. False: somebody works there."""
        if key in self._keys and not self._readers[key]:
            return False
        self._readers[key] += 1
        self._keys.add(key)
        return True

    def _leave(self, key: str) -> None:
        self._readers[key] -= 1
        if not self._readers[key]:
            del self._readers[key]
            self._keys.discard(key)


def _is_good(in_s3: ObjectRow, node: FileNode) -> bool:
    """Whether an object is known to be there with these bytes, and may be read as often as one likes."""
    return (
        bool(in_s3.etag)
        and not in_s3.copy.held
        and (in_s3.sha256, in_s3.size_bytes) == (node.sha256, node.bytes)
        and in_s3.storage_class not in ARCHIVE_CLASSES | RETRIEVAL_CLASSES
    )


async def is_proven(
    objects: ObjectStore, limiter: trio.CapacityLimiter, made: ObjectInfo, twin: ObjectRow
) -> bool:  # fmt: skip
    """Whether a copy has the bytes of what was copied. Raises ObjectStoreError."""
    if made.etag == twin.md5.hex():
        return True
    found = await trio.to_thread.run_sync(partial(objects.head, made.key, checksum=True), limiter=limiter)
    if found is None or found.etag != made.etag:
        return False
    if found.stored_sha256 is not None:
        return found.stored_sha256 == twin.sha256
    still = await trio.to_thread.run_sync(partial(objects.head, twin.key), limiter=limiter)
    return still is not None and (still.etag, still.size_bytes) == (twin.etag, twin.size_bytes)


__all__ = ["Twins", "is_proven"]
