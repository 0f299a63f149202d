"""What is being hashed, what waits for it, and how long that will take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.disk.commit.lanes import Lane
from recfs.disk.commit.tickets import Stage

if TYPE_CHECKING:
    from recfs.disk.commit.batches import Batches
    from recfs.disk.commit.hashing import Hashing
    from recfs.disk.commit.tickets import Ticket, Tickets

NAMED_FILES = 10
"""Of so many files under way `recfs status` tells the progress."""


class Outlook:
    """Estimates how long hashing will take. Atomic."""

    def __init__(self, tickets: Tickets, batches: Batches, hashing: Hashing) -> None:
        self._tickets = tickets
        self._batches = batches
        self._hashing = hashing

    def tickets_too_long(self, patience_s: float) -> list[Ticket]:
        """The files that cannot be hashed within that time, as far as can be told, the shortest way to go first."""
        return self._tickets.too_long(patience_s, self._hashing.rate)

    def too_long(self, patience_s: float) -> int:
        """How many files cannot be hashed within that time, as far as can be told."""
        return len(self.tickets_too_long(patience_s))

    def later(self, patience_s: float) -> list[str]:
        """Their paths, the first `NAMED_FILES` of them, the shortest way to go first."""
        return [ticket.node.path for ticket in self.tickets_too_long(patience_s)[:NAMED_FILES]]

    def as_json(self) -> dict[str, Any]:
        """What is being hashed, and what waits for it, for `recfs status`."""
        hashing, lanes = self._hashing, (Lane.MEDIUM, Lane.LARGE)
        running = {lane: hashing.running(lane) for lane in lanes}
        queues = {Lane.SMALL.value: {"running": self._batches.running, "waiting": self._batches.waiting}}
        queues |= {lane.value: {"running": len(running[lane]), "waiting": hashing.waiting(lane)} for lane in lanes}
        files = [work.progress(hashing.rate) for lane in reversed(lanes) for work in running[lane]]
        return {"lanes": queues, "files": files[:NAMED_FILES], "set_aside": self._tickets.left_to_next_start}

    @property
    def rate(self) -> float:
        """Bytes a second that one thread hashes, as far as is known."""
        return self._hashing.rate

    @property
    def hashing_bytes(self) -> int:
        """Bytes that are being hashed, or wait for it without a delay."""
        return sum(ticket.left_bytes for ticket in self._tickets if ticket.stage is Stage.UNDER_WAY)
