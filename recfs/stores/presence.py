"""Whether a root holds a store, and all of it: a disk that did not come up leaves an empty directory in its place."""

from __future__ import annotations

import os
from pathlib import Path

from recfs.errors import NotAStore, StoreError

_PRIVATE, _CATALOGUE = ".recfs", "catalogue.db"
_TOP_LEVELS = ("shared", "users", "temp")


ROOT_MODE = 0o700
"""Of a root that is made. Below it lie files that belong to their users, who would write to them past the mount."""


def is_exposed(root: Path) -> bool:
    """Whether users can get at the files of a store past its mount: a daemon run by root gives them to their owners."""
    resolved = Path(os.path.realpath(root))
    try:
        way = (resolved, *resolved.parents)
        return resolved.stat().st_uid == 0 and all(each.stat().st_mode & 0o001 for each in way)
    except OSError:
        return False


def as_whom(error: OSError) -> str:
    """What helps where *error* says that this user may not look into a store; "" where it says something else."""
    is_hidden = isinstance(error, PermissionError) and os.geteuid() != 0
    return "run it as root, or as the user of the store" if is_hidden else ""


def require(root: Path, *, existing: bool) -> None:
    """Raise NotAStore where there is no store and one has to be there (*existing*), StoreError where half of it is.

    Changes nothing. What is there of a store but the catalogue is for `open_catalogue` to judge.
    """
    try:
        has_catalogue = os.stat(root / _PRIVATE / _CATALOGUE).st_size > 0
    except FileNotFoundError:
        has_catalogue = False
    except OSError as error:
        remedy = as_whom(error) or "is its disk mounted?"
        raise StoreError(f"store {root}: {error.strerror}: {error.filename}; {remedy}") from error
    if not has_catalogue and existing:
        raise NotAStore(
            f"no recfs store at {root}: is its disk mounted? To make a new store there, mount it once without"
            f" --existing (and without `existing` in recfs.conf)"
        )
    if has_catalogue and not any(os.path.lexists(root / top) for top in _TOP_LEVELS):
        raise StoreError(
            f"store {root}: its catalogue is there, and {', '.join(_TOP_LEVELS)} are not: are all its disks mounted? "
            f"If they were removed on purpose, make them again, empty"
        )
