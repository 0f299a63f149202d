"""Writers that outlived the daemon: the kernel serves them by itself, and the daemon that came after finds them.

Such a file is what it was: open for writing, by one more handle, which the kernel of this mount knows nothing of. So it
is refreshed, charged and stopped like any other that the kernel writes by itself, and what was promised of earlier
versions is kept. Nobody tells when the writer lets go: that is looked for, and then the file is sealed as after any
last close. A stop leaves the file as it is, for the next start to find.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import trio

from recfs.core.bounds import time_ns
from recfs.core.model import State
from recfs.disk.diskio import is_frozen
from recfs.disk.leases import is_written
from recfs.errors import QuotaExceeded
from recfs.state.backing_file import BackingFile
from recfs.state.problems import forever

if TYPE_CHECKING:
    from recfs.fs.files import OpenFiles
    from recfs.fs.iomodes import IoModes
    from recfs.state.nodes import FileNode
    from recfs.state.tree import Tree

log = logging.getLogger("recfs.fs")

PERIOD_S = 1.0
"""Between two looks whether a writer has let go."""
PART = "survivors"


class Survivors:
    """Their handles."""

    def __init__(self, tree: Tree, files: OpenFiles, modes: IoModes) -> None:
        self._tree = tree
        self._files = files
        self._modes = modes
        self._handles: dict[int, FileNode] = {}
        self._some = trio.Event()

    def paths(self) -> list[str]:
        """The files that are still written to."""
        return sorted(node.path + (" (deleted)" if node.unlinked else "") for node in self._handles.values())

    def adopt(self, node: FileNode, fd: int) -> None:
        """A program has the file open for writing: *fd* is a descriptor for reading, which is taken over. Atomic."""
        if node.state is not State.WRITING:
            node.enter(State.WRITING)
        node.body = BackingFile(fd, writable=False)
        number = self._files.adopt(node, node.body)  # as the metadata knows it: the meter finds what it has grown by
        if is_frozen(fd):
            reason = f"{node.path}: its writer had run past a limit before recfs was started"
            node.body.stopped = (QuotaExceeded, reason)
        info = os.fstat(fd)
        self._tree.resize(node, info.st_size)
        node.mtime_ns = time_ns(info.st_mtime_ns)
        self._tree.behind.node(node)
        self._handles[number] = node
        self._some.set()
        log.warning("%s: still open for writing since before this start; sealed when the program lets go", node.path)

    def inherit(self, number: int, node: FileNode) -> None:
        """An earlier daemon of this mount had adopted it, under this handle. Atomic."""
        self._handles[number] = node
        self._some.set()

    async def run(self) -> None:
        """Look for ever which of them have let go."""
        await forever(PART, self._look, self._modes.problems)

    async def _look(self) -> None:
        await self._some.wait()
        await trio.sleep(PERIOD_S)
        await self.release_those_gone()

    async def release_those_gone(self) -> None:
        """Release the handles of writers who have let go."""
        for number, node in list(self._handles.items()):
            with self._modes.problems.aside(PART, node.ino, node.path):
                if self._has_let_go(node):
                    log.info("%s: who had it open for writing since before this start has let go", node.path)
                    del self._handles[number]
                    await self._files.release(number)
        if not self._handles:
            self._some = trio.Event()

    def _has_let_go(self, node: FileNode) -> bool:
        """Whether nobody has the file open for writing. Atomic."""
        body = node.body
        assert body is not None
        if body.writers > 1:
            return False  # those of today would be taken for it
        self._modes.give_back(body)
        if body.writable:
            body.reopen(writable=False)
        return not is_written(body.fd)


__all__ = ["PART", "PERIOD_S", "Survivors"]
