"""What all downloads from one object store share: how many requests at a time, who is next, how fast they are."""

from __future__ import annotations

from collections.abc import Callable

Asker = Callable[[], None]

MAX_REQUEST_S = 2.0
"""No request is made larger than what the last ones would have brought in this time."""
FIRST_REQUEST_BYTES = 1 << 20
"""The largest request as long as nothing is known of the speed."""
TELLING_BYTES = 256 << 10
"""Smaller requests say more of the server's latency than of its speed."""


class FetchSlots:
    """How many GETs all downloads together may have under way, and whose turn it is.

    Readers who wait come first, then read-ahead; within each, one request per download in turn. *reserved* slots are
    never used for read-ahead, so that a reader need not wait for one to end. The limiter of the threads should have
    as many tokens as there are slots, or its queue decides instead.
    """

    def __init__(self, total: int, reserved: int | None = None) -> None:
        self._limits = {True: total, False: total - (total // 4 if reserved is None else reserved)}
        if self._limits[False] < 1:
            raise ValueError(f"{total} slots, {reserved} of them reserved")
        self._used = 0
        self._queues: dict[bool, dict[Asker, None]] = {True: {}, False: {}}
        self._rate: float | None = None
        """Bytes a second that one request brings, lately."""

    def take(self, asker: Asker, *, urgent: bool) -> bool:
        """Take a slot. False: *asker* is called once one is free, and may then take it."""
        if self._used >= self._limits[urgent]:
            self._queues[urgent][asker] = None
            return False
        self._used += 1
        return True

    def give_back(self) -> None:
        """A slot is free: the next in turn is called at once, so nobody can get in between."""
        self._used -= 1
        for urgent, queue in self._queues.items():
            while queue and self._used < self._limits[urgent]:
                asker = next(iter(queue))
                del queue[asker]
                asker()

    def waits(self, asker: Asker) -> bool:
        """Whether *asker* is in a queue."""
        return any(asker in queue for queue in self._queues.values())

    def forget(self, asker: Asker) -> None:
        """*asker* needs no slot any more."""
        for queue in self._queues.values():
            queue.pop(asker, None)

    # --- speed ---------------------------------------------------------------------------------------------------

    def learn(self, length: int, took_s: float) -> None:
        """A request brought so much in so long."""
        if length >= TELLING_BYTES and took_s > 0:
            rate = length / took_s
            self._rate = rate if self._rate is None else (self._rate + rate) / 2

    def sensible_bytes(self) -> int:
        """How large a request may be so that whoever waits for one under way, or for its slot, does not wait long."""
        return FIRST_REQUEST_BYTES if self._rate is None else int(self._rate * MAX_REQUEST_S)
