"""Where files and recordings lie, as shapes of paths, and whether a pattern can take any of such a shape."""

from recfs.core.globs import DEEP, Path, compiled, is_glob
from recfs.core.layout import is_id

ID = b"<id>"
"""A level that is named by an id …"""
ANY = b"*"
"""… and the levels that follow, at least one, of any name. Always the last of a shape."""


def meets(parts: Path, levels: Path) -> bool:
    """Tell whether a pattern, level by level (`PathGlob.parts`), matches some path of this shape."""
    end = len(levels)
    # How many levels may have been taken so far.
    at = {0}
    for part in parts:
        if part == DEEP:
            at = set(range(min(at), end + 1))
        else:
            at = {min(level + 1, end) for level in at if _goes_on(part, levels, level)}
            if not at:
                return False
    return end in at


def _goes_on(part: bytes, levels: Path, level: int) -> bool:
    if level == len(levels):
        return levels[-1] == ANY
    return _fits(part, levels[level])


def _fits(part: bytes, level: bytes) -> bool:
    if level == ANY:
        return True
    return (is_glob(part) or is_id(part)) if level == ID else bool(compiled(part)(level))


__all__ = ["ANY", "ID", "meets"]
