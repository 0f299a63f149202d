"""What the end of an rsync means for a migration: which files it concerns, and what helps (rsync(1), EXIT VALUES)."""

from __future__ import annotations

import enum
import errno
import re
from typing import NamedTuple


class Reach(enum.StrEnum):
    """How far what went wrong reaches."""

    NOTHING = "nothing"
    FILES = "files"
    """Single files: the others are tried."""
    USER = "user"
    """Everything of that user."""
    ALL = "all"
    """Everything: the run stops."""


class Verdict(NamedTuple):
    """What is to be stopped, why, and what helps."""

    reach: Reach
    reason: str
    remedy: str


_AGAIN = "run it again, and it goes on"
_OK = Verdict(Reach.NOTHING, "", "")
_FULL = Verdict(Reach.ALL, "the disk is full", f"make room (`recfs status` shows the reserve), then {_AGAIN}")
_QUOTA = Verdict(Reach.USER, "the user's quota is used up", f"raise it (`recfs quota set`) or make room, then {_AGAIN}")
_GONE = Verdict(Reach.ALL, "the mount does not answer any more", f"mount the store again, then {_AGAIN}")
_BY_ERRNO = {
    errno.ENOSPC: _FULL,
    errno.ENOTCONN: _GONE,
    errno.ECONNABORTED: _GONE,
    errno.ENODEV: _GONE,
    errno.EDQUOT: _QUOTA,
}
"""Looked for in this order: what stops more goes first."""

_INTERRUPTED = "it was interrupted"
_DIED = "one of its processes has died"
_BY_CODE = {
    1: (Reach.ALL, "its command line was not understood", "install rsync 3.2 or newer"),
    2: (Reach.ALL, "its processes do not understand each other", "install rsync 3.2 or newer"),
    3: (Reach.ALL, "it could not get at the files or directories that it was to use", _AGAIN),
    4: (Reach.ALL, "it cannot do what it was asked for", "install rsync 3.2 or newer"),
    5: (Reach.ALL, "it could not begin", _AGAIN),
    6: (Reach.ALL, "it could not write its log", _AGAIN),
    10: (Reach.ALL, "it met an error of a socket", _AGAIN),
    11: (Reach.FILES, "a file could not be written or read", _AGAIN),
    12: (Reach.USER, _DIED, _AGAIN),
    13: (Reach.ALL, "it could not tell what went wrong", _AGAIN),
    14: (Reach.ALL, "its processes could not be joined", _AGAIN),
    15: (Reach.USER, _DIED, _AGAIN),
    16: (Reach.USER, _DIED, _AGAIN),
    19: (Reach.ALL, _INTERRUPTED, _AGAIN),
    20: (Reach.ALL, _INTERRUPTED, _AGAIN),
    21: (Reach.USER, _DIED, _AGAIN),
    22: (Reach.ALL, "it got no memory", f"free some memory, then {_AGAIN}"),
    23: (Reach.FILES, "not all could be copied", _AGAIN),
    24: (Reach.FILES, "files vanished before they were copied", _AGAIN),
    25: (Reach.ALL, "it was to delete something, which it never is", _AGAIN),
    30: (Reach.USER, "nothing moved for too long", _AGAIN),
    35: (Reach.USER, "nothing moved for too long", _AGAIN),
    124: (Reach.ALL, "its other side failed", _AGAIN),
    125: (Reach.ALL, "its other side was killed", _AGAIN),
    126: (Reach.ALL, "it cannot be run", "install rsync 3.2 or newer"),
    127: (Reach.ALL, "it was not found", "install rsync"),
}
_SIGNALS = 128
_TOLD = 300
"""So many letters of what rsync said are told."""
_ERRNO = re.compile(r"\((\d{1,3})\)\s*$", re.MULTILINE)
"""rsync ends what it says of a system call with its number: `write failed on "x": No space left on device (28)`."""
_REASON = re.compile(r'"(?: failed)?: ')


def verdict(code: int, said: str) -> Verdict:
    """Judge an end by the exit code (negative: a signal ended it) and by what it said, in English.

    A full disk, a quota and a mount that is gone are known by their errno, whatever the code.
    """
    if code == 0:
        return _OK
    numbers = {int(found) for found in _ERRNO.findall(said)}
    for number, found in _BY_ERRNO.items():
        if number in numbers:
            return found
    if code < 0 or code > _SIGNALS:
        return Verdict(Reach.USER, f"rsync was ended by signal {-code if code < 0 else code - _SIGNALS}", _AGAIN)
    known = _BY_CODE.get(code)
    if known is None:
        return Verdict(Reach.ALL, f"rsync ended with {code}, which rsync(1) does not explain", _AGAIN)
    reach, reason, remedy = known
    if code == 11 and errno.EIO in numbers:
        return Verdict(Reach.ALL, f"rsync ended with 11: {reason}: input/output error", remedy)
    told = _first_line(said) if reach is Reach.ALL else ""
    return Verdict(reach, f"rsync ended with {code}: {reason}{told}", remedy)


def _first_line(said: str) -> str:
    """What rsync said first, for a reason's end; "" where it said nothing."""
    line = next((line for line in said.splitlines() if line.startswith("rsync: ")), "")
    return f" ({line.removeprefix('rsync: ')[:_TOLD]})" if line else ""


def said_of(target: bytes, said: str) -> str:
    """Give what rsync said of one file, without the beginning that names program and file; "" where it said nothing.

    *target* is the path that it was told. rsync writes to `.NAME.XXXXXX` beside it at times, and writes control
    characters as `\\#ooo` (rsync(1), --8-bit-output).
    """
    folder, slash, name = _as_told(target).rpartition("/")
    beside = rf"\.{re.escape(name.lstrip('.'))}\.[A-Za-z0-9]{{6}}"
    here = re.compile(rf'["/]{re.escape(folder + slash)}(?:{re.escape(name)}|{beside})"')
    for line in said.splitlines():
        if here.search(line):
            return _REASON.split(line)[-1]
    return ""


def _as_told(path: bytes) -> str:
    told = re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]|\\(?=#\d{3})", lambda found: b"\\#%03o" % found[0][0], path)
    return told.decode("utf-8", "surrogateescape")


__all__ = ["Reach", "Verdict", "said_of", "verdict"]
