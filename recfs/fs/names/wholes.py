"""Directories that go with all the files in them at once, where those are plain: in one step, whatever their number.

A file by itself costs a row of garbage, an event, a step on the disk, an announcement to the kernel. A plain one
(`Content.is_plain`) that nobody has in hands needs none of these when its directory goes, too. So the directory loses
its name together with them, atomically; `disk/home/emptying.py` removes bytes and rows afterwards. Whatever else lies
in it, directories, links, what is open, being committed, or of interest to S3, has to go before, one by one.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recfs.core.layout import NAME_MAX_BYTES, PATH_MAX_BYTES, Role, is_temporary, kept_path
from recfs.errors import RecfsError
from recfs.ports.rows import ROOT_INO, Promise
from recfs.state.nodes import DirNode, Garbage, Node
from recfs.state.writebehind import BatchSubscriber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.disk.versions import Versions
    from recfs.ports.batch import Batch
    from recfs.ports.rows import Content
    from recfs.state.tree import Tree
    from recfs.state.work.turns import Turn

ROWS_AT_ONCE = 200
"""Rows that are looked at between two looks at the time, in a third of a millisecond."""
NODES_AT_ONCE = 50
"""Nodes that are unloaded in one stretch."""
ONE_BY_ONE = 50
"""So many entries that are not plain are named at once."""
FEWEST = 10
"""So many files are in a directory that goes with them. Fewer are sooner gone one by one: with one file this takes half
as much CPU again, with eight as much, with a thousand a fifth."""
TRIES = 5
"""How often somebody else may load entries just before the directory was to go, before they go one by one."""
_ROLES = frozenset({Role.JOB, Role.RECORDING, Role.INSIDE})


@dataclass(slots=True)
class _Looked:
    """How far a directory was looked through."""

    after_ino: int = 0
    """Up to this inode all rows are plain."""
    to_the_end: bool = False
    tries: int = 0
    """How often `take` found entries that had been loaded meanwhile."""


class Wholes(BatchSubscriber):
    """Finds out whether directories can go so, and has them go."""

    def __init__(self, tree: Tree, versions: Versions) -> None:
        self._tree = tree
        self._behind = tree.behind
        self._versions = versions
        self._looked: dict[int, _Looked] = {}
        """By inode number of the directory."""
        self._behind.subscribe(self)

    def writing(self, batch: Batch) -> None:
        """As `BatchSubscriber.writing`: what was looked at before is looked at again if it is written."""
        for row in batch.nodes if self._looked else ():
            looked = self._looked.get(row.parent)
            if looked is not None and row.ino != ROOT_INO:
                looked.after_ino, looked.to_the_end = min(looked.after_ino, row.ino - 1), False

    def forget(self, folder: DirNode) -> None:
        """The directory is not looked at any more. Atomic."""
        self._looked.pop(folder.ino, None)

    def may_be(self, folder: DirNode) -> bool:
        """Whether a directory is one that may go so, whatever is in it. Atomic."""
        return (
            folder.rfiles >= FEWEST
            and folder.role in _ROLES
            and folder.account is not None
            and folder.fallback is None
            and (not self._versions.trash.is_kept or is_temporary(kept_path(folder.parts())))
            and not folder.unlinked
            and not (folder.pending or folder.publishing or folder.moved is not None)
        )

    async def others(self, folder: DirNode, turn: Turn) -> Sequence[Node | Content]:
        """Some of what has to go from *folder* before; none: all that is left is plain, and `take` may be asked.

        What is loaded and nobody needs is unloaded.
        """
        if folder.ino not in self._looked:
            looked = self._looked[folder.ino] = _Looked()
            if len(b"/".join(folder.parts())) + 1 + NAME_MAX_BYTES > PATH_MAX_BYTES:
                looked.tries = TRIES + 1  # its event would not say which files were in it
                return []
            with contextlib.suppress(RecfsError):  # what cannot be written is not idle, and goes one by one
                await self._behind.flush()
        looked = self._looked.setdefault(folder.ino, _Looked())
        loaded = list(folder.children)
        others: list[Node | Content] = []
        for first in range(0, len(loaded), NODES_AT_ONCE):
            others += self._needed(folder, loaded[first : first + NODES_AT_ONCE])
            if len(others) >= ONE_BY_ONE:
                return others
            if turn.is_over:
                await turn.pass_on()
        while not others and not looked.to_the_end:
            others += await self._not_plain(folder, looked)
            if turn.is_over:
                await turn.pass_on()
        return others

    def _needed(self, folder: DirNode, names: Sequence[bytes]) -> list[Node]:
        """Unload these; those that somebody needs. Atomic."""
        children, unload = folder.children, self._tree.memory.unload
        return [children[name] for name in names if name in children and not unload(children[name].ino)]

    async def _not_plain(self, folder: DirNode, looked: _Looked) -> list[Content]:
        """Look at a page of rows; what in it is not plain."""
        written = self._behind.written
        rows = await self._tree.catalogue.contents(folder.ino, looked.after_ino, ROWS_AT_ONCE)
        if written != self._behind.written:
            return []  # they may be outdated
        followed = self._tree.events.follows([row.ino for row in rows])
        others = [row for row in rows if self._is_other(folder, row) or row.ino in followed]
        if not others:
            looked.after_ino = rows[-1].ino if rows else looked.after_ino
            looked.to_the_end = len(rows) < ROWS_AT_ONCE
        return others[:ONE_BY_ONE]

    def _is_other(self, folder: DirNode, row: Content) -> bool:
        if not self._behind.is_dirty(row.ino):
            return not row.is_plain
        node = self._tree.nodes.get(row.ino)
        return node is not None and node.parent is folder  # else it has lost this name, and its row is about to say so

    def take(self, folder: DirNode) -> int | None:
        """Remove *folder* with all files in it; how many those were. None: something has come in between. Atomic."""
        looked = self._looked.get(folder.ino)
        if looked is None or not looked.to_the_end or not self.may_be(folder):
            return None
        if len(folder.children) > NODES_AT_ONCE or self._needed(folder, list(folder.children)):
            looked.tries += 1
            return None
        tree, files, now = self._tree, folder.rfiles, self._tree.clock.now_ns()
        tree.events.removed_whole(folder)
        entry = Garbage(tree.new_gid(), folder.ino, folder.kind, kept_path(folder.parts()), tree.clock.steady_ns())
        entry.home_ino, entry.size_bytes, entry.promised = folder.home_ino, 0, Promise.WITH_CONTENT
        place = (folder.parent, folder.name)
        self._versions.hand_over(folder, entry)
        tree.know_garbage(entry)
        self._behind.garbage(entry)
        folder.moved = place  # what lost its name before, and lies in it yet, finds its way through this object
        tree.remove_with_content(folder)
        tree.events.emptied(folder)
        tree.touch(folder.parent, now)
        self.forget(folder)
        return files

    def is_refused(self, folder: DirNode) -> bool:
        """Whether its files have to go one by one: others load them all the time, or its path is too long."""
        looked = self._looked.get(folder.ino)
        return looked is not None and looked.tries > TRIES


__all__ = ["Wholes"]
