"""Why something is not made: what is waited for, what has failed, and whether it may go better later."""

from __future__ import annotations

from recfs.errors import (
    AccessDenied,
    Exists,
    FileTooLarge,
    InvalidArgument,
    InvalidPath,
    IsADirectory,
    NotADirectory,
    NotPermitted,
    ReadOnlyFile,
    RecfsError,
)
from recfs.state.problems import reason_of

_FOR_GOOD = (
    AccessDenied, Exists, FileTooLarge, InvalidArgument, InvalidPath, IsADirectory, NotADirectory, NotPermitted,
    ReadOnlyFile,
)  # fmt: skip
_LONGEST_CHARS = 500


class Waits(Exception):
    """Nothing is wrong: it waits for something, which is said for people."""


class Gone(Exception):
    """There is nothing any more that it could be made from, or for."""


class Changed(Exception):
    """The source has other bytes than those that it was to be made from."""


class Unmade(Exception):
    """It could not be made, for a reason that is told to people; *again*: it may go better later."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


class Refused(Unmade):
    """The program says that it cannot do that with this source, or made nothing of it."""


def told(error: BaseException) -> str:
    """An error as it is kept in the catalogue: text in UTF-8, and not more than a few lines."""
    reason = str(error) if isinstance(error, (Waits, Gone, Changed, Unmade)) else reason_of(error)
    return reason.encode("utf-8", "backslashreplace").decode("utf-8")[:_LONGEST_CHARS]


def goes_better(error: BaseException) -> bool:
    """Whether what failed so is worth another try: quotas are raised, disks are emptied, S3 comes back."""
    if isinstance(error, Unmade):
        return error.again
    return not isinstance(error, _FOR_GOOD)


def is_expected(error: BaseException) -> bool:
    """Whether it is one of recfs's own, or the system's, and no fault of the program."""
    return isinstance(error, (Changed, Unmade, RecfsError, OSError))


__all__ = ["Changed", "Gone", "Refused", "Unmade", "Waits", "goes_better", "is_expected", "told"]
