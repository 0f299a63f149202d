"""Objects that are to go, many in one request, each with an outcome of its own.

What S3 refuses of some keys, the store tells by key. An exception of any other class, which a single key may cause in a
library, would keep all the others of its request: they are asked for apart from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from recfs.ports.object_errors import KeyTooLong, ObjectStoreError, TransferCancelled
from recfs.ports.objects import DELETE_BATCH
from recfs.ports.rows import DELETE
from recfs.tier.queue.reasons import ONCE_MORE
from recfs.tier.queue.running import Running
from recfs.tier.queue.unanswered import GONE, KEPT_S

if TYPE_CHECKING:
    from recfs.ports.objects import Cancel, ObjectStore
    from recfs.ports.rows import JournalRow
    from recfs.state.writebehind import WriteBehind
    from recfs.tier.tier import Tier
    from recfs.tier.uploads.failures import Failures
    from recfs.tier.uploads.holders import Holders


class Deletions:
    """The journal's deletions, carried out: one request at a time."""

    def __init__(
        self, tier: Tier, behind: WriteBehind, holders: Holders, failures: Failures, limiter: trio.CapacityLimiter,
        keys: set[str],
    ) -> None:  # fmt: skip
        self._tier = tier
        self._journal = tier.journal
        self._behind = behind
        self._holders = holders
        self._failures = failures
        self._limiter = limiter
        self._keys = keys
        """Keys being worked on, by whomever."""
        self._is_busy = False

    def start(self, nursery: trio.Nursery) -> list[int]:
        """Begin with those that are due; returns the rows that wait since somebody works on their key. Atomic."""
        rows: list[JournalRow] = []
        blocked: list[int] = []
        while (
            not self._is_busy and len(rows) < DELETE_BATCH
            and (row := self._journal.due.take(deletions=True)) is not None
        ):  # fmt: skip
            if row.key in self._keys:
                blocked.append(row.id)
            else:
                self._keys.add(row.key)
                self._journal.running[row.id] = Running(DELETE)
                rows.append(row)
        if rows:
            self._is_busy = True
            nursery.start_soon(self._delete, rows)
        return blocked

    async def _delete(self, taken: list[JournalRow]) -> None:
        rows = taken
        try:
            await self._tier.ownership.ensure()
            # A file whose removal, or whose object's new key, is not on the disk yet would be back without its bytes.
            await self._behind.durable()
            for row in rows:
                if await self._holders.holder(row.key, 0) is not None:
                    self._journal.done(row.id)  # it is a file's by now, and stays
            rows = [row for row in rows if row.id in self._journal.rows and not self._is_kept(row)]
            keys = [row.key for row in rows]
            delete = partial(delete_each, self._tier.objects, keys, lambda: self._journal.stopping)
            failed = await trio.to_thread.run_sync(delete, limiter=self._limiter) if keys else {}
            for row in rows:
                if row.key in failed:
                    self._failed(row, failed[row.key])
                else:
                    self._journal.done(row.id)
                    if self._journal.unanswered.may_put(row.key) and not self._journal.is_deleted(row.key):
                        self._journal.delete(row.key, KEPT_S, ONCE_MORE)
        except Exception as error:
            await trio.lowlevel.checkpoint_if_cancelled()
            for row in rows:
                self._failed(row, error)
        finally:
            self._is_busy = False
            self._keys.difference_update(row.key for row in taken)
            for row in taken:
                self._journal.ended(row.id)

    def _is_kept(self, row: JournalRow) -> bool:
        """Whether a version in the trash has the object, whatever it was to go for: the row waits with it. Atomic."""
        until_ns = self._tier.trashed.kept_until_ns(row.key)
        if until_ns <= self._journal.now_ns():
            return False
        self._journal.waiting(row._replace(next_try_ns=until_ns, error=""))
        return True

    def _failed(self, row: JournalRow, error: Exception) -> None:
        if isinstance(error, ObjectStoreError) and error.unanswered:
            self._journal.unanswered.note(row.key, GONE)
        self._failures.failed(row, error)


def delete_each(objects: ObjectStore, keys: Sequence[str], cancel: Cancel) -> dict[str, Exception]:
    """Delete the objects; what kept some of them, by key. A key that cannot be named has no object.

    Called in a worker thread. Raises ObjectStoreError where S3 refuses them all, TransferCancelled when *cancel* says
    so between two requests.
    """
    try:
        failed = objects.delete(keys)
    except ObjectStoreError:
        raise
    except Exception as error:
        if len(keys) == 1:
            return {keys[0]: error}
        if cancel():
            raise TransferCancelled("the daemon stops") from error
        half = len(keys) // 2
        return delete_each(objects, keys[:half], cancel) | delete_each(objects, keys[half:], cancel)
    # Such a row comes from a file that could not be uploaded either.
    return {key: error for key, error in failed if not isinstance(error, KeyTooLong)}


__all__ = ["Deletions", "delete_each"]
