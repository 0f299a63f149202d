"""A corrupt file gets the bytes back that S3 has of it; the bad ones are kept in lost+found.

In this order, so that a death after any step leaves either the corrupt file or the repaired one: the object's bytes
into a staging file, compared and on stable storage; a second name (link(2)) for the bad bytes in lost+found; then, in
one batch, the row that names the staging file, and the garbage entry of the place where the bad bytes lie. From there
on it is a commit like any other: the publisher clears the place, and carries the new bytes home. What a death leaves
in staging is labelled as fetched, and worth nothing to the next start, which has the object.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from recfs.core.layout import kept_path
from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.core.verification.verdicts import Copy
from recfs.disk.staging import FETCH_LABEL
from recfs.errors import RecfsError
from recfs.ports.rows import Pending
from recfs.state.nodes import Garbage

if TYPE_CHECKING:
    from recfs.fs.vfs import Vfs
    from recfs.state.nodes import FileNode
    from recfs.stores.local import LocalStore
    from recfs.tier.objectchecks import ObjectCheck, Paced

IS_OPEN = "it is open: it can be repaired when it is closed"


class Repair:
    """Replaces bad bytes by an object's."""

    def __init__(self, vfs: Vfs, store: LocalStore) -> None:
        self._tree = vfs.tree
        self._behind = vfs.behind
        self._backing_files = vfs.backing_files
        self._pool = vfs.backing_files.pool
        self._space = vfs.files.space
        self._store = store
        self.fetching: set[str] = set()
        """Staging ids of what is being brought."""

    async def from_object(self, node: FileNode, check: ObjectCheck, pace: Paced) -> tuple[bool, str]:
        """Repair it, after `ObjectCheck.look`: whether that is done, and in which words, or why not. Raises nothing."""
        if _is_open(node):
            return False, IS_OPEN
        try:
            self._space.admit_entry()
            self._space.admit(node.bytes)
            staging, fd = self._pool.take()
        except (RecfsError, OSError) as error:
            return False, str(error)
        self.fetching.add(staging)
        try:
            self._store.label(fd, FETCH_LABEL + b"%d" % node.ino)
            if await check.fetch(pace, fd) is not Copy.RIGHT:
                return False, check.reason or "the object was changed meanwhile"
            await trio.to_thread.run_sync(os.fsync, fd, limiter=self._pool.limiter)
            await self._pool.names_durable()
            return await self._replace(node, check, staging, os.fstat(fd).st_ino)
        except (RecfsError, OSError) as error:
            return False, str(error)
        finally:
            os.close(fd)
            self.fetching.discard(staging)
            if node.staging != staging:
                self._pool.discard(staging)

    async def _replace(self, node: FileNode, check: ObjectCheck, staging: str, st_ino: int) -> tuple[bool, str]:
        path = await self._settled(node)
        if _is_open(node):
            return False, IS_OPEN  # before its bytes have a second name
        kept = await trio.to_thread.run_sync(
            self._store.keep_lost, path, b"corrupt-%d-%b" % (node.ino, node.name[:100]), limiter=self._pool.limiter
        )
        if await self._settled(node) != path or node.state is not State.CORRUPT or not check.is_current:
            return False, "it was changed or moved meanwhile"
        if _is_open(node):
            return False, IS_OPEN
        # Atomic from here on.
        entry = Garbage(
            self._tree.new_gid(), node.ino, node.kind, kept_path(node.parts()), self._tree.clock.steady_ns()
        )  # without a size: the trash keeps no bad bytes under a good checksum
        entry.home_ino = node.home_ino
        self._backing_files.versions.hand_over(node, entry)
        self._tree.know_garbage(entry)
        self._behind.garbage(entry)
        node.staging, node.home_ino = staging, st_ino
        node.pending |= Pending.MOVE
        node.enter(State.COMMITTED)
        self._tree.events.committed(node)  # which finds that S3 has just these bytes
        self._tree.events.noted(EventKind.REPAIRED, node, "its bytes were brought back from S3")
        self._behind.node(node)
        self._behind.publish(node)
        return True, f"its bytes were brought back from S3; the bad ones are kept as lost+found/{kept}"

    async def _settled(self, node: FileNode) -> bytes:
        """Where its bytes lie; holds until the next await."""
        await self._backing_files.wait_for_moves(node)
        return self._backing_files.path_of(node)


def _is_open(node: FileNode) -> bool:
    """A call, for it may be another answer after each wait."""
    return node.body is not None


__all__ = ["Repair"]
