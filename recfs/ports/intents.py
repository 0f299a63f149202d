"""The intent log: what changed, in the words of rows, where it outlives the daemon before the catalogue has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from recfs.core.generation import count_of
from recfs.core.life import Life
from recfs.ports.rows import (
    AccountRow,
    EventRow,
    GarbageRow,
    JournalRow,
    LocalCopy,
    MediaRow,
    NodeRow,
    ObjectRow,
    Placement,
    RecordingRow,
    SweepRow,
    TrashRow,
    UnansweredRow,
)

LOG: Final = "intents"
"""Store-wide fact: which log goes with the catalogue, and which fields the rows in it have (JSON)."""
APPLIED: Final = "intents_applied"
"""Store-wide fact: the number of the last entry of it that the catalogue has, and its count of batches (`mark_of`)."""

TOTALS: Final = "totals"
"""Of an entry: (directory, bytes, files) of directories of which only these changed. All else are fields of `Batch`."""
FIELDS: Final = (
    "removed", "emptied", "nodes", TOTALS, "accounts", "garbage", "purged", "xattrs", "whiteouts", "views",
    "objects_gone", "objects", "journal", "journal_done", "unanswered", "answered", "sweeps", "sweeps_gone",
    "recordings", "media", "trash", "trash_gone", "events", "events_gone", "meta",
)  # fmt: skip
"""What an entry may hold. In the log each is known by its name: fields may come and go."""

ROWS: Final[dict[str, type[Any]]] = {
    "nodes": NodeRow, "placement": Placement, "accounts": AccountRow, "garbage": GarbageRow, "objects": ObjectRow,
    "copy": LocalCopy, "journal": JournalRow, "unanswered": UnansweredRow, "sweeps": SweepRow,
    "recordings": RecordingRow, "life": Life, "media": MediaRow, "trash": TrashRow, "events": EventRow,
}  # fmt: skip
"""The types of rows in it, by field; `placement`, `copy` and `life` are fields of others."""


def mark_of(number: int, facts: Mapping[str, str]) -> str:
    """The value of APPLIED. An earlier version of recfs, which knows of no log, moves the count of batches on, and not
    this: then what is in the log is older than the catalogue.
    """
    return f"{number} {count_of(facts)}"


def applied_in(facts: Mapping[str, str]) -> int | None:
    """The number of the last entry that the catalogue with these facts has; None: no log goes with it."""
    number, _, count = facts.get(APPLIED, "").partition(" ")
    if LOG not in facts or not number.isdecimal() or count != str(count_of(facts)):
        return None
    return int(number)


Entry = dict[str, list[Any]]
"""What changed between two answers: by field of FIELDS, what a batch would hold of it."""


class Intents(Protocol):
    """A log of entries with ascending numbers, read once, by the next start."""

    @property
    def last(self) -> int:
        """The number of the last entry that was given out."""

    @property
    def is_whole(self) -> bool:
        """Whether every entry is in the log, or in the catalogue: the daemon's death undoes none."""

    @property
    def wants_room(self) -> bool:
        """Whether more will fit only once the catalogue is synced."""

    def described(self, epoch: int) -> str:
        """What the catalogue has to keep under `LOG`, so that the next start can read it."""

    def begin(self, epoch: int) -> None:
        """Take entries from now on, from number 1; what is in the log counts no more. Raises OSError."""

    def append(self, entry: Entry) -> None:
        """Have the entry outlive this process. Raises nothing: what finds no room has a number and is not in the log,
        and the log not whole until the catalogue has it. Atomic.
        """

    def skip(self) -> None:
        """The same with an entry that cannot be told."""

    def written(self, number: int) -> None:
        """The catalogue has everything up to this entry."""

    def settled(self, number: int) -> None:
        """The catalogue has it on stable storage: the log may forget it."""

    async def sync(self) -> bool:
        """Have all entries so far survive a power cut; False: some are not in the log, and sync does nothing for them.

        Raises IoFailure.
        """

    def close(self) -> None:
        """Take no more."""
