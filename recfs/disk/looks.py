"""A look at a directory of the home tree, in a thread: what lies in it now, and a watch on what comes."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from recfs.core.foreign import Seen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from recfs.disk.inotify import Watches
    from recfs.stores.local import LocalStore

_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def seen(info: os.stat_result) -> Seen:
    """What counts of lstat(2)."""
    return Seen(
        info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_nlink, info.st_uid,
        info.st_gid,
    )  # fmt: skip


def look(
    store: LocalStore, watches: Watches | None, ino: int, path: bytes, home_ino: int | None,
    names: Iterable[bytes] | None,
) -> dict[bytes, Seen] | None:  # fmt: skip
    """What lies in the directory at *path*, by name: of *names*, or (None) all. The watch is there before the look.

    None where there is no directory, or another one than *home_ino*. Raises OSError.
    """
    try:
        fd = store.open_file(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        raise
    found: dict[bytes, Seen] = {}
    try:
        if home_ino is not None and os.fstat(fd).st_ino != home_ino:
            return None
        if watches is not None:
            watches.add(ino, fd)
        if names is None:
            with os.scandir(fd) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        found[os.fsencode(entry.name)] = seen(entry.stat(follow_symlinks=False))
        else:
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    found[name] = seen(os.stat(name, dir_fd=fd, follow_symlinks=False))
    finally:
        os.close(fd)
    return found


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


__all__ = ["look", "look_all", "seen"]
