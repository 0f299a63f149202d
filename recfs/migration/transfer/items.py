"""What is transferred: entries of a tree, one by one, and what became of each."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recfs.core.migration.manifest import Manifest

Ask = Callable[..., Any]
"""A method of a store's daemon: `ask("quota_set", user="4", max_bytes=…)`. Raises RecfsError."""
NAMED = 1000
"""So many problems are named; the others are counted."""
BLOCK_BYTES = 1 << 20


class Kind(enum.StrEnum):
    """What an entry is."""

    DIRECTORY = "directory"
    FILE = "file"
    LINK = "link"


class Why(enum.StrEnum):
    """Why something was not transferred."""

    WRITING = "writing"
    """It is being written."""
    DAMAGED = "damaged"
    """It is incomplete or corrupt, or its bytes are not those of its checksum."""
    AWAY = "away"
    """Its bytes are in S3, and cannot be had now: archived, or nobody is there to fetch them."""
    UNREADABLE = "unreadable"
    """It could not be read, or be looked at."""
    REFUSED = "refused"
    """It may not come in: a name, a kind, or a link that is not allowed there; or a limit."""
    DIFFERS = "differs"
    """Something else is there already, and was left."""
    UNSAID = "unsaid"
    """All files are there, but something that was to be said of them was not."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was not transferred."""

    path: bytes
    why: Why
    reason: str


@dataclass(slots=True)
class Item:
    """One entry of a tree that is read. `chunks` is for the time until the next one is asked for."""

    parts: tuple[bytes, ...]
    """Where it goes, below the top of the tree."""
    kind: Kind
    mode: int = 0o644
    """Permission bits."""
    mtime_ns: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    """In bytes, of a file."""
    sha256: str | None = None
    """What its bytes are to have (hex); None: nobody said."""
    target: bytes = b""
    """Of a link."""
    attributes: Mapping[bytes, bytes] = field(default_factory=dict)
    chunks: Callable[[], Iterator[bytes]] = lambda: iter(())
    """Its bytes. Raises Unusable, OSError where they cannot be read."""
    again: bool = True
    """Whether `chunks` can be asked for more than once."""
    was_away: bool = False
    """Whether only S3 has its bytes as yet."""

    @property
    def path(self) -> bytes:
        """The same as one path."""
        return b"/".join(self.parts)


class Unusable(Exception):
    """Bytes that are not to be had as they should be; `why` and the message say more."""

    def __init__(self, why: Why, reason: str) -> None:
        super().__init__(reason)
        self.why = why


class Stopped(Exception):
    """Nothing more can be placed: the destination is full, or a limit is met. The message says which."""


class Source(Protocol):
    """Where a tree is read."""

    manifest: Manifest | None
    """What was said beside it; of a stream known when the first entry was given."""

    def items(self) -> Iterator[Item | Problem]:
        """All entries, a directory before what is in it."""

    def sum_of(self, path: bytes) -> str | None:
        """The checksum that SHA256SUMS beside the tree has for a path; None: none. Known when all was given."""

    @property
    def has_sums(self) -> bool:
        """Whether there is a SHA256SUMS. Known when all was given."""


@dataclass(slots=True)
class Outcome:
    """What came of a transfer."""

    files: int = 0
    """Copied, those that replaced others included."""
    copied_bytes: int = 0
    links: int = 0
    directories: int = 0
    """Made."""
    equal: int = 0
    """Files and links that were there already."""
    equal_bytes: int = 0
    replaced: int = 0
    fetched: int = 0
    """Files whose bytes only S3 had."""
    removed: int = 0
    """Files and links that were removed where they came from."""
    deleted: int = 0
    """Files that were removed where they had gone to, since the store has them no more."""
    left: list[bytes] = field(default_factory=list)
    """Paths of files at the destination that the store has no more."""
    more_left: int = 0
    """So many of these more."""
    problems: list[Problem] = field(default_factory=list)
    unnamed: int = 0
    """So many problems more."""
    stopped: str = ""
    """Why it ended before its time."""
    waiting: str = ""
    """What is waited for now, and who holds it."""
    sums: dict[bytes, str] = field(default_factory=dict)
    """sha256 (hex) of every file that is right at the destination, by path."""
    arrived: set[bytes] = field(default_factory=set)
    """Paths of files that were not there before."""
    attributes: dict[bytes, Mapping[bytes, bytes]] = field(default_factory=dict)
    """Extended attributes, by path, that the destination does not keep."""

    @property
    def clean(self) -> bool:
        """Whether everything was transferred."""
        return not self.problems and not self.stopped

    def problem(self, path: bytes, why: Why, reason: str) -> None:
        """Note one."""
        if len(self.problems) < NAMED:
            self.problems.append(Problem(path, why, reason))
        else:
            self.unnamed += 1

    def leave(self, path: bytes) -> None:
        """Note a file at the destination that the store has no more."""
        if len(self.left) < NAMED:
            self.left.append(path)
        else:
            self.more_left += 1

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "files": self.files,
            "bytes": self.copied_bytes,
            "links": self.links,
            "directories": self.directories,
            "equal": self.equal,
            "equal_bytes": self.equal_bytes,
            "replaced": self.replaced,
            "fetched": self.fetched,
            "removed": self.removed,
            "deleted": self.deleted,
            "left": [os.fsdecode(path) for path in self.left],
            "more_left": self.more_left,
            "problems": [
                {"path": os.fsdecode(each.path), "why": each.why.value, "reason": each.reason} for each in self.problems
            ],
            "more_problems": self.unnamed,
            "stopped": self.stopped or None,
            "clean": self.clean,
        }


__all__ = [
    "BLOCK_BYTES",
    "Ask",
    "Item",
    "Kind",
    "Outcome",
    "Problem",
    "Source",
    "Stopped",
    "Unusable",
    "Why",
]
