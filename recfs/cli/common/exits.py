"""Exit codes and how an exception becomes one; the only place that knows the numbers."""

from enum import IntEnum

import click

from recfs.errors import (
    ConfigError,
    ControlError,
    CursorLost,
    FsError,
    MediaUnavailable,
    MountError,
    NotAllowed,
    RecfsError,
    StoreError,
)
from recfs.ports.object_errors import ObjectStoreError


class ExitCode(IntEnum):
    """What `recfs` returns to the shell; part of the interface, listed in `recfs --help`."""

    OK = 0
    PROBLEMS = 1
    USAGE = 2
    CONFIG = 3
    STORE = 4
    MOUNT = 5
    CONTROL = 6
    REFUSED = 7
    OBJECT_STORE = 8
    NOT_ALLOWED = 9
    BUG = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANING = {
    ExitCode.OK: "ok",
    ExitCode.PROBLEMS: (
        "a check found problems, or not all could be done (quota check, doctor, drain, evict, ...), or not be printed"
    ),
    ExitCode.USAGE: "usage error",
    ExitCode.CONFIG: "the configuration is wrong or missing",
    ExitCode.STORE: "the store cannot be used",
    ExitCode.MOUNT: "the mount point cannot be used, or files are still open",
    ExitCode.CONTROL: "no daemon runs, or it does not answer",
    ExitCode.REFUSED: "refused by the file system (no such path, over a limit, ...)",
    ExitCode.OBJECT_STORE: "S3 refused, or cannot be reached",
    ExitCode.NOT_ALLOWED: "this user may not ask the daemon, or read what is its user's and root's",
    ExitCode.BUG: "internal error: a bug in recfs",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.BROKEN_PIPE: "the reader of the output went away",
}

_BY_CLASS: tuple[tuple[type[RecfsError], ExitCode], ...] = (
    (ConfigError, ExitCode.CONFIG),
    (StoreError, ExitCode.STORE),
    (MountError, ExitCode.MOUNT),
    (NotAllowed, ExitCode.NOT_ALLOWED),
    (ControlError, ExitCode.CONTROL),
    (FsError, ExitCode.REFUSED),
    (CursorLost, ExitCode.REFUSED),
    (MediaUnavailable, ExitCode.REFUSED),
    (ObjectStoreError, ExitCode.OBJECT_STORE),
)


class ChildFailed(click.ClickException):
    """A background daemon ended before it was ready; carries its message, exit code, and the class of its error."""

    def __init__(self, message: str, exit_code: int, kind: str | None = None) -> None:
        super().__init__(message)
        self.code = exit_code
        self.kind = kind or next((cls.__name__ for cls, code in _BY_CLASS if code == exit_code), "InternalError")


def kind_of(exc: BaseException) -> str:
    """Return what `--json` calls an exception that ended a command: its class, or that of the daemon's."""
    return exc.kind if isinstance(exc, ChildFailed) else type(exc).__name__


def exit_code_of(exc: BaseException) -> int:
    """Return the exit code for an exception that ended a command."""
    if isinstance(exc, ChildFailed):
        return exc.code
    if isinstance(exc, click.ClickException):
        return exc.exit_code
    if isinstance(exc, click.Abort | KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(exc, BrokenPipeError):
        return ExitCode.BROKEN_PIPE
    return next((code for cls, code in _BY_CLASS if isinstance(exc, cls)), ExitCode.BUG)


def help_epilog() -> str:
    """Return the exit code table for `recfs --help`."""
    lines = "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in MEANING.items())
    return f"\b\nExit codes:\n{lines}"
