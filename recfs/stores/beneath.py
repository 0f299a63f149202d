"""Paths below a root directory, of any length, resolved by directory descriptors (openat(2) and friends).

No symbolic link is ever followed: directories below the root may belong to users, who could plant one. No mount point
is crossed (EXDEV): what is mounted in the tree is no part of it (`stores/mounted.py`). A path may be longer than
PATH_MAX, which only bounds what one system call is given: it is walked in pieces then.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import struct
from collections.abc import Iterator
from typing import Final

PATH_MAX: Final = 4096
"""Bytes of a path in one system call, its NUL included (linux/limits.h)."""

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_held_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_statx = ctypes.CDLL(None, use_errno=True).statx
_AT_SYMLINK_NOFOLLOW, _STATX_BTIME = 0x100, 0x800
_STATX_BYTES, _BTIME_AT = 256, 80
_SYS_OPENAT2: Final = 437
_RESOLVE_NO_XDEV, _RESOLVE_NO_SYMLINKS, _RESOLVE_CACHED = 0x01, 0x04, 0x20
_BENEATH: Final = _RESOLVE_NO_XDEV | _RESOLVE_NO_SYMLINKS
_FILE: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ANYTHING: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_BY_STEPS: Final = (errno.ENOSYS, errno.EAGAIN, errno.EINVAL)
"""What openat2(2) says where the path has to be walked in another way."""
_HOW_BYTES: Final = 24
_NOTHING: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What looking up a path says where a directory on the way is none, or nothing is."""


@functools.cache
def _how(flags: int, resolve: int) -> bytes:
    """struct open_how of openat2(2)."""
    return struct.pack("=QQQ", flags, 0, resolve)


@functools.cache
def _how_cached(flags: int) -> bytes:
    # O_NONBLOCK: the open of a FIFO comes back at once. Regular files know it only where somebody holds a lease.
    return _how(flags | _FILE | os.O_NONBLOCK, _BENEATH | _RESOLVE_CACHED)


class Beneath:
    """One root directory, open. Paths are given in full, as they start with the root's."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.fd = -1
        self._start = len(root) + 1
        self._kept: dict[bytes, int] = {}
        self._openat2 = True

    def open(self, kept: tuple[bytes, ...]) -> None:
        """Open the root, and directories in it that are used all the time. Raises OSError."""
        self.fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for folder in kept:
            self._kept[folder] = os.open(folder, _FOLDER)

    def close(self) -> None:
        """Close them."""
        for fd in self._kept.values():
            os.close(fd)
        self._kept.clear()
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    # --- opening -------------------------------------------------------------------------------------------------

    def open_at(self, path: bytes, flags: int) -> int:
        """open(2) of a path below the root. Does not wait for whoever reads or writes a FIFO that stands there."""
        inside = path[len(self.root) + 1 :]
        flags |= _FILE
        if len(inside) < PATH_MAX and self._openat2:
            number = self._try(self.fd, inside, flags | os.O_NONBLOCK)
            if number >= 0:
                return number
            if -number not in _BY_STEPS:
                raise OSError(-number, os.strerror(-number), os.fsdecode(path))
            self._openat2 = -number != errno.ENOSYS
        with self.folder(path) as (folder, name):
            return self._step(folder, name, flags)

    def open_cached(self, path: bytes, flags: int) -> int | None:
        """`open_at` if the kernel can do it without waiting for the disk (RESOLVE_CACHED); None when it cannot."""
        inside = path[self._start :]
        if len(inside) >= PATH_MAX or not self._openat2:
            return None
        # What does not wait need not give the interpreter away, to wait for it afterwards.
        fd: int = _held_syscall(_SYS_OPENAT2, self.fd, inside, _how_cached(flags), _HOW_BYTES)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in _BY_STEPS:
            raise OSError(number, os.strerror(number), os.fsdecode(path))
        self._openat2 = number != errno.ENOSYS
        return None

    def _try(self, folder: int, inside: bytes, flags: int) -> int:
        """openat2(2): a descriptor, or the error number below zero."""
        how = _how(flags, _BENEATH)
        fd: int = _syscall(_SYS_OPENAT2, folder, inside, how, len(how))
        return fd if fd >= 0 else -ctypes.get_errno()

    @staticmethod
    def _step(folder: int, name: bytes, flags: int) -> int:
        """Open a name in a directory, without a second look at how one gets there."""
        return os.open(name, flags, dir_fd=folder)

    # --- directories ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def folder(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """(descriptor, name): the directory that a path is in, for the calls that take a `dir_fd`. Raises OSError."""
        head, _, name = path.rpartition(b"/")
        kept = self.kept(head)
        if kept is not None:
            yield kept, name
            return
        fd = self.directory(head)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def kept(self, folder: bytes) -> int | None:
        """The descriptor of a directory that is open all the time, as the root is; None for others."""
        return self.fd if len(folder) <= len(self.root) else self._kept.get(folder)

    def directory(self, path: bytes) -> int:
        """A descriptor (O_PATH) of a directory below the root. Raises OSError."""
        rest = path[len(self.root) + 1 :]
        here = self.fd
        try:
            while True:
                piece, rest = self._piece(rest)
                fd = self._try(here, piece, _FOLDER) if self._openat2 else -errno.ENOSYS
                if -fd in _BY_STEPS:
                    self._openat2 = self._openat2 and -fd != errno.ENOSYS
                    fd = self._by_name(here, piece)
                elif fd < 0:
                    raise OSError(-fd, os.strerror(-fd), os.fsdecode(path))
                before, here = here, fd
                if before != self.fd:
                    os.close(before)
                if not rest:
                    return here
        except BaseException:
            if here != self.fd:
                os.close(here)
            raise

    @staticmethod
    def _piece(rest: bytes) -> tuple[bytes, bytes]:
        """As many names as one system call takes, and what is left."""
        if len(rest) < PATH_MAX:
            return rest, b""
        end = rest.rindex(b"/", 0, PATH_MAX - 1)
        return rest[:end], rest[end + 1 :]

    @staticmethod
    def _by_name(folder: int, piece: bytes) -> int:
        """Walk name by name, where the kernel has no openat2(2) (before Linux 5.6)."""
        here = folder
        try:
            for name in piece.split(b"/"):
                fd = os.open(name, _FOLDER, dir_fd=here)
                before, here = here, fd
                if before != folder:
                    os.close(before)
        except BaseException:
            if here != folder:
                os.close(here)
            raise
        return here

    # --- looking -------------------------------------------------------------------------------------------------

    def stat(self, path: bytes) -> os.stat_result | None:
        """lstat(2), or None where nothing is, or no directory on the way."""
        try:
            with self.folder(path) as (folder, name):
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NOTHING:
                return None
            raise

    def born_ns(self, path: bytes) -> int | None:
        """When what stands at a path came into being, by the machine's clock then (statx(2)); None: nobody knows."""
        about = ctypes.create_string_buffer(_STATX_BYTES)
        with self.folder(path) as (folder, name):
            failed = _statx(folder, name, _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, about)
        if failed or not struct.unpack_from("=I", about)[0] & _STATX_BTIME:
            return None
        seconds, nanoseconds = struct.unpack_from("=qI", about, _BTIME_AT)
        return int(seconds) * 10**9 + int(nanoseconds)

    def is_mount_point(self, path: bytes) -> bool:
        """Whether something else is mounted on a directory below the root, or further up; False where nobody knows."""
        try:
            os.close(self.directory(path))
        except OSError as error:
            return error.errno == errno.EXDEV
        return False

    @staticmethod
    def is_mounted_on(folder: int, name: bytes) -> bool:
        """Whether something else is mounted on what is called *name* in an open directory, a file or a directory;
        False where nobody knows (before Linux 5.6).
        """
        how = _how(_ANYTHING, _BENEATH)
        fd: int = _syscall(_SYS_OPENAT2, folder, name, how, len(how))
        if fd >= 0:
            os.close(fd)
            return False
        return ctypes.get_errno() == errno.EXDEV

    def walk(self, top: bytes) -> Iterator[tuple[bytes, int]]:
        """(path, inode number) of everything below a directory, at any depth. What cannot be listed is left out."""
        pending = [top]
        while pending:
            folder = pending.pop()
            below: list[bytes] = []
            with contextlib.suppress(OSError):
                fd = self.open_at(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    with os.scandir(fd) as entries:
                        for entry in entries:
                            path = folder + b"/" + os.fsencode(entry.name)
                            yield path, entry.inode()
                            if entry.is_dir(follow_symlinks=False):
                                below.append(path)
                finally:
                    os.close(fd)
            pending += below

    def entries(self, folder: bytes) -> dict[bytes, os.stat_result]:
        """lstat(2) of everything in a directory, by name; nothing where it is none. Raises OSError."""
        try:
            fd = self.open_at(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in _NOTHING:
                return {}
            raise
        found = {}
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        found[os.fsencode(entry.name)] = entry.stat(follow_symlinks=False)
        finally:
            os.close(fd)
        return found

    # --- changing ------------------------------------------------------------------------------------------------

    def rename(self, path: bytes, to: bytes) -> None:
        """rename(2) of a path below the root to another."""
        with self.folder(path) as (source, name), self.folder(to) as (target, new_name):
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)

    def sync(self, folder: bytes, *, attributes: bool = False) -> None:
        """fsync(2) of a directory; nothing where it is gone, whatever else may have its name or that of one above.

        *attributes*: those of its entries, too. A journal is committed up to the last change of what is synced, and a
        change of an entry's attributes is none of its directory; so the directory is changed after them (utimensat(2)).
        """
        try:
            fd = self.open_at(folder, os.O_RDONLY | os.O_DIRECTORY) if len(folder) > len(self.root) else os.dup(self.fd)
        except OSError as error:
            if error.errno in _NOTHING:
                return
            raise
        try:
            if attributes:
                with contextlib.suppress(OSError):  # not to be changed: then nothing in it has been
                    os.utime(fd)
            os.fsync(fd)
        finally:
            os.close(fd)


class Folders:
    """The directories that one thread works in, kept open from one call to the next: the entries of a batch mostly
    share them, and each walk costs two changes of the thread that runs.

    Whoever moves or removes a directory has to `forget` them, since their paths may mean others then.
    """

    LIMIT = 32

    def __init__(self, beneath: Beneath) -> None:
        self._beneath = beneath
        self._open: dict[bytes, int] = {}

    def of(self, path: bytes) -> tuple[int, bytes]:
        """(descriptor, name): the directory that a path is in, valid until `forget`. Raises OSError."""
        head, _, name = path.rpartition(b"/")
        fd = self._open.get(head)
        if fd is None:
            fd = self._beneath.kept(head)
        if fd is None:
            fd = self._open[head] = self._beneath.directory(head)
        return fd, name

    @property
    def are_many(self) -> bool:
        """Whether more are open than are to be."""
        return len(self._open) > self.LIMIT

    def trim(self) -> None:
        """Between two calls: close them if they have become many."""
        if self.are_many:
            self.forget()

    def forget(self) -> None:
        """Close them."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()
