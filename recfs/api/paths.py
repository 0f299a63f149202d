"""Mount paths as people and programs give and get them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from recfs.errors import NotFound

if TYPE_CHECKING:
    from recfs.ports.reports import Entry, StoreQueries


def text(name: bytes) -> str:
    """A name for JSON: surrogateescape keeps bytes that are not UTF-8."""
    return os.fsdecode(name)


def parts_of(path: str) -> list[bytes]:
    """A mount path, level by level."""
    return [part for part in os.fsencode(path).split(b"/") if part]


def found_at(snapshot: StoreQueries, path: str) -> Entry:
    """What is at a mount path. Raises NotFound."""
    entry = snapshot.entry(parts_of(path))
    if entry is None:
        raise NotFound(f"{path}: no such file or directory")
    return entry


__all__ = ["found_at", "parts_of", "text"]
