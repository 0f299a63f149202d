"""A circuit breaker: as long as a server is known to be down, nobody waits for it, and one call at a time looks.

A server that fails with some requests and answers others (it has no room left, cannot encrypt, or a daemon behind it is
gone or stands still) is not down, and who reads is not kept waiting: who counts a failure looks at the bucket before
the breaker opens (`is_about_to_open`).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from enum import StrEnum

from recfs.ports.object_errors import StoreDown


class BreakerState(StrEnum):
    """What the circuit breaker makes of the server."""

    CLOSED = "closed"
    """Fine."""
    OPEN = "open"
    """Down; nobody asks until the pause is over."""
    HALF_OPEN = "half-open"
    """One call is under way to see whether it is back."""


class CircuitBreaker:
    """Stops all calls after *threshold* outages in a row, and lets one at a time through to probe. Thread-safe.

    The pause before a probe doubles from *first_pause_s* up to *max_pause_s*, with up to a quarter of jitter so that
    many daemons do not come back at the same instant. *on_change* is told what was found when the server is down, and
    None when it is back; from any thread.
    """

    def __init__(
        self,
        threshold: int = 5,
        first_pause_s: float = 1.0,
        max_pause_s: float = 15.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        on_change: Callable[[Exception | None], None] = lambda _error: None,
    ) -> None:
        self._on_change = on_change
        self._threshold, self._first_pause_s, self._max_pause_s = threshold, first_pause_s, max_pause_s
        self._clock, self._jitter = clock, jitter
        self._changed = threading.Condition()
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._changes = 0
        self._pause_s = first_pause_s
        self._probe_due = 0.0
        self._last_error: Exception | None = None
        self._closing = False

    @property
    def state(self) -> BreakerState:
        """For `recfs status`."""
        return self._state

    @property
    def last_error(self) -> Exception | None:
        """What opened it; None while closed."""
        return None if self._state is BreakerState.CLOSED else self._last_error

    @property
    def trouble(self) -> Exception | None:
        """What the last call met that found the server down; None once one got an answer."""
        return self._last_error if self._failures else None

    @property
    def is_about_to_open(self) -> bool:
        """Whether one more outage opens it."""
        return self._state is BreakerState.CLOSED and self._failures + 1 >= self._threshold

    @property
    def changes(self) -> int:
        """How often the server was found down, or back: what a call that began before the last time tells is old."""
        return self._changes

    def admit(self, wait_s: float) -> bool:
        """Wait up to *wait_s* for permission to call. True: the call is the probe and must report back.

        Raises StoreDown if the server is still thought down then.
        """
        give_up = self._clock() + wait_s
        with self._changed:
            while self._state is not BreakerState.CLOSED:
                now = self._clock()
                if self._state is BreakerState.OPEN and now >= self._probe_due:
                    self._state = BreakerState.HALF_OPEN
                    return True
                # During a probe its outcome is what to wait for; else the time of the next one.
                until = give_up if self._state is BreakerState.HALF_OPEN else min(give_up, self._probe_due)
                if now >= give_up or self._closing:
                    raise StoreDown(
                        f"the object store is down, next try in {self._next_s(now):.0f} s: {self._last_error}"
                    )
                self._changed.wait(max(until - now, 0.001))
        return False

    def succeeded(self, began: int | None = None) -> None:
        """A call got an answer that a healthy server gives (a refusal is one, too).

        *began*: `changes` when it was made, if that was not just now.
        """
        with self._changed:
            if began not in (None, self._changes):
                return
            self._failures, self._pause_s = 0, self._first_pause_s
            was_down = self._state is not BreakerState.CLOSED
            if was_down:
                self._state = BreakerState.CLOSED
                self._changes += 1
                self._changed.notify_all()
        if was_down:
            self._on_change(None)

    def failed(self, error: Exception, *, probe: bool, began: int | None = None) -> None:
        """A call found the server down. *began*: as with `succeeded`."""
        with self._changed:
            if began not in (None, self._changes):
                return
            self._failures += 1
            self._last_error = error
            goes_down = self._state is BreakerState.CLOSED and self._failures >= self._threshold
            if probe or goes_down:
                if probe:
                    self._pause_s = min(self._pause_s * 2, self._max_pause_s)
                self._state = BreakerState.OPEN
                self._changes += goes_down
                self._probe_due = self._clock() + self._pause_s * (1 + self._jitter() / 4)
                self._changed.notify_all()
        if goes_down:
            self._on_change(error)

    def withdrawn(self) -> None:
        """The probe ended without saying anything about the server (cancelled, or a local fault)."""
        with self._changed:
            if self._state is BreakerState.HALF_OPEN:
                self._state, self._probe_due = BreakerState.OPEN, self._clock()
                self._changed.notify_all()

    def release(self) -> None:
        """The daemon stops: nobody waits any more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _next_s(self, now: float) -> float:
        return max(0.0, self._probe_due - now)
