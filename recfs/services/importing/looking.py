"""What is known of an object before it becomes a file: by metadata, the server's checksum, or its bytes; in threads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.migration.adopting import Digests, Told, digests_of
from recfs.ports.object_errors import ObjectStoreError
from recfs.ports.objects import MIB, ObjectInfo
from recfs.state.problems import reason_of
from recfs.stores.s3.meta import plain_md5

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recfs.ports.objects import ObjectStore

HASHED_BYTES = 8 * MIB
"""Read at a time of what is hashed."""


class Looked(NamedTuple):
    """What is known of an object, and what is to become of it."""

    info: ObjectInfo
    found: Digests | str | None
    """None: it is gone. A text: why it cannot be a file."""


def look(objects: ObjectStore, listed: ObjectInfo) -> Looked:
    """Ask for the metadata; for the server's own checksum only where recfs has left none: that may be refused.

    Raises ObjectStoreError where nothing can be asked for now.
    """
    try:
        info = objects.head(listed.key)
        if info is not None and info.sha256 is None:
            info = objects.head(listed.key, checksum=True)
    except ObjectStoreError as error:
        if error.outage:
            raise
        return Looked(listed, reason_of(error))
    if info is None:
        return Looked(listed, None)
    return Looked(info, digests_of(Told(info.sha256, info.md5, info.stored_sha256, plain_md5(info.etag))))


def hashed(objects: ObjectStore, info: ObjectInfo, read: Callable[[int], None], is_over: Callable[[], bool]) -> Looked:
    """Read all of an object; *read* hears of each piece. Raises ObjectStoreError where nothing can be asked for now."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    try:
        for piece in _pieces(objects, info, is_over):
            sha256.update(piece)
            md5.update(piece)
            read(len(piece))
    except ObjectStoreError as error:
        if error.outage:
            raise
        return Looked(info, reason_of(error))
    if info.stored_sha256 not in (None, sha256.digest()) or info.sha256 not in (None, sha256.digest()):
        return Looked(info, "its bytes are not those of its checksum")
    return Looked(info, Digests(sha256.digest(), md5.digest()))


def _pieces(objects: ObjectStore, info: ObjectInfo, is_over: Callable[[], bool]) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(HASHED_BYTES, max(1, info.size_bytes))))
    for start in range(0, info.size_bytes, len(buffer)):
        part = buffer[: min(len(buffer), info.size_bytes - start)]
        objects.get_range(info.key, start, len(part), if_match=info.etag, into=part, cancel=is_over)
        yield part


__all__ = ["Looked", "hashed", "look"]
