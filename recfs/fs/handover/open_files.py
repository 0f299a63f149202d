"""Open files on their way from one daemon to the next, which goes on with the same mount (inheritance.py).

Nothing is asked of the kernel for it: handles, modes and backing ids live on in the connection, and here they are
entered again as they were. Lookup counts are left behind: whoever is asked to forget more than it counted forgets all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from recfs import errors
from recfs.core.layout import Role
from recfs.core.model import Kind, State
from recfs.errors import FsError, QuotaExceeded, StoreError
from recfs.fs.fallback_entries import FallbackEntry
from recfs.fs.handles import Mode
from recfs.fs.handover.inheritance import Inheritance, Nameless, OpenBody, OpenFile
from recfs.state.backing_file import FOREIGN, BackingFile, Untouched
from recfs.state.nodes import DirNode, FileNode, LinkNode, Node

if TYPE_CHECKING:
    from recfs.fs.handles import Handle
    from recfs.fs.vfs import Vfs


def why_not(vfs: Vfs) -> str | None:
    """What keeps the open files from being left to another daemon just now; it passes by itself."""
    if vfs.files.copying:
        return "a shared file is being copied for a user"
    for handle in vfs.files.handles.values():
        if handle.body.download is not None:
            return f"{handle.node.path} is read while it is fetched from S3"
        if handle.body.copying:
            return f"{handle.node.path} is being copied for a user"
        if handle.body.freezing is not None:
            return f"the writers of {handle.node.path} are being stopped"
    return None


# --- leaving ---------------------------------------------------------------------------------------------------------


def left_by(vfs: Vfs) -> Inheritance:
    """What the daemon leaves, when requests are read no more and no service runs. Atomic."""
    left = Inheritance(next_file=vfs.files.next_number, next_folder=vfs.listings.next_number)
    bodies: dict[int, int] = {}
    nameless = {node.ino: (node, True) for node in vfs.tree.orphans.nodes()}
    for number, handle in vfs.files.handles.items():
        place = bodies.setdefault(id(handle.body), len(left.bodies))
        if place == len(left.bodies):
            left.bodies.append(_body(handle))
        if handle.node.unlinked:
            nameless.setdefault(handle.node.ino, (handle.node, False))
        left.files.append(_file(number, handle, place))
    left.nameless = [_nameless(node, orphan=orphan) for node, orphan in nameless.values()]
    left.folders = [[number, listing.folder.ino] for number, listing in vfs.listings.open_dirs.items()]
    return left


def _body(handle: Handle) -> OpenBody:
    body = handle.body
    stopped = [body.stopped[0].__name__, body.stopped[1]] if body.stopped is not None else None
    untouched: list[Any] | None = None
    if body.untouched is not None:
        untouched = [each.hex() if isinstance(each, bytes) else each for each in body.untouched]
    return OpenBody(
        handle.node.ino, body.fd, body.writable, body.in_place, body.backing, list(body.seen), body.checked_bytes,
        body.invalidation_pending, stopped, untouched,
    )  # fmt: skip


def _file(number: int, handle: Handle, body: int) -> OpenFile:
    view = handle.shown
    shown = [view.folder.ino, view.name.hex(), view.ino] if view is not None else None
    mode = handle.mode.value if handle.mode is not None else None
    return OpenFile(
        number, body, handle.uid, handle.writes, handle.direct, handle.foreign, mode, handle.account is not None, shown
    )


def _nameless(node: Node, *, orphan: bool) -> Nameless:
    xattrs = {name.hex(): value.hex() for name, value in (node.xattrs or {}).items()}
    told = Nameless(
        node.kind.value, node.ino, node.parent.ino, node.name.hex(), node.mode, node.uid, node.gid,
        node.atime_ns, node.mtime_ns, node.ctime_ns, node.kernel_refs, xattrs, orphan=orphan,
    )  # fmt: skip
    told.home_ino = node.home_ino
    if isinstance(node, FileNode):
        told.size_bytes, told.state_name, told.staging = node.bytes, node.state.value, node.staging
        told.remains = node.remains.gid if node.remains is not None else None
        told.sha256 = node.sha256.hex() if node.sha256 is not None else None
        told.md5 = node.md5.hex() if node.md5 is not None else None
    elif isinstance(node, LinkNode):
        told.target = node.target.hex()
    return told


# --- taking over -----------------------------------------------------------------------------------------------------


class Heir:
    """Enters what an earlier daemon left into the parts of this one: after recovery, before anything is served."""

    def __init__(self, vfs: Vfs, left: Inheritance) -> None:
        self._vfs = vfs
        self._tree = vfs.tree
        self._left = left
        self._told = {each.ino: each for each in left.nameless}
        self._made: dict[int, Node] = {}

    async def take_over(self) -> None:
        """Enter all of it. Raises StoreError or FsError when something does not fit: then nothing may be served."""
        left, files = self._left, self._vfs.files
        for told in left.nameless:
            node = await self._node(told.ino)
            if told.orphan:
                self._tree.orphans.add(node)
        bodies: list[tuple[FileNode, BackingFile]] = []
        for each in left.bodies:
            node = await self._node(each.ino)
            if not isinstance(node, FileNode):
                raise StoreError(f"inode {each.ino} is open, and the catalogue has no such file")
            bodies.append((node, self._body(node, each)))
        for opened in left.files:
            node, body = bodies[opened.body]
            handle = files.inherit(opened.number, node, body, opened.uid, writes=opened.writes)
            handle.direct, handle.foreign = opened.direct, opened.foreign
            if opened.shown is not None:
                handle.shown = await self._view(node, opened.shown)
            if opened.mode is not None:
                files.modes.inherit(handle, Mode(opened.mode), counted=opened.counted)
            if opened.foreign:
                self._vfs.survivors.inherit(opened.number, node)
        for each, (node, body) in zip(left.bodies, bodies, strict=True):
            # As the metadata knew it: the meter finds what it has grown by since.
            body.seen, body.checked_bytes = (each.seen[0], each.seen[1]), each.checked_bytes
            if body.stopped is not None:
                files.stops.stop(node)
        for number, ino in left.folders:
            folder = await self._node(ino)
            if not isinstance(folder, DirNode):
                raise StoreError(f"inode {ino} is open as a directory, and the catalogue has no such directory")
            self._vfs.listings.inherit(number, folder)
        files.next_number, self._vfs.listings.next_number = left.next_file, left.next_folder

    def _body(self, node: FileNode, told: OpenBody) -> BackingFile:
        body = BackingFile(told.fd, writable=told.writable)
        body.in_place, body.backing = told.in_place, told.backing
        body.foreign = told.backing == FOREIGN
        body.invalidation_pending = told.invalidation_pending
        if told.stopped is not None:
            kind = getattr(errors, told.stopped[0], QuotaExceeded)
            body.stopped = (kind if issubclass(kind, FsError) else QuotaExceeded, told.stopped[1])
        if told.untouched is not None:
            sha256, md5, *facts = told.untouched
            body.untouched = Untouched(_bytes(sha256), _bytes(md5), *facts)
        node.body = body
        return body

    async def _view(self, shared: FileNode, told: list[Any]) -> FallbackEntry:
        folder = await self._node(told[0])
        if not isinstance(folder, DirNode):
            raise StoreError(f"inode {told[0]} shows an open file, and the catalogue has no such directory")
        return FallbackEntry(folder, bytes.fromhex(told[1]), shared, told[2])

    async def _node(self, ino: int) -> Node:
        """The inode as it is known here, or made of what was told. Raises Stale."""
        if ino in self._made:
            return self._made[ino]
        told = self._told.get(ino)
        if told is None:
            return await self._tree.get(ino)
        parent: Node
        try:
            parent = await self._node(told.parent)
        except FsError:
            parent = self._tree.root  # its directory is gone, too: only a message would name it
        node = self._nameless(told, parent if isinstance(parent, DirNode) else self._tree.root)
        self._made[ino] = node
        return node

    def _nameless(self, told: Nameless, parent: DirNode) -> Node:
        name = bytes.fromhex(told.name)
        facts = (told.mode, told.uid, told.gid, told.ctime_ns)
        node: Node
        if told.kind == Kind.DIR.value:
            node = DirNode(told.ino, parent, name, *facts, Role.INSIDE)
        elif told.kind == Kind.SYMLINK.value:
            target = bytes.fromhex(told.target)
            node = LinkNode(told.ino, parent, name, target, told.uid, told.gid, told.ctime_ns)
        else:
            node = file = FileNode(told.ino, parent, name, *facts)
            file.never_left(State(told.state_name))
            file.bytes, file.staging = told.size_bytes, told.staging
            file.sha256, file.md5 = _bytes(told.sha256), _bytes(told.md5)
            file.remains = self._tree.garbage.get(told.remains) if told.remains is not None else None
        node.atime_ns, node.mtime_ns = told.atime_ns, told.mtime_ns
        node.unlinked, node.kernel_refs, node.home_ino = True, told.kernel_refs, told.home_ino
        node.xattrs = {bytes.fromhex(key): bytes.fromhex(value) for key, value in told.xattrs.items()}
        return node


def _bytes(told: str | None) -> bytes | None:
    return bytes.fromhex(told) if told is not None else None


def with_descriptors(left: Inheritance, fds: list[int]) -> Inheritance:
    """The same, where the bodies' descriptors have come to be *fds*, in their order."""
    for body, fd in zip(left.bodies, fds, strict=True):
        os.set_inheritable(fd, False)
        body.fd = fd
    return left


__all__ = ["Heir", "left_by", "why_not", "with_descriptors"]
