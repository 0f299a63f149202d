"""A user's view of the mount for everything that is not the kernel: by path, checked by mode bits, told to the kernel.

For whatever acts for a user and is not the kernel: so it does not decide for itself who may do what, and no program on
the mount sees old names or pages. recfs's own rules, quotas and events are those of `Vfs`, which every change passes
through.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from recfs.core.bounds import MAX_ID, MAX_INT, end_of
from recfs.core.permissions import (
    READ,
    SEARCH,
    WRITE,
    allows,
    may_give,
    mode_given,
    owns,
)
from recfs.errors import (
    AccessDenied,
    Exists,
    InvalidArgument,
    InvalidPath,
    IsADirectory,
    NotADirectory,
    NotPermitted,
    NotSupported,
    RecfsError,
    Stale,
    TryAgain,
)
from recfs.fs.caller import Caller, may_add, may_take
from recfs.fs.fallback_entries import FallbackEntry
from recfs.fs.session.paths import At, Place, Where, find, find_name
from recfs.fs.session.stats import Entry, Stat, is_committed, stat_of
from recfs.fs.session.streams import Reader, Writer
from recfs.state.nodes import DirNode, FileNode, LinkNode, Node

if TYPE_CHECKING:
    from recfs.core.permissions import Identity
    from recfs.fs.attributes import Changes
    from recfs.fs.vfs import Vfs
    from recfs.ports.kernel import KernelCache

KERNEL_FLUSH_S = 5.0
"""How long a change waits at most until the kernel knows of it: it may be busy with the very directory."""
TRIES: Final = 3
"""How often a path is walked whose end has become another one meanwhile."""
_NAME_KEPT: Final = 200
Result = TypeVar("Result")


class Sessions:
    """Gives each identity its `Session`."""

    def __init__(self, vfs: Vfs, kernel: KernelCache, operators: frozenset[int]) -> None:
        self._vfs = vfs
        self._kernel = kernel
        self._operators = operators

    def of(self, who: Identity) -> Session:
        """What *who* does, and may do."""
        return Session(self._vfs, self._kernel, who, operator=who.uid in self._operators)


class Session:
    """What one identity does."""

    def __init__(self, vfs: Vfs, kernel: KernelCache, who: Identity, *, operator: bool) -> None:
        self._vfs = vfs
        self._kernel = kernel
        self.who = who
        self._caller = Caller(who.uid, who.gid, who.umask, operator, who=who, by_place=True)

    # --- looking -------------------------------------------------------------------------------------------------

    async def stat(self, path: Where, *, follow_link: bool = True) -> Stat:
        """Attributes (stat(2); lstat(2) without *follow_link*). Raises FsError."""
        return stat_of(self._vfs.tree, (await self._find(path, follow_link=follow_link)).found(), self.who)

    async def list(self, path: Where, after: int = 0, limit: int = 1000) -> list[Entry]:
        """Up to *limit* entries in order of inode number, beyond *after*; none at the end.

        The next ones come after the last one's `stat.ino`: what is added or removed meanwhile shows none twice and
        skips none that stays. Raises FsError.
        """
        if not 0 <= after <= MAX_INT:
            raise InvalidArgument(f"{after} is no inode number")
        place = await self._find(path)
        folder = place.found()
        if not isinstance(folder, DirNode):
            raise NotADirectory(f"{place.path} is not a directory")
        self._allow(folder, READ | SEARCH, place)
        listings = self._vfs.listings
        number = await listings.open(folder.ino)
        found: list[Entry] = []
        try:
            while len(found) < limit and (page := await listings.read(number, after)):
                found += [
                    Entry(each.name, stat_of(self._vfs.tree, each, self.who)) for each in page[: limit - len(found)]
                ]
                after = found[-1].stat.ino
        finally:
            listings.release(number)
        return found

    async def readlink(self, path: Where) -> bytes:
        """readlink(2)."""
        return await self._vfs.readlink((await self._find(path, follow_link=False)).found().ino)

    @contextlib.asynccontextmanager
    async def reader(self, path: Where, *, committed: bool = False) -> AsyncIterator[Reader]:
        """Open a file for reading.

        *committed*: only bytes that recfs vouches for, from the first to the last: by their checksum; of a file in S3
        by the ETag of the version that was confirmed, until all of it is here. TryAgain while the file is being
        written, Stale as soon as it is changed under the reader.
        """

        async def opened() -> int:
            place = await self._find(path)
            seen = place.found()
            self._allow(seen, READ, place)
            node = seen.shared if isinstance(seen, FallbackEntry) else seen
            if committed and isinstance(node, FileNode) and not is_committed(node):
                raise TryAgain(f"{place.path} is {node.state}")
            return await self._vfs.open(seen.ino, os.O_RDONLY, self._caller)

        number = await _again(opened)
        try:
            yield Reader(self._vfs, number, committed=committed)
        finally:
            with trio.CancelScope(shield=True):
                await self._vfs.files.release(number)

    # --- changing ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def writer(self, path: Where, *, mode: int = 0o666, exclusive: bool = False) -> AsyncIterator[Writer]:
        """Write a file that comes to its name when it is whole, in place of what is there, or not at all.

        Until the block ends it lies beside that under a temporary name; when the block raises, it is removed. With
        *exclusive* nothing is replaced: Exists. What replaces a file is a new one: of the mode that is asked for here,
        this identity's, and without the other's attributes. Raises FsError; Stale where something else has come to the
        temporary name; with `At` InvalidPath or Exists where a symbolic link has the name.
        """
        place = await self._new(path, replaces=not exclusive, follow_link=not exclusive)
        if place.slashed or isinstance(place.seen, DirNode):
            raise IsADirectory(f"{place.path} is a directory")
        name = b".%s.%s.part" % (place.name[:_NAME_KEPT], secrets.token_hex(4).encode())
        aside = Place(place.folder, name, None)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        number, node = await self._vfs.create(aside.folder.ino, name, mode & ~self.who.umask, flags, self._caller)
        file = Writer(self._vfs, number)
        over = _is_no_link if isinstance(path, At) else None
        try:
            try:
                yield file
                self._vfs.files.flush(number)
            finally:
                with trio.CancelScope(shield=True):
                    await self._vfs.files.release(number)
            file.check()
            place = await self._new(path, replaces=not exclusive, follow_link=not exclusive)  # it may be another by now
            replaced = await self._vfs.rename(
                node.parent.ino, node.name, place.folder.ino, place.name, self._caller,
                noreplace=exclusive, only=node, over=over,
            )  # fmt: skip
        except BaseException:
            with trio.CancelScope(shield=True), contextlib.suppress(RecfsError):
                if node.name == name and not node.unlinked:  # a rename that was cancelled may be done
                    await self._vfs.unlink(node.parent.ino, name, self._caller._replace(who=None))  # allowed or not
            self._forget(place, replaced=place.seen)
            raise
        finally:
            self._forget(aside)
        await self._flush(place, replaced=replaced)

    async def create(self, path: Where, mode: int = 0o666, *, mark: bytes = b"") -> None:
        """Make an empty file (open(2) with O_CREAT and O_EXCL): Exists where anything has the name.

        *mark*: an attribute of recfs's own that it has from the beginning; users see and set those of `user.` alone.
        """
        place = await self._new(path, replaces=False)
        if place.slashed:
            raise IsADirectory(f"{place.path} is to be a directory, as it ends in /")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        number, node = await self._vfs.create(
            place.folder.ino, place.name, mode & ~self.who.umask, flags, self._caller
        )  # fmt: skip
        if mark:  # before it is closed: whoever is told of its commit finds it
            node.xattrs = {**(node.xattrs or {}), mark: b""}
            self._vfs.behind.xattr(node.ino, mark, b"")
            self._vfs.behind.node(node)
        with trio.CancelScope(shield=True):
            await self._vfs.files.release(number)
        await self._flush(place)

    async def mkdir(self, path: Where, mode: int = 0o777) -> int:
        """mkdir(2); the inode number of what was made, whoever has given its name to something else since."""
        place = await self._new(path, replaces=False)
        made = await self._vfs.mkdir(place.folder.ino, place.name, mode & ~self.who.umask, self._caller)
        await self._flush(place)
        return made.ino

    async def symlink(self, target: bytes, path: Where) -> None:
        """symlink(2)."""
        place = await self._new(path, replaces=False)
        if place.slashed:
            place.found()
        await self._vfs.symlink(place.folder.ino, place.name, target, self._caller)
        await self._flush(place)

    async def remove(self, path: Where, *, only: int | None = None) -> None:
        """unlink(2) of a file or link, rmdir(2) of a directory. *only*: that file alone, by inode number; or Stale."""
        place = await self._leaving(path)
        seen = place.found()
        if isinstance(seen, DirNode):
            if only is not None:
                raise IsADirectory(f"{place.path} is a directory")
            await self._vfs.rmdir(place.folder.ino, place.name, self._caller)
        else:
            await self._vfs.unlink(place.folder.ino, place.name, self._caller, only=only)
        await self._flush(place, gone=seen.ino)

    async def rename(
        self, old: Where, new: Where, *, noreplace: bool = False, exchange: bool = False,
        over: Collection[tuple[int, bytes]] | None = None, check: Callable[[Node], None] | None = None,
    ) -> None:  # fmt: skip
        """rename(2), renameat2(2) with RENAME_NOREPLACE or RENAME_EXCHANGE.

        *over*: what alone may be replaced, as inode numbers and checksums of committed files; Exists where something
        else is there when it comes to that. *check*: raises what is against it (not of an exchange), asked of what is
        moved when it is, with nothing in between.
        """
        source = await self._leaving(old)
        target = await (self._leaving(new) if exchange else self._new(new, replaces=not noreplace))
        if target.slashed and not isinstance((target if exchange else source).seen, DirNode):
            raise NotADirectory(f"{target.path} is to be a directory, as it ends in /")
        try:
            replaced = await self._vfs.rename(
                source.folder.ino, source.name, target.folder.ino, target.name, self._caller,
                noreplace=noreplace, exchange=exchange, over=None if over is None else lambda node: _is_one(node, over),
                check=check,
            )  # fmt: skip
        except BaseException:  # one that was cancelled may be done
            self._forget(target, replaced=target.seen)
            raise
        finally:
            self._forget(source)
        await self._flush(target, replaced=replaced)

    async def change(self, path: Where, changes: Changes, *, follow_link: bool = True) -> Stat:
        """chmod(2), chown(2), truncate(2), utimensat(2), in one.

        Raises FsError: InvalidArgument or FileTooLarge for what no caller of the kernel could ask for, NotSupported for
        the mode of a link.
        """
        _check(changes)
        place = await self._find(path, follow_link=follow_link)
        seen = place.found()
        if not may_give(seen, self.who, changes.uid, changes.gid):
            raise NotPermitted(f"{place.path}: user {self.who.uid} may not give it away")
        if (changes.mode, changes.atime_ns, changes.mtime_ns) != (None, None, None) and not owns(seen, self.who):
            raise NotPermitted(f"{place.path} is not user {self.who.uid}'s")
        if changes.size is not None:
            self._allow(seen, WRITE, place)
        if changes.mode is not None:
            if isinstance(seen, LinkNode):
                raise NotSupported(f"{place.path}: the mode of a symbolic link is never looked at")
            group = seen.gid if changes.gid is None else changes.gid
            changes = replace(changes, mode=mode_given(changes.mode, group, self.who))
        changed = await self._vfs.setattr(seen.ino, changes, self._caller)
        self._kernel.forget_inode(seen.ino)
        await self._flush(place)
        return stat_of(self._vfs.tree, changed, self.who)

    # --- who may -------------------------------------------------------------------------------------------------

    async def _find(self, path: Where, *, follow_link: bool = True) -> Place:
        return await find(self._vfs, path, self.who, follow=follow_link)

    async def _new(self, path: Where, *, replaces: bool, follow_link: bool = False) -> Place:
        """Where a name is to come."""
        place = await (find if follow_link else find_name)(self._vfs, path, self.who)
        if not place.name:
            raise Exists(f"{place.path or '/'} is a directory")
        may_add(place.folder, self._caller)
        if place.seen is None:
            return place
        if not replaces:
            raise Exists(f"{place.path} exists")
        may_take(place.folder, place.seen, self._caller)
        return place

    async def _leaving(self, path: Where) -> Place:
        """A name that is to go."""
        place = await find_name(self._vfs, path, self.who)
        if not place.name:
            shown = place.path if isinstance(path, At) else os.fsdecode(os.fsencode(path))
            raise InvalidPath(f"{shown!r} names no entry that could go")
        seen = place.found()
        may_take(place.folder, seen, self._caller)
        if place.slashed and not isinstance(seen, DirNode):
            raise NotADirectory(f"{place.path} is not a directory")
        return place

    def _allow(self, seen: Node | FallbackEntry, wanted: int, place: Place) -> None:
        if not allows(seen, self.who, wanted, is_dir=isinstance(seen, DirNode)):
            raise AccessDenied(f"{place.path or '/'}: not for user {self.who.uid}")

    # --- telling the kernel --------------------------------------------------------------------------------------

    def _forget(self, place: Place, gone: int = 0, replaced: Node | FallbackEntry | None = None) -> None:
        if place.name:
            self._kernel.forget_entry(place.folder.ino, place.name, gone)
        self._kernel.forget_inode(place.folder.ino)  # its times, and the names that it has kept
        if isinstance(replaced, Node) and replaced.unlinked:
            self._kernel.forget_inode(replaced.ino)  # who has it open is to see that it has no name any more

    async def _flush(self, place: Place, *, gone: int = 0, replaced: Node | None = None) -> None:
        self._forget(place, gone, replaced)
        with trio.move_on_after(KERNEL_FLUSH_S):
            await self._kernel.flush()


def _is_no_link(node: Node) -> bool:
    return not isinstance(node, LinkNode)


def _is_one(node: Node, files: Collection[tuple[int, bytes]]) -> bool:
    """Whether it is one of these files, and committed with the checksum that stands beside it. Atomic."""
    return isinstance(node, FileNode) and is_committed(node) and (node.ino, node.sha256) in files


def _check(changes: Changes) -> None:
    for number in (changes.uid, changes.gid):
        if number is not None and not 0 <= number <= MAX_ID:
            raise InvalidArgument(f"{number} is no user or group")
    if changes.size is not None:
        end_of(0, changes.size)


async def _again(act: Callable[[], Awaitable[Result]]) -> Result:
    """Do what finds a path that has come to name another file in between: as the kernel does, walk again."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(Stale):
            return await act()
    return await act()


__all__ = ["Session", "Sessions"]
