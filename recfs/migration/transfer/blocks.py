"""Bytes on their way: read from an item, summed, and written."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from recfs.migration.transfer.items import Item, Unusable, Why

if TYPE_CHECKING:
    from collections.abc import Iterator


def sum_of(item: Item) -> str:
    """The sha256 of an item's bytes, which are read for that. Raises Unusable, OSError."""
    found, size = hashlib.sha256(), 0
    for block in read_blocks(item):
        found.update(block)
        size += len(block)
        if size > item.size:
            break
    if size != item.size:
        raise Unusable(Why.WRITING, f"it has {size:,} bytes or more, not the {item.size:,} that it should")
    return found.hexdigest()


def read_blocks(item: Item) -> Iterator[bytes]:
    """An item's bytes. What reading raises is Unusable: a full disk where it is read is none where it goes."""
    try:
        yield from item.chunks()
    except OSError as error:
        raise Unusable(Why.UNREADABLE, f"it cannot be read: {error.strerror or error}") from error


_write = os.write


def write_all(file: int, block: bytes) -> None:
    """Raises OSError."""
    view = memoryview(block)
    while view:
        view = view[_write(file, view) :]


__all__ = ["read_blocks", "sum_of", "write_all"]
