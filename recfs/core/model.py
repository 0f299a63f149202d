"""The words for a file's life: its states, the legal steps between them, and the kinds of inode.

These state words, and no others, appear in the schema, the code, the logs, the CLI and the docs.
"""

import enum


class Kind(enum.StrEnum):
    """What an inode is. Devices, FIFOs and sockets do not exist in recfs."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"


class State(enum.StrEnum):
    """Where a regular file stands between its first byte and its checksums."""

    WRITING = "writing"
    """At least one writer has it open; the bytes are in staging or, while the kernel has the file open, changed where
    they lie."""
    SEALING = "sealing"
    """The last writer has closed; the commit pipeline has not finished with it."""
    COMMITTED = "committed"
    """Bytes on stable storage, size and checksums recorded, quota charged, row durable."""
    INCOMPLETE = "incomplete"
    """Its writer or the machine died before the commit, or the writer was stopped at a limit; the bytes that are there
    are kept and readable."""
    CORRUPT = "corrupt"
    """Its bytes are not those of the recorded checksums, or are nowhere: a verification found that, or its size was
    another one as it was opened."""
    UPLOADING = "uploading"
    """Committed, and on its way to S3."""
    STORED = "stored"
    """S3 holds the object, its size and checksum confirmed; the bytes are here too."""
    EVICTED = "evicted"
    """Only S3 has the bytes."""
    FETCHING = "fetching"
    """Bytes are coming back from S3 into a partial local copy."""
    ARCHIVED = "archived"
    """Only S3 has the bytes, in a storage class that needs a restore before they can be read."""

    @property
    def is_whole(self) -> bool:
        """Committed bytes lie here, with checksums that describe them."""
        return self in _WHOLE

    @property
    def is_remote(self) -> bool:
        """The bytes are not here, or not all of them: S3 has them."""
        return self in _REMOTE


_WHOLE = frozenset({State.COMMITTED, State.UPLOADING, State.STORED})
_REMOTE = frozenset({State.EVICTED, State.FETCHING, State.ARCHIVED})


TRANSITIONS: frozenset[tuple[State, State]] = frozenset(
    {
        (State.WRITING, State.SEALING),  # last writer's release
        (State.WRITING, State.INCOMPLETE),  # the daemon or the machine died
        (State.SEALING, State.COMMITTED),  # the commit transaction
        (State.SEALING, State.WRITING),  # reopened before the commit
        (State.SEALING, State.INCOMPLETE),  # power cut before the bytes were synced
        (State.COMMITTED, State.WRITING),  # reopened for writing
        (State.COMMITTED, State.CORRUPT),  # a verification failed
        (State.INCOMPLETE, State.WRITING),  # a writer takes it up again
        (State.INCOMPLETE, State.SEALING),  # recovery: its writer had closed, only the commit is missing
        (State.CORRUPT, State.WRITING),  # rewritten
        (State.CORRUPT, State.COMMITTED),  # verified again, and the checksums match; or repaired
        (State.CORRUPT, State.EVICTED),  # there are no bytes here, and S3 has the right ones
        (State.COMMITTED, State.UPLOADING),  # the journal's upload begins
        (State.UPLOADING, State.COMMITTED),  # given up, or taken out of the queue
        (State.UPLOADING, State.STORED),  # confirmed by S3
        (State.UPLOADING, State.WRITING),  # written to meanwhile: the upload counts for nothing
        (State.UPLOADING, State.CORRUPT),  # a verification failed
        (State.COMMITTED, State.STORED),  # the same, by checksum
        (State.STORED, State.WRITING),  # written to; the old object stays until the new one is confirmed
        (State.STORED, State.COMMITTED),  # brought back for good: a rule wants it local
        (State.STORED, State.CORRUPT),  # a verification failed
        (State.STORED, State.EVICTED),  # its room here was needed
        (State.EVICTED, State.FETCHING),  # somebody reads
        (State.EVICTED, State.CORRUPT),  # a verification found that S3 has other bytes, or none
        (State.EVICTED, State.WRITING),  # overwritten, or fetched to be changed
        (State.EVICTED, State.ARCHIVED),  # found in an archive class
        (State.FETCHING, State.STORED),  # all of it is here, and verified
        (State.FETCHING, State.EVICTED),  # the partial copy was dropped
        (State.ARCHIVED, State.EVICTED),  # restored
        (State.ARCHIVED, State.WRITING),  # overwritten
        (State.WRITING, State.EVICTED),  # recovery: an unfinished overwrite taken back
    }
)
"""Every legal (old, new) pair. Staying in a state is not a transition."""


def check_transition(old: State, new: State) -> None:
    """Refuse a step that is not in `TRANSITIONS`.

    Raises ValueError, not a RecfsError: an illegal step is a bug in recfs, never a user's mistake.
    """
    if (old, new) not in TRANSITIONS:
        legal = ", ".join(sorted(after for before, after in TRANSITIONS if before == old))
        raise ValueError(f"illegal state transition {old} -> {new}; from {old} only: {legal}")
