"""Bytes that no row knows become files: entries of the home tree where they lie, and objects under their keys.

Limits are not asked: the bytes are there already. What comes from the home tree is hashed and committed like any closed
file; an object is believed what its metadata says of it, and held to that when it is read.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from recfs.core.keys import path_for
from recfs.core.layout import child_role
from recfs.core.migration.adopting import Digests
from recfs.core.model import State
from recfs.core.observing.kinds import EventKind
from recfs.disk.leases import is_written
from recfs.disk.watching import looks
from recfs.errors import Busy, Exists, IoFailure, NotADirectory
from recfs.fs.caller import Caller
from recfs.fs.foreign.rows import ForeignRows
from recfs.ports.objects import ARCHIVE_CLASSES, RestoreState
from recfs.ports.rows import LocalCopy, ObjectRow
from recfs.state.nodes import DirNode, FileNode
from recfs.stores.s3.meta import from_metadata

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from recfs.fs.leftovers.local import LocalLeftovers, Lying
    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache
    from recfs.ports.objects import ObjectInfo
    from recfs.stores.local import LocalStore

PART = "orphans"
MADE_MODE = 0o755
"""Of directories on the way to an adopted object: S3 does not know theirs."""


class Adoption:
    """Makes rows for what has none."""

    def __init__(self, vfs: Vfs, kernel: KernelCache, store: LocalStore, local: LocalLeftovers) -> None:
        self._vfs = vfs
        self._tree = vfs.tree
        self._behind = vfs.behind
        self._kernel = kernel
        self._store = store
        self._local = local
        self._rows = ForeignRows(vfs, kernel)

    async def entry(self, lying: Lying) -> int:
        """Adopt an entry of the home tree, with all below it; returns how many. What fails below is told, and left.

        Raises IoFailure or Busy for what cannot be adopted itself; nothing is where it has changed meanwhile.
        """
        if lying.folder is None:
            return 0
        found = await self._local.at(lying.folder, lying.name)
        if found is None or not lying.is_still(found[1]):
            return 0
        below = await self._adopt(lying.folder, lying.name)
        if below is None:
            return 0
        adopted, pending = 1, below
        while pending:
            folder, name = pending.pop()
            path = f"{folder.path}/{os.fsdecode(name)}"
            with self._behind.problems.aside(PART, path, path):
                below = await self._adopt(folder, name)
                if below is not None:
                    pending += below
                    adopted += 1
        return adopted

    async def _adopt(self, folder: DirNode, name: bytes) -> list[tuple[DirNode, bytes]] | None:
        """Adopt one entry; what lies in it, if it is a directory. None: it is somebody's by now."""
        await self._rows.prepare(folder)
        found = await self._local.at(folder, name)
        if found is None or found[2]:
            return None
        path, info, _ = found
        seen = looks.seen(info)
        if (why := self._local.refusal(folder, name, seen)) is not None:
            raise IoFailure(f"left alone: {why}")
        if seen.format == stat.S_IFDIR:
            made = await self._rows.directory(folder, name, seen)
            return [(made, each) for each in await self._local.names(made)]
        if seen.format == stat.S_IFLNK:
            with self._store.beneath.folder(path) as (fd, last):
                target = os.readlink(last, dir_fd=fd)
            await self._rows.symlink(folder, name, target, seen)
            return []
        fd = self._store.open_file(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if is_written(fd):
                raise Busy("left alone: somebody has it open for writing")
        finally:
            os.close(fd)
        self._rows.file(folder, name, seen)
        return []

    async def object(self, info: ObjectInfo, still: Callable[[], Awaitable[bool]]) -> FileNode | None:
        """Adopt an object as a file whose bytes are in S3 alone; None: it is somebody's by now, as *still* says.

        Raises Exists where another file has that name, NotADirectory, InvalidPath.
        """
        names = path_for(info.key).split(b"/")
        known = from_metadata(info.metadata)
        owner = owner_of(known.owner)
        folder = await self.folder(names[:-1], owner)
        child_role(folder.role, names[-1], is_dir=False)
        if folder.fallback is not None:
            await self._vfs.views.hidden(folder)
        if not await still():
            return None
        if await self._tree.child(folder, names[-1]) is not None:
            raise Exists(f"{info.key}: another file has this name; rename it, and adopt this one then")
        assert known.sha256 is not None
        assert known.md5 is not None
        node = self.enter(folder, names[-1], info, owner, Digests(known.sha256, known.md5))
        self._kernel.forget_inode(folder.ino)
        return node

    def enter(self, folder: DirNode, name: bytes, info: ObjectInfo, owner: Caller, digests: Digests) -> FileNode:
        """Make the file of an object; the name is free, and admitted, and what is hidden there known. Atomic.

        The kernel is yet to be told that the directory has changed.
        """
        known = from_metadata(info.metadata)
        node = self._vfs.names.add_file(folder, name, known.mode or 0o644, owner, upload=False)
        mtime_ns = known.mtime_ns if known.mtime_ns is not None else info.last_modified_ns
        uploaded_ns = known.uploaded_ns if known.uploaded_ns is not None else info.last_modified_ns
        if not owner.by_place:
            node.gid = owner.gid  # as the metadata has it, whatever a setgid directory makes of new files
        node.mtime_ns = mtime_ns
        node.sha256, node.md5 = digests
        self._tree.resize(node, info.size_bytes)
        node.enter(State.EVICTED)
        if info.storage_class in ARCHIVE_CLASSES and info.restore_state is not RestoreState.RESTORED:
            node.enter(State.ARCHIVED)
        node.object = ObjectRow(
            node.ino, info.key, info.etag, info.size_bytes, *digests, mtime_ns, info.storage_class,
            uploaded_ns, LocalCopy(),
        )  # fmt: skip
        if folder.fallback is not None:
            self._vfs.views.unhide(folder, node.name)
        self._tree.events.noted(EventKind.ADOPTED, node, "from the bucket")
        self._behind.object(node.object)
        self._behind.node(node)
        self._kernel.forget_entry(folder.ino, node.name, 0)
        return node

    async def folder(self, names: Sequence[bytes], owner: Caller) -> DirNode:
        """The directory of that path, made where there is none. Raises NotADirectory, InvalidPath, and as mkdir."""
        folder = self._tree.root
        for name in names:
            child = await self._tree.child(folder, name)
            if child is None:
                child = await self._vfs.mkdir(folder.ino, name, MADE_MODE, owner)
                self._kernel.forget_entry(folder.ino, name, 0)
                self._kernel.forget_inode(folder.ino)  # what it keeps of listings
            if not isinstance(child, DirNode):
                raise NotADirectory(f"{folder.path}/{os.fsdecode(name)} is not a directory")
            folder = child
        return folder


def owner_of(text: str | None) -> Caller:
    """Who is named by the metadata ("uid:gid"); the daemon's user where it says nothing."""
    uid, _, gid = (text or "").partition(":")
    if uid.isascii() and uid.isdigit() and gid.isascii() and gid.isdigit():
        return Caller(min(int(uid), (1 << 32) - 2), min(int(gid), (1 << 32) - 2), operator=True)
    return Caller(os.geteuid(), os.getegid(), operator=True)


__all__ = ["Adoption", "owner_of"]
