"""Which directory is whose, and which category it gives to what lies in it.

Memory grows with directories, not with files.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from recfs.core.figures.categories import Category, folder_category
from recfs.core.layout import Role, child_role
from recfs.errors import RecfsError
from recfs.ports.figures import Folder
from recfs.ports.rows import ROOT_INO

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


ROOT = Place(Role.ROOT, None, None, None)
_OF_USERS = (Role.USER, Role.TEMP_USER)


def places(folders: Iterable[Folder], above: tuple[int, Place] = (ROOT_INO, ROOT)) -> dict[int, Place]:
    """All directories below one, itself included, by inode number."""
    below: dict[int, list[Folder]] = defaultdict(list)
    for each in folders:
        if each.ino not in (ROOT_INO, above[0]):
            below[each.parent].append(each)
    found = dict([above])
    pending = [above[0]]
    while pending:
        ino = pending.pop()
        parent = found[ino]
        for each in below.pop(ino, ()):
            found[each.ino] = _inside(parent, each)
            pending.append(each.ino)
    return found


def place_of(path: Iterable[tuple[int, bytes]]) -> Place:
    """What the directory at the end of a path is; each level with its inode number."""
    place, parent = ROOT, ROOT_INO
    for ino, name in path:
        place, parent = _inside(place, Folder(ino, parent, name)), ino
    return place


def _inside(parent: Place, folder: Folder) -> Place:
    try:
        role = child_role(parent.role, folder.name, is_dir=True)
    except RecfsError:  # a row that somebody made by hand
        role = Role.INSIDE
    category = folder_category(parent.category, role, folder.name)
    user = folder.name.decode("ascii", "replace") if role in _OF_USERS else parent.user
    recording = folder.ino if role is Role.RECORDING else parent.recording
    return Place(role, category, user, recording)


__all__ = ["ROOT", "Place", "place_of", "places"]
