"""How far a file of a migration has come, and what is to be done with it next. Decided here, carried out elsewhere."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Step(enum.StrEnum):
    """How far a run has come with one file. Whoever is stopped goes on from here."""

    PENDING = "pending"
    """Nothing was done, or what was done is nothing: `problem` tells why."""
    BEGUN = "begun"
    """Something of it may lie at its target: written down before the first byte is copied."""
    COPIED = "copied"
    """All of it lies at the target, as far as size and time tell; or its bytes were there before."""
    VERIFIED = "verified"
    """Its bytes and those that recfs has at the target have one sha256."""
    CLEANED = "cleaned"
    """Verified, and its source is deleted."""
    ROLLED_BACK = "rolled back"
    """What a run had brought was taken away again."""


class Brought(enum.StrEnum):
    """Where the file at the target is from: what may be taken back is what was brought."""

    NOTHING = "nothing"
    THERE = "there"
    """Its bytes were there before: never taken back."""
    NEW = "new"
    """A copy where nothing was."""
    REPLACED = "replaced"
    """A copy in the place of another file (--replace): never taken back, for that file would not return."""
    MOVED = "moved"
    """The source itself, by a rename (--move)."""


UNKNOWN_NS = -1
"""In the place of a ctime that nobody wrote down: it is no file's."""


class Seen(NamedTuple):
    """What a look at a regular file tells: as long as it stays so, the bytes are taken for the same."""

    size: int
    mtime_ns: int
    device: int
    inode: int
    ctime_ns: int = UNKNOWN_NS
    """When bytes, mode, owner or names of it last changed, which nobody can set (inode(7)). Older states have none."""

    def is_like(self, other: Seen | None) -> bool:
        """Whether nothing differs but the ctime: its bytes may be the same, which only they can tell."""
        return other is not None and self[:4] == other[:4]


@dataclass(slots=True)
class Row:
    """What is known of one file of a plan."""

    source: bytes
    target: bytes
    step: Step = Step.PENDING
    brought: Brought = Brought.NOTHING
    seen: Seen | None = None
    """The source when it was copied, or hashed."""
    sha256: str | None = None
    """Of the source's bytes while it was as `seen` says: hashed once."""
    left: tuple[int, int] | None = None
    """Size and mtime_ns of the target when the run had left it."""
    problem: str = ""
    """Why it came no further, for people."""
    was: tuple[int, int] | None = None
    """Whose the source was that was moved, uid and gid."""

    @property
    def is_done(self) -> bool:
        """Whether all of it lies at its target."""
        return self.step in (Step.COPIED, Step.VERIFIED, Step.CLEANED)

    @property
    def is_away(self) -> bool:
        """Whether its source is gone by this migration: what comes to its path is another file."""
        return self.step is Step.CLEANED or (self.is_done and self.brought is Brought.MOVED)

    def look_again(self, seen: Seen) -> None:
        """Take note of what the source is like now; a checksum of other bytes is forgotten."""
        if self.seen != seen:
            self.seen, self.sha256 = seen, None


class Way(enum.StrEnum):
    """How a file is brought to its target."""

    DONE = "done"
    """It is there."""
    NEW = "new"
    """Nothing is there: it is written where it is to be."""
    ON = "on"
    """The beginning of it is there, left by a run that was stopped: the rest is written behind it."""
    LAST = "last"
    """All its bytes are there, left by a run that was stopped: its time and its mode may not be set yet."""
    ANEW = "anew"
    """Something is there that gives way: written beside it, and renamed over it when it is whole."""
    PROVE = "prove"
    """Something is there: which of these it is, its bytes tell."""
    REFUSED = "refused"
    """Other bytes are there, and stay."""


def way_to(row: Row, source: Seen, target: tuple[int, int] | None, *, replace: bool, shown: bool = False) -> Way:
    """Decide how a file is brought.

    *target*: size and mtime_ns of the regular file that is there, None where nothing is. *shown*: it is a shared file
    that is shown where the user has none, and gives way to one of the user's own.
    """
    if target is None:
        return Way.NEW
    if shown:
        return Way.ANEW
    if row.is_done and row.left == target:
        if row.seen == source:
            return Way.DONE
        return Way.PROVE if source.is_like(row.seen) else Way.ANEW
    if row.step is Step.BEGUN and row.left == target:
        return Way.ANEW  # a newer source was to take its place, and nothing of it had come
    if row.step is Step.BEGUN and row.seen == source and target == (source.size, source.mtime_ns):
        return Way.LAST  # all had come, and was not written down
    return Way.ANEW if replace and not row.is_done and row.step is not Step.BEGUN else Way.PROVE


class Proof(enum.StrEnum):
    """What the bytes at a target are, beside those of the source."""

    EQUAL = "equal"
    BEGINNING = "beginning"
    """The source begins with them."""
    CUT_OFF = "cut off"
    """The source begins with them, or they are all of it, and recfs has no checksum: their writer was cut off."""
    UNKNOWN = "unknown"
    """Somebody writes to it: they may be others in a moment."""
    OTHER = "other"


def way_after(row: Row, proof: Proof, target: tuple[int, int] | None, *, replace: bool) -> Way:
    """Decide what becomes of a file where something is at its *target*, once that was compared.

    That a run had begun with a file does not make what is there its own: it may not have come so far, and a user may
    have made a file of that name since. Bytes that are the source's tell.
    """
    if proof is Proof.EQUAL:
        return Way.LAST if row.step is Step.BEGUN else Way.DONE
    if row.step is Step.BEGUN and proof is Proof.BEGINNING:
        return Way.ON
    if row.step is Step.BEGUN and proof is Proof.CUT_OFF:
        return Way.ANEW  # recfs never calls whole what was cut off and written on
    if row.step is Step.BEGUN and proof is Proof.OTHER and row.seen and target == (row.seen.size, row.seen.mtime_ns):
        return Way.ANEW  # all of an earlier source had come, with its time, and was not written down
    if row.is_done and row.left == target and proof is not Proof.UNKNOWN:
        return Way.ANEW  # it is as the run had left it, and the source has other bytes by now
    return Way.ANEW if replace else Way.REFUSED


__all__ = ["UNKNOWN_NS", "Brought", "Proof", "Row", "Seen", "Step", "Way", "way_after", "way_to"]
