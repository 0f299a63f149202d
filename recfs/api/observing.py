"""What the daemon answers of what happened (`recfs events`), and what of the protocol itself is to be told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from recfs.api.control import NOT_OFFERED
from recfs.api.lines import CONTENTS
from recfs.core.access.methods import LOOKS, METHODS
from recfs.core.observing.cursors import OLDEST
from recfs.core.observing.lines import line_of
from recfs.errors import NotSupported
from recfs.observing.feed import PAGE, read, wanted

if TYPE_CHECKING:
    from recfs.api.control import Handler, Observer, Peer
    from recfs.observing.assembly import Observing
    from recfs.ports.clock import Clock
    from recfs.ports.reports import Snapshot

TURNED_OFF = "no events are written: [events] enabled is false in the configuration of the daemon"

WAITING = frozenset({"events", "cache_wait"})
"""Methods that wait for something to happen, and end when nobody wants to know any more."""

UNKNOWN = "unknown"
"""What the audit log calls a method that there is not."""
PARAMS_CHARS = 1000
"""So much of a method's parameters is told, but for what was made of a file: that is not for all who read the log."""


def acts_of(observing: Observing, via: str = "control") -> Observer | None:
    """Who tells the audit log of what is asked for *via* a socket; None where there is no such log."""
    audit = observing.audit
    if audit is None:
        return None

    def done(method: str, params: dict[str, Any], peer: Peer, failed: str) -> None:
        looks = method in LOOKS or params.get("dry_run") or (method == "quota_check" and not params.get("repair"))
        if looks and failed != NOT_OFFERED:
            return
        named = {key: value for key, value in params.items() if value is not None and key not in CONTENTS}
        told = line_of(named)[:PARAMS_CHARS]
        path = params.get("path")
        where = os.fsencode(path.strip("/")) if isinstance(path, str) else b""
        op = method if method in METHODS else UNKNOWN
        audit.record(op, where, peer.uid, peer.gid, peer.pid, failed or 0, {"params": told}, via)

    return done


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


__all__ = ["LOOKS", "WAITING", "ObservingAnswers", "acts_of", "events"]
