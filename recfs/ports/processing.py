"""Where results of processing are kept. Blocking calls, of one thread at a time.

What is kept can be made again. So whoever keeps it gives up what it cannot read, says so, and goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from recfs.core.reuse.processing import Key, Lifetimes


class Kept(NamedTuple):
    """One result."""

    number: int
    """By which its use is told."""
    packed: bytes
    digest: bytes
    """What the sha256 of `packed` was when it was put here."""
    text_bytes: int
    """Of the JSON that is packed."""
    made_ns: int
    """`Clock.steady_ns`."""
    uses: int
    """How often it was given out, as far as that was told."""


class OfKind(NamedTuple):
    """The results of one kind."""

    kind: str
    entries: int
    text_bytes: int
    packed_bytes: int
    uses: int


class Gone(NamedTuple):
    """What was given up."""

    entries: int
    packed_bytes: int


Uses = Mapping[int, tuple[int, int]]
"""By number: how often a result was given out since that was told last, and when it was last (`Clock.steady_ns`)."""
Counts = Mapping[str, int]
"""What is to be added to what was counted since the place was made: "hits", "misses", "corrupt" …"""


class ProcessingBooks(Protocol):
    """Raises IoFailure or OutOfSpace."""

    def find(self, key: Key, writers: Sequence[int], lifetimes: Lifetimes, now_ns: int) -> Kept | None:
        """The result under a key that one of those put there, the first of them first; not one that is over."""

    def put(self, key: Key, writer: int, kept: Kept, limit_bytes: int) -> Gone:
        """Keep one, in place of what that writer put there before.

        What was not used for longest makes room: of what is given to one user alone first, of whoever has most; of
        everybody's results when there is no other. A user has one part in `USERS_PART` of *limit_bytes* at most.
        """

    def drop(self, number: int) -> None:
        """Give one up."""

    def tell(self, uses: Uses, counts: Counts) -> None:
        """Take down what was given out, and what was counted."""

    def expire(self, lifetimes: Lifetimes, now_ns: int) -> Gone:
        """Give up what is over, and the room on the disk that is free."""

    def purge(self, kind: str | None, sha256: bytes | None, made_before_ns: int | None) -> Gone:
        """Give up what is all of that."""

    def totals(self) -> tuple[Sequence[OfKind], dict[str, int]]:
        """What there is by kind, and what was counted."""

    def close(self) -> None:
        """Nothing is asked any more, until something is."""


__all__ = ["Counts", "Gone", "Kept", "OfKind", "ProcessingBooks", "Uses"]
