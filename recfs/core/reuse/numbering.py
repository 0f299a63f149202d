"""The names of a file's numbered versions: {stem}_v{N}.{extension}, with the numbers from 1 on."""

from __future__ import annotations

import os
from typing import NamedTuple

from recfs.core.layout import NAME_MAX_BYTES
from recfs.core.upkeep.versions import MAX_DIGITS

INFIX = b"_v"
MAX_MARKS = 32
"""Of so many series of one directory it is remembered which number was given out last."""
_MARK = b"recfs.version."
RESERVED = b"recfs.reserved"
"""The attribute of a file that holds a number for whoever asked for it, until somebody writes to it. Nobody sees it."""


class Series(NamedTuple):
    """Names that differ in their number alone. `topics_v07.json` and `topics_v7.json` have one number."""

    stem: bytes
    extension: bytes
    """Without its dot; empty where the names have none."""

    @property
    def _end(self) -> bytes:
        return b"." + self.extension if self.extension else b""

    def name(self, number: int) -> bytes:
        """That of a version."""
        return self.stem + INFIX + b"%d" % number + self._end

    def number(self, name: bytes) -> int | None:
        """The number that a name has; None for one that is not of this series."""
        begin, end = self.stem + INFIX, self._end
        digits = name[len(begin) : len(name) - len(end)]
        if not (name.startswith(begin) and name.endswith(end)) or len(digits) != len(name) - len(begin) - len(end):
            return None
        return int(digits) if digits.isdigit() and len(digits) <= MAX_DIGITS else None

    @property
    def mark(self) -> bytes:
        """The attribute of a directory that says which number was given out last; nobody sees or sets it by name."""
        return _MARK + self.name(0)


def series(stem: str, extension: str) -> Series:
    """A series as it is asked for. Raises ValueError that says what is wrong."""
    try:
        found = Series(os.fsencode(stem), os.fsencode(extension).removeprefix(b"."))
    except UnicodeEncodeError as error:
        raise ValueError(f"{stem!r}, {extension!r}: a character that no file name has") from error
    for what, part in (("name", found.stem), ("extension", found.extension)):
        if b"/" in part or b"\0" in part:
            raise ValueError(f"{what} {os.fsdecode(part)!r}: neither `/` nor NUL is in a file name")
    if not found.stem:
        raise ValueError("a version has a name before its number, such as `topics`")
    if len(found.name(10**MAX_DIGITS - 1)) > NAME_MAX_BYTES:
        raise ValueError(f"a file name has {NAME_MAX_BYTES} bytes at most, the number of the version included")
    return found


def last_given(attributes: dict[bytes, bytes], which: Series) -> int:
    """The number that was given out last in a directory with those attributes; 0 where none is known of."""
    return int(attributes.get(which.mark, b"0"))


def forgotten(attributes: dict[bytes, bytes], which: Series) -> list[bytes]:
    """Which marks of a directory are to go so that there is room for one more: those of the fewest versions."""
    marks = sorted((int(value), name) for name, value in attributes.items() if name.startswith(_MARK))
    if which.mark in attributes or len(marks) < MAX_MARKS:
        return []
    return [name for _, name in marks[: len(marks) - MAX_MARKS + 1]]


__all__ = ["MAX_MARKS", "RESERVED", "Series", "forgotten", "last_given", "series"]
