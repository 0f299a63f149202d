"""What a start has found so far, shared by the steps of recovery."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recfs.core.generation import Age
from recfs.core.model import State
from recfs.disk.leases import is_written

if TYPE_CHECKING:
    from collections.abc import Hashable
    from contextlib import AbstractContextManager

    from recfs.disk.backing_files import BackingFiles
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.fs.names.namespace import Namespace
    from recfs.fs.survivors import Survivors
    from recfs.state.nodes import DirNode, FileNode
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind
    from recfs.stores.local import LocalStore, StagingFile


PART = "recovery"


@dataclass(slots=True)
class Report:
    """What the start did; for the log and `recfs status`."""

    resealed: list[int] = field(default_factory=list)
    unpublished: list[int] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    rolled_back: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    """Paths of what had been removed when the daemon died, and is again."""
    age: Age = Age.SAME
    """How catalogue and home tree stand to each other."""
    taken: list[str] = field(default_factory=list)
    """Paths of what is other than the catalogue said."""
    found: list[str] = field(default_factory=list)
    """… of what it did not know."""
    linked: list[str] = field(default_factory=list)
    """… of these, those of a file that has several names (hard links): a write to one changes the others."""
    gone: list[str] = field(default_factory=list)
    """… of what it knows, and is not there."""
    remade: list[str] = field(default_factory=list)
    """… of directories and symbolic links that it knows, that were not there, and that are made again."""
    moved: list[str] = field(default_factory=list)
    """… of what has another name: the one it had, and the one it has."""
    trashed: list[str] = field(default_factory=list)
    """… of what has come to lie in the trash."""
    forgotten: list[str] = field(default_factory=list)
    """… of what was nowhere, and has no row any more."""
    kept: list[str] = field(default_factory=list)
    """Keys of objects that were to be deleted."""
    said: list[str] = field(default_factory=list)
    """What people are told of these."""
    written_ns: int = 0
    """When a catalogue that was put back was written last (wall clock); 0: not known."""


@dataclass(slots=True)
class Finds:
    """The parts that are repaired, what was found in them, and the report."""

    tree: Tree
    behind: WriteBehind
    places: PathResolver
    backing_files: BackingFiles
    names: Namespace
    store: LocalStore
    survivors: Survivors
    dirs: dict[int, DirNode] = field(default_factory=dict)
    """Stand-ins for removed directories in which something still lies."""
    staging: dict[str, StagingFile] = field(default_factory=dict)
    """Everything that lies in staging, by staging id."""
    kept_open: frozenset[int] = frozenset()
    """Inode numbers of files that are open for writing on the mount which this daemon goes on with."""
    rows_come_first: bool = False
    """Whether the daemon before this one answered nothing that was not in the catalogue (fuse/kept/operations.py)."""
    removed: dict[int, None] = field(default_factory=dict)
    """Inode numbers of what had been removed, and is to be again, in that order."""
    recreated: set[int] = field(default_factory=set)
    """Inode numbers of files whose bytes were nowhere."""
    report: Report = field(default_factory=Report)

    @property
    def age(self) -> Age:
        """How catalogue and home tree stand to each other."""
        return self.report.age

    def aside(self, what: Hashable, path: str) -> AbstractContextManager[None]:
        """Judge one item: whatever it raises, it is left as it is and told, and the start goes on with the next."""
        return self.behind.problems.aside(PART, what, path)

    def written(self, path: bytes) -> int | None:
        """A descriptor of the file at *path* if a program has it open for writing still; else None."""
        try:
            fd = self.store.open_file(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return None
        if is_written(fd):
            return fd
        os.close(fd)
        return None

    def rescan(self) -> None:
        """Look at staging again, after something was moved there."""
        self.staging = self.store.scan_staging()


def only_in_s3(found: Finds, node: FileNode) -> None:
    """There is no local copy of a stored file (any more)."""
    assert node.object is not None
    node.enter(State.EVICTED)
    found.tree.locations.forget(node, node.moved)
    node.moved = None
    node.staging, node.pending, node.home_ino = None, 0, None
    node.object = node.object.here(local=0)
    found.behind.object(node.object)
    found.behind.node(node)
