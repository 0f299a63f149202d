"""Products that wait, and those that are being made: whose is made next.

Owners of recordings take turns: whoever has the fewest programs and had no turn for the longest time comes next, with
what was asked for first. One owner may have all programs while nobody else waits; what runs is not taken from anybody,
so whoever comes then waits for the end of one of them. Nothing here is searched: each step costs the logarithm of what
waits at most.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from recfs.core.media.derived import Derived, Product

    Key = tuple[int, Product]

MOST_WAITING: Final = 5000
"""Products of one owner that wait at the same time; for what is automatic the sweep comes back to the rest."""
_AT_ONCE: Final = 256
"""Of what has become due so many are lined up in one step."""


class Waiting:
    """All but `woken` and `news` is atomic."""

    def __init__(self) -> None:
        self.open: dict[Key, Derived] = {}
        """All that is pending, or being made, by the recording's directory and the product."""
        self.busy: set[Key] = set()
        """What is being made."""
        self._owner: dict[Key, str | None] = {}
        self._counts: Counter[str | None] = Counter()
        self._of_source: dict[int, set[Key]] = {}
        self._ready: dict[str | None, dict[Key, None]] = {}
        """What is due, in the order in which it was asked for."""
        self._later: list[tuple[int, int, Key]] = []
        """A heap of what is due later, by when (`Clock.steady_ns`); entries that `_due` does not name are void."""
        self._due: dict[Key, int] = {}
        self._line: list[tuple[int, int, str | None]] = []
        """A heap of owners of whom something is due and nothing is made, by their last turn."""
        self._in_line: set[str | None] = set()
        self._at_work: Counter[str | None] = Counter()
        self._served: dict[str | None, int] = {}
        """Whose turn was when, by number."""
        self._number = itertools.count(1)
        self._wake = trio.Event()
        self._news = trio.Event()

    # --- what waits ----------------------------------------------------------------------------------------------

    def put(self, record: Derived, owner: str | None = None) -> None:
        """Have a product be made when it is due (`Derived.next_ns`), or another version of one that waits.

        *owner*: whose it is; of one that is here already it stays whose it was.
        """
        key = (record.folder, record.product)
        before = self.open.get(key)
        if before is None:
            self._owner[key] = owner
            self._counts[owner] += 1
        elif before.source != record.source:
            self._forget_source(before.source, key)
        self._of_source.setdefault(record.source, set()).add(key)
        self.open[key] = record
        if key not in self.busy:
            self._place(key)
        self.wake()

    def drop(self, key: Key) -> None:
        """It waits no more."""
        record = self.open.pop(key, None)
        if record is None:
            return
        self._unplace(key)
        self._forget_source(record.source, key)
        owner = self._owner.pop(key)
        self._counts[owner] -= 1
        if not self._counts[owner]:
            del self._counts[owner]
        if not self.open:
            self._served.clear()

    @property
    def pending(self) -> int:
        """How many wait."""
        return len(self.open) - sum(key in self.open for key in self.busy)

    def is_full(self, owner: str | None) -> bool:
        """Whether so much of an owner waits that no more is taken."""
        return self._counts.get(owner, 0) >= MOST_WAITING

    def source_came(self, source: int) -> None:
        """A file was committed, or got its name: what waits for it is tried now."""
        for key in [*self._of_source.get(source, ())]:
            self.put(self.open[key]._replace(next_ns=0))

    def _forget_source(self, source: int, key: Key) -> None:
        keys = self._of_source.get(source, set())
        keys.discard(key)
        if not keys:
            self._of_source.pop(source, None)

    def _place(self, key: Key) -> None:
        self._unplace(key)
        due_ns = self.open[key].next_ns
        if due_ns:
            self._due[key] = due_ns
            heapq.heappush(self._later, (due_ns, next(self._number), key))
        else:
            self._line_up(key)

    def _unplace(self, key: Key) -> None:
        self._due.pop(key, None)
        owner = self._owner.get(key)
        ready = self._ready.get(owner, {})
        ready.pop(key, None)
        if not ready:
            self._ready.pop(owner, None)

    def _line_up(self, key: Key) -> None:
        owner = self._owner[key]
        self._ready.setdefault(owner, {})[key] = None
        self._enter(owner)

    def _enter(self, owner: str | None) -> None:
        if owner in self._ready and not self._at_work[owner] and owner not in self._in_line:
            self._in_line.add(owner)
            heapq.heappush(self._line, (self._served.get(owner, 0), next(self._number), owner))

    # --- whose turn it is ----------------------------------------------------------------------------------------

    def pick(self, now_ns: int) -> tuple[Derived | None, int | None]:
        """What is made now; and when something is due, where nothing is (`Clock.steady_ns`)."""
        for _ in range(_AT_ONCE):
            if not self._later or self._later[0][0] > now_ns:
                break
            due_ns, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due_ns:
                del self._due[key]
                self._line_up(key)
        owner = self._next_owner()
        if owner in self._ready:
            return self.open[next(iter(self._ready[owner]))], None
        return None, self._later[0][0] if self._later else None

    def _next_owner(self) -> str | None:
        while self._line:
            owner = self._line[0][2]
            if owner in self._ready:
                return owner
            heapq.heappop(self._line)
            self._in_line.discard(owner)
        working = [owner for owner in self._at_work if owner in self._ready]
        return min(working, key=lambda owner: (self._at_work[owner], self._served.get(owner, 0)), default=None)

    def begin(self, key: Key) -> str | None:
        """What was picked is made from now on. Returns whose turn that is, for `end`."""
        owner = self._owner[key]
        if self._line and self._line[0][2] == owner:
            heapq.heappop(self._line)
            self._in_line.discard(owner)
        self._unplace(key)
        self.busy.add(key)
        self._served[owner] = next(self._number)
        self._at_work[owner] += 1
        return owner

    def end(self, key: Key, owner: str | None) -> None:
        """It is made, or not."""
        self.busy.discard(key)
        self._at_work[owner] -= 1
        if not self._at_work[owner]:
            del self._at_work[owner]
        if key in self.open:
            self._place(key)
        self._enter(owner)
        self.wake()
        self._news.set()
        self._news = trio.Event()

    # --- waiting for it ------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def woken(self, until_s: float | None) -> None:
        """Wait for something to do, or until *until_s* (trio's time)."""
        wake = self._wake
        with trio.move_on_at(until_s if until_s is not None else float("inf")):
            await wake.wait()
        if wake.is_set() and self._wake is wake:
            self._wake = trio.Event()

    async def news(self) -> None:
        """Wait until something has become of one that is made."""
        await self._news.wait()


__all__ = ["MOST_WAITING", "Waiting"]
