"""Which row of the S3 queue is worked on next."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from recfs.disk.commit.lanes import Turns
from recfs.ports.rows import DELETE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from recfs.ports.clock import Clock
    from recfs.ports.rows import JournalRow
    from recfs.tier.queue.unsent import Unsent

AT_ONCE = 1000
"""So many rows whose time has come arrive at once, which takes a millisecond or two."""


class Due:
    """Chooses among the rows whose time has come. Users take turns: what S3 leaves unanswered of one user's files keeps
    nobody else's waiting for long. What another machine has a lease of is left to it until the lease ends. All of it is
    atomic.
    """

    def __init__(
        self, clock: Clock, rows: Mapping[int, JournalRow], running: Mapping[int, object], unsent: Unsent,
        update: Callable[[JournalRow], None],
    ) -> None:  # fmt: skip
        """*update*: a row is this machine's from now on."""
        self._clock = clock
        self._rows = rows
        self._running = running
        self._unsent = unsent
        self._update = update
        self._timers: list[tuple[int, int]] = []
        """(due_ns, id), a heap; entries that are outdated are skipped."""
        self._turns: dict[bool, Turns[int]] = {False: Turns(), True: Turns()}
        """Ids whose time has come: deletions, and all others."""

    def at(self, row: JournalRow) -> None:
        """The row is new, ended, or has another time."""
        heapq.heappush(self._timers, (row.due_ns, row.id))

    def arrive(self) -> None:
        """Have rows whose time has come be taken. Of very many some: `next_ns` is over then, and this called again."""
        now = self._clock.steady_ns()
        for _ in range(AT_ONCE):
            if not self._timers or self._timers[0][0] > now:
                return
            self._queue(heapq.heappop(self._timers)[1], now)

    def take(self, *, deletions: bool) -> JournalRow | None:
        """The next row that has arrived and is not being worked on: to be started, or put back."""
        now = self._clock.steady_ns()
        due = self._turns[deletions]
        while (row_id := due.take()) is not None:
            row = self._ready(row_id, now)
            if row is not None:
                if row.taken() is not row:
                    self._update(row := row.taken())
                return row
        return None

    def put_back(self, row_ids: Iterable[int]) -> None:
        """These cannot be started now; their time has still come."""
        for row_id in row_ids:
            self._queue(row_id, self._clock.steady_ns())

    def _ready(self, row_id: int, now: int) -> JournalRow | None:
        row = self._rows.get(row_id)
        is_ready = row is not None and row.due_ns <= now and row_id not in self._running
        return row if is_ready else None

    def _queue(self, row_id: int, now: int) -> None:
        row = self._ready(row_id, now)
        if row is not None:
            self._turns[row.kind == DELETE].put(self._unsent.owner_of(row_id), row_id)

    def next_ns(self) -> int | None:
        """When the next row's time comes; None when there is none."""
        return self._timers[0][0] if self._timers else None
