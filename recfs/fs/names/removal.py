"""Removing names: what becomes of the bytes, of directories that came by themselves, and of whole trees.

The rows at once; the home tree follows through the publisher. Every public coroutine first awaits what it needs loaded,
then checks and changes in one stretch without an await.
"""

from __future__ import annotations

import contextlib
import os
from itertools import islice
from typing import TYPE_CHECKING

import trio

from recfs.core.fallback import auto_dirs
from recfs.core.layout import Role, kept_path
from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.core.retention import Now, protected
from recfs.errors import Busy, IsADirectory, NotADirectory, NotEmpty, NotFound, RecfsError, Stale
from recfs.fs.caller import Caller, may_change, may_take
from recfs.fs.names.births import recall_life
from recfs.ports.rows import Content, Pending
from recfs.state.nodes import DirNode, FileNode, Garbage, LinkNode, Node
from recfs.state.work.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recfs.disk.versions import Versions
    from recfs.fs.fallback_entries import FallbackEntries
    from recfs.fs.names.wholes import Wholes
    from recfs.ports.kernel import KernelCache
    from recfs.ports.rows import NodeRow
    from recfs.state.tree import Tree

PAGE = 50
"""Entries that are loaded at once to be removed, and then written at once."""
REMOVED_IN_BATCH = 150
"""Rows that are written at once meanwhile: a transaction of 2 ms, where one of a thousand rows takes up to 10."""

AHEAD = 8
"""So many directories lose their names before their bytes have to be gone, too."""
PATIENCE_S = 2.0
"""How long that is waited for: some may be set aside."""


class Removal:
    """Removes files, links and directories."""

    def __init__(self, tree: Tree, versions: Versions) -> None:
        self._tree = tree
        self._behind = tree.behind
        self._versions = versions

    async def unlink(self, folder: DirNode, name: bytes, caller: Caller, *, only: int | None = None) -> Node | None:
        """Remove a file or symlink; None when only a shown one can be meant. Stale where it would not be *only*."""
        node = await self._tree.child(folder, name)
        while node is not None and await self.prepare(node):
            node = await self._tree.child(folder, name)
        may_change(folder, caller)
        if node is None or node.unlinked:
            return None
        if isinstance(node, DirNode):
            raise IsADirectory(f"{node.path} is a directory")
        assert isinstance(node, (FileNode, LinkNode))
        if only not in (None, node.ino):
            raise Stale(f"{node.path} is another one by now")
        may_take(folder, node, caller)
        self.drop(node)
        return node

    def drop(self, node: FileNode | LinkNode) -> None:
        """Remove a file or symlink, and have a death of the daemon not undo that. It is prepared. Atomic."""
        self.discard(node, successor=None)
        self._behind.returned(node)

    async def prepare(self, node: Node) -> bool:
        """Load what the trash is to keep of *node*, before that is removed; True: time passed meanwhile."""
        if not self._versions.trash.is_kept:
            return False
        if isinstance(node, DirNode) and node.role in (Role.INSIDE, Role.JOB, Role.SHARED_DIR):
            await recall_life(self._tree, node)  # it may have been a recording, and be one again
        if node.xattrs is not None:
            return False
        await self._tree.xattrs(node)
        return True

    def discard(self, node: FileNode | LinkNode, *, successor: FileNode | None) -> None:
        """Take the name away; the bytes become garbage. *successor*: the file that takes over the name. Atomic."""
        tree = self._tree
        folder, now = node.parent, tree.clock.now_ns()
        if isinstance(node, FileNode):
            if not node.state.is_remote:
                is_closed = node.state.is_whole or node.state is State.SEALING
                if successor is None and not node.bytes and is_closed:
                    self._versions.trash.keep(node)
                node.remains = self._versions.replace(node, successor)
                self._versions.trash.keep_beside(node, node.remains)
            tree.events.removed(node, successor)
        else:
            tree.events.noted(EventKind.REMOVED, node)
            self._versions.trash.keep(node)
            if not node.pending & Pending.MAKE:
                self._entry_garbage(node)
        tree.remove(node)
        node.ctime_ns = now
        tree.touch(folder, now)

    def _entry_garbage(self, node: Node) -> None:
        entry = Garbage(
            self._tree.new_gid(), node.ino, node.kind, kept_path(node.parts()), self._tree.clock.steady_ns()
        )
        entry.home_ino = node.home_ino
        self._versions.hand_over(node, entry)
        self._tree.know_garbage(entry)
        self._behind.garbage(entry)

    async def rmdir(self, folder: DirNode, name: bytes, caller: Caller) -> DirNode:
        """Remove a directory that has no entry of its own; what is shown in it is not in it."""
        while True:
            node = await self._tree.child(folder, name)
            if node is None:
                raise NotFound(f"{folder.path}/{os.fsdecode(name)} does not exist")
            if not isinstance(node, DirNode):
                raise NotADirectory(f"{node.path} is not a directory")
            await self.prepare(node)
            automatic = await self.automatic(node)
            if folder.children.get(name) is node:
                break  # else it was removed or renamed meanwhile
        may_change(folder, caller)
        if node.unlinked:
            raise NotFound(f"{node.path} was removed")
        may_take(folder, node, caller)
        if node.role <= Role.TEMP_TOP:
            raise Busy(f"{node.path} is part of every store")
        self.drop_empty(node, automatic)
        self._behind.returned(node)
        return node

    async def automatic(self, node: DirNode) -> list[DirNode] | None:
        """The directories that came with *node* and were never used, if nothing else is in it; None if something is.

        What comes into it from now on is loaded, and found by `drop_empty`.
        """
        while True:
            if await self._tree.is_empty(node):
                return []
            if node.role is not Role.USER:
                return None
            found = [await self._tree.child(node, name) for name in auto_dirs(self._tree.rules, tuple(node.parts()))]
            below = [child for child in found if isinstance(child, DirNode)]
            if len(below) != len([child for child in found if child is not None]):
                return None
            for child in below:
                if not await self._tree.is_empty(child):
                    return None
            names = {child.name for child in below}
            if not await self._only(node, names) or not node.children.keys() <= names:
                return None
            if all(node.children.get(child.name) is child for child in below):
                return below
            # One of them was unloaded, removed or renamed while the catalogue was asked: what is in it now?

    def drop_empty(self, node: DirNode, automatic: list[DirNode] | None) -> None:
        """Remove a directory, and those that came with it. Raises NotEmpty if anything else is in it by now. Atomic."""
        if (
            automatic is None
            or any(child not in automatic for child in node.children.values())
            or any(child.children for child in automatic)
        ):
            raise NotEmpty(f"{node.path} is not empty")
        for child in automatic:
            if node.children.get(child.name) is child:
                self._drop_dir(child)
        self._drop_dir(node)

    async def remove_again(self, ino: int) -> str | None:
        """Remove what was removed before the daemon died, if its row is still there; the path it had.

        Atomic once loaded. A directory that is not empty stays.
        """
        try:
            node = await self._tree.get(ino)
        except Stale:
            return None
        await self.prepare(node)
        path = node.path
        if isinstance(node, (FileNode, LinkNode)):
            self.discard(node, successor=None)
            return path
        if isinstance(node, DirNode) and node.role > Role.TEMP_TOP:
            automatic = await self.automatic(node)
            if automatic is not None and not node.unlinked:
                self.drop_empty(node, automatic)
                return path
        return None

    async def _only(self, node: DirNode, names: set[bytes]) -> bool:
        if node.complete:
            return True
        page = await self._tree.page(node, 0, len(names) + 1)
        return {entry.name for entry in page} == names

    def _drop_dir(self, node: DirNode) -> None:
        tree = self._tree
        now = tree.clock.now_ns()
        place = node.moved if node.moved is not None else (node.parent, node.name)
        tree.events.noted(EventKind.REMOVED, node)
        self._versions.trash.keep(node)
        if not node.pending & Pending.MAKE:
            self._entry_garbage(node)
            # Garbage below it still finds its way through this object.
            node.moved = place
        tree.remove(node)
        tree.events.emptied(node)
        tree.touch(node.parent, now)


class _Going:
    """A directory that goes with all that is in it, and how far that is. Atomic."""

    def __init__(self, top: DirNode, keep: Callable[[DirNode], bool] | None) -> None:
        self._top = top
        self._keep = keep
        self._parts = tuple(top.parts())
        self.folders = [top]
        """The one that is emptied now, after those that it lies in: trees are deeper than calls in calls may be."""
        self.seen()

    def seen(self) -> None:
        """What has just changed was our doing."""
        self._activity_ns = self._top.job.activity_ns if self._top.job is not None else 0

    def moved_away(self) -> list[DirNode]:
        """Take out what lies elsewhere by now. Raises Busy where that is the whole, or somebody is back in it."""
        top, folders = self._top, self.folders
        if not top.unlinked and tuple(top.parts()) != self._parts:
            raise Busy(f"{top.path} was moved there meanwhile")
        back = top.job is not None and top.job.activity_ns != self._activity_ns
        if self._keep is not None and (back or self._keep(top)):
            raise Busy(f"{folders[-1].path} is in use again")
        for index in range(1, len(folders)):
            if folders[index].parent is not folders[index - 1] and not folders[index].unlinked:
                moved = folders[index:]
                del folders[index:]
                return moved
        return []


class TreeRemoval:
    """Removes directories with everything in them, for the daemon itself."""

    def __init__(
        self, tree: Tree, removal: Removal, wholes: Wholes, views: FallbackEntries, kernel: KernelCache
    ) -> None:
        self._tree = tree
        self._behind = tree.behind
        self._removal = removal
        self._wholes = wholes
        self._views = views
        self._kernel = kernel

    async def remove(self, folder: DirNode, *, keep: Callable[[DirNode], bool] | None = None) -> int:
        """Remove a directory and all below it, as `rm -r` would; returns how many files and links went.

        A directory whose last files are plain goes together with them (`wholes.py`).

        *keep* is asked before names go, again whenever somebody else had a turn: true stops the removal, and so does
        then what others do in a temp job that goes. What is moved away meanwhile stays where it is moved to.
        Raises FsError and stops where something changes underneath; what is gone until then stays gone.
        """
        going = _Going(folder, keep)
        if self._tree.garbage.wholes >= AHEAD:
            # The disk writes its journal for these, and whoever writes to the catalogue meanwhile waits for that, on
            # the trio thread: what is next waits here until it is done.
            with trio.move_on_after(PATIENCE_S):
                await self._tree.garbage.until_fewer_wholes(1)
        try:
            return await self._remove_below(folder, going)
        finally:
            await self._kernel.flush()

    async def _remove_below(self, top: DirNode, going: _Going) -> int:
        if top.role is not Role.RECORDING:
            await self._refuse_kept(top)
        try:
            return await self._remove_all(going)
        finally:
            for folder in going.folders:
                self._wholes.forget(folder)

    async def _remove_all(self, going: _Going) -> int:
        gone = 0
        folders = going.folders
        turn = Turn()
        while folders:
            folder = folders[-1]
            if folder.unlinked:
                self._wholes.forget(folders.pop())
                continue
            is_whole = self._wholes.may_be(folder) and not self._wholes.is_refused(folder)
            below = await self._wholes.others(folder, turn) if is_whole else await self._some_of(folder)
            if not below and not self._goes_on(going):
                continue
            if is_whole and not below:
                gone += self._take(folder)
                going.seen()
                await turn.pass_on()
                await self._write_some()
                continue
            written, is_asked = self._behind.written, False
            for entry in below:
                if turn.is_over:
                    await turn.pass_on()
                    await self._write_some()
                    is_asked = False
                child = None if isinstance(entry, Content) else self._tree.entered(folder, entry, written)
                if child is None:
                    child, is_asked = await self._tree.child(folder, entry.name), False
                while child is not None and await self._removal.prepare(child):
                    child, is_asked = await self._tree.child(folder, entry.name), False
                if not is_asked and not self._goes_on(going):
                    break
                is_asked = True  # until the next await
                if isinstance(child, DirNode):
                    await self._refuse_kept(child)
                    is_asked = False
                    if folder.children.get(entry.name) is child:  # else it was removed or moved away meanwhile
                        folders.append(child)
                elif isinstance(child, (FileNode, LinkNode)):
                    self._removal.drop(child)
                    going.seen()
                    gone += 1
                    self._kernel.forget_entry(folder.ino, child.name, child.ino)
            if not below:
                await self._remove_empty(folder, Caller(0, 0, operator=True))
                going.seen()
            await turn.pass_on()
            await self._write_some()
        return gone

    def _goes_on(self, going: _Going) -> bool:
        """Whether what is emptied now still lies in what is to go; what does not, stays. Raises Busy. Atomic."""
        for folder in (moved := going.moved_away()):
            self._wholes.forget(folder)
        return not moved

    def _take(self, folder: DirNode) -> int:
        """Remove it with what is in it, as far as that has stayed plain until now; how many files went. Atomic."""
        parent, name = folder.parent, folder.name
        files = self._wholes.take(folder)
        if files is None:
            return 0
        # The kernel forgets with it all that it knows below (fs/dcache.c, d_invalidate).
        self._kernel.forget_entry(parent.ino, name, folder.ino)
        self._kernel.forget_inode(parent.ino)  # its times changed
        return files

    async def _some_of(self, folder: DirNode) -> Sequence[Node | NodeRow]:
        """Some of the entries; none when there are none."""
        if folder.complete:
            return [*islice(folder.children.values(), PAGE)]
        return await self._tree.page(folder, 0, PAGE, placed=True)

    async def _write_some(self) -> None:
        if self._behind.depth > REMOVED_IN_BATCH:
            with contextlib.suppress(RecfsError):  # a longer transaction would hold requests up as well
                await self._behind.flush()
        if self._tree.events.is_behind():
            await self._tree.events.caught_up()  # each file that goes is told by itself

    async def _refuse_kept(self, child: DirNode) -> None:
        """What has been a recording goes with nothing that it was moved into, where somebody wants it to stay."""
        await recall_life(self._tree, child)
        clock = self._tree.clock
        why = protected(child.life, Now(clock.steady_ns(), clock.calendar_ns())) if child.life is not None else ""
        if why:
            raise Busy(f"{child.path} {why}")

    async def _remove_empty(self, folder: DirNode, operator: Caller) -> None:
        if folder.fallback is not None:
            for view in await self._views.shown(folder, set()):
                self._kernel.forget_entry(folder.ino, view.name, view.ino)
        parent, name = folder.parent, folder.name
        await self._removal.rmdir(parent, name, operator)
        self._kernel.forget_entry(parent.ino, name, folder.ino)
        self._kernel.forget_inode(parent.ino)  # its times changed


__all__ = ["Removal", "TreeRemoval"]
