"""Printing: JSON for machines, rich tables for people, and names no terminal can be tricked with.

rich is loaded by what prints for people.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

from recfs.core.naming import show_name as show_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STATE_STYLES = {
    "writing": "yellow",
    "sealing": "yellow",
    "committed": "green",
    "uploading": "green",
    "stored": "green",
    "evicted": "cyan",
    "fetching": "cyan",
    "archived": "magenta",
    "incomplete": "red",
    "corrupt": "bold red",
}

_PIPED_WIDTH = 4096
_FACT_WIDTH = 40
"""Of the columns that all facts are in line with."""
_TABLE_ROWS = 1000


def console(*, stderr: bool = False) -> Console:
    """Return a console on the current stdout/stderr; lines that go into a pipe are never folded."""
    from rich.console import Console

    color_system: Literal["auto"] | None = (
        "auto" if may_be_drawn_on() else None
    )  # without one rich writes no escapes at all
    made = Console(
        stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False, color_system=color_system
    )  # fmt: skip
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _PIPED_WIDTH
    return made


def may_be_drawn_on() -> bool:
    """Whether a terminal, if there is one, is of a kind that has colours and a cursor ($TERM, term(7))."""
    return os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")


def emit_json(document: Any) -> None:
    """Print one JSON document. ASCII only, so that names which are not UTF-8 survive as \\udcXX."""
    click.echo(json.dumps(document, indent=2))


def size(value: int | None) -> str:
    """Return bytes for a person; `unlimited` for None."""
    from recfs.core.units import format_size

    return "unlimited" if value is None else format_size(value)


def count(value: int | None) -> str:
    """Return a number with thousands separators; `unlimited` for None."""
    return "unlimited" if value is None else f"{value:,}"


def number_of(value: int, word: str, plural: str = "") -> str:
    """Return "1 file", "2 files"; *plural* where that is not the word with an s."""
    return f"{value:,} {word if value == 1 else plural or f'{word}s'}"


def duration(seconds: float | None) -> str:
    """Return a duration for a person; `-` for None."""
    from recfs.core.units import format_duration

    return "-" if seconds is None else format_duration(seconds)


def moment(ns: int | None) -> str:
    """Return a time stamp in UTC to the second; `-` for None."""
    if ns is None:
        return "-"
    try:
        return datetime.fromtimestamp(ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):
        return f"{ns} ns"


def state(word: str | None) -> Text:
    """Return a state word in its colour."""
    from rich.text import Text

    return Text(word or "-", style=STATE_STYLES.get(word or "", ""))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    *,
    right: Sequence[str] = (),
    title: str = "",
) -> None:
    """Print a table; `right` names the columns of numbers. Long ones become plain lines."""
    rows = list(rows)
    out = console()
    # rich lays out every cell twice, which takes minutes for a million files.
    if not out.is_terminal or len(rows) > _TABLE_ROWS:
        _print_plain((tuple(columns), *rows), {columns.index(column) for column in right}, title)
        return
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def print_facts(facts: Iterable[Sequence[str | Text]], *, title: str = "") -> None:
    """Print `name  value` lines; with a third column where there are remarks on the values."""
    facts = list(facts)
    out = console()
    if not out.is_terminal:
        _print_plain(facts, set(), title, widest=_FACT_WIDTH)
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, title=title or None)
    table.title_justify, table.title_style = "left", "bold"
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    if facts and len(facts[0]) > 2:
        table.add_column(style="dim", overflow="fold")
    for fact in facts:
        table.add_row(*fact)
    out.print(table)


def _print_plain(
    rows: Sequence[Sequence[str | Text]], right: set[int], title: str, *, widest: int | None = None
) -> None:
    """Print aligned lines, one per row however long, for pipes and very long lists.

    *widest*: the others make no room for a cell that is wider.
    """
    from rich.cells import cell_len

    if title:
        click.echo(title)
    cells = [tuple(str(cell) for cell in row) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    if widest is not None:
        widths = [min(width, widest) for width in widths]
    for row in cells:
        line = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            padding = " " * (width - cell_len(cell))
            line.append(padding + cell if number in right else cell + padding)
        click.echo("  ".join(line).rstrip())


def say(message: str, *, style: str = "") -> None:
    """Print one line for a person. Names in it may hold anything, and do not make two of it."""
    from rich.text import Text

    console().print(Text(show_name(message), style=style), soft_wrap=True)


def say_kept(result: dict[str, Any]) -> None:
    """Print what could not be done, and why."""
    for kept in result["kept"]:
        say(f"{show_name(kept['path'])}: {show_name(kept['reason'])}", style="yellow")
    more = result["kept_files"] - len(result["kept"])
    if more:
        say(f"and {more:,} more", style="yellow")
