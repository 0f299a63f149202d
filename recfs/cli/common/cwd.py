"""The working directory, which may be gone: removed, or in a mount that was taken away or whose daemon died.

Looked at once, before anything else: libraries ask for it while they are imported (rich does), and fail. A command then
works from /, and refuses relative paths, which mean nothing any more.
"""

import os
from pathlib import Path

from recfs.errors import MountError


def _look() -> OSError | None:
    try:
        os.getcwd()
    except OSError as error:
        os.chdir("/")
        return error
    return None


LOST = _look()
"""Why there is none; None where there is one."""


def absolute(path: Path) -> Path:
    """The path, from the working directory if it is relative. Raises MountError when that is gone."""
    if LOST is not None and not path.is_absolute():
        raise MountError(
            f"{path}: the working directory is gone ({LOST.strerror}): cd to one that is there, or give absolute paths"
        )
    return Path(os.path.abspath(path))


def named_in(variable: str) -> None:
    """Look whether a path that a variable of the environment names means anything. Raises MountError."""
    if path := os.environ.get(variable):
        absolute(Path(path))
