"""What the kernel asks for while somebody looks (`recfs top`): counted from the first look on, and no longer than
LOOKED_S after the last. At any other time no handler is observed, and nothing is counted.

What the kernel reads and writes by itself (passthrough) never comes here: of that only the growth of files is seen.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from recfs.fs.handles import Mode
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    from recfs.fs.vfs import Vfs
    from recfs.fuse.observers.watched import Watched
    from recfs.state.nodes import Node

LOOKED_S = 10.0
MOST = 10_000
"""So many files and users at most are told apart; beyond, only those that did most so far."""
_BY_HANDLE = frozenset({"read", "write", "flush", "fsync", "release", "fallocate", "lseek", "copy_file_range"})


class Doing:
    """What somebody did, or what was done to a file, since the first look."""

    __slots__ = ("kernel_bytes", "read_bytes", "requests", "written_bytes")

    def __init__(self) -> None:
        self.requests = 0
        self.read_bytes = 0
        """Asked for of the daemon."""
        self.written_bytes = 0
        """By the daemon."""
        self.kernel_bytes = 0
        """By which files grew that the kernel writes by itself."""

    def as_json(self) -> dict[str, int]:
        """For an answer."""
        return {name: getattr(self, name) for name in self.__slots__}


class LiveCounts:
    """Counts for who looks. Atomic."""

    def __init__(self, vfs: Vfs) -> None:
        self._tree = vfs.tree
        self._handles = vfs.files.handles
        self._operations: Watched | None = None
        self._until_s = 0.0
        self._watching = False
        self._sizes: dict[int, int] = {}
        self.requests: dict[str, list[float]] = {}
        """By kind: how many, how many of them failed, and how many seconds they took."""
        self.users: dict[str, Doing] = {}
        self.files: dict[int, Doing] = {}

    def serve(self, operations: Watched) -> None:
        """Requests are handled by *operations* from now on."""
        self._operations = operations
        self._watching = False

    def look(self) -> None:
        """Somebody looks, and what is open is looked at."""
        self._until_s = time.monotonic() + LOOKED_S
        operations = self._operations
        if operations is not None and not self._watching:
            self.requests, self.users, self.files, self._sizes = {}, {}, {}, {}
            self._watching = True
            for name in dir(type(operations)):
                if hasattr(getattr(type(operations), name), "__wrapped__"):  # a handler in its guard
                    operations.watch(name, self._done)
        self._measure()

    def _measure(self) -> None:
        """Count by how much files grew that the kernel writes."""
        sizes: dict[int, int] = {}
        for handle in self._handles.values():
            if not handle.writes or handle.mode is not Mode.PASS or len(sizes) >= MOST:
                continue
            node = handle.node
            sizes[node.ino] = node.bytes
            grown = node.bytes - self._sizes.get(node.ino, node.bytes)
            if grown > 0 and node.ino in self._sizes:
                for doing in self._who(node):
                    doing.kernel_bytes += grown
                self._sizes[node.ino] = node.bytes
        self._sizes = sizes

    def _who(self, node: Node) -> tuple[Doing, Doing]:
        folder = node if isinstance(node, DirNode) else node.parent
        user = folder.user or ""
        by_user, by_file = self.users.get(user), self.files.get(node.ino)
        if by_user is None:
            _bound(self.users)
            by_user = self.users[user] = Doing()
        if by_file is None:
            _bound(self.files)
            by_file = self.files[node.ino] = Doing()
        return by_user, by_file

    def _done(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        """Count a request: an `Observer`."""
        if time.monotonic() > self._until_s and self._operations is not None:
            self._operations.unwatch(self._done)  # nobody looks any more
            self._watching = False
            return
        known = self.requests.get(op)
        if known is None:
            known = self.requests[op] = [0, 0, 0.0]
        known[0] += 1
        known[1] += error != 0
        known[2] += seconds
        node: Node | None
        if op in _BY_HANDLE:
            handle = self._handles.get(args[1])
            node = handle.node if handle is not None else None
        else:
            node = self._tree.nodes.get(args[1]) if len(args) > 1 and isinstance(args[1], int) else None
        if node is None:
            return
        for doing in self._who(node):
            doing.requests += 1
            if error:
                continue
            if op == "read":
                doing.read_bytes += args[3]
            elif op == "write":
                doing.written_bytes += len(args[3])


def _bound(known: dict[Any, Doing]) -> None:
    """Make room for one more: the less busy half goes."""
    if len(known) >= MOST:
        for key in sorted(known, key=lambda each: known[each].requests)[: MOST // 2]:
            del known[key]


__all__ = ["LOOKED_S", "Doing", "LiveCounts"]
