"""Which directory is whose, and which category it gives to what lies in it.

Memory grows with directories, not with files.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.figures.categories import Category, folder_category
from recfs.core.layout import Role, child_role
from recfs.errors import RecfsError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Place(NamedTuple):
    """What a directory is."""

    role: Role
    category: Category | None
    """What it gives to the files in it; None: their names decide."""
    user: str | None
    """Who is charged for it."""
    recording: int | None
    """The inode number of the recording that it is, or is in."""

    def counts_like(self, other: Place) -> bool:
        """Whether the same file would count alike in either."""
        return self[:3] == other[:3]


ROOT = Place(Role.ROOT, None, None, None)
_ROOT_INO = 1
_OF_USERS = (Role.USER, Role.TEMP_USER)


def places(folders: Iterable[tuple[int, int, bytes]], above: tuple[int, Place] = (_ROOT_INO, ROOT)) -> dict[int, Place]:
    """All directories below one, itself included, by inode number. *folders*: number, that of the one above, name."""
    below: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for each, over, name in folders:
        if each not in (_ROOT_INO, above[0]):
            below[over].append((each, name))
    found = dict([above])
    pending = [above[0]]
    while pending:
        ino = pending.pop()
        parent = found[ino]
        for child, name in below.pop(ino, ()):
            found[child] = inside(parent, child, name)
            pending.append(child)
    return found


def place_of(path: Iterable[tuple[int, bytes]]) -> Place:
    """What the directory at the end of a path is; each level with its inode number."""
    place = ROOT
    for ino, name in path:
        place = inside(place, ino, name)
    return place


def inside(parent: Place, ino: int, name: bytes) -> Place:
    """What a directory of that name is."""
    try:
        role = child_role(parent.role, name, is_dir=True)
    except RecfsError:  # a row that somebody made by hand
        role = Role.INSIDE
    category = folder_category(parent.category, role, name)
    user = name.decode("ascii", "replace") if role in _OF_USERS else parent.user
    recording = ino if role is Role.RECORDING else parent.recording
    return Place(role, category, user, recording)


__all__ = ["ROOT", "Place", "inside", "place_of", "places"]
