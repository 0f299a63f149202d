"""From a path to what it names, for an identity: each directory on the way has to let it through.

Symbolic links are followed inside the mount; where one leads out of it only the kernel could go on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.layout import NAME_MAX_BYTES, PATH_MAX_BYTES
from recfs.core.permissions import SEARCH, allows, may_follow
from recfs.errors import AccessDenied, InvalidPath, NameTooLong, NotADirectory, NotFound, OtherDevice, Stale
from recfs.state.nodes import DirNode, LinkNode

if TYPE_CHECKING:
    from recfs.core.permissions import Identity
    from recfs.fs.fallback_entries import FallbackEntry
    from recfs.fs.vfs import Vfs
    from recfs.state.nodes import Node

MAX_LINKS = 40
"""As path_resolution(7)."""


class At(NamedTuple):
    """A name in a directory that was found before, as openat(2) takes it with O_NOFOLLOW.

    It means that directory, whatever its path leads to by now, and what has the name in it, never what a symbolic link
    there leads to: for whoever writes for somebody else, who may plant links and rename directories meanwhile.
    """

    folder: int
    """Inode number."""
    name: bytes = b""
    """Empty: the directory itself."""


Where = str | bytes | At
"""A path from the mount's root, or a name in a directory."""


@dataclass(frozen=True, slots=True)
class Place:
    """A name in a directory, and what is there."""

    folder: DirNode
    name: bytes
    """Empty for the root, and for a path that ends in `.` or `..`: these can be looked at, not made or removed."""
    seen: Node | FallbackEntry | None
    slashed: bool = False
    """Whether a `/` follows the name: only a directory is meant."""

    @property
    def path(self) -> str:
        """For messages."""
        return f"{self.folder.path}/{os.fsdecode(self.name)}".strip("/")

    def found(self) -> Node | FallbackEntry:
        """What is there. Raises NotFound."""
        if self.seen is None:
            raise NotFound(f"{self.path}: no such file or directory")
        return self.seen


async def find(vfs: Vfs, path: Where, who: Identity, *, follow: bool = True) -> Place:
    """Walk a path from the mount's root. *follow*: also a symbolic link at its end; `At` raises InvalidPath for one.

    Raises NotFound (a directory on the way is not there), NotADirectory, AccessDenied, NameTooLong, InvalidPath
    (too many links, a NUL, no bytes for a character) or OtherDevice (a link leads out of the mount).
    """
    if isinstance(path, At):
        place = await _at(vfs, path, who)
        if follow and isinstance(place.seen, LinkNode):
            raise InvalidPath(f"{place.path}: a symbolic link, and none is followed there")
        return place
    return await _walk(vfs, _raw(path), who, follow=follow)


async def find_name(vfs: Vfs, path: Where, who: Identity) -> Place:
    """Walk to a name that is to come or to go: what is there is not followed, and need not be a directory.

    A `/` after it is told of alone: what mkdir(2), unlink(2) and rename(2) make of that differs. Raises like `find`.
    """
    if isinstance(path, At):
        return await _at(vfs, path, who)
    raw = _raw(path)
    name = raw.rstrip(b"/")
    return replace(await _walk(vfs, name, who, follow=False), slashed=name != raw)


def _raw(path: str | bytes) -> bytes:
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InvalidPath(f"{path!r}: a character that no file name has") from error
    if b"\0" in raw:
        raise InvalidPath(f"{os.fsdecode(raw)!r}: a NUL is in no name")
    if len(raw) > PATH_MAX_BYTES:
        raise NameTooLong(f"a path of {len(raw)} bytes; at most {PATH_MAX_BYTES} are allowed")
    return raw


async def _at(vfs: Vfs, at: At, who: Identity) -> Place:
    folder = await vfs.tree.directory(at.folder)
    if folder.unlinked:
        raise Stale(f"{folder.path} was removed")
    if not at.name:
        return Place(folder, b"", folder)
    if at.name in (b".", b"..") or b"/" in at.name or b"\0" in at.name:
        raise InvalidPath(f"{os.fsdecode(at.name)!r} is no name in a directory")
    if not allows(folder, who, SEARCH, is_dir=True):
        raise AccessDenied(f"{folder.path or '/'}: not for user {who.uid}")
    if len(at.name) > NAME_MAX_BYTES:
        raise NameTooLong(f"{os.fsdecode(at.name[:40])}…")
    return Place(folder, at.name, await vfs.lookup(folder.ino, at.name))


async def _walk(vfs: Vfs, raw: bytes, who: Identity, *, follow: bool) -> Place:
    ahead = raw.split(b"/")[::-1]
    place = Place(vfs.tree.root, b"", vfs.tree.root)
    links = 0
    while ahead:
        name = ahead.pop()
        if not name:
            if place.seen is not None:
                _folder(place)
            place = replace(place, slashed=True)
            continue
        folder = _folder(place)
        if name == b".":
            place = Place(folder, b"", folder)
            continue
        if not allows(folder, who, SEARCH, is_dir=True):
            raise AccessDenied(f"{folder.path or '/'}: not for user {who.uid}")
        if name == b"..":
            place = Place(folder.parent, b"", folder.parent)
            continue
        if len(name) > NAME_MAX_BYTES:
            raise NameTooLong(f"{os.fsdecode(name[:40])}…")
        place = Place(folder, name, await vfs.lookup(folder.ino, name))
        if isinstance(place.seen, LinkNode) and (follow or ahead):
            links += 1
            target = place.seen.target
            if not may_follow(folder, place.seen, who):
                raise AccessDenied(f"{place.path}: a link of user {place.seen.uid}'s in a directory open to all")
            if links > MAX_LINKS:
                raise InvalidPath(f"{os.fsdecode(raw)}: too many levels of symbolic links")
            if target.startswith(b"/"):
                raise OtherDevice(f"{place.path}: leads out of the mount, to {os.fsdecode(target)}")
            ahead += target.split(b"/")[::-1]
            place = Place(folder, b"", folder)
    return place


def _folder(place: Place) -> DirNode:
    seen = place.found()
    if not isinstance(seen, DirNode):
        raise NotADirectory(f"{place.path} is not a directory")
    return seen
