"""Whether a catalogue and a home tree are of one time.

A count goes up with every batch of rows that the catalogue takes. It is kept in the catalogue and, by the `Mark`,
beside the home tree: a catalogue that was restored from a backup, or has lost its log, is behind the mark; a home tree
that was restored has a mark that is behind the catalogue.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

ID = "generation_id"
COUNT = "generation"
MARKED = "generation_marked"
AT = "generation_ns"
"""Store-wide facts: of which store, how far it is, how far the mark is for certain, even after a power cut, and when it
last went on (wall clock).
"""


class Age(enum.Enum):
    """How catalogue and home tree stand to each other."""

    SAME = enum.auto()
    CATALOGUE_OLDER = enum.auto()
    TREE_OLDER = enum.auto()
    UNKNOWN = enum.auto()
    """The tree has lost its mark: it was copied without extended attributes, or made anew."""
    FOREIGN = enum.auto()
    """They belong to two stores."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What lies beside the home tree."""

    store: str
    boot: str
    count: int
    """How far the catalogue was. Within a boot it cannot be behind that: the page cache outlives the daemon."""
    durable: int
    """How far it was on stable storage: it cannot be behind that after a power cut either."""
    next_ino: int
    """Inode numbers below had been given out or reserved."""

    def encode(self) -> bytes:
        """The value of the extended attribute."""
        return json.dumps(asdict(self)).encode("ascii")

    @classmethod
    def decode(cls, value: bytes | None) -> Mark | None:
        """The mark that an attribute's value says; None for one that says nothing."""
        try:
            mark = cls(**json.loads(value or b""))
        except (ValueError, TypeError, RecursionError):
            return None
        numbers = (mark.count, mark.durable, mark.next_ino)
        texts = (mark.store, mark.boot)
        whole = all(type(each) is int for each in numbers) and all(type(each) is str for each in texts)
        return mark if whole else None


def count_of(facts: Mapping[str, str], name: str = COUNT) -> int:
    """A count among the store-wide facts; 0 where there is none, as in a catalogue of an earlier version."""
    text = facts.get(name, "")
    return int(text) if text.isdecimal() else 0


def age_of(facts: Mapping[str, str], mark: Mark | None, boot: str) -> Age:
    """Compare the catalogue's *facts* with the home tree's *mark*, in this *boot* of the machine."""
    count = count_of(facts)
    if mark is None:
        return Age.UNKNOWN if count_of(facts, MARKED) else Age.SAME
    if count and facts.get(ID) != mark.store:
        return Age.FOREIGN
    if count < (mark.count if mark.boot == boot else mark.durable):
        return Age.CATALOGUE_OLDER
    return Age.TREE_OLDER if mark.count < count_of(facts, MARKED) else Age.SAME
