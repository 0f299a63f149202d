"""Who may do what by owner and mode bits: what the kernel checks for its callers, for everybody else.

The rules are those of Linux on a local file system without ACLs: credentials(7), path_resolution(7), chmod(2),
chown(2), unlink(2), utimensat(2). User 0 has the capabilities that root has.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

READ, WRITE, SEARCH = 4, 2, 1
"""What is wanted of a file or directory, as bits of its mode. SEARCH is execution, of a file."""
_SETGID, _STICKY, _ALL_WRITE = 0o2000, 0o1000, 0o002
_ANY_EXECUTE = 0o111


class Identity(NamedTuple):
    """Who asks (credentials(7))."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    """Supplementary groups."""
    umask: int = 0o022

    @property
    def is_root(self) -> bool:
        """Whether mode bits do not bind it."""
        return self.uid == 0

    def is_in(self, gid: int) -> bool:
        """Whether it belongs to a group."""
        return gid == self.gid or gid in self.groups


class Owned(Protocol):
    """What has an owner and a mode."""

    @property
    def mode(self) -> int:
        """Permission bits, with set-user-ID, set-group-ID and sticky."""

    @property
    def uid(self) -> int:
        """Owner."""

    @property
    def gid(self) -> int:
        """Group."""


def allows(what: Owned, who: Identity, wanted: int, *, is_dir: bool) -> bool:
    """Whether the mode bits let *who* do all that is *wanted* (path_resolution(7))."""
    if who.is_root:
        return is_dir or not wanted & SEARCH or bool(what.mode & _ANY_EXECUTE)
    if who.uid == what.uid:
        bits = what.mode >> 6
    else:
        bits = what.mode >> 3 if who.is_in(what.gid) else what.mode
    return wanted & ~bits & 7 == 0


def owns(what: Owned, who: Identity) -> bool:
    """Whether *who* may change mode and times at will (chmod(2), utimensat(2))."""
    return who.is_root or who.uid == what.uid


def is_sticky_for(folder: Owned, entry: Owned, who: Identity) -> bool:
    """Whether the sticky bit keeps *who* from removing or renaming an entry of a directory (unlink(2), EPERM)."""
    return bool(folder.mode & _STICKY) and not who.is_root and who.uid not in (folder.uid, entry.uid)


def may_follow(folder: Owned, link: Owned, who: Identity) -> bool:
    """Whether *who* may follow a symbolic link in *folder*: in a sticky directory where everybody may write only their
    own and its owner's (proc(5), protected_symlinks), root no other.
    """
    planted = _STICKY | _ALL_WRITE
    return folder.mode & planted != planted or link.uid in (who.uid, folder.uid)


def may_give(what: Owned, who: Identity, uid: int | None, gid: int | None) -> bool:
    """Whether *who* may change owner and group; None = as they are (chown(2))."""
    if who.is_root:
        return True
    if uid not in (None, what.uid) or (uid is not None and who.uid != what.uid):
        return False
    return gid is None or (who.uid == what.uid and (gid == what.gid or who.is_in(gid)))


def mode_given(mode: int, gid: int, who: Identity) -> int:
    """The mode that chmod(2) sets: without set-group-ID for a group that *who* is not in."""
    return mode if who.is_root or who.is_in(gid) else mode & ~_SETGID


__all__ = [
    "READ",
    "SEARCH",
    "WRITE",
    "Identity",
    "Owned",
    "allows",
    "is_sticky_for",
    "may_follow",
    "may_give",
    "mode_given",
    "owns",
]
