"""The committed bytes of a source, for a program that reads a descriptor and seeks.

Where they lie here it gets those. What only S3 has is copied into a file without a name first: it is read once, in
order, and neither an eviction nor a change ends the program half-way. How large that may be is bounded
(`deriving.max_fetch`); what is larger waits until somebody has fetched it. What is archived waits, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, TypeVar

import trio

from recfs.core.model import State
from recfs.core.permissions import Identity
from recfs.core.units import format_size
from recfs.errors import OutOfSpace
from recfs.fs.session.stats import is_committed
from recfs.services.deriving.reasons import Changed, Gone, Waits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from recfs.disk.committed import CommittedFiles
    from recfs.fs.session import Sessions
    from recfs.fs.vfs import Vfs
    from recfs.state.nodes import FileNode
    from recfs.stores.rooms import Rooms

LOOK_S = 0.5
"""How often it is looked whether what a program works for is still wanted."""
_BLOCK_BYTES = 4 << 20
_ROOT = Identity(0, 0)
T = TypeVar("T")


class Source:
    """A descriptor on one version of a file."""

    def __init__(self, node: FileNode, sha256: bytes, fd: int) -> None:
        self._node = node
        self._sha256 = sha256
        self._changes = node.changes
        self.fd = fd
        self.size_bytes = node.bytes

    async def still(self) -> None:
        """As `check`, for `while_wanted`."""
        self.check()

    def check(self) -> None:
        """Raise Gone or Changed where the file has not had these bytes all the time. Atomic."""
        if self._node.unlinked:
            raise Gone("the source was removed")
        is_same = self._node.sha256 == self._sha256 and self._node.changes == self._changes
        if not is_committed(self._node) or not is_same:
            raise Changed("the source has changed since")


class Sources:
    """Opens them."""

    def __init__(
        self, vfs: Vfs, files: CommittedFiles, sessions: Sessions, rooms: Rooms, threads: trio.CapacityLimiter,
        *, max_fetch: int,
    ) -> None:  # fmt: skip
        self._vfs = vfs
        self._files = files
        self._sessions = sessions
        self._rooms = rooms
        self._threads = threads
        self.max_fetch = max_fetch

    @contextlib.asynccontextmanager
    async def open(self, node: FileNode, sha256: bytes) -> AsyncIterator[Source]:
        """The bytes of this checksum. Raises Gone, Changed, Waits, FsError, ObjectStoreError or OSError."""
        source = Source(node, sha256, -1)
        if not is_committed(node) and not node.unlinked:
            raise Waits(f"the source is {node.state}")
        source.check()
        if node.state.is_whole:
            async with self._files.open(node) as found:
                source.fd = found.fd
                source.check()
                yield source
            return
        self._require_reachable(node)
        with self._rooms.nameless() as fd:
            await self._copy(node, sha256, fd)
            source.fd = fd
            source.check()
            yield source

    def _require_reachable(self, node: FileNode) -> None:
        if node.state is State.ARCHIVED:
            raise Waits("the source is archived in S3: `recfs restore` asks it back")
        if node.bytes > self.max_fetch:
            raise Waits(
                f"the source is in S3 only, and its {format_size(node.bytes)} are more than deriving.max_fetch,"
                f" {format_size(self.max_fetch, exact=True)}: `recfs fetch` brings it here"
            )
        free = self._vfs.files.space.left()
        if node.bytes > free:
            raise OutOfSpace(f"the source is in S3 only, and there is room for {format_size(max(free, 0))} of it")

    async def _copy(self, node: FileNode, sha256: bytes, fd: int) -> None:
        at, seen = 0, hashlib.sha256()
        async with self._sessions.of(_ROOT).reader(os.fsencode(node.path), committed=True) as reader:
            while block := await reader.read(at, _BLOCK_BYTES):
                await trio.to_thread.run_sync(_write_all, fd, block, at, seen, limiter=self._threads)
                at += len(block)
        if seen.digest() != sha256:  # another file may have had the name when it was opened
            raise Changed("the source has changed since")


async def while_wanted(still: Callable[[], Awaitable[object]], work: Callable[[], Awaitable[T]]) -> T:
    """Do *work* as long as *still*, which is asked every `LOOK_S`, raises nothing; else end it, and raise that."""
    found: list[T] = []
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def look() -> None:
            try:
                while True:
                    await trio.sleep(LOOK_S)
                    await still()
            except Exception as error:
                errors.append(error)
                nursery.cancel_scope.cancel()

        nursery.start_soon(look)
        try:
            found.append(await work())
        except Exception as error:
            errors.append(error)
        nursery.cancel_scope.cancel()
    if found:
        return found[0]
    raise errors[0]


def _write_all(fd: int, data: bytes, at: int, seen: hashlib._Hash) -> None:
    seen.update(data)
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, at)
        view, at = view[done:], at + done


__all__ = ["LOOK_S", "Source", "Sources", "while_wanted"]
