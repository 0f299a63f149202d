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
    """At least one writer has it open; the bytes are in staging."""
    SEALING = "sealing"
    """The last writer has closed; the commit pipeline has not finished with it."""
    COMMITTED = "committed"
    """Bytes on stable storage, size and checksums recorded, quota charged, row durable."""
    INCOMPLETE = "incomplete"
    """Its writer or the machine died before the commit; the bytes that are there are kept and readable."""
    CORRUPT = "corrupt"
    """A verification found bytes that differ from the recorded checksums."""


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
        (State.CORRUPT, State.COMMITTED),  # verified again, and the checksums match
    }
)
"""Every legal (old, new) pair for local storage. Staying in a state is not a transition."""


def check_transition(old: State, new: State) -> None:
    """Refuse a step that is not in `TRANSITIONS`.

    Raises ValueError, not a RecfsError: an illegal step is a bug in recfs, never a user's mistake.
    """
    if (old, new) not in TRANSITIONS:
        legal = ", ".join(sorted(after for before, after in TRANSITIONS if before == old))
        raise ValueError(f"illegal state transition {old} -> {new}; from {old} only: {legal}")
