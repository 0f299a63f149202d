"""What a verification of a file looks at, what it finds, and what follows. Decisions only."""

from __future__ import annotations

import enum
from typing import NamedTuple

from recfs.core.model import State


class Level(enum.StrEnum):
    """How closely files are looked at; each level does all that those before it do."""

    PRESENCE = "presence"
    """The bytes are where the row says."""
    SIZE = "size"
    """There are as many of them as the row says."""
    HASH = "hash"
    """They are read, and have the recorded sha256."""
    REMOTE = "remote"
    """What S3 holds has the recorded checksum, too."""

    @property
    def reads(self) -> bool:
        """Whether the bytes that lie here are read."""
        return self in (Level.HASH, Level.REMOTE)


class Copy(enum.StrEnum):
    """What was found of one copy of a file's bytes: the local one, or the object in S3."""

    RIGHT = "right"
    """As the row says, as far as the level looks."""
    NONE = "none"
    """There is to be none, or nobody looked."""
    GONE = "gone"
    """There is to be one, and there is none."""
    WRONG = "wrong"
    """Its bytes are not those of the row."""
    UNREADABLE = "unreadable"
    """The disk, or S3, answered with an error: nothing is known of the bytes."""
    UNSETTLED = "unsettled"
    """It was changed, moved or removed meanwhile."""

    @property
    def is_bad(self) -> bool:
        """Whether it is certain that it is of no use."""
        return self in (Copy.GONE, Copy.WRONG)


class Verdict(enum.StrEnum):
    """What came of one file. The words of `recfs verify --json`."""

    RIGHT = "right"
    ELSEWHERE = "elsewhere"
    """S3 alone has the bytes, and the level does not look there."""
    SKIPPED = "skipped"
    """It is being written, or was changed meanwhile: nothing is said of it."""
    REPAIRED = "repaired"
    """A copy was bad, and the other one is right: it takes, or will take, the place of the bad one."""
    CORRUPT = "corrupt"
    """The bytes it would be read from are gone or wrong, and no other copy is known to be right."""
    UNREADABLE = "unreadable"
    """The disk or S3 answered with an error."""

    @property
    def is_problem(self) -> bool:
        """Whether somebody is to hear of it by name."""
        return self in (Verdict.REPAIRED, Verdict.CORRUPT, Verdict.UNREADABLE)


class Remedy(enum.Enum):
    """What is to be done about what was found."""

    NONE = enum.auto()
    HEAL = enum.auto()
    """A corrupt file is right again."""
    CONDEMN = enum.auto()
    """It is corrupt, and there is nothing to repair it from."""
    FROM_OBJECT = enum.auto()
    """Its local bytes are bad: replace them by the object's."""
    COME_BACK = enum.auto()
    """It has no bytes here, and the object is right: it is read from there."""
    SEND_AGAIN = enum.auto()
    """The object is bad: upload the local bytes again."""


VERIFIED = frozenset({State.COMMITTED, State.UPLOADING, State.STORED, State.EVICTED, State.CORRUPT})
"""States in which a file is verified. In all others somebody writes it, reads it from S3, or only S3 can bring it."""


def remedy(state: State, local: Copy, far: Copy) -> Remedy:
    """What is to be done about a file in *state* whose copies were found so. Nothing on mere suspicion."""
    unsure = (Copy.UNSETTLED, Copy.UNREADABLE)
    if local in unsure or far is Copy.UNSETTLED:
        return Remedy.NONE
    if local is Copy.RIGHT:
        if far.is_bad and state is State.STORED:
            return Remedy.SEND_AGAIN
        return Remedy.HEAL if state is State.CORRUPT else Remedy.NONE
    if local is Copy.WRONG:
        return Remedy.FROM_OBJECT if far is Copy.RIGHT else Remedy.CONDEMN
    if far is Copy.RIGHT:  # no bytes here, or none any more
        return Remedy.COME_BACK if state in (State.CORRUPT, State.STORED) else Remedy.NONE
    if local is Copy.GONE:
        # Of a stored file S3 is asked before anything is said: that it does not answer proves nothing.
        return Remedy.NONE if far is Copy.UNREADABLE else Remedy.CONDEMN
    return Remedy.CONDEMN if far.is_bad else Remedy.NONE


class ObjectFacts(NamedTuple):
    """What a server says of an object (HEAD), or the catalogue of the one that it once confirmed."""

    size_bytes: int
    etag: str
    sha256: bytes | None
    """From the metadata that recfs wrote beside the bytes."""
    md5: bytes | None
    stored_sha256: bytes | None = None
    """What the server computed of the bytes, and kept."""


def judge_object(told: ObjectFacts | None, known: ObjectFacts) -> Copy:
    """What can be said of an object without reading it. *told* None: there is none.

    A sha256 that the server itself computed and kept says all, whatever etag and metadata have become.
    An etag that is the MD5 of the bytes is the server's own checksum of them (S3 API, "Object", ETag). Any other that
    has not changed is that of the very object whose checksum the server confirmed when it was uploaded. UNSETTLED where
    neither tells: it has to be read.
    """
    if told is None:
        return Copy.GONE
    if told.size_bytes != known.size_bytes:
        return Copy.WRONG
    if told.stored_sha256 is not None:
        return Copy.RIGHT if told.stored_sha256 == known.sha256 else Copy.WRONG
    if known.md5 is not None and told.etag == known.md5.hex():
        return Copy.RIGHT
    if known.etag and told.etag == known.etag and told.sha256 in (None, known.sha256):
        return Copy.RIGHT
    return Copy.UNSETTLED


__all__ = ["VERIFIED", "Copy", "Level", "ObjectFacts", "Remedy", "Verdict", "judge_object", "remedy"]
