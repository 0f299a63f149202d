"""Where the bytes of files lie on a disk that lets several of them share its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Extent = tuple[int, int, int]
    """Offset in the file, place on the disk, length."""


def own_bytes(one: Sequence[Extent], other: Sequence[Extent]) -> int:
    """How many bytes of *other* lie in blocks that are not those of *one* at the same place of both.

    Both are in order. How a file system cuts what lies together into extents is nothing, and holes have none.
    """
    own = at = 0
    for logical, physical, length in other:
        own += length
        while at < len(one) and one[at][0] + one[at][2] <= logical:
            at += 1
        for index in range(at, len(one)):
            begin, place, size = one[index]
            if begin >= logical + length:
                break
            if place - begin == physical - logical:
                own -= min(begin + size, logical + length) - max(begin, logical)
    return own


__all__ = ["own_bytes"]
