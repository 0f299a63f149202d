"""A look at a directory of the home tree, in a thread: what lies in it now, and a watch on what comes."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from recfs.core.foreign import Seen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recfs.disk.watching.inotify import Watches
    from recfs.stores.local import LocalStore

_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def seen(info: os.stat_result) -> Seen:
    """What counts of lstat(2)."""
    return Seen(
        info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_nlink, info.st_uid,
        info.st_gid,
    )  # fmt: skip


def _open(store: LocalStore, path: bytes, home_ino: int | None) -> int | None:
    """A descriptor of the directory at *path*; None where there is none, or another than *home_ino*. Raises OSError."""
    try:
        fd = store.open_file(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        raise
    try:
        if home_ino is None or os.fstat(fd).st_ino == home_ino:
            return fd
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return None


def look(
    store: LocalStore, watches: Watches | None, ino: int, path: bytes, home_ino: int | None,
    names: Iterable[bytes] | None,
) -> dict[bytes, Seen] | None:  # fmt: skip
    """What lies in the directory at *path*, by name: of *names*, or (None) all. The watch is there before the look.

    None where there is no directory, or another one than *home_ino*. Raises OSError.
    """
    fd = _open(store, path, home_ino)
    if fd is None:
        return None
    found: dict[bytes, Seen] = {}
    try:
        if watches is not None:
            watches.add(ino, fd)
        if names is None:
            with os.scandir(fd) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        found[os.fsencode(entry.name)] = seen(entry.stat(follow_symlinks=False))
        else:
            for name in names:
                try:
                    found[name] = seen(os.stat(name, dir_fd=fd, follow_symlinks=False))
                except FileNotFoundError:
                    continue
    finally:
        os.close(fd)
    return found


class AtHand:
    """A directory that is kept open while some of its entries are looked at, each by itself. To be closed.

    It stays the directory it was, whoever renames it meanwhile: so what is found in it is true of its row.
    """

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._fd: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was found."""
        return self._fd is not None

    def open(self, path: bytes, home_ino: int | None) -> None:
        """Open it, if it lies at *path*. Raises OSError."""
        self._fd = _open(self._store, path, home_ino)

    def seen(self, name: bytes) -> Seen | None:
        """What is called *name* in the directory; None: nothing is, or there is no such directory. Raises OSError."""
        if self._fd is None:
            return None
        try:
            return seen(os.stat(name, dir_fd=self._fd, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def is_covered(self, name: bytes) -> bool:
        """Whether something else is mounted on what is called *name*: what was seen is no part of the store then."""
        return self._fd is not None and self._store.beneath.is_mounted_on(self._fd, name)

    def open_file(self, name: bytes) -> int:
        """open(2) for reading, of what was seen before. Neither follows a link nor waits. Raises OSError."""
        if self._fd is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY, dir_fd=self._fd)

    def close(self) -> None:
        """Let go of it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def look_all(
    store: LocalStore, watches: Watches | None, wanted: Iterable[tuple[int, bytes, int | None]]
) -> list[dict[bytes, Seen] | OSError | None]:
    """`look` at all of several directories (inode number, path, home_ino); or the error instead."""
    found: list[dict[bytes, Seen] | OSError | None] = []
    for ino, path, home_ino in wanted:
        try:
            found.append(look(store, watches, ino, path, home_ino, None))
        except OSError as error:
            found.append(error)
    return found


__all__ = ["AtHand", "look", "look_all", "seen"]
