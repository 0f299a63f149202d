"""Requests that S3 gave no answer to: they may be carried out much later, and after those that came after them.

A gateway goes on with an upload whose client has long gone, until a daemon behind it is back; a server that stood still
carries out all that waits in its sockets, in any order. What was put under such a key since would be replaced by an
earlier version, or be deleted, and what was deleted be there again. So it is looked at again and again, and counts only
when no such request can come any more; and what is deleted is deleted twice.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recfs.ports.clock import Clock

LATE_S = 15.0
"""How long after the server has stored something what it was asked before mostly comes, if it does."""
KEPT_S = 600.0
"""How long after it was made a request without an answer may be carried out."""
GONE = b""
"""Stands for the bytes of what is deleted."""
_NS = 10**9
_MANY = 1000


class Unanswered:
    """What may still come to lie under which key. Any thread may note it, and it is known as soon as that returns."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, tuple[int, bytes | None]] = {}
        self._lock = threading.Lock()
        self._many = _MANY

    def note(self, key: str, sha256: bytes | None) -> None:
        """These bytes may come to lie under *key*, or (GONE) what lies there may be deleted; None: any of that."""
        with self._lock:
            if len(self._known) > self._many:
                self._known = {each: found for each, found in self._known.items() if found[0] > self._oldest_ns()}
                self._many = max(_MANY, 2 * len(self._known))
            before = self._known.get(key)
            if before is not None and before[1] != sha256:
                sha256 = None
            self._known[key] = self._clock.steady_ns(), sha256

    def others(self, key: str, sha256: bytes | None) -> bool:
        """Whether what lies under *key* may come to be anything but these bytes."""
        found = self._known.get(key)
        return found is not None and found[0] > self._oldest_ns() and (sha256 is None or found[1] != sha256)

    def may_put(self, key: str) -> bool:
        """Whether anything may come to lie under *key*."""
        found = self._known.get(key)
        return found is not None and found[0] > self._oldest_ns() and found[1] != GONE

    def until_ns(self, key: str) -> int:
        """Until when an object that is all there is of a file must not lie there (`Clock.steady_ns`); 0: it may."""
        found = self._known.get(key)
        return found[0] + round(KEPT_S * _NS) if found is not None else 0

    def _oldest_ns(self) -> int:
        return self._clock.steady_ns() - round(KEPT_S * _NS)
