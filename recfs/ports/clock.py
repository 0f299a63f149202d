"""Time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The times, injected so that waiting and expiry can be tested. `recfs/clock.py` says which is for what."""

    def now_ns(self) -> int:
        """The wall clock, for what is recorded: nanoseconds since the epoch (CLOCK_REALTIME). May step."""

    def steady_ns(self) -> int:
        """The time that passed, for waiting and for ages. Never steps, never goes back."""

    def calendar_ns(self) -> int:
        """The wall clock as far as it can be believed, for months."""
