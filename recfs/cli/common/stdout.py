"""Standard output that says what is wrong with it: a full disk below a redirection is no bug of recfs."""

import io
import select
import sys
from typing import Any, TextIO

import click


class CannotWrite(click.ClickException):
    """What was printed does not reach where standard output leads; exit code 1."""


class _Output(io.FileIO):
    """Descriptor 1. A reader that has gone away stays a BrokenPipeError."""

    before: Any = None
    """What was there before: it closes its descriptor when it goes."""

    def write(self, data: Any, /) -> int:
        """write(2); waits where somebody else has made the pipe non-blocking. Raises CannotWrite, BrokenPipeError."""
        while True:
            try:
                written = super().write(data)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise CannotWrite(f"cannot write to stdout: {error.strerror}") from error
            if written is not None:
                return written
            select.select([], [self], [])


def take_over() -> None:
    """Print by it from now on, as Python would."""
    old: TextIO | None = sys.stdout
    if old is None:  # it was closed when the program began
        return
    try:
        raw = _Output(old.fileno(), "w", closefd=False)
        raw.before = old
    except (OSError, ValueError):
        return  # nothing that a program could write to
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=old.encoding, errors=old.errors,
        line_buffering=getattr(old, "line_buffering", False), write_through=getattr(old, "write_through", False),
    )  # fmt: skip


__all__ = ["CannotWrite", "take_over"]
