"""What somebody who drains waits for in the S3 queue, and what is hurried for that.

Whoever goes through the queue does it in turns (`tally.py`): there may be a million rows, and requests come first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.ports.rows import MOVE, UPLOAD

if TYPE_CHECKING:
    from recfs.ports.rows import JournalRow
    from recfs.tier.queue.journal import Journal

SOON_NS = 60 * 1_000_000_000
"""What is to happen later than that anyway is not waited for."""


async def hurry(journal: Journal, hurried: set[int]) -> None:
    """Nothing waits for its settling any more; what failed waits for its next try.

    Each row once: *hurried* are those that were, and gets these. A temporary name does not change by asking.
    """

    def visit(row: JournalRow) -> None:
        if row.kind not in (UPLOAD, MOVE) or row.attempts or journal.unsent.why_aside(row.id) is not None:
            return
        now = journal.now_ns()
        if row.next_try_ns > now and row.id not in hurried:
            hurried.add(row.id)
            journal.update(row._replace(next_try_ns=now))

    await journal.tally.look_at_all(visit)


def _is_stuck(journal: Journal, row: JournalRow) -> bool:
    is_left_alone = row.next_try_ns > journal.now_ns() and row.id not in journal.running
    return is_left_alone and row.id in journal.lasting and journal.unsent.why_aside(row.id) is None


async def stuck(journal: Journal) -> set[int]:
    """Rows that somebody who drains would wait for in vain: refused, and left alone until the next try."""
    found = set[int]()
    if journal.lasting:
        await journal.tally.look_at_all(lambda row: found.add(row.id) if _is_stuck(journal, row) else None)
    return found


async def try_again(journal: Journal) -> None:
    """What failed, for its own sake or not, and waits for its next try, is tried at once."""

    def visit(row: JournalRow) -> None:
        is_left_alone = row.next_try_ns > journal.now_ns() and row.id not in journal.running
        if is_left_alone and (row.attempts or row.id in journal.lasting) and journal.unsent.why_aside(row.id) is None:
            journal.retry(row.id)

    if journal.tally.failing or journal.lasting:
        await journal.tally.look_at_all(visit)


async def pending(journal: Journal, *, retries: bool, spare_stuck: bool = False) -> int:
    """How many rows somebody who drains has to wait for; *retries*: also those that failed and are tried again.

    Not what is to happen much later anyway: deletions after the trash's retention, files with temporary names. Nor
    what S3 refuses for its own sake, once it has been tried: waiting changes nothing. *spare_stuck*: nor the
    `stuck`.
    """
    count = 0

    def visit(row: JournalRow) -> None:
        nonlocal count
        if row.id not in journal.running:
            if journal.unsent.why_aside(row.id) is not None:
                return
            if not (retries if row.attempts else row.next_try_ns <= journal.now_ns() + SOON_NS):
                return
        if not (spare_stuck and _is_stuck(journal, row)):
            count += 1

    await journal.tally.look_at_all(visit)
    return count


async def refused(journal: Journal) -> set[int]:
    """The rows that S3 refuses for their own sake: somebody has to do something about each."""
    found = set[int]()
    await journal.tally.look_at_all(lambda row: found.add(row.id) if journal.is_refused(row) else None)
    return found
