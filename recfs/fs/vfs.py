"""The file system with no FUSE in it: what each operation does, in terms of nodes, views and handles.

Users: `fuse/operations.py` (the kernel's requests), `fs/session/` (who acts for a user and is not the kernel),
`services/`, `api/` and `daemon.py` (the daemon's own), and the tests, which call it without a mount. Errors are
`errors.FsError`. Who may do what by permission bits is the kernel's business (`default_permissions`), in `fs/session/`
its own (`core/permissions.py`); who may do what by recfs's rules is decided here.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from recfs.core.layout import Role
from recfs.core.model import State
from recfs.core.retention import NOTHING_EXPIRES, Policy
from recfs.errors import (
    Exists,
    InvalidArgument,
    IsADirectory,
    NotFound,
    NotPermitted,
    OtherDevice,
    ReadOnlyFile,
    RecfsError,
    Stale,
)
from recfs.fs.attributes import Attributes
from recfs.fs.caller import may_change, may_describe, may_grow, may_read, may_take
from recfs.fs.contents import Contents
from recfs.fs.copyup import CopyUp
from recfs.fs.fallback_entries import VIEW_BIT, FallbackEntries, FallbackEntry
from recfs.fs.files import OpenFiles
from recfs.fs.lives import Lives
from recfs.fs.names.listing import Listings
from recfs.fs.names.namespace import Namespace
from recfs.fs.names.removal import Removal, TreeRemoval
from recfs.fs.names.walks import Walks
from recfs.fs.names.wholes import Wholes
from recfs.fs.ranges import Ranges
from recfs.fs.survivors import Survivors
from recfs.state.nodes import DirNode, FileNode, LinkNode, Node
from recfs.state.waits import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from recfs.disk.backing_files import BackingFiles
    from recfs.disk.commit.md5s import Md5s
    from recfs.disk.staging import DiskReserve
    from recfs.fs.attributes import Changes
    from recfs.fs.caller import Caller
    from recfs.fs.handles import Handle
    from recfs.fs.iomodes import IoModes
    from recfs.ports.kernel import KernelCache
    from recfs.ports.work import Pipeline
    from recfs.state.media import MediaRows
    from recfs.state.tree import Tree


COPIED_AT_ONCE_BYTES = 8 << 20
"""Up to this size a shared file is copied while the kernel holds a directory."""
_WRITES: Final = os.O_ACCMODE | os.O_TRUNC
"""The flags of an open(2) that changes the file."""


class Vfs:
    """All operations of the file system."""

    def __init__(
        self,
        tree: Tree,
        backing_files: BackingFiles,
        space: DiskReserve,
        pipeline: Pipeline,
        kernel: KernelCache,
        modes: IoModes,
        md5s: Md5s,
        media: MediaRows,
        *,
        operators: Iterable[int] = (),
        policy: Policy = NOTHING_EXPIRES,
    ) -> None:
        self.tree = tree
        self.behind = behind = tree.behind
        self.backing_files = backing_files
        self.pipeline = pipeline
        self.md5s = md5s
        self.contents = Contents(media, backing_files.remote)
        self.removal = Removal(tree, backing_files.versions)
        self.names = Namespace(tree, self.removal)
        self.views = FallbackEntries(tree, behind)
        self.backlog = modes.backlog
        self.files = OpenFiles(
            tree, backing_files, self.names, space, self.backlog, pipeline, modes, operators=operators
        )
        self.copies_up = CopyUp(self.files, backing_files, self.names, tree, self.views)
        self.attributes = Attributes(tree, self.files)
        self.lives = Lives(tree, self.files, policy)
        self.trees = TreeRemoval(tree, self.removal, Wholes(tree, backing_files.versions), self.views, kernel)
        self.survivors = Survivors(tree, self.files, modes)
        self.ranges = Ranges(self.files, tree, backing_files.contended)
        self.listings = Listings(tree, self.views)
        self.stopping = False
        self._walks = Walks()

    # --- finding -------------------------------------------------------------------------------------------------

    async def node(self, ino: int) -> Node | FallbackEntry:
        """What an inode number of the kernel stands for, with a name or without one. Raises Stale."""
        node = self.tree.nodes.get(ino) or self.tree.orphans.get(ino)
        if node is not None:
            return node
        if ino & VIEW_BIT:
            seen = await self.views.resolve(ino)
            if seen is not None:
                return seen
        for handle in self.files.handles.values():  # unlinked, or shown no more, and still open
            if handle.shown is not None and handle.shown.ino == ino:
                return handle.shown
            if handle.node.ino == ino:
                return handle.node
        if ino & VIEW_BIT:
            raise Stale("the shared file is gone")
        return await self.tree.get(ino)

    async def lookup(self, parent: int, name: bytes) -> Node | FallbackEntry | None:
        """The entry *name* of a directory, own before shown; None when there is neither.

        `.` may be asked of anything that has a name: so the kernel finds again what a file handle stands for.
        """
        if name == b".":
            return await self._named(parent)
        folder = self.tree.nodes.get(parent)
        if not isinstance(folder, DirNode):
            folder = await self.tree.directory(parent)
        node = folder.children.get(name)
        if node is not None:
            return node
        if name == b"..":
            return folder.parent
        node = await self.tree.child(folder, name)
        if node is None and folder.fallback is not None and not folder.unlinked:
            return await self.views.find(folder, name)
        return node

    async def _named(self, ino: int) -> Node | FallbackEntry:
        seen = await self.node(ino)
        if isinstance(seen, Node) and seen.unlinked:
            raise Stale(f"{seen.path} was removed")
        return seen

    async def at(self, path: str) -> Node | FallbackEntry:
        """The entry at a mount path. Raises NotFound."""
        parts = [part for part in os.fsencode(path).split(b"/") if part]
        seen: Node | FallbackEntry | None = self.tree.root
        for name in parts:
            seen = await self.lookup(seen.ino, name) if isinstance(seen, DirNode) else None
            if seen is None:
                raise NotFound(f"{path}: no such file or directory")
        assert seen is not None
        return seen

    # --- attributes ----------------------------------------------------------------------------------------------

    async def setattr(self, ino: int, changes: Changes, caller: Caller) -> Node | FallbackEntry:
        """chmod, chown, truncate, utimensat. A shown file is copied up first."""
        seen = await self.node(ino)
        if isinstance(seen, FallbackEntry):
            if changes.size != 0:
                await self.files.bring(seen.shared)
            seen = await self.copies_up.own(seen, caller, empty=changes.size == 0)
        self._may_write(seen, caller)
        if (changes.mode, changes.uid, changes.gid) != (None, None, None):
            may_describe(seen, caller)
        if changes.size is not None and isinstance(seen, FileNode) and (seen.body is None or not seen.body.writers):
            may_grow(seen.parent)
        return await self.attributes.change(seen, changes)

    def _may_write(self, node: Node, caller: Caller) -> None:
        folder = node if isinstance(node, DirNode) else node.parent
        if not node.unlinked and folder.parent is not folder:
            may_change(folder, caller)

    # --- names ---------------------------------------------------------------------------------------------------

    async def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[int, FileNode]:
        """open(2) with O_CREAT of a name the kernel believes absent."""
        self._not_stopping()
        second = self._walks.is_second(caller.pid)
        folder = await self.tree.directory(parent)
        self.backlog.admit(folder, name)
        if folder.fallback is not None and await self.tree.child(folder, name) is None:
            view = await self.views.find(folder, name)
            if view is not None:
                if flags & os.O_EXCL:
                    raise Exists(f"{folder.path}/{os.fsdecode(name)} is shown there")
                if not second and not flags & os.O_TRUNC and _takes_long(view.shared):
                    # It has come just now. The kernel looks again, and opens it without holding the directory.
                    self._walks.note(caller.pid)
                    raise Stale(f"{folder.path}/{os.fsdecode(name)} has come to be shown there")
                node = await self.copies_up.own(view, caller, empty=bool(flags & os.O_TRUNC))
                return await self.files.open(node, flags, caller.uid), node
        try:
            number, node = await self.files.create(folder, name, mode, caller)
            self.files.note(number, flags)
        except Exists:
            own = await self.tree.child(folder, name)
            if flags & os.O_EXCL or not isinstance(own, FileNode):
                raise
            return await self.files.open(own, flags, caller.uid), own
        if folder.fallback is not None:
            self.views.unhide(folder, name)
        return number, node

    async def mknod(self, parent: int, name: bytes, mode: int, caller: Caller) -> FileNode:
        """mknod(2) of a regular file; it is closed, so it is sealed at once."""
        number, node = await self.create(parent, name, mode, os.O_EXCL | os.O_WRONLY, caller)
        await self.files.release(number)
        return node

    def _not_stopping(self) -> None:
        if self.stopping:
            raise ReadOnlyFile("recfs is stopping")

    async def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller, *, reserved: bool = False) -> DirNode:
        """mkdir(2). *reserved*: also where no room is left but what recfs keeps for itself."""
        self._not_stopping()
        folder = await self.tree.directory(parent)
        if not reserved:
            self.files.space.admit_entry()
        if folder.fallback is not None and await self.views.find(folder, name) is not None:
            raise Exists(f"{folder.path}/{os.fsdecode(name)} is shown there")
        made = await self.names.mkdir(folder, name, mode, caller)
        if folder.fallback is not None:
            self.views.unhide(folder, name)
        return made

    async def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> LinkNode:
        """symlink(2)."""
        self._not_stopping()
        folder = await self.tree.directory(parent)
        self.files.space.admit_entry()
        if folder.fallback is not None and await self.views.find(folder, name) is not None:
            raise Exists(f"{folder.path}/{os.fsdecode(name)} is shown there")
        made = await self.names.symlink(folder, name, target, caller)
        if folder.fallback is not None:
            self.views.unhide(folder, name)
        return made

    async def readlink(self, ino: int) -> bytes:
        """readlink(2)."""
        node = await self.node(ino)
        if not isinstance(node, LinkNode):
            raise InvalidArgument(f"inode {ino} is not a symbolic link")
        return node.target

    async def unlink(self, parent: int, name: bytes, caller: Caller, *, only: int | None = None) -> None:
        """unlink(2). Deleting a shown file hides it in this directory. *only*: the inode to be removed, else Stale."""
        folder = await self.tree.directory(parent)
        node = await self.removal.unlink(folder, name, caller, only=only)
        if node is None:
            view = await self.views.find(folder, name)
            if name in folder.children:
                return await self.unlink(parent, name, caller, only=only)  # it has come meanwhile
            if view is None or only not in (None, view.ino):
                raise NotFound(f"{folder.path}/{os.fsdecode(name)} does not exist")
            may_change(folder, caller)
            may_take(folder, view, caller)
            self.views.hide(view)
            self.tree.touch(folder, self.tree.clock.now_ns())

    async def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """rmdir(2). Directories that came with a user's and were never used go with it."""
        folder = await self.tree.directory(parent)
        await self.removal.rmdir(folder, name, caller)

    async def rename(
        self, old: int, old_name: bytes, new: int, new_name: bytes, caller: Caller,
        *, noreplace: bool = False, exchange: bool = False, only: Node | None = None,
        over: Callable[[Node], bool] | None = None, check: Callable[[Node], None] | None = None,
    ) -> Node | None:  # fmt: skip
        """rename(2), renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE. Returns what was replaced.

        *only*: what is to be renamed (not exchanged); Stale where the name is another one's by now.
        *over*: what alone may be replaced, looked at when it is; Exists where something else is there.
        *check*: raises what is against the move (no exchange) when it is made.
        """
        if noreplace and exchange:
            raise InvalidArgument("RENAME_NOREPLACE and RENAME_EXCHANGE exclude each other")
        source, target = await self.tree.directory(old), await self.tree.directory(new)
        hides = await self._own_if_shown(source, old_name, caller)
        if exchange:
            await self._own_if_shown(target, new_name, caller)
            one, two = await self.names.exchange(source, old_name, target, new_name, caller)
            if one is not two:
                self.tree.events.renamed(one, source, old_name)
                self.tree.events.renamed(two, target, new_name)
            await self.record()
            return None
        if (
            noreplace
            and target.fallback is not None
            and await self.tree.child(target, new_name) is None
            and await self.views.find(target, new_name) is not None
        ):
            raise Exists(f"{target.path}/{os.fsdecode(new_name)} is shown there")
        if target.fallback is not None:
            await self.views.hidden(target)  # before it is taken, for `unhide`
        moved, replaced = await self.names.rename(
            source, old_name, target, new_name, caller, noreplace=noreplace, only=only, over=over, check=check
        )
        if (source, old_name) != (target, new_name):
            self.tree.events.renamed(moved, source, old_name)
        if target.fallback is not None:
            self.views.unhide(target, new_name)
        if hides:
            view = await self.views.find(source, old_name)
            if view is not None and old_name not in source.children:
                self.views.hide(view)
        # Programs write aside and rename to say "now it counts". Written at once, it survives the daemon's death;
        # a power cut is survived after fsync of the directory, as everywhere.
        await self.record()
        return replaced

    async def record(self) -> None:
        """Write the dirty rows now. Should that fail, the change stands: it is written as soon as can be."""
        with contextlib.suppress(RecfsError):
            await self.behind.flush()

    async def _own_if_shown(self, folder: DirNode, name: bytes, caller: Caller) -> bool:
        if folder.fallback is None or await self.tree.child(folder, name) is not None:
            return False
        view = await self.views.find(folder, name)
        if view is None:
            return False
        if _takes_long(view.shared):  # rename(2) holds the directories, and of some the whole file system, till its end
            raise OtherDevice(f"{folder.path}/{os.fsdecode(name)} is shared: copy it, as mv(1) does, then remove it")
        await self.copies_up.own(view, caller, empty=False)
        return True

    def link(self) -> None:
        """link(2): recfs has no hard links."""
        raise NotPermitted("recfs has no hard links: a file has one owner and one place")

    # --- files ---------------------------------------------------------------------------------------------------

    async def open(self, ino: int, flags: int, caller: Caller) -> int:
        """open(2) of an existing file. Writing to a shown file copies it up (without its bytes for O_TRUNC).

        Raises Stale where the kernel is to walk to it again.
        """
        second = self._walks.is_second(caller.pid)
        try:
            seen = self.tree.nodes.get(ino) or await self.node(ino)
            writes = flags & _WRITES != os.O_RDONLY
            if isinstance(seen, FallbackEntry):
                if not writes:
                    number = await self.files.open(seen.shared, flags, caller.uid)
                    self.files.handles[number].shown = seen
                    return number
                seen = await self.copies_up.own(seen, caller, empty=bool(flags & os.O_TRUNC))
            if not isinstance(seen, FileNode):
                raise IsADirectory(f"{seen.path} is not a regular file")
            if writes:
                if self.stopping:
                    raise ReadOnlyFile("recfs is stopping")
                self._may_write(seen, caller)
                may_grow(seen.parent)
            elif not seen.unlinked:
                may_read(seen.parent)
            if ino & VIEW_BIT and not second:
                # Under the view's number it would be two files to the kernel, each with pages of its own. Who asks
                # again has no name to be looked for (/proc/self/fd, a file handle).
                raise Stale(f"{seen.path} is the user's own by now")
            return await self.files.open(seen, flags, caller.uid)
        except Stale as error:
            if second and caller.pid:
                raise NotFound(str(error)) from error
            self._walks.note(caller.pid)
            raise

    @staticmethod
    def is_own_copy(handle: Handle) -> bool:
        """Whether a file that was opened by a view's number is the user's own, which has another number."""
        return handle.node.parent.role not in (Role.SHARED_TOP, Role.SHARED_DIR)

    async def wait_sealed(self, node: FileNode) -> None:
        """Wait until a sealing file is committed (or taken up again): ends its settling delay.

        Raises TryAgain when that takes long: a large file is hashed for as long as it takes.
        """
        with bounded(f"the checksums of {node.path}"):
            while node.state is State.SEALING and not node.unlinked:
                self.pipeline.want(node.ino)
                await self.pipeline.progress()


def _takes_long(shared: FileNode) -> bool:
    return shared.bytes > COPIED_AT_ONCE_BYTES or shared.state.is_remote
