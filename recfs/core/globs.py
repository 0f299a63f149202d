"""Globs on names and on whole paths, as rules of recfs.conf use them; over bytes, respecting case.

In a name a * stands for any text, a leading dot too, a ? for one byte, and [abc] and [!abc] for one byte of these or
of others. In a path a glob stands for one level, and ** between slashes for any number of them: a/**/b takes a/b,
a/x/b and a/x/y/b, and a/** everything below a.
"""

import fnmatch
import os
import re
from collections.abc import Callable

from recfs.core.layout import NAME_MAX_BYTES

Path = tuple[bytes, ...]
Match = Callable[[bytes], object]
"""Gives something true for a name that matches."""

DEEP = b"**"

_has_wildcard = re.compile(rb"[*?[]").search
# A bracket as fnmatch reads it: a ] right after the opening is always (?+) one of its characters.
_BRACKET = re.compile(rb"\[!?+\]?+[^\]]*\]")


def is_glob(text: bytes) -> bool:
    """Tell whether this can match more than the one name it spells."""
    return _has_wildcard(text) is not None


def compiled(glob: bytes) -> Match:
    """Give the match of one name; compile once, ask often."""
    if not is_glob(glob):
        return glob.__eq__
    # Through latin-1, as fnmatch does for bytes: names need not be UTF-8.
    return re.compile(fnmatch.translate(glob.decode("latin-1")).encode("latin-1")).match


# Stands behind a pattern's last level: no name is empty.
_END = compiled(b"")


class PathGlob:
    """One glob on paths inside the mount, compiled. Raises ValueError that says what to write instead."""

    __slots__ = ("_matches", "parts", "text")

    def __init__(self, text: str) -> None:
        parts = _checked_parts(text)
        if parts[-1] == DEEP:
            parts.append(b"*")
        self.text = text
        self.parts: Path = tuple(parts)
        """Level by level. A ** at the end takes at least one level, so it is ** and * here."""
        # None is **.
        self._matches = tuple(None if part == DEEP else compiled(part) for part in parts)

    def matches(self, path: Path) -> bool:
        """Tell whether the glob takes this path."""
        globs = self._matches
        count, index, level = len(globs), 0, 0
        # One point of return is enough, the last ** passed, so the steps are at most globs x levels.
        deep = deep_level = -1
        while level < len(path):
            match = globs[index] if index < count else _END
            if match is None:
                deep, deep_level = index, level
                index += 1
            elif match(path[level]):
                index += 1
                level += 1
            elif deep >= 0:
                deep_level += 1
                index, level = deep + 1, deep_level
            else:
                return False
        return index == count

    def covers(self, other: "PathGlob") -> bool:
        """Tell whether every path `other` takes is taken by this one; a no may be wrong, a yes never."""
        parts = self.parts
        at = _past_deep(parts, {0})
        for part in other.parts:
            # What one part of the other stands for is taken by a ** as a whole, or by a part that covers it.
            after = {
                level + (parts[level] != DEEP)
                for level in at
                if level < len(parts) and (parts[level] == DEEP or _takes(parts[level], part))
            }
            at = _past_deep(parts, after)
        return len(parts) in at

    def miss(self, path: Path) -> str:
        """Say why a path that does not match does not, with the level at which it leaves where there is one."""
        told = f"its path is not one of {self.text}"
        for glob, match, name in zip(self.parts, self._matches, path, strict=False):
            if match is None:
                return told
            if not match(name):
                return f"{told}: {os.fsdecode(name)!r} is not {os.fsdecode(glob)!r}"
        if DEEP in self.parts:
            return told
        return f"{told}: it has {len(path)} levels, not {len(self.parts)}; ** stands for any number"


def _past_deep(parts: Path, at: set[int]) -> set[int]:
    """Add the levels that are reached when a ** stands for nothing."""
    reached = set(at)
    for level, part in enumerate(parts):
        if part == DEEP and level in reached:
            reached.add(level + 1)
    return reached


def _takes(wide: bytes, narrow: bytes) -> bool:
    if narrow == DEEP:
        return False
    return wide in (b"*", narrow) or (not is_glob(narrow) and bool(compiled(wide)(narrow)))


def _checked_parts(text: str) -> list[bytes]:
    told = f"pattern {text!r}"
    if not text:
        raise ValueError("an empty pattern; write ** for every file")
    if text.startswith("/"):
        relative = text.lstrip("/") or "**"
        raise ValueError(f"{told} is an absolute path; write it relative to the mount: {relative!r}")
    if text.endswith("/"):
        raise ValueError(f"{told} ends in /; for everything below, write {text.rstrip('/') + '/**'!r}")
    parts = os.fsencode(text).split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        raise ValueError(f"{told}: write it relative to the mount, without empty, . or .. parts")
    for part in parts:
        if b"\0" in part or len(part) > NAME_MAX_BYTES:
            raise ValueError(f"{told}: a part holds a NUL or is longer than {NAME_MAX_BYTES} bytes")
        if DEEP in part and part != DEEP:
            raise ValueError(
                f"{told}: ** stands alone between slashes, for any number of levels; within a name write one *"
            )
        if b"[" in _BRACKET.sub(b"", part):
            raise ValueError(f"{told}: a [ without its ] in the same part; write [[] for the character [ itself")
    return parts
