"""System calls on files that the kernel has open as backing files (passthrough): never on the trio thread.

While a program writes such a file (or reads it past the page cache) the kernel holds the lock of its inode (i_rwsem),
and faults in the program's buffer meanwhile. Behind that buffer may be a file that this daemon serves, or one of the
program's own that never answers. Whatever takes the same lock waits for it in state D: pwrite(2), ftruncate(2),
fallocate(2), lseek(2) for holes, setting flags. So these wait in threads, and the files of each user have few of them:
nobody can use up the threads of others, and reads never need one of these. So does what takes long for other reasons
that a user can bring about: freeing a file in a million pieces.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

import trio

from recfs.disk.diskio import stoppable
from recfs.state.waits import interruptible

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from recfs.disk.home.inuse import InUse
    from recfs.state.nodes import FileNode

T = TypeVar("T")
Args = TypeVarTuple("Args")

EACH: Final = 4
"""Threads for the files of one user."""


class Contended:
    """The threads, by owner of the file."""

    def __init__(self, in_use: InUse) -> None:
        self._in_use = in_use
        self._limiters: dict[int, trio.CapacityLimiter] = {}

    async def run(self, node: FileNode, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        """Call *function*, which may wait for the lock of the file below *node*.

        Raises what it raises, and Interrupted when the caller is killed before a thread is free. Once the call is made,
        nothing ends it but the lock: as on any other file system.
        """
        with self._thread(node) as limiter, interruptible(f"the kernel's lock of {node.path}"):
            return await trio.to_thread.run_sync(function, *args, limiter=limiter)

    async def stoppable(
        self, node: FileNode, function: Callable[[Unpack[Args], threading.Event], T], *args: *Args
    ) -> T:
        """The same for a call that takes long and can be stopped (`diskio.stoppable`), unless it waits for the lock."""
        with self._thread(node) as limiter:
            return await stoppable(function, *args, limiter=limiter)

    @contextlib.contextmanager
    def _thread(self, node: FileNode) -> Iterator[trio.CapacityLimiter]:
        owner = node.uid
        limiter = self._limiters.setdefault(owner, trio.CapacityLimiter(EACH))
        self._in_use.begin(node)
        try:
            yield limiter
        finally:
            self._in_use.end(node)
            if not limiter.borrowed_tokens and not limiter.statistics().tasks_waiting:
                self._limiters.pop(owner, None)


__all__ = ["EACH", "Contended"]
