"""Takes the home tree for what somebody made of it past recfs: entries become rows, other bytes new versions, what is
gone loses its row, what was moved is renamed.

Everything but `directory`, `symlink` and `moved` is atomic, and those are from their last await on. Whoever calls has
looked at the disk since its own last await, while the publisher moved nothing: what rows and disk say then is of
one moment. Nothing is copied or moved here: the bytes stay where they are, and are hashed there.
"""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING

from recfs.core.layout import Role, child_role, is_upload
from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.fs.caller import Caller, may_grow
from recfs.ports.rows import Pending
from recfs.state.nodes import DirNode, FileNode, LinkNode, Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recfs.core.foreign import Seen
    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache

_OPERATOR = Caller(0, 0, operator=True)


class ForeignRows:
    """What becomes of rows."""

    def __init__(self, vfs: Vfs, kernel: KernelCache) -> None:
        self._vfs = vfs
        self._tree = vfs.tree
        self._behind = vfs.behind
        self._kernel = kernel
        self._gathers = 0
        self._listed: dict[int, None] = {}
        """Directories whose lists the kernel has yet to forget."""

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """The kernel is told once, at the end, of a directory in which much comes or goes."""
        self._gathers += 1
        try:
            yield
        finally:
            self._gathers -= 1
            listed, self._listed = self._listed, {}
            for ino in listed:
                self._kernel.forget_inode(ino)

    def _relisted(self, folder: DirNode) -> None:
        if self._gathers:
            self._listed[folder.ino] = None
        else:
            self._kernel.forget_inode(folder.ino)

    # --- what no row knows ---------------------------------------------------------------------------------------

    async def prepare(self, folder: DirNode) -> None:
        """Load what the others need of a directory."""
        if folder.fallback is not None:
            await self._vfs.views.hidden(folder)

    @staticmethod
    def allow(folder: DirNode, name: bytes, seen: Seen) -> None:
        """Raise InvalidPath or NameTooLong where the level of *folder* has no such entries, ReadOnlyFile where nothing
        new comes: in a recording that has expired.
        """
        child_role(folder.role, name, is_dir=seen.format == stat.S_IFDIR)
        may_grow(folder)

    def file(self, folder: DirNode, name: bytes, seen: Seen) -> FileNode:
        """Enter a file whose bytes lie at its place. Limits are not asked: the bytes are there already."""
        caller = Caller(seen.uid, seen.gid, operator=True)
        upload = is_upload(folder.role, name)
        node = self._vfs.names.add_file(folder, name, stat.S_IMODE(seen.mode), caller, upload=upload)
        self._seal(node, seen)
        self._entered(node, seen)
        return node

    async def directory(self, folder: DirNode, name: bytes, seen: Seen) -> DirNode:
        """Enter a directory, and what rules want below it. Raises Exists and the like."""
        caller = Caller(seen.uid, seen.gid, operator=True)
        node = await self._vfs.names.mkdir(folder, name, stat.S_IMODE(seen.mode), caller)
        node.pending = 0
        self._entered(node, seen)
        return node

    async def symlink(self, folder: DirNode, name: bytes, target: bytes, seen: Seen) -> LinkNode:
        """Enter a symbolic link. Raises Exists and the like."""
        node = await self._vfs.names.symlink(folder, name, target, Caller(seen.uid, seen.gid, operator=True))
        node.pending = 0
        self._entered(node, seen)
        return node

    def _entered(self, node: Node, seen: Seen) -> None:
        node.mtime_ns = seen.mtime_ns
        self._tree.events.noted(EventKind.ADOPTED, node)
        self._take_attributes(node, seen)
        if node.parent.fallback is not None:
            self._vfs.views.unhide(node.parent, node.name)
        self._kernel.forget_entry(node.parent.ino, node.name, 0)
        self._relisted(node.parent)

    def _take_attributes(self, node: Node, seen: Seen) -> None:
        node.home_ino = seen.st_ino
        if not isinstance(node, LinkNode):
            node.mode = stat.S_IMODE(seen.mode)
        node.uid, node.gid = seen.uid, seen.gid
        self._behind.node(node)

    # --- what rows know ------------------------------------------------------------------------------------------

    def changed(self, node: FileNode, seen: Seen) -> None:
        """What stands at a file's place is a new version of it."""
        events = self._tree.events
        if node.state.is_remote:
            events.superseded(node)
        events.modified(node)
        self._seal(node, seen)
        self._take_attributes(node, seen)
        self._kernel.forget_inode(node.ino)

    def _seal(self, node: FileNode, seen: Seen) -> None:
        for state in (State.WRITING, State.SEALING):
            if node.state is not state:
                node.enter(state)
        node.sha256 = node.md5 = None
        node.pending, node.unmarked = 0, False
        node.home_ino, node.mtime_ns, node.ctime_ns = seen.st_ino, seen.mtime_ns, self._tree.clock.now_ns()
        self._vfs.backing_files.versions.closed(node)
        self._tree.resize(node, seen.size_bytes)
        self._tree.activity(node.parent)
        self._behind.node(node)
        self._vfs.pipeline.submit(node.ino)

    def renumbered(self, node: DirNode, seen: Seen) -> None:
        """Another directory has taken the place of one."""
        self._take_attributes(node, seen)
        self._kernel.forget_inode(node.ino)

    def described(self, node: Node, seen: Seen) -> None:
        """Mode or owner are others."""
        self._take_attributes(node, seen)
        node.ctime_ns = self._tree.clock.now_ns()
        if isinstance(node, FileNode):
            self._tree.events.described(node)
        self._kernel.forget_inode(node.ino)

    def gone(self, node: Node) -> bool:
        """The entry of *node* is not there any more. False: it keeps its row. `Tree.is_empty` was asked of a directory.

        A file that S3 holds keeps it as one whose local copy has left; nothing is deleted in S3. One of which S3 has
        an earlier version keeps it, too. A directory does while anything is in it, or yet to leave it.
        """
        if isinstance(node, FileNode) and (node.object is not None or node.state is State.STORED):
            self._vfs.backing_files.remote.lost(node)
            return False
        if isinstance(node, DirNode) and not self._is_bare(node):
            return False
        parent, name = node.parent, node.name
        if isinstance(node, FileNode):
            self._vfs.backing_files.versions.release_priors(node)
            self._tree.events.removed(node, None)
        else:
            self._tree.events.noted(EventKind.REMOVED, node)
        self._tree.remove(node)
        self._tree.touch(parent, self._tree.clock.now_ns())
        self._kernel.forget_entry(parent.ino, name, node.ino)
        self._relisted(parent)
        return True

    def _is_bare(self, node: DirNode) -> bool:
        return not (node.children or node.ino in self._tree.locations.entries) and node.role > Role.TEMP_TOP

    def remake(self, node: DirNode) -> None:
        """A directory that is gone is wanted still: its entries lie elsewhere. Atomic."""
        node.pending, node.home_ino = Pending.MAKE, None
        self._behind.publish(node)

    async def moved(self, node: Node, folder: DirNode, name: bytes) -> None:
        """The entry of *node* lies in *folder* by now. Raises what renaming it there does (QuotaExceeded …)."""
        old, old_name = node.parent, node.name
        await self._vfs.names.rename(old, old_name, folder, name, _OPERATOR, noreplace=True, only=node)
        self._tree.locations.forget(node, node.moved)
        node.moved = None
        node.pending &= ~Pending.MOVE
        self._behind.node(node)
        self._tree.events.renamed(node, old, old_name)
        if folder.fallback is not None:
            self._vfs.views.unhide(folder, name)
        self._kernel.forget_entry(old.ino, old_name, 0)
        self._kernel.forget_entry(folder.ino, name, 0)
        for each in (old, folder):
            self._kernel.forget_inode(each.ino)

    async def exchanged(self, one: Node, two: Node) -> None:
        """Either's entry lies under the other's name by now. Raises what exchanging them does (QuotaExceeded …)."""
        places = [(one.parent, one.name), (two.parent, two.name)]
        await self._vfs.names.exchange(*places[0], *places[1], _OPERATOR)
        for node, place in zip((one, two), places, strict=True):
            self._tree.locations.forget(node, node.moved)
            node.moved = None
            node.pending &= ~Pending.MOVE
            self._behind.node(node)
            self._tree.events.renamed(node, *place)
            self._kernel.forget_entry(place[0].ino, place[1], 0)
            self._kernel.forget_inode(place[0].ino)


__all__ = ["ForeignRows"]
