"""Tickets of the commit pipeline: which files are to be sealed, where each stands, and when its turn comes.

A ticket is one file's way through the pipeline, from one close to the next change. It is begun once each time it has
waited: whoever had it before lets go of it when it has been put off meanwhile, be it under way again or not.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from recfs.disk.commit.lanes import Lane, beyond, lane_of

if TYPE_CHECKING:
    from recfs.disk.commit.hashing import Work
    from recfs.state.nodes import FileNode

MOVED_LOOK_S = 0.02
"""Wait until a file is read again that was moved meanwhile."""
MAPPED_TRIES = 5
MAPPED_LOOK_S = 0.02
"""First wait for a mapping to go. A descriptor that is being closed looks like one for a moment."""
MAPPED_LOOK_MAX_S = 2.0
"""Longest wait; to look costs a system call."""
MAPPED_LOOKS = 250
"""Looks a second, at most: one process can map ten thousand files."""


class Stage(enum.Enum):
    """Where a ticket stands. It is always in exactly one place, so that none can be forgotten."""

    LATER = enum.auto()
    """Put off, until its time has come or somebody hurries it."""
    UNDER_WAY = enum.auto()
    """In a lane, in a thread, or in a task of the committer's."""
    ASIDE = enum.auto()
    """The daemon stops, and the next start seals it."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One file's way through the pipeline."""

    node: FileNode
    opened_s: float
    """When the file was closed, by trio's clock."""
    stage: Stage = Stage.LATER
    serial: int = 0
    """Of the last time it was put off: its entry among those that wait, and whose it is afterwards."""
    work: Work | None = None
    """Its read pass, unless it is small."""
    read_at: bytes | None = None
    """Where its bytes lay when they were last read; None while nobody could tell."""

    @property
    def left_bytes(self) -> int:
        """What is left to be hashed."""
        return self.work.passing.left_bytes if self.work is not None else self.node.bytes


class Tickets:
    """All tickets there are. All of it atomic."""

    def __init__(self) -> None:
        self._all: dict[int, Ticket] = {}
        self._later: list[tuple[float, int, int]] = []
        """(when, ticket's serial, inode number), outdated ones among them: they keep no node in memory."""
        self._serial = 0
        self._in_vain: dict[Ticket, int] = {}
        """How often a file could not be sealed because it was still mapped for writing."""
        self._failing: dict[Ticket, float] = {}
        """What cannot be sealed, and when it last failed: left alone for a while, and tried again."""
        self._left_to_next_start: set[Ticket] = set()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(list(self._all.values()))

    def get(self, ino: int) -> Ticket | None:
        """The ticket of *ino*, if it has one."""
        return self._all.get(ino)

    def open(self, node: FileNode) -> Ticket:
        """A new ticket, which has yet to be begun or put off; the file has no other."""
        self._all[node.ino] = ticket = Ticket(node, trio.current_time())
        return ticket

    def end(self, ticket: Ticket) -> bool:
        """Forget a ticket; tells whether it was failing."""
        del self._all[ticket.node.ino]
        self._in_vain.pop(ticket, None)
        self._left_to_next_start.discard(ticket)
        return bool(self._failing) and self._failing.pop(ticket, None) is not None

    def is_current(self, ticket: Ticket) -> bool:
        """Whether it is still its file's ticket."""
        return self._all.get(ticket.node.ino) is ticket

    @property
    def oldest_s(self) -> float:
        """How long the oldest of them has been there, in seconds; 0: there is none."""
        oldest = next(iter(self._all.values()), None)  # each comes after those that were there
        return 0.0 if oldest is None else trio.current_time() - oldest.opened_s

    # --- waiting -------------------------------------------------------------------------------------------------

    def put_off(self, ticket: Ticket, delay_s: float) -> None:
        """It is to be begun after *delay_s* seconds, if nobody hurries it."""
        self._serial += 1
        ticket.stage, ticket.serial = Stage.LATER, self._serial
        heapq.heappush(self._later, (trio.current_time() + delay_s, self._serial, ticket.node.ino))

    def is_next(self, ticket: Ticket) -> bool:
        """Whether a ticket that was just put off comes before all others."""
        return self._later[0][1] == ticket.serial

    @property
    def waiting(self) -> int:
        """How many entries wait, outdated ones included."""
        return len(self._later)

    @property
    def next_s(self) -> float:
        """When the next one's time comes; infinite when none waits."""
        return self._later[0][0] if self._later else float("inf")

    def due(self, until_s: float) -> Iterator[Ticket]:
        """Take those out whose time has come by then, one by one; what was taken up again or hurried is left out."""
        while self._later and self._later[0][0] <= until_s:
            _, serial, ino = heapq.heappop(self._later)
            ticket = self._all.get(ino)
            if ticket is not None and ticket.serial == serial and ticket.stage is Stage.LATER:
                yield ticket

    # --- in vain -------------------------------------------------------------------------------------------------

    def mapped(self, ticket: Ticket) -> None:
        """Somebody can still write to the file: look again later, the sooner the less it was in vain."""
        tries = self._in_vain[ticket] = self._in_vain.get(ticket, -1) + 1
        delay_s = min(MAPPED_LOOK_S * 2.0 ** min(tries, 10), MAPPED_LOOK_MAX_S)
        self.put_off(ticket, max(delay_s, len(self._in_vain) / MAPPED_LOOKS))

    def unmapped(self, ticket: Ticket) -> None:
        """Nobody can any more."""
        self._in_vain.pop(ticket, None)

    def tries_in_vain(self, ticket: Ticket) -> int:
        """How often it was looked again whether the file is still mapped."""
        return self._in_vain.get(ticket, 0)

    def still_mapped(self) -> list[int]:
        """Inode numbers of those that were found mapped at the last look."""
        return [ticket.node.ino for ticket in self._in_vain]

    @property
    def all_mapped(self) -> int:
        """Files that were found mapped at the last look."""
        return len(self._in_vain)

    @property
    def mapped_long(self) -> int:
        """Files that wait for a mapping to go, which may take for ever."""
        return sum(tries > MAPPED_TRIES for tries in self._in_vain.values())

    def failed(self, ticket: Ticket, delay_s: float) -> None:
        """It cannot be sealed now, and is left alone for *delay_s* seconds."""
        self._failing[ticket] = trio.current_time()
        self.put_off(ticket, delay_s)

    def has_failed_since(self, ticket: Ticket, since_s: float) -> bool:
        """Whether it failed after *since_s* (trio's clock)."""
        return bool(self._failing) and self._failing.get(ticket, float("-inf")) > since_s

    def is_held_up(self, ticket: Ticket) -> bool:
        """Whether it was put off because it could not be sealed, or is left to the next start."""
        return ticket in self._in_vain or ticket in self._failing or ticket.stage is Stage.ASIDE

    @property
    def failing(self) -> int:
        """How many cannot be sealed now."""
        return len(self._failing)

    # --- stopping ------------------------------------------------------------------------------------------------

    def too_long(self, patience_s: float, rate: float) -> list[Ticket]:
        """What cannot be hashed within that time, at *rate* bytes a second; the largest."""
        if patience_s == float("inf"):
            return []
        passes = [ticket for ticket in self._all.values() if lane_of(ticket.node.bytes) is not Lane.SMALL]
        passes.sort(key=lambda ticket: ticket.left_bytes)
        fit = beyond([ticket.left_bytes for ticket in passes], patience_s * rate)
        return passes[fit:]

    def leave_to_next_start(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        """Leave them to the next start; returns those that were not before."""
        fresh = [ticket for ticket in tickets if ticket.stage is not Stage.ASIDE]
        for ticket in fresh:
            ticket.stage = Stage.ASIDE
            self._left_to_next_start.add(ticket)
        return fresh

    @property
    def left_to_next_start(self) -> int:
        """How many this run does not seal any more."""
        return len(self._left_to_next_start)


__all__ = ["MOVED_LOOK_S", "Stage", "Ticket", "Tickets"]
