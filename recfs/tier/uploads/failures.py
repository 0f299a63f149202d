"""What becomes of a journal row whose work failed: when it is tried again, and whether anybody has to do something."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

from recfs.errors import RecfsError
from recfs.ports.object_errors import (
    ClockSkewed,
    KeyTooLong,
    NotOffered,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    ObjectStoreError,
    PrefixTaken,
    RequestRefused,
    StoreDown,
    StoreOutage,
    UploadGone,
    UploadInvalid,
    WrongCredentials,
)
from recfs.ports.rows import MOVE, UPLOAD
from recfs.state.problems import reason_of
from recfs.tier.queue.unsent import Why

if TYPE_CHECKING:
    from recfs.ports.rows import JournalRow
    from recfs.state.tree import Tree
    from recfs.tier.queue.journal import Journal

log = logging.getLogger("recfs.uploader")

FIRST_DELAY_S = 1.0
DOWN_S = 15.0
"""Longest wait while S3 is known to be down: about as long as the circuit breaker's."""
REFUSED_S = 30.0
"""Longest wait while the server refuses the credentials or the clock."""
_OF_THE_FILE = (KeyTooLong, NotOffered, RequestRefused)
"""Refusals that say nothing of the store as a whole, and that the next try gets as well …"""
_OF_THE_OBJECT = (ObjectMissing, ObjectChanged, ObjectArchived)
"""… and what keeps an object from being moved, until somebody puts it right."""
_NS = 10**9


class Failures:
    """Records failures in the journal's rows."""

    def __init__(self, journal: Journal, tree: Tree, *, retry_max_s: float) -> None:
        self._journal = journal
        self._tree = tree
        self._retry_max_s = retry_max_s
        self.stored = 0
        """Counts the uploads that S3 confirmed."""
        self._refused: dict[int, int] = {}
        """Where that count stood when a row was last refused: if others succeed since, it is the file's own trouble."""

    def ended(self, row_id: int) -> None:
        """There is no such row any more."""
        self._refused.pop(row_id, None)

    def failed(self, row: JournalRow, error: Exception) -> None:
        """The work on a row met *error*. Atomic."""
        row = self._journal.rows.get(row.id, row)
        newer = self._journal.upload_of(row.ino) if row.kind == UPLOAD else None
        if newer is not None and newer.id != row.id:
            self._journal.tried_before.add(newer.id)  # something of this one may be there
            self._journal.cancel(row.id)
            return
        if self._journal.unsent.why_aside(row.id) is Why.WATCHED:
            self._journal.unsent.count_again(row.id)  # nobody knows any more that it is there
        attempts = row.attempts + 1
        delay_s = min(FIRST_DELAY_S * 2.0 ** min(attempts - 1, 20), self._retry_max_s) * random.uniform(0.5, 1.0)
        lasting = isinstance(error, ObjectStoreError) and not error.retryable
        # Of these the next attempt begins another upload.
        lasting = lasting and not isinstance(error, StoreOutage | PrefixTaken | UploadGone | UploadInvalid)
        stays = isinstance(error, PrefixTaken) or (lasting and not isinstance(error, WrongCredentials | ClockSkewed))
        if not stays:
            self._journal.lasting.discard(row.id)
        elif row.id in self._journal.rows:
            self._journal.lasting.add(row.id)
        if isinstance(error, WrongCredentials | ClockSkewed):
            delay_s = min(delay_s, REFUSED_S)  # it is put right from outside, for all at once
        elif lasting:
            delay_s = self._retry_max_s
            own = _OF_THE_FILE + (_OF_THE_OBJECT if row.kind == MOVE else ())
            if isinstance(error, own) or self.stored > self._refused.get(row.id, self.stored):
                self._journal.unsent.set_aside(row.id, Why.REFUSED)
            self._refused[row.id] = self.stored
        if isinstance(error, StoreDown | PrefixTaken):
            delay_s = min(delay_s, DOWN_S)  # nothing was sent; who tries again waits for the breaker, or the owner
        elif attempts == 1 or (lasting and row.error != reason_of(error)):
            log.warning("%s of %s: %s; next try in %.0f s", row.kind, self._name(row), error, delay_s)
        if not isinstance(error, (RecfsError, OSError)):
            log.error("%s of %s: unexpected error", row.kind, self._name(row), exc_info=error)
        next_ns = self._tree.clock.steady_ns() + round(delay_s * _NS)
        self._journal.update(row._replace(attempts=attempts, error=reason_of(error), next_try_ns=next_ns))

    def _name(self, row: JournalRow) -> str:
        node = self._tree.nodes.get(row.ino)
        return node.path if node is not None and row.ino else row.key or str(row.ino)


__all__ = ["Failures"]
