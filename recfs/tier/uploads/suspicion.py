"""A local copy that went bad before S3 had its bytes: others would be sent than were committed."""

from __future__ import annotations

import hashlib
import logging
import os
from typing import TYPE_CHECKING

import trio

from recfs.core.model import State
from recfs.core.observing.kinds import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.disk.committed import CommittedBytes
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree

log = logging.getLogger("recfs.uploader")

_PIECE_BYTES = 1 << 20


async def condemn_if_bad(
    tree: Tree, node: FileNode, file: CommittedBytes, limiter: trio.CapacityLimiter, stopping: Callable[[], bool]
) -> None:
    """Read the local bytes, and have the file be `corrupt` if they are not what was committed: else they would be sent
    for ever. Time or size that differ tell of somebody who changes it past recfs, which is for others to see to.

    Raises OSError.
    """
    found = await trio.to_thread.run_sync(digest_of, file.fd, stopping, limiter=limiter)
    info = os.fstat(file.fd)
    is_same_file = (info.st_size, info.st_mtime_ns) == (file.size_bytes, node.mtime_ns)
    if found in (None, file.sha256) or not is_same_file or not file.is_current:
        return
    node.enter(State.CORRUPT)
    tree.behind.node(node)
    why = "its bytes are not those that were committed, as its upload has shown"
    log.error("%s is corrupt: %s", node.path, why)
    tree.events.noted(EventKind.CORRUPT, node, why)


def digest_of(fd: int, stopping: Callable[[], bool]) -> bytes | None:
    """The SHA-256 of what is there; None: it was broken off. Blocking. Raises OSError."""
    digest, at = hashlib.sha256(), 0
    while piece := os.pread(fd, _PIECE_BYTES, at):
        if stopping():
            return None
        digest.update(piece)
        at += len(piece)
    return digest.digest()


__all__ = ["condemn_if_bad", "digest_of"]
