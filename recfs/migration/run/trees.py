"""A tree of files that is walked name by name from its top: no symbolic link below is followed, whoever plants one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Self

from recfs.core.bounds import time_ns
from recfs.core.migration.escapes import escaped
from recfs.core.migration.steps import Seen
from recfs.errors import FsError, InvalidPath

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from recfs.errors import RecfsError

_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """One tree, while it is open. Paths are below the top, without a slash in front, or below a top elsewhere."""

    def __init__(self, top: bytes, elsewhere: Sequence[bytes] = ()) -> None:
        """Open *top*, which may be reached by links. Raises OSError.

        *elsewhere*: directories outside, of which absolute paths may be, by their real paths; there are no others.
        """
        self.top = top
        self._elsewhere = elsewhere
        self.fd = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._folder: tuple[bytes, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything."""
        self._leave()
        os.close(self.fd)

    def look(self, path: bytes) -> os.stat_result | None:
        """What lies at *path*, itself; None where nothing does. Raises InvalidPath, OSError."""
        try:
            folder, name = self._at(path)
            return os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            return None

    def open(self, path: bytes) -> tuple[int, Seen]:
        """Open a regular file to be read. Raises InvalidPath for anything else, FileNotFoundError, OSError."""
        folder, name = self._at(path)
        if not stat.S_ISREG(os.lstat(name, dir_fd=folder).st_mode):  # the open of a device may do something
            raise InvalidPath(f"{escaped(path)} is no regular file")
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise InvalidPath(f"{escaped(path)} is no regular file") from None
            raise
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise InvalidPath(f"{escaped(path)} is no regular file")
        return fd, seen_of(found)

    @contextlib.contextmanager
    def named(self, path: bytes) -> Iterator[str]:
        """A path by which what lies at *path* can be asked, itself, without opening it. Raises InvalidPath, OSError."""
        folder, name = self._at(path)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise InvalidPath(f"{escaped(path)} is a symbolic link")
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)

    def set_attribute(self, path: bytes, like: Seen, name: str, value: bytes) -> None:
        """Set an extended attribute of a regular file of that size. Raises InvalidPath for another file, OSError."""
        with self.named(path) as there:
            found = os.stat(there)
            if not stat.S_ISREG(found.st_mode) or found.st_size != like.size:
                raise InvalidPath(f"another file came to {escaped(path)}")
            os.setxattr(there, name, value)

    def unlink(self, path: bytes) -> None:
        """Remove a name. Raises InvalidPath, OSError."""
        folder, name = self._at(path)
        os.unlink(name, dir_fd=folder)

    def rmdir(self, path: bytes) -> bool:
        """Remove a directory if it is empty; whether that is so. Raises InvalidPath, OSError."""
        self._leave()
        try:
            folder, name = self._at(path)
            os.rmdir(name, dir_fd=folder)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                return False
            raise
        return True

    def link_from(self, other: Tree, source: bytes, target: bytes) -> None:
        """Give the file that lies at *source* in *other* a name here. Raises FileExistsError, InvalidPath, OSError."""
        there, name = other._at(source)
        here, new = self._at(target)
        os.link(name, new, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)

    def sync(self, path: bytes) -> None:
        """Have the names beside *path* survive a power cut. Raises OSError."""
        folder, _ = self._at(path)
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def give(self, path: bytes, owner: tuple[int, int]) -> None:
        """Give what lies at *path* to *owner*, uid and gid. Raises OSError."""
        folder, name = self._at(path)
        os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)

    def lacking(self, paths: Iterable[bytes]) -> set[bytes]:
        """The directories that *paths* take and that are not there; what cannot be looked at is left out."""
        found: set[bytes] = set()
        there: set[bytes] = set()
        for path in paths:
            parts = path.split(b"/")[:-1]
            above = [b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
            for depth, folder in enumerate(above):
                if folder in there:
                    continue
                try:
                    is_there = folder not in found and self.look(folder) is not None
                except (OSError, FsError):
                    break
                if not is_there:
                    found.update(above[depth:])
                    break
                there.add(folder)
        return found

    def make_parents(self, path: bytes, owner: tuple[int, int] | None = None) -> list[bytes]:
        """Make the directories that *path* takes; which were made. Raises InvalidPath where something is in the way.

        *owner*: whose they are to be, uid and gid; None leaves that to the file system. Raises OSError.
        """
        made: list[bytes] = []
        parts = path.split(b"/")[:-1]
        folder = b"/".join(parts)
        if not parts or (self._folder is not None and self._folder[0] == folder):
            return made
        self._leave()
        fd = self.fd
        for depth, name in enumerate(parts, 1):
            above = fd
            try:
                try:
                    os.mkdir(name, 0o777, dir_fd=above)
                except FileExistsError:
                    pass
                else:
                    made.append(b"/".join(parts[:depth]))
                    if owner is not None:
                        os.chown(name, *owner, dir_fd=above, follow_symlinks=False)
                fd = _entered(name, above, folder)
            finally:
                if above != self.fd:
                    os.close(above)
        self._folder = (folder, fd)
        return made

    def _at(self, path: bytes) -> tuple[int, bytes]:
        """The directory of *path*, open, and the last name."""
        parent, _, name = path.rpartition(b"/")
        if path.startswith(b"/"):
            self._leave()
            fd = self._walk_elsewhere(path, parent)
        elif not parent:
            return self.fd, name
        elif self._folder is not None and self._folder[0] == parent:
            return self._folder[1], name
        else:
            self._leave()
            fd = self._walk(self.fd, parent)
        self._folder = (parent, fd)
        return fd, name

    def _walk_elsewhere(self, path: bytes, parent: bytes) -> int:
        for top in self._elsewhere:
            if path.startswith(top + b"/"):
                fd = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                if parent == top:
                    return fd
                try:
                    return self._walk(fd, parent[len(top) + 1 :])
                finally:
                    os.close(fd)
        raise InvalidPath(f"{escaped(path)} lies outside the old tree, and below no --elsewhere of the plan")

    def _walk(self, top: int, folder: bytes) -> int:
        fd = top
        for name in folder.split(b"/"):
            try:
                inner = _entered(name, fd, folder)
            finally:
                if fd != top:
                    os.close(fd)
            fd = inner
        return fd

    def _leave(self) -> None:
        if self._folder is not None:
            os.close(self._folder[1])
            self._folder = None


def _entered(name: bytes, above: int, folder: bytes) -> int:
    try:
        return os.open(name, _WALK, dir_fd=above)
    except NotADirectoryError:
        raise InvalidPath(
            f"{escaped(name)} in {escaped(folder)} is a symbolic link or a file where a directory should be"
        ) from None


def seen_of(found: os.stat_result) -> Seen:
    """What counts of a look."""
    return Seen(found.st_size, mtime_of(found), found.st_dev, found.st_ino, time_ns(found.st_ctime_ns))


def mtime_of(found: os.stat_result) -> int:
    """The mtime in ns, in the range that a store keeps: other disks have times beyond it, which it brings into that."""
    return time_ns(found.st_mtime_ns)


def attributes_of(fd: int) -> frozenset[str]:
    """Names of the extended attributes of a file that are its users' (`user.*`), but for what recfs computes."""
    try:
        names = os.listxattr(fd)
    except OSError:
        return frozenset()
    return frozenset(name for name in names if name.startswith("user.") and not name.startswith("user.recfs."))


def reason_of(error: OSError | RecfsError) -> str:
    """What went wrong, for people, without the names that are told beside it."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


__all__ = ["Tree", "attributes_of", "mtime_of", "reason_of", "seen_of"]
