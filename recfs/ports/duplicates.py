"""Files with the same bytes: questions that the catalogue answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Which(NamedTuple):
    """Which files are looked at."""

    tops: Sequence[int] | None
    """Those in and below these directories, by inode number; None: all."""
    min_bytes: int = 1


class Twin(NamedTuple):
    """A file of which there are several."""

    ino: int
    state: str


class Set(NamedTuple):
    """Files with the same bytes."""

    sha256: bytes
    files: int
    size_bytes: int
    """Of one of them."""
    waste: int | float
    """What all but one take; not exact beyond 63 bits. With the checksum, the place of the set among all."""
    some: Sequence[Twin]


class Sets(NamedTuple):
    """All that have the same bytes as others, and some of the sets."""

    sets: int
    files: int
    wasted_bytes: int
    """What all but one of each set take."""
    worst: Sequence[Set]
    """Those that waste most, the worst first."""


class Identical(NamedTuple):
    """A file whose bytes are on this disk, of which there are several such."""

    sha256: bytes
    ino: int


class DuplicateFiles(Protocol):
    """Only files with checksums that vouch for their bytes are looked at, and none without bytes."""

    def twin_sets(self, which: Which, after: tuple[int | float, bytes] | None, limit: int, named: int) -> Sets:
        """The sets that waste most, after that of (waste, sha256), with up to *named* files of each."""

    def twins(self, which: Which, sha256: bytes, after: int, limit: int) -> Sequence[Twin]:
        """The files of one checksum beyond an inode number, in order."""

    def digests(self, which: Which, least: bytes, most: bytes) -> Sequence[bytes]:
        """Two at most of the checksums of files that are meant, from one of them to another."""

    def identical(self, which: Which, after: tuple[bytes, int] | None, limit: int) -> Sequence[Identical]:
        """Files of which there are several here, by checksum and inode number, from that one on, itself included."""


__all__ = ["DuplicateFiles", "Identical", "Set", "Sets", "Twin", "Which"]
