"""Pure knowledge of the tree: which names the fixed levels allow, and what a directory is for.

    <mount>/                      ROOT             only shared, users, temp; they exist from the start
      shared/                     SHARED_TOP       files and directories of any name
        .../                      SHARED_DIR
      users/                      USERS_TOP        only directories named by an id
        <id>/                     USER             only the directories thumbnails and recordings
          thumbnails/             USER_THUMBNAILS  anything
          recordings/             USER_RECORDINGS  only directories named by an id
            <id>/                 RECORDING        anything
              .../                INSIDE
      temp/                       TEMP_TOP         only directories named by a user's id
        <id>/                     TEMP_USER        only directories (jobs) named by an id
          <id>/                   JOB              anything

A directory's role follows from its parent's role and its own name, so nobody needs whole paths to check a
name.
"""

import enum
import os
import re
from collections.abc import Sequence

from recfs.errors import InvalidArgument, InvalidPath, NameTooLong, NotFound

NAME_MAX_BYTES = 255
"""NAME_MAX of the file systems underneath; the kernel itself lets 1024 bytes through to a FUSE daemon."""


PATH_MAX_BYTES = 4095
"""PATH_MAX of Linux without the NUL at the end: the longest path, and the longest target of a symbolic link."""
_SHALLOW = (PATH_MAX_BYTES + 1) // (NAME_MAX_BYTES + 1)
"""So many names are no longer than that, however long each is."""


class Role(enum.IntEnum):
    """What a directory is for. An IntEnum because members index a table; the numbers are never stored."""

    ROOT = 0
    SHARED_TOP = 1
    USERS_TOP = 2
    TEMP_TOP = 3
    USER = 4
    USER_THUMBNAILS = 5
    USER_RECORDINGS = 6
    RECORDING = 7
    TEMP_USER = 8
    JOB = 9
    SHARED_DIR = 10
    INSIDE = 11


TOP_DIRS = {b"shared": Role.SHARED_TOP, b"users": Role.USERS_TOP, b"temp": Role.TEMP_TOP}
"""The directories of the root: they exist from the start and cannot be created, removed or renamed."""

_USER_DIRS = {b"thumbnails": Role.USER_THUMBNAILS, b"recordings": Role.USER_RECORDINGS}

_BY_ANY_NAME = {
    Role.SHARED_TOP: Role.SHARED_DIR,
    Role.SHARED_DIR: Role.SHARED_DIR,
    Role.USER_THUMBNAILS: Role.INSIDE,
    Role.RECORDING: Role.INSIDE,
    Role.JOB: Role.INSIDE,
    Role.INSIDE: Role.INSIDE,
}
_BY_ID = {
    Role.USERS_TOP: Role.USER,
    Role.USER_RECORDINGS: Role.RECORDING,
    Role.TEMP_TOP: Role.TEMP_USER,
    Role.TEMP_USER: Role.JOB,
}
# Tables indexed by role: a member as a dict key, or an access like Role.ROOT in a function, costs far more.
# The role of any child, or None where the level is fixed.
_FREE = tuple(_BY_ANY_NAME.get(role) for role in Role)
# The role of a child directory named by an id, or None where ids mean nothing.
_ID_NAMED = tuple(_BY_ID.get(role) for role in Role)
# The roles of the only child directories of a level.
_NAMED: tuple[dict[bytes, Role], ...] = tuple(
    {Role.ROOT: TOP_DIRS, Role.USER: _USER_DIRS}.get(role, {}) for role in Role
)
_RECORDING = Role.RECORDING

_RULE = {
    Role.ROOT: "the top level holds only the directories shared, users and temp",
    Role.USERS_TOP: "users/ holds only directories named by a user id (an integer or a UUID)",
    Role.USER: "users/<id>/ holds only the directories thumbnails and recordings",
    Role.USER_RECORDINGS: "recordings/ holds only directories named by a recording id (an integer or a UUID)",
    Role.TEMP_TOP: "temp/ holds only directories named by a user id (an integer or a UUID)",
    Role.TEMP_USER: "temp/<id>/ holds only job directories named by an id (an integer or a UUID)",
}

_UUID_CHARS = 36
_match_uuid = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_ID_MAX_DIGITS = 20
_ZERO = ord("0")


def is_id(name: bytes) -> bool:
    """Tell whether a name is an id: a decimal integer (no sign or leading zero, <= 20 digits) or a UUID.

    A UUID is 8-4-4-4-12 hex digits (RFC 9562, section 4) in either case. Names are compared byte by byte:
    the same UUID in two spellings is two names.
    """
    if name.isdigit():  # on bytes: ASCII digits only
        return len(name) == 1 or (name[0] != _ZERO and len(name) <= _ID_MAX_DIGITS)
    return len(name) == _UUID_CHARS and _match_uuid(name) is not None


def child_role(parent: Role, name: bytes, *, is_dir: bool) -> Role:
    """Give the role of the child `name` of a directory with role `parent`.

    A file or symlink gets the role its level gives to everything (INSIDE, SHARED_DIR); the fixed levels
    have none for it. Raises NameTooLong above 255 bytes and InvalidPath for a name that no level allows
    (empty, ".", "..", NUL, "/") or that this level refuses. A lookup should read both as "cannot exist
    here".
    """
    size = len(name)
    if size <= 2 and (size == 0 or name == b"." or name == b".."):
        raise InvalidPath(f"not a name: {os.fsdecode(name)!r}")
    if size > NAME_MAX_BYTES:
        raise NameTooLong(f"a name of {size} bytes; at most {NAME_MAX_BYTES} are allowed")
    if b"/" in name or b"\0" in name:
        raise InvalidPath(f"a name holds neither / nor NUL: {os.fsdecode(name)!r}")
    role = _FREE[parent]
    if role is not None:
        return role
    if is_dir:
        role = _ID_NAMED[parent]
        if role is None:
            role = _NAMED[parent].get(name)
        elif not is_id(name):
            role = None
        if role is not None:
            return role
    kind = "directory" if is_dir else "file"
    raise InvalidPath(f"{kind} {os.fsdecode(name)!r} is not allowed here: {_RULE[parent]}")


def check_target(target: bytes) -> None:
    """Raise NotFound, InvalidArgument or NameTooLong for what symlink(2) could not make a link to."""
    if not target:
        raise NotFound("a symbolic link to nothing")
    if b"\0" in target:
        raise InvalidArgument(f"a NUL is in no path: {os.fsdecode(target[:40])!r}")
    if len(target) > PATH_MAX_BYTES:
        raise NameTooLong(f"a target of {len(target)} bytes; at most {PATH_MAX_BYTES} are allowed")


def role_of(path: tuple[bytes, ...], *, is_dir: bool = True) -> Role:
    """Give the role of a whole path, checking every component like `child_role`; () is the root."""
    role = Role.ROOT
    last = len(path) - 1
    for index, name in enumerate(path):
        role = child_role(role, name, is_dir=is_dir or index < last)
    return role


def kept_path(path: Sequence[bytes]) -> bytes:
    """Give a path as it is kept of what is removed: in 4,095 bytes (PATH_MAX of Linux), however deep the tree is.

    A longer one is cut after the last directory that fits and ends with "/", as no whole path does (`is_cut`).
    """
    if len(path) <= _SHALLOW:
        return b"/".join(path)
    size = -1
    for depth, name in enumerate(path):
        size += 1 + len(name)
        if size > PATH_MAX_BYTES:
            whole = b"/".join(path[:depth]) + b"/"
            return whole if len(whole) <= PATH_MAX_BYTES else b"/".join(path[: depth - 1]) + b"/"
    return b"/".join(path)


def is_shallow(names: int) -> bool:
    """Tell whether a path of so many names is kept whole, whatever they are."""
    return names <= _SHALLOW


def is_cut(path: bytes) -> bool:
    """Tell whether `kept_path` could not keep the whole of a path."""
    return path.endswith(b"/")


def is_temporary(path: bytes) -> bool:
    """Tell whether a path of the mount lies in `temp/`: what is removed there is gone, whatever the trash keeps."""
    return path.startswith(b"temp/")


def is_fixed(role: Role) -> bool:
    """Tell whether a directory of this role exists from the start and can be neither removed nor renamed."""
    return role <= Role.TEMP_TOP


def is_upload(parent: Role, name: bytes) -> bool:
    """Tell whether a file counts towards max_monthly_uploads: "source.<ext>" directly in a recording.

    One extension only: "source.mp4.part", later renamed to "source.mp4", must not count twice.
    """
    return (
        parent is _RECORDING and name.startswith(b"source.") and len(name) > len(b"source.") and name.count(b".") == 1
    )


def owner_of(path: tuple[bytes, ...]) -> str | None:
    """Give the id of the user who is charged for a path in users/<id> or temp/<id>; None elsewhere."""
    if len(path) >= 2 and (path[0] == b"users" or path[0] == b"temp") and is_id(path[1]):
        return path[1].decode("ascii")
    return None
