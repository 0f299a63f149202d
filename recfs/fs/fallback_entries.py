"""Fallback: shared files seen through users' directories, without a copy.

A view has no row. Its inode number says what it is: a high bit, the directory's inode number, and a small number for
the shared file (kept in the catalogue), so it is stable, never reused, and needs no memory per user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recfs.core.model import State
from recfs.errors import RecfsError
from recfs.state.nodes import DirNode, FileNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.ports.rows import NodeRow
    from recfs.state.nodes import Node
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind

VIEW_BIT = 1 << 62
_ID_BITS = 22
_MAX_ID = (1 << _ID_BITS) - 1
_MAX_DIR = (1 << (62 - _ID_BITS)) - 1


@dataclass(frozen=True, slots=True)
class FallbackEntry:
    """A shared file as it is seen in a directory."""

    folder: DirNode
    name: bytes
    shared: FileNode
    ino: int

    @property
    def mode(self) -> int:
        """It is seen as the directory owner's: opening for writing is theirs to do, and copies up."""
        return (self.shared.mode & 0o555) | 0o644

    @property
    def uid(self) -> int:
        """The directory's owner."""
        return self.folder.uid

    @property
    def gid(self) -> int:
        """The directory's group."""
        return self.folder.gid


def shown_path(tree: Tree, ino: int) -> bytes | None:
    """The path of what a view's inode number shows, as far as memory has it. Atomic."""
    folder = tree.nodes.get(ino >> _ID_BITS & _MAX_DIR) if ino & VIEW_BIT else None
    shared = tree.nodes.get(tree.shown_inos.get(ino & _MAX_ID, 0))
    if not isinstance(folder, DirNode) or not isinstance(shared, FileNode) or folder.fallback is None:
        return None
    for name, _ in folder.fallback.shown([shared.name]):
        return b"/".join((*folder.parts(), name))
    return None


class FallbackEntries:
    """Resolves names and view inode numbers."""

    def __init__(self, tree: Tree, behind: WriteBehind) -> None:
        self._tree = tree
        self._behind = behind
        self._last_id = 0

    async def find(self, folder: DirNode, name: bytes) -> FallbackEntry | None:
        """What *folder* shows under *name*, given that it has no own entry of that name."""
        rule = folder.fallback
        if rule is None or folder.unlinked:
            return None
        target_name = rule.resolve(name)
        if target_name is None or name in await self.hidden(folder):
            return None
        target_dir = await self._tree.walk(rule.target_dir)
        if not isinstance(target_dir, DirNode):
            return None
        shared = await self._tree.child(target_dir, target_name)
        return self._view(folder, name, shared) if isinstance(shared, FileNode) else None

    async def shown(self, folder: DirNode, own: set[bytes]) -> list[FallbackEntry]:
        """All views of *folder*, by inode number; *own*: names it has itself."""
        rule = folder.fallback
        target_dir = await self._tree.walk(rule.target_dir) if rule is not None else None
        if rule is None or not isinstance(target_dir, DirNode):
            return []
        hidden = await self.hidden(folder)
        names = [entry.name for entry in await self._all(target_dir)]
        views = []
        for name, target_name in rule.shown(names):
            if name not in own and name not in hidden:
                shared = await self._tree.child(target_dir, target_name)
                view = self._view(folder, name, shared) if isinstance(shared, FileNode) else None
                if view is not None:
                    views.append(view)
        return sorted(views, key=lambda view: view.ino)

    async def resolve(self, ino: int) -> FallbackEntry | FileNode | None:
        """What a view inode number stands for now: the view, or the own file that has taken its place."""
        try:
            folder = await self._tree.directory(ino >> _ID_BITS & _MAX_DIR)
            shared_ino = self._tree.shown_inos.get(ino & _MAX_ID)
            shared = await self._tree.get(shared_ino) if shared_ino is not None else None
        except RecfsError:
            return None
        if not isinstance(shared, FileNode) or folder.fallback is None:
            return None
        for name, _ in folder.fallback.shown([shared.name]):
            own = await self._tree.child(folder, name)
            if isinstance(own, FileNode):
                return own
            return self._view(folder, name, shared)
        return None

    def hide(self, view: FallbackEntry) -> None:
        """The user deleted what was shown: hide it there. Atomic."""
        assert view.folder.whiteouts is not None
        view.folder.whiteouts.add(view.name)
        self._behind.whiteout(view.folder.ino, view.name, hidden=True)

    def unhide(self, folder: DirNode, name: bytes) -> None:
        """An own file takes the name: once that is deleted, the shared one shows again. Atomic."""
        if folder.whiteouts and name in folder.whiteouts:
            folder.whiteouts.discard(name)
            self._behind.whiteout(folder.ino, name, hidden=False)

    def _view(self, folder: DirNode, name: bytes, shared: FileNode) -> FallbackEntry | None:
        if shared.state is State.WRITING and shared.reopened == 0:
            return None  # still being made: nothing is half-shown
        view_id = self._tree.shown_ids.get(shared.ino)
        if view_id is None:
            view_id = self._last_id + 1 if self._last_id else max(self._tree.shown_inos, default=0) + 1
            if view_id > _MAX_ID or folder.ino > _MAX_DIR:
                return None
            self._last_id = view_id
            self._tree.shown_ids[shared.ino] = view_id
            self._tree.shown_inos[view_id] = shared.ino
            self._behind.view(view_id, shared.ino)
        return FallbackEntry(folder, name, shared, VIEW_BIT | folder.ino << _ID_BITS | view_id)

    async def hidden(self, folder: DirNode) -> set[bytes]:
        """Names that the user deleted there; known from then on."""
        if folder.whiteouts is None:
            hidden = await self._tree.catalogue.whiteouts(folder.ino)
            if folder.whiteouts is None:
                folder.whiteouts = hidden
        return folder.whiteouts

    async def _all(self, folder: DirNode) -> Sequence[Node | NodeRow]:
        if folder.complete:
            return self._tree.snapshot(folder)
        return await self._tree.page(folder, 0, _MAX_ID)
