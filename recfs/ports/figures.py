"""What figures about many files are made of: sums, made where the files are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from recfs.core.figures.categories import Marks


class Folder(NamedTuple):
    """A directory, as much of it as its files' places take."""

    ino: int
    parent: int
    name: bytes


class Tally(NamedTuple):
    """Files of one directory that have all these in common, and their sums."""

    parent: int
    marks: Marks
    here: bool
    """Whether their bytes are on the local disk."""
    storage_class: str | None
    """That of their objects; None: S3 has none."""
    recent: bool
    """Whether they were last written at or after the time that was asked about."""
    files: int
    size_bytes: int
    oldest_ns: int
    """The least of their mtimes; the next is the greatest."""
    newest_ns: int


class Twins(NamedTuple):
    """Files with the same bytes."""

    sha256: bytes
    files: int
    size_bytes: int
    """Of one of them."""
    inos: Sequence[int]
    """A few of them."""


class Duplicates(NamedTuple):
    """All files that have the same bytes as others."""

    sets: int
    files: int
    wasted_bytes: int
    """What all but one of each set take."""
    worst: Sequence[Twins]
    """The sets that waste most, the worst first."""


class Figures(Protocol):
    """Sums over many files. Memory grows with directories at most, not with files."""

    def folders(self, top: int | None) -> Iterator[Folder]:
        """All directories, or those at and below *top*; none before the one it is in, if *top* is given."""

    def tallies(self, top: int | None, since_ns: int) -> Iterator[Tally]:
        """All files, or those below *top*, in groups; symbolic links are none. *since_ns*: for `recent`."""

    def duplicates(self, worst: int, named: int) -> Duplicates:
        """Committed files of which there are several; *worst* sets, with up to *named* of the files of each."""


__all__ = ["Duplicates", "Figures", "Folder", "Tally", "Twins"]
