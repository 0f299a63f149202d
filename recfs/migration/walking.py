"""Walking an old tree: every name that is no directory, and every directory that is empty, whatever lies there.

Symbolic links are told and not followed, file systems that are mounted below are entered, and a directory that is
there twice (a bind mount) is walked once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from recfs.core.migration.claims import File
from recfs.core.migration.names import text_of
from recfs.core.migration.oldtree import hidden_link
from recfs.core.migration.plan import Action
from recfs.core.units import format_size
from recfs.core.upkeep.mount_points import points_below
from recfs.errors import InvalidArgument, IoFailure, NotADirectory, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

_SPECIAL: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_MOUNTS: Final = "/proc/self/mountinfo"
_PRIVATE: Final = b".recfs"
"""What the root of a store has, and no old tree."""
_BLOCK: Final = 512
"""Bytes of a block as stat(2) counts them."""
_HOLES: Final = 64 << 20
"""Holes of fewer bytes are no matter."""
_MOSTLY: Final = 8
"""A file of which less than this part was written is nearly all holes."""
_EXTENTS: Final = 10_000
"""So many pieces of a file are looked for."""


@dataclass(slots=True)
class Walk:
    """One walk; what it came by besides files is known when it is over."""

    old: bytes
    """Absolute path of the tree's top."""
    one_file_system: bool = False
    """Whether what is mounted below is left out."""
    folders: set[bytes] = field(default_factory=set)
    """Directories that could be read, by path below the top."""
    mounts: list[bytes] = field(default_factory=list)
    """Those that are mount points, or on another file system than the directory above them."""
    owners: dict[bytes, int] = field(default_factory=dict)
    """Uids of the directories in the top, by name."""
    _tops: dict[bytes, os.stat_result] = field(default_factory=dict)
    """These directories: all are looked at before anything in them is."""
    vanished: int = 0
    """Names that were gone when they were looked at."""
    _seen: dict[tuple[int, int], bytes] = field(default_factory=dict)
    _mount_points: frozenset[bytes] = frozenset()
    _stores: frozenset[int] = frozenset()
    """Device numbers of mounts of recfs, which are not entered."""
    _later: list[tuple[bytes, tuple[int, int]]] = field(default_factory=list)
    """Directories that are mount points: whatever else has the same directory has it in its own place."""

    def files(self) -> Iterator[File]:
        """All of it, in no order. Raises NotFound, NotADirectory or IoFailure where the top cannot be read."""
        try:
            top = os.stat(self.old)
            names = os.scandir(self.old)
        except FileNotFoundError:
            raise NotFound(f"{text_of(self.old)}: there is no such directory") from None
        except NotADirectoryError:
            raise NotADirectory(f"{text_of(self.old)} is no directory") from None
        except OSError as error:
            raise IoFailure(f"{text_of(self.old)} cannot be read: {error.strerror}") from None
        names.close()
        self._seen[top.st_dev, top.st_ino] = b"."
        self._mount_points = mounted_below(self.old)
        self._stores = store_devices()
        waiting = [(b"", (top.st_dev, top.st_ino))]
        while waiting or self._later:
            if not waiting:
                path, inode = self._later.pop(0)
                left = self._enter(path, inode, waiting)
                if left is not None:
                    yield left
                    continue
            path, inode = waiting.pop()
            yield from self._folder(path, inode, waiting)

    def _folder(
        self, path: bytes, inode: tuple[int, int], waiting: list[tuple[bytes, tuple[int, int]]]
    ) -> Iterator[File]:
        """One directory, whose names are held one at a time; those below it are put into *waiting*."""
        prefix = path + b"/" if path else b""
        found = 0
        try:
            fd = os.open(os.path.join(self.old, path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                now = os.fstat(fd)
                if (now.st_dev, now.st_ino) != inode:
                    yield File(path, 0, left=Action.UNREADABLE, reason="another directory came into its place")
                    return
                with os.scandir(fd) as names:
                    for name in names:
                        found += 1
                        yield from self._name(prefix + os.fsencode(name.name), name, fd, now.st_dev, waiting)
            finally:
                os.close(fd)
        except FileNotFoundError:
            self.vanished += 1
            return
        except OSError as error:
            yield File(path, 0, left=Action.UNREADABLE, reason=f"the directory cannot be read: {error.strerror}")
            return
        self.folders.add(path)
        if not found and path:
            yield File(path, 0, left=Action.SKIP, reason="an empty directory")

    def _name(
        self, path: bytes, name: os.DirEntry[str], fd: int, device: int, waiting: list[tuple[bytes, tuple[int, int]]]
    ) -> Iterator[File]:
        try:
            about = name.stat(follow_symlinks=False)
        except FileNotFoundError:
            self.vanished += 1
            return
        except OSError as error:
            yield File(path, 0, left=Action.UNREADABLE, reason=f"it cannot be looked at: {error.strerror}")
            return
        kind = stat.S_IFMT(about.st_mode)
        if kind == stat.S_IFDIR:
            inode = (about.st_dev, about.st_ino)
            if b"/" not in path:
                self.owners[path], self._tops[path] = about.st_uid, about
            if about.st_dev in self._stores:
                self.mounts.append(path)
                told = "a mount of recfs: what lies there is in a store already"
                yield File(path, 0, left=Action.UNREADABLE, reason=told)
                return
            if about.st_dev == device and path not in self._mount_points:
                left = self._enter(path, inode, waiting)
                if left is not None:
                    yield left
                return
            self.mounts.append(path)
            if self.one_file_system:
                yield File(path, 0, left=Action.SKIP, reason="another file system is mounted here")
            else:
                self._later.append((path, inode))
        elif kind == stat.S_IFREG:
            if told := hidden_link(about, self._tops.get(path.partition(b"/")[0])):
                yield File(path, about.st_size, about.st_mtime_ns, None, Action.AMBIGUOUS, told, about.st_uid)
                return
            readable = os.access(name.name, os.R_OK, dir_fd=fd, effective_ids=True)
            yield _regular(path, about, readable, _data_of(name.name, about, fd))
        elif kind == stat.S_IFLNK:
            yield File(path, about.st_size, about.st_mtime_ns, left=Action.UNREADABLE, reason=self._link(path))
        else:
            told = _SPECIAL.get(kind, "no regular file")
            yield File(path, 0, about.st_mtime_ns, left=Action.UNREADABLE, reason=told)

    def _enter(self, path: bytes, inode: tuple[int, int], waiting: list[tuple[bytes, tuple[int, int]]]) -> File | None:
        earlier = self._seen.setdefault(inode, path)
        if earlier != path:
            told = f"the same directory as {text_of(earlier)}, mounted here once more"
            return File(path, 0, left=Action.UNREADABLE, reason=told)
        waiting.append((path, inode))
        return None

    def _link(self, path: bytes) -> str:
        """What is to be said of a symbolic link; only its target's name is looked at."""
        whole = os.path.join(self.old, path)
        try:
            target = text_of(os.readlink(whole))
        except OSError as error:
            return f"a symbolic link that cannot be read: {error.strerror}"
        try:
            there = os.path.realpath(whole, strict=True)
        except OSError as error:
            return f"a symbolic link to {target}: {error.strerror}"
        if there == self.old or there.startswith(self.old.rstrip(b"/") + b"/"):
            return f"a symbolic link within the tree, to {target}"
        return f"a symbolic link out of the tree, to {target}"


def _regular(path: bytes, about: os.stat_result, readable: bool, data: int | None) -> File:
    inode = (about.st_dev, about.st_ino) if about.st_nlink > 1 else None
    if not readable:
        told = "this user may not read it"
    elif data is not None:
        told = (
            f"it is {format_size(about.st_size)} long, of which {format_size(data)} were written, and the rest would be"
            " copied as zeros; `cp --sparse=never` makes it a plain file"
        )
    else:
        return File(path, about.st_size, about.st_mtime_ns, inode, owner=about.st_uid)
    return File(path, about.st_size, about.st_mtime_ns, inode, Action.UNREADABLE, told, about.st_uid)


def _data_of(name: str | bytes, about: os.stat_result, folder: int | None = None) -> int | None:
    """How many bytes of a file were written, of one that is nearly all holes (lseek(2), SEEK_DATA); else None.

    `truncate` makes one of any length in no time. Blocks alone prove nothing: some file systems tell none.
    """
    size = about.st_size
    if size - about.st_blocks * _BLOCK < _HOLES or about.st_blocks * _BLOCK * _MOSTLY >= size:
        return None
    at = data = 0
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            for _ in range(_EXTENTS):
                begin = os.lseek(fd, at, os.SEEK_DATA)
                at = os.lseek(fd, begin, os.SEEK_HOLE)
                data += at - begin
                if data * _MOSTLY >= size:
                    return None
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno != errno.ENXIO:  # no data follows
            return None
    return data


def file_at(path: bytes) -> File | None:
    """The regular file at an absolute path; None where there is none."""
    try:
        about = os.lstat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(about.st_mode):
        return None
    return _regular(path, about, os.access(path, os.R_OK, effective_ids=True), _data_of(path, about))


def mounted_below(top: bytes, table: str = _MOUNTS) -> frozenset[bytes]:
    """The mount points below a directory, as paths below it (proc_pid_mountinfo(5)); none where nobody says."""
    return points_below(_mounts(table), top)


def store_devices(table: str = _MOUNTS) -> frozenset[int]:
    """Device numbers of the mounts of recfs: st_dev of all that lies there, by whatever path (bind mounts)."""
    lines = (line for line in _mounts(table) if b" - fuse.recfs " in line)
    return frozenset(os.makedev(*map(int, line.split(b" ")[2].split(b":"))) for line in lines)


def _mounts(table: str) -> list[bytes]:
    try:
        with open(table, "rb") as file:
            return file.readlines()
    except OSError:
        return []


def top_of(old: bytes) -> bytes:
    """The real path of an old tree's top, which paths are told by.

    Raises InvalidArgument for the root of all, for a store, a mount of one, and what lies in either.
    """
    found = os.path.realpath(old)
    if found == b"/":
        raise InvalidArgument("/ is the root of this machine's files, and no old tree")
    above = found
    while above != b"/":
        if os.path.isdir(os.path.join(above, _PRIVATE)):
            raise InvalidArgument(f"{text_of(old)} lies in the store at {text_of(above)}, and is no old tree")
        above = os.path.dirname(above)
    with contextlib.suppress(OSError):  # what is not there is told by the walk
        if os.stat(found).st_dev in store_devices():
            raise InvalidArgument(f"{text_of(old)} lies in a mount of recfs, and is no old tree")
    return found


__all__ = ["Walk", "file_at", "top_of"]
