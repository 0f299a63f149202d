"""Attributes of one file or directory as the daemon has them: all by one call, or one by one. Blocking, for threads."""

from __future__ import annotations

import json
import os
from typing import Any, Final

from recfs.client.uploads import Upload, attribute, upload_of

_FACTS: Final = "user.recfs.facts"
_VERSION: Final = 1
_COMPUTED: Final = "user.recfs."


class Attributes:
    """What is known of a file, by its descriptor or a path of it.

    `user.recfs.facts` has what lists and answers need (docs/semantics.md, 6.7). What it left out, all of it where the
    daemon is an older one and where there is none, is asked for by its own name when it is wanted.
    """

    def __init__(self, file: int | str) -> None:
        """Ask. Raises OSError."""
        self._file = file
        self._told = _parsed(attribute(file, _FACTS))
        self._left_out = frozenset(self._told.get("left_out", ()))

    @property
    def at_once(self) -> bool:
        """Whether all was told by one call, and so of one moment."""
        return bool(self._told)

    def text(self, name: str) -> str | None:
        """A computed attribute; None: there is none. Raises OSError."""
        if self._told and name not in self._left_out:
            value = self._told.get(name)
            return None if value is None else str(value)
        told = attribute(self._file, _COMPUTED + name)
        return None if told is None else told.decode("utf-8", "surrogateescape")

    def number(self, name: str) -> int | None:
        """A computed attribute that is a number, likewise."""
        told = self.text(name)
        return int(told) if told is not None and told.isdecimal() else None

    def names(self) -> list[str]:
        """The names in a directory. Raises OSError."""
        if self._told and "names" not in self._left_out:
            found: list[str] = self._told["names"]
            return found
        return os.listdir(self._file)

    def upload(self) -> Upload | None:
        """What was kept of the upload that it came by. Raises OSError."""
        return upload_of(self._own)

    def _own(self, name: str) -> bytes | None:
        if self._told and "own" not in self._left_out:
            value = self._told["own"].get(name)
            return None if value is None else os.fsencode(value)
        return attribute(self._file, name)


def _parsed(told: bytes | None) -> dict[str, Any]:
    """Empty for what is not there, or of a version that is not known here."""
    if told is None:
        return {}
    try:
        found = json.loads(told)
    except ValueError:
        return {}
    known = isinstance(found, dict) and found.get("version") == _VERSION
    return found if known else {}


__all__ = ["Attributes"]
