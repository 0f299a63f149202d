"""What keeps the daemon from changing a store's own files, told with its remedy before anything is begun.

SQLite and the kernel say of an immutable, foreign or misplaced file only that it is read-only or cannot be opened.
Looking changes nothing and opens nothing (statx(2), faccessat(2)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import shlex
import stat
import struct
from pathlib import Path

from recfs.errors import StoreError

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _AT_SYMLINK_NOFOLLOW = -100, 0x100
_ATTRIBUTES = struct.Struct("=IIQ")
"""struct statx begins: mask, block size, attributes (statx(2))."""
_STATX_BYTES = 256
_IMMUTABLE, _APPEND = 0x10, 0x20
_KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFREG: "a file",
}  # fmt: skip
AREAS = ("lost+found", "staging", "trash", "limbo")
_CATALOGUE = "catalogue.db"
_REMADE = {f"{_CATALOGUE}-shm", "lock", "ballast"}
"""Files that are made anew."""


def require_own(private: Path) -> None:
    """Raise StoreError where the store's own directory cannot be changed."""
    _refuse(private, private, obstacle(private, stat.S_IFDIR))


def require_inside(private: Path) -> None:
    """Raise StoreError for the first obstacle among what the daemon keeps in it."""
    for area in AREAS:
        _refuse(private, private / area, obstacle(private / area, stat.S_IFDIR))
    for name in (_CATALOGUE, f"{_CATALOGUE}-wal", f"{_CATALOGUE}-shm", "lock"):
        _refuse(private, private / name, obstacle(private / name, stat.S_IFREG))
    socket = private / "control.sock"
    if socket.is_dir() and not socket.is_symlink():  # anything else is taken away for the daemon's own
        _refuse(private, socket, obstacle(socket, stat.S_IFSOCK))


def _refuse(private: Path, path: Path, why: str | None) -> None:
    if why is not None:
        raise StoreError(f"store {private.parent} cannot be used: {path} {why}")


def obstacle(path: Path, kind: int) -> str | None:
    """Why *path*, which is to be of *kind* (S_IFREG, …), cannot be changed, and what helps; None where it can.

    What is not there is none.
    """
    try:
        info = os.lstat(path)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        return f"cannot be looked at ({error.strerror})"
    found = stat.S_IFMT(info.st_mode)
    if found != kind:
        return f"is {_KINDS.get(found, 'something else')}, where {_KINDS[kind]} has to be. {_instead(path)}"
    if kind == stat.S_IFSOCK:
        return None
    flags = _attributes(path)
    told = shlex.quote(str(path))
    if flags & _IMMUTABLE:
        return f"is immutable (chattr +i), and the daemon has to change it: chattr -i {told}"
    if flags & _APPEND and kind == stat.S_IFREG:
        return f"can only be appended to (chattr +a), and the daemon has to change it: chattr -a {told}"
    way = os.R_OK | os.W_OK | (os.X_OK if kind == stat.S_IFDIR else 0)
    if os.access(path, way, effective_ids=True):
        return None
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return (
            "is on a file system that is mounted read-only. Was that wanted, or did its disk fail (dmesg)? Mount it"
            " for writing (mount -o remount,rw)"
        )
    user = _name_of(os.geteuid())
    return (
        f"may not be changed by user {user}: it belongs to {_name_of(info.st_uid)}, mode "
        f"{stat.S_IMODE(info.st_mode):04o}. Start recfs as its owner, or give it away: chown {user} {told}"
    )


def _instead(path: Path) -> str:
    name = path.name
    if name == _CATALOGUE:
        return "Move it away, and put the catalogue itself there, or a backup of it"
    if name == f"{_CATALOGUE}-wal":
        return "Move it away, and put the catalogue's log itself there if you have it; without it the last changes miss"
    if name in _REMADE or name == "control.sock":
        return "Move it away: the daemon makes a new one"
    return "Move it away"


def _attributes(path: Path) -> int:
    """Attribute flags (STATX_ATTR_…); 0 where the file system, or the C library, does not tell."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    try:
        failed = _libc.statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, 0, buffer)
    except AttributeError:
        return 0
    return 0 if failed else int(_ATTRIBUTES.unpack_from(buffer)[2])


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
