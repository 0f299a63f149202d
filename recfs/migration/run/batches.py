"""What a run holds in its hands: a user's queue, and the files that one rsync copies, whose sources are open."""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from recfs.core.migration.steps import Brought, Step, Way

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from recfs.core.migration.plan import Entry
    from recfs.core.migration.steps import Row, Seen
    from recfs.migration.run.rsync import Copying
    from recfs.migration.run.trees import Tree

BATCH_FILES: Final = 400
BATCH_BYTES: Final = 1 << 30
"""One rsync copies so much at most, but for a larger file: then it is written down what has come."""
_SPARE_FILES: Final = 192


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run goes."""

    jobs: int = 1
    """So many users at a time."""
    replace: bool = False
    """Whether other bytes at a target give way."""
    batch_files: int = BATCH_FILES
    batch_bytes: int = BATCH_BYTES


@dataclass(slots=True)
class Item:
    """A file that is to be brought, its source open."""

    entry: Entry
    row: Row
    fd: int
    seen: Seen
    way: Way
    there: tuple[int, int] | None
    shown: bool = False
    has_holes: bool = False
    attributes: frozenset[str] = frozenset()
    """Names of its extended attributes that are to come along."""

    @property
    def need(self) -> int:
        """Bytes that are still to be written, beside those that are there."""
        if self.way in (Way.DONE, Way.LAST, Way.PROVE, Way.REFUSED):
            return 0
        return max(self.seen.size - (self.there[0] if self.way is Way.ON and self.there is not None else 0), 0)

    def begin(self) -> None:
        """Have its row say that something of it may be at the target from now on."""
        row = self.row
        row.look_again(self.seen)
        row.step, row.problem = Step.BEGUN, ""
        row.left = self.there if self.way is Way.ANEW else None
        if self.way is Way.NEW or self.shown:
            row.brought = Brought.NEW
        elif row.brought in (Brought.NOTHING, Brought.THERE):
            row.brought = Brought.REPLACED


@dataclass(slots=True)
class Queue:
    """What is left of one user."""

    name: str
    entries: deque[Entry]
    ready: dict[Way, list[Item]] = field(default_factory=dict)
    tries: dict[bytes, int] = field(default_factory=dict)

    def held(self) -> int:
        """How many sources are open."""
        return sum(map(len, self.ready.values()))

    def close(self) -> None:
        """Let go of all of it."""
        for items in self.ready.values():
            close(items)
        self.ready.clear()
        self.entries.clear()


@dataclass(slots=True)
class Batch:
    """What one rsync, or one comparison, deals with."""

    queue: Queue
    items: list[Item]
    tree: Tree
    copying: Copying | None = None
    farm: bytes = b""
    need: int = 0
    """Bytes that are to be written of what it began with."""

    def to_come(self) -> int:
        """Bytes that are still to be written."""
        return max(self.need - (self.copying.counted if self.copying is not None else 0), 0)


def close(items: Iterable[Item]) -> None:
    """Close the sources of files."""
    for item in items:
        with contextlib.suppress(OSError):
            os.close(item.fd)


def files_at_a_time(settings: Settings) -> int:
    """How many sources a user may hold open: two batches of each job, with what this process has open besides."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * settings.jobs * settings.batch_files + _SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return settings.batch_files
    return max(min(settings.batch_files, (soft - _SPARE_FILES) // (2 * settings.jobs)), 1)


__all__ = ["BATCH_FILES", "Batch", "Item", "Queue", "Settings", "close", "files_at_a_time"]
