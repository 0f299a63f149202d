"""What somebody who drains waits for in the S3 queue, and what is hurried for that. All of it is atomic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recfs.ports.rows import MOVE, UPLOAD

if TYPE_CHECKING:
    from recfs.tier.queue.journal import Journal

SOON_NS = 60 * 1_000_000_000
"""What is to happen later than that anyway is not waited for."""


def hurry(journal: Journal, hurried: set[int]) -> None:
    """Nothing waits for its settling any more; what failed waits for its next try.

    Each row once: *hurried* are those that were, and gets these. A temporary name does not change by asking.
    """
    now = journal.now_ns()
    for row in list(journal.rows.values()):
        if row.kind not in (UPLOAD, MOVE) or row.attempts or journal.unsent.why_aside(row.id) is not None:
            continue
        if row.next_try_ns > now and row.id not in hurried:
            hurried.add(row.id)
            journal.update(row._replace(next_try_ns=now))


def stuck(journal: Journal) -> set[int]:
    """Rows that somebody who drains would wait for in vain: refused, and left alone until the next try."""
    return {
        row_id
        for row_id in journal.lasting - journal.running.keys()
        if journal.unsent.why_aside(row_id) is None and journal.rows[row_id].next_try_ns > journal.now_ns()
    }


def failed(journal: Journal) -> set[int]:
    """Rows that failed, not for their own sake, and wait for their next try."""
    now = journal.now_ns()
    return {
        row.id
        for row in journal.rows.values()
        if row.attempts and row.next_try_ns > now and row.id not in journal.running
        and journal.unsent.why_aside(row.id) is None
    }  # fmt: skip


def pending(journal: Journal, *, retries: bool) -> int:
    """How many rows somebody who drains has to wait for; *retries*: also those that failed and are tried again.

    Not what is to happen much later anyway: deletions after the trash's retention, files with temporary names. Nor
    what S3 refuses for its own sake, once it has been tried: waiting changes nothing.
    """
    soon = journal.now_ns() + SOON_NS
    return sum(
        1
        for row in journal.rows.values()
        if row.id in journal.running
        or (journal.unsent.why_aside(row.id) is None and (retries if row.attempts else row.next_try_ns <= soon))
    )


def refused(journal: Journal) -> set[int]:
    """The rows that S3 refuses for their own sake: somebody has to do something about each."""
    return {row.id for row in journal.rows.values() if journal.is_refused(row)}
