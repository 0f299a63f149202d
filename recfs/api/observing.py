"""What the daemon answers of what happened: the control protocol's methods behind `recfs events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.core.observing.cursors import OLDEST
from recfs.errors import NotSupported
from recfs.observing.feed import PAGE, read, wanted

if TYPE_CHECKING:
    from recfs.api.control import Handler
    from recfs.observing.assembly import Observing
    from recfs.ports.clock import Clock
    from recfs.ports.reports import Snapshot

TURNED_OFF = "no events are written: [events] enabled is false in the configuration of the daemon"

WAITING = frozenset({"events"})
"""Methods that wait for something to happen, and end when nobody wants to know any more."""


class ObservingAnswers:
    """events."""

    def __init__(self, observing: Observing, clock: Clock) -> None:
        self._observing = observing
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """Methods by name."""
        return {"events": self.events}

    async def events(self, params: dict[str, Any]) -> dict[str, Any]:
        """Events after a cursor; with `wait_s`, wait for the first of them."""
        feed = self._observing.feed
        if feed is None:
            raise NotSupported(TURNED_OFF)
        which = wanted(params.get("kinds"), params.get("user"))
        found = await feed.read(
            str(params.get("since") or OLDEST), which, _limit(params), self._clock.now_ns(),
            float(params.get("wait_s") or 0.0),
        )  # fmt: skip
        return found.as_json()


def events(snapshot: Snapshot, params: dict[str, Any], now_ns: int) -> dict[str, Any]:
    """The same, of a store that nobody has in use: nothing is waited for."""
    which = wanted(params.get("kinds"), params.get("user"))
    return read(snapshot, str(params.get("since") or OLDEST), which, _limit(params), now_ns).as_json()


def _limit(params: dict[str, Any]) -> int:
    return min(max(int(params.get("limit") or PAGE), 1), PAGE)


__all__ = ["ObservingAnswers", "events"]
