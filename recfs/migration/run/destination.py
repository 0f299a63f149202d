"""Where a run brings files: the mount of a running daemon, or the home tree of a store whose daemon is stopped."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from recfs.core.layout import owner_of, role_of
from recfs.errors import InvalidArgument, MountError
from recfs.migration.run.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.migration.run.hashing import Sha256Of


def _fine() -> None:
    """Nothing is wrong."""


def _nothing(_path: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Destination:
    """A store as a run sees it. What a daemon or a catalogue is asked is passed in."""

    top: bytes
    ask: Sha256Of
    """The sha256 of what is at a target."""
    is_home: bool = False
    """The home tree, of which no daemon tells, and where whoever brings a file gives it to its owner."""
    check: Callable[[], None] = field(default=_fine)
    """Raises MountError when it is not there any more, or another store by now."""
    is_elsewhere: Callable[[bytes], bool] = field(default=_nothing)
    """Whether a store has the file although the home tree does not: its bytes are in S3, or staging."""

    def open(self) -> Tree:
        """Look whether it is there, and open it. Raises MountError."""
        self.check()
        try:
            tree = Tree(self.top)
        except OSError as error:
            raise MountError(f"{os.fsdecode(self.top)} cannot be opened: {error.strerror}") from None
        return tree

    def owner(self, tree: Tree, target: bytes) -> tuple[int, int] | None:
        """Whose a file is to be that a run puts there, uid and gid: who has the user's directory, or the top level.

        None leaves that to the file system. Only in a home tree, and for root; in a mount the daemon knows.
        """
        if not self.is_home or os.geteuid():
            return None
        parts = tuple(target.split(b"/"))
        user = owner_of(parts)
        found = None if user is None else tree.look(b"users/" + user.encode("ascii"))
        found = found or tree.look(parts[0])
        return None if found is None else (found.st_uid, found.st_gid)


def group_of(target: bytes) -> str:
    """Whose a target is: the user's id, else the name of the top level."""
    parts = tuple(target.split(b"/"))
    return owner_of(parts) or os.fsdecode(parts[0])


def check_name(target: bytes) -> None:
    """Raise InvalidPath, NameTooLong for a target that no level of a store allows (`core/layout.py`)."""
    role_of(tuple(target.split(b"/")), is_dir=False)


def check_source(source: bytes, destination: Destination) -> None:
    """Raise InvalidArgument for a source outside the old tree that lies in the store: it is a target, and stays."""
    if source.startswith(b"/") and os.path.realpath(source).startswith(os.path.realpath(destination.top) + b"/"):
        raise InvalidArgument("it lies in the store itself")


def check_apart(old: bytes, destination: Destination) -> None:
    """Raise InvalidArgument where one of the two trees lies in the other."""
    a, b = (os.path.realpath(each) + b"/" for each in (old, destination.top))
    if a.startswith(b) or b.startswith(a):
        raise InvalidArgument(
            f"{os.fsdecode(old)} and {os.fsdecode(destination.top)} lie in each other: what is migrated has to lie"
            " elsewhere"
        )


__all__ = ["Destination", "check_apart", "check_name", "check_source", "group_of"]
