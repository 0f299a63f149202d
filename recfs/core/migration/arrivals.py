"""What may come into a store from a tree that has its structure already, and where it goes."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

from recfs.core.layout import NAME_MAX_BYTES, check_target, is_id, role_of
from recfs.errors import InvalidArgument, InvalidPath

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_COMING = (b"users", b"shared")
_USER_DEPTH = 2

PART_ENDING = b".recfs-part"
"""Of what a transfer is writing: `.<name>.recfs-part`, renamed when it is whole."""
_LONG = 200
"""So much is kept of a name that is too long for that."""
_PART_NAME = re.compile(rb"\..+\.recfs-part", re.DOTALL)


def arrival(path: bytes, *, is_dir: bool, user_map: Mapping[str, str]) -> tuple[bytes, ...]:
    """Give the path in the mount, in parts, of what has *path* in a tree; () for the top.

    `./` in front says nothing (tar(1) writes it). Users are renamed as *user_map* says. Raises InvalidPath for what is
    absolute, leads upwards, is neither in users/ nor in shared/, has a name that its level does not allow, or has none
    and is no directory; NameTooLong.
    """
    while path.startswith(b"./"):
        path = path[2:].lstrip(b"/")
    parts = tuple(path.split(b"/")) if path not in (b"", b".") else ()
    if not parts:
        if not is_dir:
            raise InvalidPath("it has no name: only a directory can be the top")
        return ()
    if b"" in parts[:1]:
        raise InvalidPath("an absolute path")
    if b".." in parts:
        raise InvalidPath("it leads upwards")
    if parts[0] == b"temp":
        raise InvalidPath("what is in temp/ is not transferred")
    if parts[0] not in _COMING:
        raise InvalidPath("it is neither in users/ nor in shared/")
    role_of(parts, is_dir=is_dir)
    if parts[0] == b"users" and len(parts) >= _USER_DEPTH:
        user = parts[1].decode("ascii")
        if user not in user_map and user in user_map.values():
            raise InvalidPath(f"another user becomes user {user}")
        return (parts[0], user_map.get(user, user).encode("ascii"), *parts[2:])
    return parts


def check_link(parts: tuple[bytes, ...], target: bytes) -> None:
    """Raise InvalidPath for a symbolic link at *parts* that leads out of its user's tree, or out of shared/.

    By its text alone: other links on the way are not asked. Raises as `check_target`, too.
    """
    check_target(target)
    least = _USER_DEPTH if parts[0] == b"users" else 1
    depth = len(parts) - 1
    if target.startswith(b"/"):
        raise InvalidPath(f"a symbolic link to {os.fsdecode(target)!r}, which leads out")
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < least:
                raise InvalidPath(f"a symbolic link to {os.fsdecode(target)!r}, which leads out")
        elif part not in (b"", b"."):
            depth += 1


def parsed_user_map(given: Iterable[str]) -> dict[str, str]:
    """Read `4=17` words. Raises InvalidArgument for what is none, for no ids, and for two that become one user."""
    found: dict[str, str] = {}
    for word in given:
        old, equals, new = word.partition("=")
        if not equals or not all(is_id(each.encode("utf-8", "surrogateescape")) for each in (old, new)):
            raise InvalidArgument(f"{word!r}: a user and what becomes of it, as in 4=17; both are integers or UUIDs")
        if found.setdefault(old, new) != new:
            raise InvalidArgument(f"user {old} would become {found[old]} and {new}")
    if len(set(found.values())) != len(found):
        raise InvalidArgument("two users would become one")
    return found


def part_name(name: bytes) -> bytes:
    """The name under which a file of that name is written: at most 255 bytes, and no two files have the same."""
    if len(name) + 1 + len(PART_ENDING) > NAME_MAX_BYTES:
        name = name[:_LONG] + b"." + hashlib.sha256(name).hexdigest()[:32].encode("ascii")
    return b"." + name + PART_ENDING


def is_part(name: bytes) -> bool:
    """Whether a name is one that a transfer was writing under when it ended."""
    return _PART_NAME.fullmatch(name) is not None


__all__ = ["arrival", "check_link", "is_part", "parsed_user_map", "part_name"]
