"""How far a long command is: on a terminal one line that is written anew, elsewhere a line now and then. On stderr."""

import sys
import time

import click

from recfs.cli.common import output

LINE_EVERY_S = 30.0
"""How often a line is told where there is no terminal."""
_SURE_S = 2.0
"""So long nothing is said of how long it will take."""


def to_go(done: int, total: int | None, took_s: float) -> str:
    """Return ", 3m to go": what is left at the rate so far; "" where nobody can tell."""
    if total is None or not 0 < done < total or took_s < _SURE_S:
        return ""
    return f", {output.duration(float(round((total - done) * took_s / done)))} to go"


class ProgressLine:
    """Tells it."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._shown = ""
        self._next_s = time.monotonic() + LINE_EVERY_S

    def show(self, line: str) -> None:
        """Say how far it is."""
        if self._is_terminal:
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
