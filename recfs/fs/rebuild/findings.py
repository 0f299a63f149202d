"""What a rebuild has found so far, for people."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field

log = logging.getLogger("recfs.rebuild")

NAMED = 20
"""So many of a kind are named; the log has all of them."""


@dataclass(slots=True)
class Named:
    """Things of one kind: counted, the first of them named. Memory does not grow with their number."""

    what: str
    is_problem: bool = True
    """Whether somebody has to look after it."""
    count: int = 0
    some: list[tuple[str, str]] = field(default_factory=list)
    """(path or key, what there is to say of it) of the first."""

    def add(self, name: bytes | str, why: str) -> None:
        """One more."""
        text = os.fsdecode(name)
        self.count += 1
        if len(self.some) < NAMED:
            self.some.append((text, why))
        log.log(logging.INFO if self.is_problem else logging.DEBUG, "%s: %s: %s", self.what, text, why)


@dataclass(slots=True)
class Findings:
    """Counts, and what is to be told by name."""

    directories: int = 0
    links: int = 0
    files: int = 0
    """Files of the home tree, and …"""
    stored: int = 0
    """… of these, those that S3 has as well."""
    evicted: int = 0
    """Files that S3 alone has, …"""
    archived: int = 0
    """… and of these, those that need a restore."""
    objects: int = 0
    """Objects that were looked at."""
    hashed_files: int = 0
    hashed_bytes: int = 0
    trusted: int = 0
    """Files whose checksum was taken from elsewhere."""
    unsealed: int = 0
    """Files that the next daemon hashes."""
    kept: int = 0
    """Files that an earlier run of this rebuild had done."""
    queued: int = 0
    """Files that are to be uploaded."""
    users: int = 0
    owners: int = 0
    """Users whose uid was taken from their directory."""
    salvaged: int = 0
    """Rows of the old catalogue that told something."""
    nothing_salvaged: bool = False
    """The old catalogue was to be asked, and nothing of it can be read."""
    store_id: str = ""
    claim_needed: bool = False
    """The bucket's prefix has to be claimed before anything in it changes."""
    moved_to: str | None = None
    """What the old catalogue is called now."""
    ended_before: bool = False
    """An earlier run had made the catalogue to its end: this one only gave it its name."""
    in_place: bool = False
    """Whether the new catalogue is the store's."""
    newer: Named = field(default_factory=lambda: Named("newer than its object, which is an earlier version", False))
    foreign: Named = field(default_factory=lambda: Named("no object of recfs's, left alone", False))
    unplaced: Named = field(default_factory=lambda: Named("object that cannot be placed, left alone"))
    damaged: Named = field(default_factory=lambda: Named("local copy went bad; the object counts"))
    unreadable: Named = field(default_factory=lambda: Named("cannot be read"))
    aside: Named = field(default_factory=lambda: Named("moved to lost+found"))
    linked: Named = field(default_factory=lambda: Named("hard link"))
    unseen: Named = field(default_factory=lambda: Named("directory that cannot be looked into"))

    def kinds(self) -> tuple[Named, ...]:
        """All that is named."""
        return (
            self.newer,
            self.foreign,
            self.unplaced,
            self.damaged,
            self.unreadable,
            self.aside,
            self.linked,
            self.unseen,
        )

    @property
    def has_problems(self) -> bool:
        """Whether somebody has to look after something."""
        return self.claim_needed or not self.in_place or any(kind.count for kind in self.kinds() if kind.is_problem)
