"""On which line of a TOML file each setting stands. tomllib does not tell."""

from __future__ import annotations

import tomllib
from typing import Any

Location = tuple[str | int, ...]
"""A setting by its keys; tables of an array are counted from 0, as pydantic does."""


def lines_of(text: str) -> dict[Location, int]:
    """Give the line (from 1) of each key and table of a TOML document that tomllib takes.

    A document is a sequence of expressions, each of which ends at the end of a line and is a document of its own
    (https://toml.io/en/v1.0.0, ABNF): so lines are taken together until they are one.
    """
    found: dict[Location, int] = {}
    counts: dict[Location, int] = {}
    table: Location = ()
    pending: list[str] = []
    first = 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        pending.append(line)
        if len(pending) > 1 and not _may_end(line):
            continue  # a list of many lines is not read once more for each of them
        try:
            expression = tomllib.loads("\n".join(pending))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a list or a text of several lines
        if expression and pending[0].lstrip().startswith("["):
            table = _header(expression, counts)
            found.setdefault(table, first)
        else:
            _note(expression, table, first, found)
        pending, first = [], number + 1
    return found


def _may_end(line: str) -> bool:
    """Whether an expression of several lines can end with this one: what has several is a list or a text."""
    return any(end in line for end in ("]", '"""', "'''")) and ("#" in line or not line.rstrip().endswith(","))


def line_at(lines: dict[Location, int], location: Location) -> int | None:
    """Give the line of a setting, else of the innermost table around it that is written; None for none."""
    for length in range(len(location), 0, -1):
        if location[:length] in lines:
            return lines[location[:length]]
    return None


def _header(expression: dict[str, Any], counts: dict[Location, int]) -> Location:
    """Give the table that [a.b] or [[a.b]] begins."""
    path: Location = ()
    value: Any = expression
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        path = (*path, key)
        if isinstance(value, list):
            counts[path] = counts.get(path, -1) + 1
            value = value[0]
            path = (*path, counts[path])
        elif path in counts:  # [a.b] below the last [[a]]
            path = (*path, counts[path])
    return path


def _note(value: Any, path: Location, line: int, found: dict[Location, int]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        found.setdefault((*path, key), line)
        _note(each, (*path, key), line, found)


__all__ = ["Location", "line_at", "lines_of"]
