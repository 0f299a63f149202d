"""Files whose writers are stopped at a limit, and may be let go on: the file below is made immutable, or no longer.

It is done in threads, for the bytes are written out first, and a writer may keep the file locked for as long as it
likes. `body.freezing` tells when it is done.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.disk.diskio import freeze
from recfs.state.waits import bounded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recfs.disk.contended import Contended
    from recfs.state.backing_file import BackingFile
    from recfs.state.nodes import FileNode
    from recfs.state.problems import Problems

PART = "metering"
"""Whatever judges or stops writers that nobody checks."""


class Stops:
    """What is to be stopped or let go on, until the meter carries it out."""

    def __init__(self, contended: Contended, problems: Problems) -> None:
        self._contended = contended
        self._problems = problems
        self._to_freeze: list[FileNode] = []
        self._to_thaw: list[tuple[FileNode, BackingFile, int, trio.Event]] = []
        self.due = trio.Event()
        """Set while any file has writers that nobody checks, or a stopped file is to be changed again."""

    def rest(self) -> None:
        """No file has writers that nobody checks any more. Atomic."""
        if not self._to_thaw:
            self.due = trio.Event()

    def stop(self, node: FileNode) -> None:
        """Have the writers of a file stopped, whose `stopped` says why. Atomic."""
        self._to_freeze.append(node)

    def thaw(self, node: FileNode) -> bool:
        """Let a stopped file be changed again; tells whether it was stopped. Atomic."""
        body = node.body
        if body is None or body.stopped is None:
            return False
        body.stopped = None
        if body.freezing is None:  # else the thread that freezes it looks again afterwards
            if body.backing:
                self._thaw_later(node, body)
            else:
                freeze(body.fd, frozen=False)
        return True

    async def thawed(self, node: FileNode, body: BackingFile) -> bool:
        """Let a stopped file be changed again, and wait until it can be; tells whether anything was to be done.

        Its writers may run past a limit once more meanwhile. Raises Interrupted or TryAgain.
        """
        stopped = self.thaw(node)
        if body.freezing is not None:
            stopped = True
            with bounded(f"the stop of the writers of {node.path}"):
                await body.freezing.wait()
        return stopped

    def _thaw_later(self, node: FileNode, body: BackingFile) -> None:
        """Let a stopped file be changed again that somebody may have locked. Atomic.

        Should it fail, the next start does it.
        """
        with self._problems.aside(PART, ("thaw", node.ino), node.path):
            fd = os.dup(body.fd)
            body.freezing = trio.Event()
            self._to_thaw.append((node, body, fd, body.freezing))
            self.due.set()

    def carry_out(self, nursery: trio.Nursery) -> None:
        """Do what is to be done, in tasks of *nursery*."""
        stopped, self._to_freeze = self._to_freeze, []
        for node in stopped:
            body = node.body
            if body is not None and body.stopped is not None and body.freezing is None:
                with self._stopping(node):
                    fd = os.dup(body.fd)
                    body.freezing = trio.Event()
                    nursery.start_soon(self._freeze, node, body, fd, body.freezing)
        thawed, self._to_thaw = self._to_thaw, []
        for node, body, fd, done in thawed:
            nursery.start_soon(self._thaw, node, body, fd, done)

    @contextlib.contextmanager
    def _stopping(self, node: FileNode) -> Iterator[None]:
        """A stop that fails is tried again with the next look."""
        item = ("stop", node.ino)
        with self._problems.aside(PART, item, node.path):
            yield
        if self._problems.has(PART, item):
            self._to_freeze.append(node)

    async def _freeze(self, node: FileNode, body: BackingFile, fd: int, done: trio.Event) -> None:
        try:
            with self._stopping(node):
                await self._agree(node, body, fd)
        finally:
            body.freezing = None
            done.set()
            os.close(fd)

    async def _thaw(self, node: FileNode, body: BackingFile, fd: int, done: trio.Event) -> None:
        try:
            with self._problems.aside(PART, ("thaw", node.ino), node.path):
                await self._agree(node, body, fd)
        finally:
            body.freezing = None
            done.set()
            os.close(fd)

    async def _agree(self, node: FileNode, body: BackingFile, fd: int) -> None:
        """Have the file below be changeable, or not, as the metadata says, whatever it came to say meanwhile."""
        frozen: bool | None = None
        while frozen is not (body.stopped is not None):
            frozen = body.stopped is not None
            await self._contended.run(node, partial(freeze, fd, frozen=frozen))


__all__ = ["Stops"]
