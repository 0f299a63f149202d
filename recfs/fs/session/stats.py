"""What is told of a file, directory or link to those who are not the kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from recfs.core.model import Kind
from recfs.core.permissions import READ, allows
from recfs.disk.refresh import refresh
from recfs.fs.fallback_entries import FallbackEntry
from recfs.ports.rows import NodeRow
from recfs.state.nodes import DirNode, FileNode, Node

if TYPE_CHECKING:
    from recfs.core.model import State
    from recfs.core.permissions import Identity
    from recfs.state.tree import Tree


@dataclass(frozen=True, slots=True)
class Stat:
    """What stat(2) and recfs know of a file, directory or symbolic link."""

    ino: int
    kind: Kind
    mode: int
    """Permission bits; the type is `kind`."""
    uid: int
    gid: int
    size_bytes: int
    """Of a directory: of all files below it; 0 to those who may not read it."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    state: State | None
    """Of a file."""
    sha256: bytes | None
    """Of a file whose bytes are committed; None to those who may not read it."""
    is_shared: bool = False
    """Whether it is a shared file, seen through a fallback rule."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a directory."""

    name: bytes
    stat: Stat


def is_committed(node: FileNode) -> bool:
    """Whether there are checksums that vouch for its bytes, here or in S3."""
    return node.state.is_whole or node.state.is_remote


def stat_of(tree: Tree, seen: Node | FallbackEntry | NodeRow, who: Identity) -> Stat:
    """What there is to tell *who* of it now. Atomic."""
    stat = _stat(tree, seen)
    is_dir = stat.kind is Kind.DIR
    if allows(stat, who, READ, is_dir=is_dir):
        return stat
    return replace(stat, sha256=None, size_bytes=0 if is_dir else stat.size_bytes)


def _stat(tree: Tree, seen: Node | FallbackEntry | NodeRow) -> Stat:
    if isinstance(seen, NodeRow):
        size = seen.size_bytes if seen.target is None else len(seen.target)
        return Stat(
            seen.ino, seen.kind, seen.mode, seen.uid, seen.gid, size, seen.atime_ns, seen.mtime_ns, seen.ctime_ns,
            seen.state, seen.sha256,
        )  # fmt: skip
    node, state, sha256 = seen.shared if isinstance(seen, FallbackEntry) else seen, None, None
    if isinstance(node, FileNode):
        if node.body is not None and node.body.unchecked_writers:
            refresh(tree, node)
        state, sha256 = node.state, node.sha256 if is_committed(node) else None
    return Stat(
        seen.ino, node.kind, seen.mode, seen.uid, seen.gid, node.rbytes if isinstance(node, DirNode) else node.size,
        node.atime_ns, node.mtime_ns, node.ctime_ns, state, sha256, is_shared=isinstance(seen, FallbackEntry),
    )  # fmt: skip


__all__ = ["Entry", "Stat", "is_committed", "stat_of"]
