"""The bytes of a file that has lost its name and is opened all the same, by whoever had found it just before.

They lie where the publisher has not yet removed them: in staging, in the home tree, or in the trash. Somebody may need
them there as they are (the way back of an overwrite, the trash), so a writer gets a copy that has no name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recfs.disk.diskio import copy_bytes, is_beyond, stoppable, too_many
from recfs.errors import Stale
from recfs.state.waits import bounded, interruptible

if TYPE_CHECKING:
    import trio

    from recfs.disk.home.path_resolver import PathResolver
    from recfs.disk.staging import StagingPool
    from recfs.ports.work import Publisher
    from recfs.state.nodes import FileNode, Garbage
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore


class Remains:
    """Opens what removed files left behind."""

    def __init__(
        self, tree: Tree, places: PathResolver, store: LocalStore, publisher: Publisher, pool: StagingPool,
        limiter: trio.CapacityLimiter,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._places = places
        self._store = store
        self._publisher = publisher
        self._pool = pool
        self._limiter = limiter

    async def open(self, node: FileNode, *, write: bool, empty: bool) -> int:
        """A descriptor of the bytes, or (*write*) of a copy; *empty*: without them. Raises Stale when they are gone."""
        if write and empty:
            return self._nameless()
        with bounded("the publisher's present batch"):
            await self._publisher.no_batch()
        # Nothing is awaited before the open: nobody moves them meanwhile.
        fd = os.dup(node.body.fd) if node.body is not None else self._find(node)
        if not write:
            return fd
        try:
            own = self._nameless()
            try:
                with interruptible(f"the copy of {node.path}, which was removed"):
                    await stoppable(copy_bytes, fd, own, limiter=self._limiter)
            except BaseException:
                os.close(own)
                raise
        finally:
            os.close(fd)
        return own

    def _find(self, node: FileNode) -> int:
        entry = node.remains
        if entry is None or entry.gid not in self._tree.garbage:
            raise Stale(f"{node.path} was removed, and its bytes are gone")
        try:
            fd = self._store.open_file(self._path(entry), os.O_RDONLY)
        except FileNotFoundError:
            raise Stale(f"{node.path} was removed, and its bytes are gone") from None
        if is_beyond(fd):
            os.close(fd)
            raise too_many()
        if entry.home_ino is not None and os.fstat(fd).st_ino != entry.home_ino:
            os.close(fd)
            raise Stale(f"{node.path} was removed, and its bytes are gone")
        return fd

    def _path(self, entry: Garbage) -> bytes:
        if entry.staging is not None:
            return self._store.staging(entry.staging)
        return self._places.at(entry.place) if entry.place is not None else self._store.trash(entry.gid)

    def _nameless(self) -> int:
        staging, fd = self._pool.take()
        self._store.drop_staging([staging])
        return fd


__all__ = ["Remains"]
