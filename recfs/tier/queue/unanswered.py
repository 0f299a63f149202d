"""Requests that S3 gave no answer to: they may be carried out much later, and after those that came after them.

A gateway goes on with an upload whose client has long gone, until a daemon behind it is back; a server that stood still
carries out all that waits in its sockets, in any order. What was put under such a key since would be replaced by an
earlier version, or be deleted, and what was deleted be there again. So it is looked at again and again, and counts only
when no such request can come any more; and what is deleted is deleted twice.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from recfs.ports.rows import DELETE, MOVE, UPLOAD, UnansweredRow
from recfs.tier.queue import sent

if TYPE_CHECKING:
    from recfs.ports.clock import Clock
    from recfs.ports.rows import JournalRow, ObjectRow

LATE_S = 15.0
"""How long after the server has stored something what it was asked before mostly comes, if it does."""
KEPT_S = 600.0
"""How long after it was made a request without an answer may be carried out."""
GONE = b""
"""Stands for the bytes of what is deleted."""
_NS = 10**9


class Unanswered:
    """What may still come to lie under which key. Any thread may note it, and it is known as soon as that returns.

    The journal has the catalogue remember it (`fresh`, `expired`), together with what came of the request.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, tuple[int, bytes | None]] = {}
        self._lock = threading.Lock()
        self._fresh: set[str] = set()
        self._begun: set[str] = set()

    def note(self, key: str, sha256: bytes | None) -> None:
        """These bytes may come to lie under *key*, or (GONE) what lies there may be deleted; None: any of that."""
        with self._lock:
            before = self._known.get(key)
            if before is not None and before[0] > self._oldest_ns() and before[1] != sha256:
                sha256 = None
            self._known[key] = self._clock.steady_ns(), sha256
            self._fresh.add(key)

    def note_begun(self, key: str) -> None:
        """An upload in parts may have been begun under *key*, or may be yet, whose id nobody was told."""
        with self._lock:
            self._begun.add(key)

    def doubt(self, row: JournalRow, in_s3: ObjectRow | None, now: int) -> None:
        """What a row of the last run had under way may be carried out now, or later."""
        if row.kind == UPLOAD and row.key:
            self.note(row.key, None if sent.others_in(row.parts) else sent.sha256_in(row.parts))
        elif row.kind == MOVE and row.key:
            self.note(row.key, in_s3.sha256 if in_s3 is not None else None)
        elif row.kind == DELETE and (row.attempts or row.next_try_ns <= now):
            self.note(row.key, GONE)

    @property
    def is_fresh(self) -> bool:
        """Whether there is something to be remembered."""
        return bool(self._fresh or self._begun)

    def fresh(self) -> tuple[list[UnansweredRow], list[str]]:
        """What was noted since the last call, and the keys under which uploads in parts may have been begun."""
        with self._lock:
            rows = [UnansweredRow(key, *self._known[key]) for key in self._fresh if key in self._known]
            begun = list(self._begun)
            self._fresh, self._begun = set(), set()
        return rows, begun

    def expired(self) -> list[str]:
        """Keys of which nothing is feared any more; they are forgotten."""
        with self._lock:
            over = [key for key, (noted_ns, _) in self._known.items() if noted_ns <= self._oldest_ns()]
            for key in over:
                del self._known[key]
        return over

    def remember(self, row: UnansweredRow) -> None:
        """It was noted by an earlier run."""
        self._known[row.key] = row.noted_ns, row.sha256

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
