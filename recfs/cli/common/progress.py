"""How far a long command is: on a terminal one line that is written anew, elsewhere a line now and then. On stderr."""

import os
import sys
import time

import click

from recfs.cli.common import output

LINE_EVERY_S = 30.0
"""How often a line is told where there is no terminal."""
_COLUMNS = 80
"""Of a terminal that does not say how wide it is."""
_SURE_S = 2.0
"""So long nothing is said of how long it will take."""


def to_go(done: int, total: int | None, took_s: float) -> str:
    """Return ", 3m to go": what is left at the rate so far; "" where nobody can tell."""
    if total is None or not 0 < done < total or took_s < _SURE_S:
        return ""
    return f", {output.duration(float(round((total - done) * took_s / done)))} to go"


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        return _COLUMNS


class ProgressLine:
    """Tells it."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty() and output.may_be_drawn_on()
        self._shown = ""
        self._next_s = time.monotonic() + LINE_EVERY_S

    def show(self, line: str) -> None:
        """Say how far it is."""
        if self._is_terminal:
            line = line[: max(_width() - 1, 1)]  # what is folded cannot be written over
            click.echo(f"\r{line.ljust(len(self._shown))}", nl=False, err=True)
            self._shown = line
        elif time.monotonic() >= self._next_s:
            click.echo(f"recfs: {line}", err=True)
            self._next_s = time.monotonic() + LINE_EVERY_S

    def clear(self) -> None:
        """Take the line away: something else is said, or it is over."""
        if self._shown:
            click.echo(f"\r{' ' * len(self._shown)}\r", nl=False, err=True)
            self._shown = ""


__all__ = ["LINE_EVERY_S", "ProgressLine", "to_go"]
