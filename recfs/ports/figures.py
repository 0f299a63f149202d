"""What figures about many files are made of: sums, made where the files are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from recfs.core.figures.categories import Marks
from recfs.core.figures.counters import FigureKey, Key, MonthKey


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
    used_ns: int | None = None
    """When any of them was last used here (`Clock.steady_ns`): kept of files with an object. None: not known."""


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


class Counted(NamedTuple):
    """What the counters say; of those that are not there, that there is nothing."""

    figures: Sequence[tuple[FigureKey, int, int]]
    """Files and bytes of each."""
    months: Sequence[tuple[MonthKey, int, int]]


class Surveyed(NamedTuple):
    """What a survey of all files found."""

    at_ns: int
    """`Clock.now_ns`."""
    took_ms: int
    found: dict[str, Any]
    """For JSON."""


class OfDay(NamedTuple):
    """What the counter of a user's files of one category, in one place, said at the beginning of a day."""

    user: str
    category: str
    here: int
    """1: their bytes were on the local disk."""
    storage_class: str
    """That of their objects; empty: S3 had none; NOT_KNOWN (`core/figures/counters`): where they were is not known."""
    day: str
    """UTC, as "2026-11-29"."""
    files: int
    size_bytes: int


class Remembered(NamedTuple):
    """What is remembered of days."""

    days: Sequence[tuple[str, int]]
    """In order, and when the counters were looked at (`Clock.now_ns`). Of any other day nothing is known."""
    rows: Sequence[OfDay]
    """What changed, by day, beginning with what was before the first: between two rows it stayed as it was."""


class FigureOff(NamedTuple):
    """A counter of files that does not agree with its rows."""

    key: Key
    recorded_files: int
    recorded_bytes: int
    actual_files: int
    actual_bytes: int


class FiguresProof(NamedTuple):
    """The counters, and what their rows add up to, of one state of the catalogue."""

    off: Sequence[FigureOff]
    counted_at: str | None
    """What the fact RECOUNT_DUE said in it."""

    @property
    def is_due(self) -> bool:
        """Whether they were not to be believed anyway."""
        return self.counted_at not in (None, "0")


class FigureBooks(Protocol):
    """Where the counters are kept. They are written with the rows that they count; what is here is beside that.

    Raises IoFailure or OutOfSpace.
    """

    async def meta(self) -> dict[str, str]:
        """Store-wide facts."""

    async def correct(self, proof: FiguresProof) -> None:
        """Add to the counters what they were off by, right even while files change. Then they are to be believed,
        unless something else has come that could not be counted.
        """

    async def keep_survey(self, name: str, surveyed: Surveyed) -> None:
        """Keep what a survey found in place of what the last one of that name did."""

    async def keep_day(self, rows: Sequence[OfDay], day: str, at_ns: int | None) -> None:
        """Keep some of what the counters said on a day; the last of it with the time: then all is remembered."""

    async def drop_days(self, before: str) -> bool:
        """Drop some of what is only remembered of earlier days; tells whether there may be more."""


class Figures(Protocol):
    """Sums over many files. Memory grows with directories at most, not with files."""

    def folders(self, top: int | None) -> Iterator[Folder]:
        """All directories, or those at and below *top*; none before the one it is in, if *top* is given."""

    def tallies(self, top: int | None, since_ns: int) -> Iterator[Tally]:
        """All files, or those below *top*, in groups; symbolic links are none. *since_ns*: for `recent`."""

    def counted(self, user: str | None = None) -> Counted | None:
        """The counters, or those of one user; None: they are not to be believed, or there are none yet."""

    def survey(self, name: str) -> Surveyed | None:
        """What the last survey of that name found; None: there was none."""

    def changed_since(self, day: str) -> Sequence[OfDay] | None:
        """What is to be kept of a day; None: the counters are not to be believed."""

    def last_day(self) -> str | None:
        """The last that is remembered."""

    def remembered(self, since: str) -> Remembered:
        """What is remembered from a day on."""

    def prove(self) -> FiguresProof:
        """Count everything anew. Memory grows with directories, not with files."""

    def duplicates(self, worst: int, named: int) -> Duplicates:
        """Committed files of which there are several; *worst* sets, with up to *named* of the files of each."""


__all__ = [
    "Counted",
    "Duplicates",
    "FigureOff",
    "Figures",
    "FiguresProof",
    "Folder",
    "OfDay",
    "Remembered",
    "Surveyed",
    "Tally",
    "Twins",
]
