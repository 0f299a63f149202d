"""Where the tree is that a program means: a mount, or a plain directory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from recfs.client.errors import NotAMount
from recfs.client.uploads import attribute

ENV: Final = "RECFS_MOUNTPOINT"
"""The same variable by which `recfs mount` is told its mount point."""
ROOT_ATTRIBUTE: Final = "user.recfs.root"
_MOUNTINFO = Path("/proc/self/mountinfo")


def default_root() -> Path:
    """Give the mount that a program means which names none: $RECFS_MOUNTPOINT, or the only recfs mount there is.

    Raises NotAMount, also where nothing is mounted there: what was written would lie below the mount.
    """
    named = os.environ.get(ENV)
    if named:
        return checked_root(named, mounted=True)
    found = sorted({_mount_point(line) for line in _MOUNTINFO.read_bytes().split(b"\n") if b" - fuse.recfs " in line})
    if len(found) != 1:
        told = "there is no recfs mount" if not found else f"there are {len(found)} recfs mounts"
        raise NotAMount(f"{told}: name a root, or set ${ENV}")
    return Path(found[0])


def _mount_point(line: bytes) -> str:
    """The fifth field of a line of proc_pid_mountinfo(5)."""
    raw = line.split(b" ")[4]
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), raw))


def store_root(path: str | os.PathLike[str]) -> Path | None:
    """Give the root directory of the store behind a path of its mount; None where that is no mount. Raises OSError."""
    told = attribute(path, ROOT_ATTRIBUTE)
    return None if told is None else Path(os.fsdecode(told))


def checked_root(root: str | os.PathLike[str], *, mounted: bool) -> Path:
    """Give *root* as it is to be used. Raises NotAMount if it is to be *mounted* and is not."""
    path = Path(root)
    if mounted:
        try:
            found = store_root(path)
        except FileNotFoundError:
            found = None
        if found is None:
            raise NotAMount(f"{path}: there is no recfs mount")
    return path


__all__ = ["ENV", "checked_root", "default_root", "store_root"]
