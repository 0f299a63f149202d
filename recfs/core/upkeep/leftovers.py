"""What nobody knows of any more, and how old it has to be to go. Decisions only: `services/` carries them out."""

from collections.abc import Collection, Iterable
from enum import StrEnum
from typing import NamedTuple

from recfs.core.units import format_duration

_NS = 10**9


class Now(NamedTuple):
    """What time it is, by two clocks (`recfs/clock.py`): ages of what others date are by the one that is behind."""

    wall_ns: int
    calendar_ns: int
    """The wall clock without steps that have not lasted: it may have been put ahead a moment ago."""

    def age_s(self, since_ns: int) -> float:
        """How long ago that was at least, in seconds; below 0: it lies ahead, as after a clock that was put back."""
        return (min(self.wall_ns, self.calendar_ns) - since_ns) / _NS


class Begun(NamedTuple):
    """An upload in parts that was begun, and neither finished nor aborted."""

    key: str
    upload_id: str
    initiated_ns: int
    """By the server's clock."""


def stale_uploads(begun: Iterable[Begun], known: Collection[tuple[str, str]], now: Now, age_s: float) -> list[Begun]:
    """Return those that nobody goes on with: as old as *age_s*, none of *known*, (key, upload id) of the journal."""
    return [
        each for each in begun
        if now.age_s(each.initiated_ns) >= age_s and (each.key, each.upload_id) not in known
    ]  # fmt: skip


# --- orphans: bytes without a row, and rows without bytes ------------------------------------------------------------

QUIET_S = 60.0
"""What has changed more recently is not looked at: somebody may just be putting it there."""
FEW_MISSING = 20
"""So many files may be gone without a doubt about the disk as a whole …"""
SHARE_MISSING = 10
"""… and of a larger store one in so many."""


class Where(StrEnum):
    """Where bytes lie, or should."""

    HOME = "home"
    STAGING = "staging"
    TRASH = "trash"
    CACHE = "cache"
    """Local copies of what S3 has, whole or in part."""
    BUCKET = "bucket"


class Mode(StrEnum):
    """What a look for orphans does about them."""

    REPORT = "report"
    ADOPT = "adopt"
    """Bytes become files."""
    DELETE = "delete"
    """What is certainly nobody's goes; what lies in the home tree goes to lost+found."""


class Deed(StrEnum):
    """What is done about one of them."""

    NONE = "-"
    ADOPT = "adopt"
    FORGET = "forget"
    """The row says that the copy is gone; S3 has the bytes."""
    UPLOAD = "upload"
    """The file is uploaded again: its object is gone, and the bytes are here."""
    DELETE = "delete"
    SET_ASIDE = "lost+found"


class Stray(NamedTuple):
    """Bytes that no row knows."""

    where: Where
    name: str
    """Path in the store's root, or key."""
    size_bytes: int
    changed_ns: int
    """By the clock of whoever keeps them."""
    why: str
    """What it is, and why nobody knows it."""
    adopts: bool
    """Whether it can become a file where it is."""
    removal: Deed
    """How it goes, if it may."""


class Missing(NamedTuple):
    """A row whose bytes are not where it says."""

    where: Where
    name: str
    size_bytes: int
    why: str
    in_s3: bool = False
    """Whether S3 has the same bytes."""
    is_here: bool = False
    """Whether they are on the disk, and it is the object that is missing."""


class Finding(NamedTuple):
    """One orphan, and what may be done about it."""

    where: Where
    what: str
    """"bytes" or "row"."""
    name: str
    size_bytes: int
    age_s: float | None
    why: str
    adopt: Deed
    delete: Deed

    def deed(self, mode: Mode) -> Deed:
        """What a look in this mode does."""
        return {Mode.REPORT: Deed.NONE, Mode.ADOPT: self.adopt, Mode.DELETE: self.delete}[mode]


def judge(stray: Stray, now: Now, grace_s: float, doubt_ns: int) -> Finding | None:
    """Decide about bytes that no row knows; None: it is too early to say anything.

    *doubt_ns*: when catalogue and bytes were last found to be of different times, as after a catalogue was restored;
    0: never. What is older may be of files that this catalogue does not know: it is never removed.
    """
    age_s, why = now.age_s(stray.changed_ns), stray.why
    if age_s < QUIET_S:
        return None
    removal = stray.removal
    if removal is not Deed.NONE and age_s < grace_s:
        removal, why = Deed.NONE, f"{why}; stays for {format_duration(grace_s)}"
    elif removal is not Deed.NONE and stray.changed_ns <= doubt_ns:
        removal, why = Deed.NONE, f"{why}; older than a catalogue that was restored, which may not know all there is"
    adopt = Deed.ADOPT if stray.adopts else Deed.NONE
    return Finding(stray.where, "bytes", stray.name, stray.size_bytes, age_s, why, adopt, removal)


def judge_missing(missing: Missing) -> Finding:
    """Decide about a row without its bytes. It is never removed: they may come back, with a disk or from a backup."""
    adopt = Deed.FORGET if missing.in_s3 else Deed.UPLOAD if missing.is_here else Deed.NONE
    return Finding(missing.where, "row", missing.name, missing.size_bytes, None, missing.why, adopt, Deed.NONE)


def too_many_missing(missing: int, looked_at: int) -> bool:
    """Whether so many files of *looked_at* are gone that it is rather the disk, or the bucket, that is not there."""
    return missing > FEW_MISSING and missing * SHARE_MISSING > looked_at
