"""Stands for the C extension `recfs.stores._many` in tests: the same calls by functions of `os`, which can be watched
and made to fail (`component/faults.py`). `contract/test_many.py` holds both to the same.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat

from recfs.disk.commit import digests
from recfs.stores import many

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NOTHING = (0, 0, 0, 0, 0, 0, 0, None, None)
Read = tuple[int, int, int, int, int, int, int, int, bytes | None, bytes | None]


def _file(fd: int, how: int, buffer: memoryview) -> tuple[int, os.stat_result]:
    """How much of it was read into *buffer*, and what it is. Raises OSError."""
    if how & many.LEASE and digests.is_written(fd):  # type: ignore[attr-defined]  # where tests put another
        raise OSError(errno.ETXTBSY, "")
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, "")
    if info.st_size >= len(buffer):
        raise OSError(errno.EFBIG, "")
    if how & (many.SYNC_DATA | many.SYNC_WHOLE):
        (os.fsync if how & many.SYNC_WHOLE else os.fdatasync)(fd)
        info = os.fstat(fd)
    got = os.preadv(fd, [buffer], 0)
    if got == len(buffer):
        raise OSError(errno.EFBIG, "")
    return got, info


def read(root: int, paths: tuple[bytes, ...], how: bytes, buffer: memoryview, /) -> list[Read]:
    """As the extension's."""
    if len(paths) != len(how):
        raise ValueError("one byte of how for each path")
    done: list[Read] = []
    at = 0
    for path, each in zip(paths, how, strict=True):
        try:
            fd = _open(root, path)
            try:
                got, info = _file(fd, each, buffer[at:])
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno == errno.EFBIG and at:
                break
            done.append((error.errno or errno.EIO, *_NOTHING))
        else:
            content = buffer[at : at + got]
            hashes = (
                hashlib.sha256(content).digest(),
                hashlib.md5(content, usedforsecurity=False).digest() if each & many.MD5 else None,
            )
            done.append((0, at, got, info.st_ino, info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, *hashes))
            at += got
    return done


def _open(root: int, path: bytes) -> int:
    """open(2) below *root* that follows no link, name by name. Raises OSError."""
    if len(path) >= os.pathconf("/", "PC_PATH_MAX"):
        raise OSError(errno.ENAMETOOLONG, "")
    *folders, name = path.split(b"/")
    with contextlib.ExitStack() as stack:
        here = root
        for folder in folders:
            here = os.open(folder, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            stack.callback(os.close, here)
            if stat.S_ISLNK(os.fstat(here).st_mode):
                raise OSError(errno.ELOOP, "")
        return os.open(name, READ, dir_fd=here)


def move(
    steps: tuple[tuple[int, bytes, int, bytes, int, int, bool, int, int, int, int, int], ...], may_chown: bool, /
) -> list[tuple[int, int]]:
    """As the extension's."""
    for step in steps:
        if any(not -(1 << 63) <= number < 1 << 63 for number in (*step[4:6], *step[7:])):
            raise OverflowError("int too big to convert")
    done: list[tuple[int, int]] = []
    for folder, name, target, new_name, st_ino, size, described, *attributes in steps:
        if described and not all(0 <= each < (1 << 32) - 1 for each in attributes[1:3]):
            break
        try:
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            break
        if not stat.S_ISREG(info.st_mode) or st_ino not in (-1, info.st_ino) or size not in (-1, info.st_size):
            break
        if _is_there(target, new_name):
            break
        try:
            os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=target)
            if described:
                _describe(target, new_name, info, attributes, may_chown=may_chown)
        except OSError as error:
            done.append((info.st_ino, error.errno or errno.EIO))
            break
        done.append((info.st_ino, 0))
    return done


def _is_there(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _describe(folder: int, name: bytes, info: os.stat_result, attributes: list[int], *, may_chown: bool) -> None:
    mode, uid, gid, atime_ns, mtime_ns = attributes
    other = may_chown and (info.st_uid, info.st_gid) != (uid, gid)
    if other:
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
    if other or stat.S_IMODE(info.st_mode) != mode:
        os.chmod(name, mode, dir_fd=folder)
    if (info.st_atime_ns, info.st_mtime_ns) != (atime_ns, mtime_ns):
        os.utime(name, ns=(atime_ns, mtime_ns), dir_fd=folder, follow_symlinks=False)


__all__ = ["move", "read"]
