"""What people ask of a store: queries beside the daemon's own, each question answered from one state of the catalogue.

The methods of a snapshot block, and are called in the thread that the question was given: an answer may be large, and
what makes JSON of it belongs there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar, TypeVarTuple, Unpack

from recfs.core.life import Life
from recfs.core.retention import Horizon, Inside
from recfs.ports.duplicates import DuplicateFiles
from recfs.ports.figures import Figures, FiguresProof
from recfs.ports.rows import AccountRow, EventRow, JournalRow, MediaRow, NodeRow, ObjectRow, SweepRow

Answer = TypeVar("Answer")
Args = TypeVarTuple("Args")


class Entry(NamedTuple):
    """A name, with what is recorded beside its row."""

    row: NodeRow
    xattrs: Mapping[bytes, bytes]
    held: ObjectRow | None
    """What S3 holds of it."""
    is_queued: bool
    """Whether an upload of it is in the queue."""


class Listed(NamedTuple):
    """An entry of a directory, or of one below it."""

    path: bytes
    """From the directory on."""
    row: NodeRow


class Queued(NamedTuple):
    """A piece of work on S3."""

    row: JournalRow
    name: bytes | None
    """Of the file that an upload is for."""


class Waiting(NamedTuple):
    """What the next daemon has to do, of a store that nobody has mounted."""

    sealing: int
    hashing_bytes: int
    """Sizes of those that are sealing."""
    unpublished: int
    """What is to be moved or removed in the home tree. What is kept in the trash is where it belongs."""


class InS3(NamedTuple):
    """How much of a store is in S3."""

    objects: int
    queued: int
    remote_files: int
    """Files whose bytes are there alone."""


class Recorded(NamedTuple):
    """A recording."""

    path: tuple[bytes, ...]
    row: NodeRow
    life: Life | None
    """None: nothing is kept of it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A counter that does not agree with its rows. Exactly one of *ino* and *user* is set."""

    what: str
    ino: int | None
    user: str | None
    recorded_bytes: int
    recorded_files: int
    actual_bytes: int
    actual_files: int


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of a check."""

    users: int
    files: int
    differences: Sequence[Difference]
    figures: FiguresProof = field(default_factory=lambda: FiguresProof([], None))
    """What the counters of files are off by."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the catalogue's own file is."""

    size_bytes: int
    free_bytes: int
    """Of it, to be used again."""
    damage: str | None
    """The first that was found; None: nothing."""


class StoreQueries(Protocol):
    """Files, users, and the store as a whole."""

    def meta(self) -> dict[str, str]:
        """Store-wide facts."""

    def entry(self, parts: Sequence[bytes]) -> Entry | None:
        """What is at a mount path; None where nothing is."""

    def below(self, folder: int, *, recursive: bool, state: str | None) -> Sequence[Listed]:
        """The entries of a directory, in no order; *state*: only files in it."""

    def media(self, inos: Iterable[int]) -> dict[int, MediaRow]:
        """What is known of these files' contents; those of which nothing is are left out."""

    def media_open(self) -> dict[str, int]:
        """How many files are pending, broken and unknown (`core/media/verdicts.py`)."""

    def accounts(self, user: str | None = None) -> Sequence[AccountRow]:
        """Those of all users, or of one."""

    def recordings(self, user: str | None = None, beyond: Horizon | None = None) -> Iterator[Recorded]:
        """Those of all users, or of one, in order of inode number, while the snapshot is there.

        *beyond*: without those that are active, have no date, and were changed, and made, after these times.

        Each is made when it is asked for: of a great many there never is a list, and other threads have their turns.
        """

    def inside(self) -> Iterator[Inside]:
        """What had been a recording, was moved into something else, and is kept or has a date."""

    def states(self) -> dict[str, int]:
        """How many files are in each state."""

    def waiting(self) -> Waiting:
        """What is left for the next daemon."""

    def unhashed(self) -> tuple[int, int]:
        """How many files are hashed when there is time (`Promise.UNHASHED`), and their bytes."""

    def trashed(self) -> dict[str, int]:
        """How many bytes the trash has that were each user's."""

    def sweeps(self, name: str | None, limit: int) -> Sequence[SweepRow]:
        """The last runs of sweeps, or of one, newest first. None of a catalogue from before there were any."""

    def events(self, after: int, limit: int) -> Sequence[EventRow]:
        """Up to *limit* events with an id above *after*, in order."""

    def event_span(self) -> tuple[int, int]:
        """The ids of the first and the last that is kept; 0 and 0 where there is none."""

    def event_since(self, at_ns: int) -> int | None:
        """The id of the first that happened at *at_ns* or later; None: there is none."""

    def health(self) -> Health:
        """Look through the whole file for damage."""

    def check(self) -> Checked:
        """Add everything up anew. Memory grows with directories, not with files."""


class TierQueries(Protocol):
    """S3. All of it says "nothing" of a catalogue from before there was S3, which a daemon brings up to date."""

    def journal(self) -> Sequence[Queued]:
        """All work that is not done, in order of creation."""

    def paths(self, inos: Iterable[int]) -> dict[int, Sequence[bytes]]:
        """Where these are; those that are gone are left out."""

    def in_s3(self) -> InS3:
        """How much is in S3, or on its way."""

    def some_objects(self) -> tuple[Sequence[str], int]:
        """A few keys that S3 should hold, and how many files are in S3 alone."""

    def local_bytes(self) -> int:
        """Bytes of all local copies of what S3 holds."""

    def pinned_bytes(self) -> int:
        """Bytes of all files that are pinned."""


class Snapshot(StoreQueries, TierQueries, Figures, DuplicateFiles, Protocol):
    """One state of the catalogue."""


class Reports(Protocol):
    """Answers questions."""

    def reading(self) -> AbstractContextManager[Snapshot]:
        """A snapshot, in the caller's thread: for a command that has nothing else to do.

        Raises NotAStore for a store that was not made to its end, CatalogueCorrupt, StoreFull, StoreError.
        """

    async def ask(self, question: Callable[[Snapshot, Unpack[Args]], Answer], *args: *Args) -> Answer:
        """What *question* says of a snapshot, in a thread. Raises what it raises, and as `reading`."""
