"""How much may still come: asked before a file is copied, so that one that is too large stops nobody else's."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from recfs.core.layout import owner_of
from recfs.core.units import format_size
from recfs.errors import FsError

if TYPE_CHECKING:
    from recfs.migration.run.trees import Tree

_QUOTA: Final = "user.recfs.quota."


@dataclass(frozen=True, slots=True)
class Room:
    """What one look found, in bytes. None: no limit."""

    disk: int
    """Beside the store's reserve."""
    quota: int | None = None
    """What is left of the user's."""
    file: int | None = None
    """The largest file that the user may have."""

    def refusal(self, size: int, need: int, promised: int, promised_here: int) -> str:
        """Why a file of *size* bytes, of which *need* are to be written, has no room; "" where it has.

        *promised*: what others will still take of it that were begun or are to be; *promised_here*: that user's.
        """
        if self.file is not None and size > self.file:
            return f"it has {format_size(size)}, and the user's largest file may have {format_size(self.file)}"
        if self.quota is not None and need > self.quota - promised_here:
            return (
                f"it needs {format_size(need)}, and the user's quota leaves"
                f" {format_size(max(self.quota - promised_here, 0))}: raise it (`recfs quota set`), then run it again"
            )
        if need > self.disk - promised:
            return (
                f"it needs {format_size(need)}, and the disk has room for"
                f" {format_size(max(self.disk - promised, 0))} beside the reserve: make room, then run it again"
            )
        return ""


def room_of(tree: Tree, target: bytes, reserve: int) -> Room:
    """Look how much room a file at *target* would have; *reserve* is kept of the disk. Raises OSError.

    A mount tells what there is beside its reserve by itself (statfs(2)), and of users with a quota what they have left.
    """
    disk = os.fstatvfs(tree.fd)
    free = disk.f_bavail * disk.f_frsize - reserve
    parts = tuple(target.split(b"/"))
    user = owner_of(parts)
    if user is None:
        return Room(free)
    folder = b"/".join((parts[0], user.encode("ascii")))
    limits = [_told(tree, folder, name) for name in ("max_bytes", "used_bytes", "max_file_size")]
    most, used, file = limits
    return Room(free, None if most is None else most - (used or 0), file)


def _told(tree: Tree, folder: bytes, name: str) -> int | None:
    try:
        with tree.named(folder) as path:
            value = os.getxattr(path, _QUOTA + name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOENT):
            return None
        raise
    except FsError:
        return None  # what is wrong there is told of the file
    return int(value) if value.isdigit() else None


__all__ = ["Room", "room_of"]
