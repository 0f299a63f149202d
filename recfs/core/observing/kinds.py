"""The kinds of events: what becomes of files, in words that programs may rely on."""

import enum


class EventKind(enum.StrEnum):
    """What became of a file. The words are part of the interface; new ones may come, none changes its meaning."""

    COMMITTED = "committed"
    INCOMPLETE = "incomplete"
    OVERWRITTEN = "overwritten"
    RENAMED = "renamed"
    REMOVED = "removed"
    UPLOADED = "uploaded"
    EVICTED = "evicted"
    FETCHED = "fetched"
    RESTORED = "restored"
    EXPIRED = "expired"
    REVIVED = "revived"
    CORRUPT = "corrupt"
    REPAIRED = "repaired"
    ADOPTED = "adopted"
    QUOTA_REACHED = "quota_reached"
    PROBED = "probed"
    BROKEN = "broken"


MEANING: dict[EventKind, str] = {
    EventKind.COMMITTED: "all bytes are on stable storage, with their checksum: the file is whole",
    EventKind.INCOMPLETE: "the file was closed, or its writer died, and it stays incomplete: no commit comes",
    EventKind.OVERWRITTEN: "the name has no longer what was committed: it is written to, or another file took the name",
    EventKind.RENAMED: "a file, a link, or a directory with everything below has another name",
    EventKind.REMOVED: "a file, link or directory lost its name, whoever took it; with size_bytes: with its files",
    EventKind.UPLOADED: "S3 has confirmed the bytes",
    EventKind.EVICTED: "the bytes are in S3 alone: the local copy has left",
    EventKind.FETCHED: "the bytes have come back from S3, verified",
    EventKind.RESTORED: "it is there again: out of the trash, or an archive class",
    EventKind.EXPIRED: "a recording has expired: it takes nothing new, and is removed when its grace is over",
    EventKind.REVIVED: "a recording that had expired is active again",
    EventKind.CORRUPT: "the bytes are not those that were committed, or are gone",
    EventKind.REPAIRED: "a corrupt file has its committed bytes again",
    EventKind.ADOPTED: "it was put into the store's disk, or its bucket, past recfs, and has a name now",
    EventKind.QUOTA_REACHED: "a user was refused something because of a limit",
    EventKind.PROBED: "the file was looked into: it is what its name says, and what is in it is known",
    EventKind.BROKEN: "the file was looked into: it does not parse, is cut off, or is not what its name says",
}
KINDS = frozenset(EventKind)

__all__ = ["KINDS", "MEANING", "EventKind"]
