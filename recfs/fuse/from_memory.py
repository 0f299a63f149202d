"""Requests that the C extension answers by itself, from the nodes in memory (_fuse_memory.c).

Without the extension, or where somebody observes a handler, the handler answers; it is the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from recfs.fuse import interpose


class Memory(NamedTuple):
    """What the extension looks into: the very objects that the handlers use."""

    nodes: dict[int, Any]
    """Nodes by inode number."""
    watching: dict[str, Any]
    """Has the names of the handlers that somebody observes."""
    forget: Callable[[Sequence[tuple[int, int]]], None]
    """Told of references that the kernel dropped; raises nothing, waits for nothing."""
    directory: type
    file: type
    link: type
    """The classes of nodes; one of another class is the handler's affair."""
    row: type
    """The class of the catalogue's rows."""
    cached_s: int
    """How long the kernel may believe in names and attributes, in seconds."""
    absent_s: int
    """How long it may believe that a name does not exist, in seconds."""


@runtime_checkable
class Remembering(Protocol):
    """Handlers that can be answered for."""

    def memory(self) -> Memory | None:
        """What GETATTR and LOOKUP would look into; None where the handlers do more than that."""


def begin(extension: ModuleType | None, operations: object) -> None:
    """Have the extension answer for *operations*, if there is one and they can be answered for."""
    if extension is None or "memory" in interpose.without() or not isinstance(operations, Remembering):
        return
    found = operations.memory()
    if found is not None:
        extension.remember(*found)


def end(extension: ModuleType | None) -> None:
    """Have everything go to the handlers."""
    if extension is not None:
        extension.remember(None)


__all__ = ["Memory", "Remembering", "begin", "end"]
