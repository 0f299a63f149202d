"""Where a run brings files: the mount of a running daemon, or the home tree of a store whose daemon is stopped."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from recfs.core.layout import owner_of, role_of
from recfs.core.migration.escapes import escaped
from recfs.core.migration.oldtree import hidden_link
from recfs.errors import AccessDenied, InvalidArgument, MountError, NameTooLong
from recfs.migration.run.trees import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.migration.steps import Seen
    from recfs.migration.run.hashing import Sha256Of


CAME: Final = "another file came to the path of one that was moved: give it a line of its own, or remove it"
GONE: Final = "its source was deleted, and nothing is at the target any more: removed, or renamed since"
_OWN: Final = "it lies in the store itself"
_LONGEST: Final = 3072
_DEEPEST: Final = 256


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

    reserve: int = 0
    """Bytes of the disk that are left free beside what a look at it tells: of a home tree, for a mount sees to it."""
    device: int | None = None
    """That of the mount, by which its files are known wherever they are mounted besides; None for a home tree."""

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

    def user(self, tree: Tree, target: bytes) -> tuple[int, int] | None:
        """With whose rights a file is to be written, uid and gid; None: those of this process.

        Who may change a directory may put a link in its place while root walks there by its path. So what lies in a
        user's tree is written as that user, and what is root's has to be root's alone to change. Nobody gets into a
        home tree while it is private. Raises AccessDenied, FsError, OSError.
        """
        if self.is_home or os.geteuid():
            return None
        parts = tuple(target.split(b"/"))
        if (user := owner_of(parts)) is not None:
            found = tree.look(b"/".join((parts[0], user.encode("ascii"))))
            if found is not None and found.st_uid:
                return found.st_uid, found.st_gid
        for depth in range(1, len(parts)):
            folder = b"/".join(parts[:depth])
            found = tree.look(folder)
            if found is not None and (found.st_uid or found.st_mode & 0o022):
                raise AccessDenied(
                    f"others than root may change {escaped(folder)}, and its user has no uid that could write there:"
                    " give the user one (`recfs user add`), or take that right from them"
                )
        return None


def group_of(target: bytes) -> str:
    """Whose a target is: the user's id, else the name of the top level."""
    parts = tuple(target.split(b"/"))
    return owner_of(parts) or os.fsdecode(parts[0])


def check_name(target: bytes) -> None:
    """Raise InvalidPath, NameTooLong for a target that no level of a store allows (`core/layout.py`), or rsync takes.

    rsync takes paths of 4,095 bytes (MAXPATHLEN), those of the farm in front included.
    """
    parts = tuple(target.split(b"/"))
    role_of(parts, is_dir=False)
    if len(target) > _LONGEST or len(parts) > _DEEPEST:
        raise NameTooLong(
            f"its path has {len(target):,} bytes and {len(parts):,} levels, more than a migration takes"
            f" ({_LONGEST:,} and {_DEEPEST:,})"
        )


def check_source(source: bytes, destination: Destination) -> None:
    """Raise InvalidArgument for a source outside the old tree that lies in the store: it is a target, and stays."""
    if source.startswith(b"/") and os.path.realpath(source).startswith(os.path.realpath(destination.top) + b"/"):
        raise InvalidArgument(_OWN)


def link_refusal(source: bytes, file: os.stat_result, sources: Tree) -> str:
    """Why a source may be a hard link to what its user may not read, made since the plan was; or "".

    Raises FsError, OSError.
    """
    if file.st_nlink < 2 or source.startswith(b"/"):
        return ""
    return hidden_link(file, sources.look(source.partition(b"/")[0]))


def check_other(source: Seen, destination: Destination, target: os.stat_result | None) -> None:
    """Raise InvalidArgument for a source that is the store's file itself: by a bind mount both have one identity."""
    is_target = target is not None and (source.device, source.inode) == (target.st_dev, target.st_ino)
    if is_target or source.device == destination.device:
        raise InvalidArgument(_OWN)


def check_apart(old: bytes, destination: Destination) -> None:
    """Raise InvalidArgument where one of the two trees lies in the other. Raises OSError where *old* is not there."""
    a, b = (os.path.realpath(each) + b"/" for each in (old, destination.top))
    if a.startswith(b) or b.startswith(a) or os.stat(old).st_dev == destination.device:
        raise InvalidArgument(
            f"{os.fsdecode(old)} and {os.fsdecode(destination.top)} lie in each other: what is migrated has to lie"
            " elsewhere"
        )


__all__ = [
    "CAME",
    "GONE",
    "Destination",
    "check_apart",
    "check_name",
    "check_other",
    "check_source",
    "group_of",
    "link_refusal",
]
