"""What a run holds in its hands: a user's queue, and the files that one rsync copies, whose sources are open."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from recfs.core.migration.plan import Entry
    from recfs.core.migration.steps import Row, Seen, Way
    from recfs.migration.run.rsync import Copying
    from recfs.migration.run.trees import Tree

BATCH_FILES: Final = 400
BATCH_BYTES: Final = 1 << 30
"""One rsync copies so much at most, but for a larger file: then it is written down what has come."""
_WHOLE_NAME: Final = 240
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


def sweep(tree: Tree, target: bytes) -> None:
    """Take away what an rsync that was killed has left beside a target: `.NAME.XXXXXX` (get_tmpname in receiver.c).

    The name is without dots in front, and cut where it would be too long. Raises InvalidPath, OSError.
    """
    folder, _, name = target.rpartition(b"/")
    name = name.lstrip(b".")
    rest = rb".*" if len(name) > _WHOLE_NAME else b""
    left = re.compile(rb"\.%s%s\.[A-Za-z0-9]{6}" % (re.escape(name[:_WHOLE_NAME]), rest), re.DOTALL)
    if tree.look(folder) is None:
        return
    with tree.named(folder) as path:
        names = [each for each in os.listdir(os.fsencode(path)) if left.fullmatch(each)]
    for each in names:
        beside = folder + b"/" + each
        found = tree.look(beside)
        if found is not None and stat.S_ISREG(found.st_mode):
            tree.unlink(beside)


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


__all__ = ["BATCH_FILES", "Batch", "Item", "Queue", "Settings", "close", "files_at_a_time", "sweep"]
