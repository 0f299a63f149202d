"""How much JSON of somebody else's may be, before and after it is parsed: every value takes time and memory of its own.

A line of `{},{},…` has a value for each three bytes, and Python's parser holds the interpreter until it has made them
all; so they are counted in the bytes first, which takes a fraction of that. What is nested deeper than its own answer
may be could be taken and never given.
"""

from __future__ import annotations

from typing import Any, Final

MAX_LEVELS: Final = 100
"""Lists and tables inside each other; Python's parser gives up at some 1,000, and less where it is called from."""
_OPENING: Final = (b"[", b"{")
_SEPARATING: Final = (*_OPENING, b",")
_AT_ONCE: Final = 1 << 18
"""So many bytes are counted in one go, so that other threads need not wait for long."""


def has_more_values(text: bytes, most: int) -> bool:
    """Whether JSON has more values than that, as far as its brackets, braces and commas tell, those in texts too."""
    return _counts_more(text, _SEPARATING, most)


def is_deeper(value: Any, text: bytes, most: int = MAX_LEVELS) -> bool:
    """Whether a value, parsed from *text*, has more levels of lists and tables than that; a number has none."""
    return _counts_more(text, _OPENING, most) and exceeds(value, most, len(text))


def exceeds(value: Any, levels: int, values: int) -> bool:
    """Whether a value has more levels of lists and tables than that, or consists of more values."""
    found, level = 1, [value]
    for _ in range(levels + 1):
        level = [each for each in level if isinstance(each, (list, dict))]
        if not level:
            return False
        found += sum(map(len, level))
        if found > values:
            return True
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return True


def _counts_more(text: bytes, of: tuple[bytes, ...], most: int) -> bool:
    found = 0
    for begin in range(0, len(text), _AT_ONCE):
        found += sum(text.count(each, begin, begin + _AT_ONCE) for each in of)
        if found > most:
            return True
    return False


__all__ = ["MAX_LEVELS", "exceeds", "has_more_values", "is_deeper"]
