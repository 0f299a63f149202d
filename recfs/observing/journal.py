"""Events in the catalogue: what became of files, written in the transaction of the rows that say so.

So an event is there exactly if the change is: neither does a death of the daemon lose one of a file that is committed,
nor is one told of a commit that did not come about. The order is that in which things happened. What is told to
readers is durable (`feed.py`).

A change whose row the catalogue refuses (`state/refusals.py`) is not told; a commit is when it comes about after all.
"""

from __future__ import annotations

import os
import secrets
from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.core.observing.cursors import EPOCH
from recfs.core.observing.kinds import EventKind
from recfs.core.sweeping import Schedule
from recfs.ports.rows import EventRow
from recfs.ports.sweep import Sweep
from recfs.state.events import Subscriber
from recfs.state.nodes import FileNode
from recfs.state.writebehind import BatchSubscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recfs.ports.batch import Batch
    from recfs.ports.catalogue import Catalogue
    from recfs.ports.clock import Clock
    from recfs.state.events.paths import KeptPaths
    from recfs.state.nodes import DirNode, Node
    from recfs.state.writebehind import WriteBehind

PART = "events"
LOOK_S = 60.0
"""How often what is not to be kept any longer is looked for."""
AT_ONCE = 1000
"""So many events are dropped in one batch, which takes some 2 ms."""
RECENT_COMMITS = 8192
"""Of so many commits it is known which event told them, should one be taken back."""
SAME_LIMIT_S = 60.0
"""A user who meets the same limit again and again is told of once in so long."""
_NS = 1_000_000_000
_COMMITTED, _OVERWRITTEN, _RENAMED, _REMOVED = (
    EventKind.COMMITTED.value, EventKind.OVERWRITTEN.value, EventKind.RENAMED.value, EventKind.REMOVED.value,
)  # fmt: skip
"""An enum's member takes longer to say its word than all the rest."""


_row: Callable[[tuple[int, int, str, int, bytes, bytes | None, int | None, bytes | None, str]], EventRow]
_row = partial(tuple.__new__, EventRow)
"""The same as `EventRow` in a fifth of the time, which somebody waits for."""


class EventJournal(Subscriber, BatchSubscriber):
    """Writes events. Atomic but for `load` and the sweep."""

    def __init__(self, behind: WriteBehind, clock: Clock, paths: KeptPaths, *, keep_s: float, most: int) -> None:
        """*keep_s*, *most*: events older than this, or beyond this number, are dropped."""
        self._behind = behind
        self._clock = clock
        self._path_of = paths.of
        self._path_below = paths.below
        self.keep_s = keep_s
        self.most = most
        self.epoch = ""
        self.last_id = 0
        """Of the last event, written or about to be."""
        self._arrived: trio.Event | None = None
        """Set when events are written, if somebody waits for that."""
        self.written_id = 0
        """Of the last event that the catalogue has."""
        self._carries = 0
        self._commits: dict[int, int] = {}
        self._limits: dict[tuple[str, str], float] = {}
        self.dropped_early = 0
        """Events that were dropped since the start, before they were `keep_s` old: there were too many."""
        self._young = 0
        """Of the first event that is not too old, at the last look."""

    async def load(self, catalogue: Catalogue) -> None:
        """Go on where the last daemon ended."""
        self._catalogue = catalogue
        self.last_id = self.written_id = (await catalogue.event_span())[1]
        self.epoch = (await catalogue.meta()).get(EPOCH, "")
        if not self.epoch:
            self.renew()

    def renew(self) -> None:
        """The history begins anew: nobody may go on from what was read of the one before."""
        self.epoch = secrets.token_hex(4)
        self._behind.meta(EPOCH, self.epoch)

    # --- what happens --------------------------------------------------------------------------------------------

    def _tell(
        self, kind: str, ino: int, path: bytes, was: bytes | None = None,
        size_bytes: int | None = None, sha256: bytes | None = None, detail: str = "",
    ) -> int:  # fmt: skip
        self.last_id = number = self.last_id + 1
        self._behind.event(_row((number, self._clock.now_ns(), kind, ino, path, was, size_bytes, sha256, detail)))
        return number

    def committed(self, node: FileNode) -> None:
        """As `Subscriber.committed`."""
        commits = self._commits
        if len(commits) >= RECENT_COMMITS:
            del commits[next(iter(commits))]
        commits[node.ino] = self._tell(_COMMITTED, node.ino, self._path_of(node), None, node.bytes, node.sha256)

    def uncommitted(self, node: FileNode) -> None:
        """As `Subscriber.uncommitted`."""
        number = self._commits.pop(node.ino, None)
        if number is not None:
            self._behind.events_gone([number])

    def abandoned(self, node: FileNode) -> None:
        """As `Subscriber.abandoned`."""
        self.noted(EventKind.INCOMPLETE, node)

    def modified(self, node: FileNode) -> None:
        """As `Subscriber.modified`."""
        if node.sha256 is not None:
            self.noted(EventKind.OVERWRITTEN, node)

    def renamed(self, node: Node, old: DirNode, old_name: bytes) -> None:
        """As `Subscriber.renamed`."""
        was = self._path_below(old, old_name)
        self._tell(_RENAMED, node.ino, self._path_of(node), was)

    def removed(self, node: FileNode, successor: FileNode | None) -> None:
        """As `Subscriber.removed`."""
        self._tell(_REMOVED if successor is None else _OVERWRITTEN, node.ino, self._path_of(node))

    def removed_whole(self, folder: DirNode) -> None:
        """As `Subscriber.removed_whole`: one event, with how much went."""
        files = f"with {folder.rfiles:,} files in it"
        self._tell(_REMOVED, folder.ino, self._path_of(folder), size_bytes=folder.rbytes, detail=files)

    def noted(self, kind: EventKind, node: Node, detail: str = "") -> None:
        """As `Subscriber.noted`; of a file that is committed (again), with its size and checksum."""
        if kind is EventKind.COMMITTED and isinstance(node, FileNode):
            self._tell(_COMMITTED, node.ino, self._path_of(node), None, node.bytes, node.sha256, detail)
            return
        self._tell(kind.value, node.ino, self._path_of(node), detail=detail)

    def limit_reached(self, user: str, limit: str) -> None:
        """As `Subscriber.limit_reached`: of a program that tries again and again, once a minute."""
        now = trio.current_time()
        if now >= self._limits.get((user, limit), now):
            self._limits = {key: until_s for key, until_s in self._limits.items() if until_s > now}
            self._limits[user, limit] = now + SAME_LIMIT_S
            self._tell(EventKind.QUOTA_REACHED.value, 0, b"users/" + os.fsencode(user), detail=limit)

    # --- what is written -----------------------------------------------------------------------------------------

    def writing(self, batch: Batch) -> None:
        """As `BatchSubscriber.writing`."""
        self._carries = batch.events[-1].id if batch.events else 0

    def written(self) -> None:
        """As `BatchSubscriber.written`."""
        if self._carries:
            self.written_id = max(self.written_id, self._carries)
            if self._arrived is not None:
                self._arrived.set()
                self._arrived = None

    async def written_beyond(self, number: int) -> None:
        """Wait until an event with a higher number is written."""
        while self.written_id <= number:
            if self._arrived is None:
                self._arrived = trio.Event()
            await self._arrived.wait()

    # --- what is kept --------------------------------------------------------------------------------------------

    def sweep(self) -> Sweep[Sequence[int], Sequence[int]]:
        """What it looks at every minute."""
        return Sweep(PART, PART, Schedule(LOOK_S), self._superfluous, _any, self._drop, recorded=False)

    async def _superfluous(self) -> range:
        first, last = await self._catalogue.event_span()
        young = await self._catalogue.event_since(self._clock.now_ns() - round(self.keep_s * _NS))
        self._young = last if young is None else young
        end = max(last - self.most + 1, self._young)
        return range(first, min(end, last))  # the last one stays: the next has the id after it

    async def _drop(self, ids: Sequence[int], going_on: trio.Nursery) -> None:
        for first in range(0, len(ids), AT_ONCE):
            some = ids[first : first + AT_ONCE]
            self._behind.events_gone(some)
            self.dropped_early += sum(number >= self._young for number in some)
            await self._behind.flush()
            await trio.lowlevel.checkpoint()


def _any(ids: Sequence[int]) -> Sequence[int] | None:
    return ids or None


def turned_off(behind: WriteBehind, known: dict[str, str]) -> None:
    """No events are written by this daemon: whoever reads them again later is told that some are missing."""
    if known.get(EPOCH):
        behind.meta(EPOCH, "")


__all__ = ["PART", "EventJournal", "turned_off"]
