"""What is found in the home tree past recfs, and what that means: entries of a directory compared with their rows.

Pure: what a row says, what the disk shows, and the time are arguments. Who carries it out is `services/watcher.py`.
"""

from __future__ import annotations

import enum
import re
import stat
from typing import NamedTuple

from recfs.core.model import Kind, State

SECOND_NS = 1_000_000_000
KEPT_FROM_NS, KEPT_TO_NS = -(1 << 31) * SECOND_NS, (1 << 31) * SECOND_NS
"""Times that every file system keeps; beyond (1901, 2038) some store another one than they were told."""
UNFINISHED_TIMES = 30
"""So many times as long as others a file has to be left alone whose name a copying program gives to half a copy."""
FOLDER_QUIET_S = 0.3
"""How long a new directory is left alone: until where it may have been moved from was looked at."""
FEW_GONE = 20
"""So many files may always go at once."""
SHARE_GONE = 10
"""Of a larger store one in so many …"""
MOST_GONE = 10_000
"""… but never more than these, within `GONE_WITHIN_S`, without the operator's word."""
GONE_WITHIN_S = 600.0


class Known(NamedTuple):
    """What the row of an entry says."""

    kind: Kind
    home_ino: int | None
    size_bytes: int
    mtime_ns: int
    state: State | None
    """Of a file."""
    busy: bool
    """recfs itself is about to change it, or somebody has it open."""
    in_staging: bool
    """Its bytes lie in staging, or are to come home: nothing of its own lies at its place yet."""
    attributes: tuple[int, int, int] | None = None
    """Mode bits, user and group, where the disk shows just these; None: it cannot."""


class Seen(NamedTuple):
    """What the disk shows of an entry (lstat(2))."""

    mode: int
    """st_mode."""
    st_ino: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    links: int
    uid: int
    gid: int

    @property
    def format(self) -> int:
        """S_IFREG and the like."""
        return stat.S_IFMT(self.mode)

    @property
    def lasting(self) -> Seen:
        """What has to stay as it is while an entry is left alone: of a directory, not what changes with its entries."""
        if self.format != stat.S_IFDIR:
            return self
        return self._replace(size_bytes=0, mtime_ns=0, ctime_ns=0, links=0)


class Finding(enum.Enum):
    """What an entry is found to be."""

    OURS = "ours"
    """As the row says, or nothing where nothing is expected."""
    BUSY = "busy"
    """Cannot be told now: recfs is at it, or somebody has it open. To be looked at again."""
    NEW = "new"
    """No row knows it."""
    CHANGED = "changed"
    """A file with other bytes than its row tells of, or perhaps."""
    GONE = "gone"
    """A row whose entry is not there, or something of another kind instead."""
    DESCRIBED = "described"
    """With another mode or owner than its row says."""
    RENUMBERED = "renumbered"
    """A directory that another one has taken the place of."""
    NOWHERE = "nowhere"
    """A file of which a start found no bytes when catalogue and tree were not of one time, and there still are none."""
    BLOCKED = "blocked"
    """Something that can be no copy of the file stands where that would come to lie."""


_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.DIR: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}


def judge(known: Known | None, seen: Seen | None) -> Finding:
    """Compare one entry with its row."""
    if known is None:
        return Finding.OURS if seen is None else Finding.NEW
    if known.kind is Kind.FILE:
        return _judge_file(known, seen)
    if known.busy:
        return Finding.BUSY
    if seen is None or seen.format != _FORMATS[known.kind]:
        return Finding.GONE
    if known.home_ino in (None, seen.st_ino):
        return Finding.DESCRIBED if is_described(known, seen) else Finding.OURS
    return Finding.RENUMBERED if known.kind is Kind.DIR else Finding.GONE


def _judge_file(known: Known, seen: Seen | None) -> Finding:
    state = known.state
    if known.in_staging:
        return Finding.OURS  # what stands in its way is seen to when it comes home
    if state is not None and state.is_remote:
        if seen is None:
            return Finding.OURS
        if known.busy:
            return Finding.BUSY
        return Finding.CHANGED if seen.format == stat.S_IFREG else Finding.BLOCKED
    is_there = seen is not None and seen.format == stat.S_IFREG
    if known.home_ino is None and not known.busy and not is_there:
        return Finding.NOWHERE
    if known.busy or state is None or state is State.WRITING:
        return Finding.BUSY
    if seen is None or not is_there:  # of what waits to be read, too: it would wait for ever
        return Finding.BUSY if state is State.UPLOADING else Finding.GONE
    if not (state.is_whole or state is State.CORRUPT):
        return Finding.BUSY
    if differs(known, seen):
        return Finding.CHANGED
    return Finding.DESCRIBED if is_described(known, seen) else Finding.OURS


def is_described(known: Known, seen: Seen) -> bool:
    """Whether mode or owner are others than the row says. Of a link only the owner counts."""
    if known.attributes is None:
        return False
    mode = known.attributes[0] if known.kind is Kind.SYMLINK else stat.S_IMODE(seen.mode)
    return known.attributes != (mode, seen.uid, seen.gid)


def differs(known: Known, seen: Seen) -> bool:
    """Whether a file is another one than its row tells of: by number, size or time of modification."""
    if known.home_ino not in (None, seen.st_ino) or known.size_bytes != seen.size_bytes:
        return True
    if known.mtime_ns == seen.mtime_ns or not KEPT_FROM_NS <= known.mtime_ns < KEPT_TO_NS:
        return False
    whole_seconds = seen.mtime_ns % SECOND_NS == 0  # all that some file systems keep
    return not (whole_seconds and known.mtime_ns // SECOND_NS == seen.mtime_ns // SECOND_NS)


def is_same(known: Known, seen: Seen) -> bool:
    """Whether what lies at another place is the entry of a row, as the row tells of it. *seen* has its inode number.

    One that differs is another which was given the number of a removed one, or it cannot be told from such.
    """
    state = State.COMMITTED if known.state is State.SEALING else known.state
    return judge(known._replace(busy=False, state=state), seen) in (Finding.OURS, Finding.DESCRIBED)


_UNFINISHED = re.compile(rb"\..+\.[A-Za-z0-9]{6}").fullmatch


def quiet_for_s(name: bytes, finding: Finding, seen: Seen | None, quiet_s: float) -> float:
    """How long an entry has to be left alone before it is believed, in seconds.

    rsync(1) writes to `.<name>.XXXXXX` and renames that at the end. A new directory is one as soon as it was not moved
    here: what is copied into it need not wait for the end of that.
    """
    if finding is Finding.NEW and seen is not None and seen.format == stat.S_IFDIR:
        return min(quiet_s, FOLDER_QUIET_S)
    return quiet_s * UNFINISHED_TIMES if name[:1] == b"." and _UNFINISHED(name) else quiet_s


def refusal(seen: Seen, *, links_count: bool = True, owned_by: int | None = None) -> str | None:
    """Why an entry that no row knows is left alone; None if nothing is against it.

    *owned_by*: the only user whose files the daemon may change the attributes of; None: it may of all.
    """
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}
    if seen.format in kinds:
        return f"it is {kinds[seen.format]}; recfs has only files, directories and symbolic links"
    if links_count and seen.format == stat.S_IFREG and seen.links > 1:
        return f"it has {seen.links} hard links, and a write to it would change all of them; put a copy there"
    if owned_by is not None and seen.uid != owned_by:
        return f"it belongs to user {seen.uid}, and the daemon may change only files of user {owned_by}; chown it"
    return None


def may_forget(gone: int, lately: int, files: int) -> bool:
    """Whether *gone* files more may lose their rows at once.

    *lately*: how many did within `GONE_WITHIN_S`; *files*: how many the store has, those not counted. A disk that
    is not mounted, or a command that went wrong, looks like the removal of everything.
    """
    return gone + lately <= max(FEW_GONE, min((files + lately) // SHARE_GONE, MOST_GONE))


__all__ = [
    "Finding",
    "Known",
    "Seen",
    "differs",
    "is_described",
    "is_same",
    "judge",
    "may_forget",
    "quiet_for_s",
    "refusal",
]
