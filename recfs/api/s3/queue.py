"""The journal for people: what is to be done on S3, what is under way, what fails; trying again, and giving up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.api import summaries_s3
from recfs.errors import InvalidArgument
from recfs.ports.rows import UPLOAD
from recfs.state.work.turns import Turn
from recfs.tier.queue import waited_for
from recfs.tier.queue.reasons import NOT_YET
from recfs.tier.queue.unsent import Why

if TYPE_CHECKING:
    from collections.abc import Collection

    from recfs.api.s3.far import Far
    from recfs.ports.rows import JournalRow

_LEFT = 5


class QueueAnswers:
    """queue, queue_retry, queue_drop."""

    def __init__(self, far: Far) -> None:
        self._far = far

    async def _queue(self, limit: int | None, only: Collection[int] | None = None) -> dict[str, Any]:
        """*only*: of these rows, however many; None: of all."""
        far, turn = self._far, Turn()
        running = {row_id: each.sent_bytes for row_id, each in far.tier.journal.running.items()}
        now = far.vfs.tree.clock.steady_ns()
        answer = await far.read(lambda snapshot: summaries_s3.queue(snapshot, now, running, limit=limit, only=only))
        for row in answer["rows"]:
            if turn.is_over:
                await turn.pass_on()
            if waiting := far.tier.journal.waits.behind(row["id"]):
                row["why"] = "; ".join(filter(None, (row["why"], self._waiting(waiting))))
        trouble = far.trouble
        for row in answer["rows"] if trouble is not None else ():
            if row["state"] == "running":
                row["why"] = trouble  # its tries have not come to an end yet
        return answer

    def _waiting(self, row_ids: list[int]) -> str:
        """What is held up by a move, the first by name."""
        tier, nodes = self._far.tier, self._far.vfs.tree.nodes
        inos = [tier.journal.rows[row_id].ino for row_id in row_ids]
        names = [nodes[ino].path for ino in inos if ino in nodes][:1]
        if more := len(row_ids) - len(names):
            names.append(f"{more} more")
        return f"{' and '.join(names)} {'waits' if len(row_ids) == 1 else 'wait'} for it"

    async def queue(self, params: dict[str, Any]) -> dict[str, Any]:
        """The rows, work under way first, then what fails. `limit`: so many at most; 0: all."""
        limit = int(params.get("limit") or 0)
        return await self._queue(limit or None) | {"breaker": self._breaker()}

    def _breaker(self) -> dict[str, Any] | None:
        """How the circuit breaker stands; None where there is none."""
        breaker = self._far.tier.link.breaker
        if breaker is None:
            return None
        error = breaker.last_error
        return {"state": breaker.state.value, "error": str(error) if error is not None else None}

    async def status(self) -> dict[str, Any] | None:
        """The part of `status` about S3."""
        tier, config = self._far.found, self._far.config
        if tier is None:
            return None
        found = await self._queue(_LEFT)
        reads, unread = await tier.partials.misses.listed()
        return {
            "url": config.s3.url if config.s3 is not None else "",
            "queue": found["totals"],
            "unsent_bytes": tier.journal.unsent_bytes(),
            "local_bytes": tier.copies.used_bytes,
            "budget_bytes": tier.settings.max_bytes,
            "stays": found["stays"],
            "breaker": self._breaker(),
            "trouble": self._far.trouble or tier.partials.misses.general,
            "failed_reads": reads,
            "unread": unread,
            "problem": tier.ownership.refusal or summaries_s3.problem(found),
        }

    async def watched(self) -> int:
        """How many files wait until S3 cannot replace their objects any more by what it was asked before."""
        if self._far.found is None:
            return 0
        journal = self._far.found.journal
        found = 0

        def visit(row: JournalRow) -> None:
            nonlocal found
            found += journal.unsent.why_aside(row.id) is Why.WATCHED or row.error == NOT_YET

        await journal.tally.look_at_all(visit)
        return found

    async def stays(self) -> dict[str, Any] | None:
        """What is not uploaded as long as its name looks temporary; None without S3."""
        return (await self._queue(_LEFT))["stays"] if self._far.found is not None else None

    async def refused(self) -> dict[str, Any] | None:
        """What S3 refuses for its own sake, and is not waited for: how much, the first few by name; None without S3."""
        tier = self._far.found
        if tier is None:
            return None
        refused = await waited_for.refused(tier.journal)
        rows = (await self._queue(None, refused))["rows"] if refused else []
        uploads = sum(1 for row in rows if row["kind"] == UPLOAD)
        return {"rows": len(rows), "uploads": uploads, "first": rows[:_LEFT]}

    async def stuck(self) -> list[dict[str, Any]]:
        """The rows that are waited for and will not be done by waiting."""
        stuck = await waited_for.stuck(self._far.found.journal) if self._far.found is not None else set()
        found: list[dict[str, Any]] = (await self._queue(None, stuck))["rows"] if stuck else []
        return found

    async def left(self) -> dict[str, Any] | None:
        """What is under way or fails, the first few by name."""
        if self._far.found is None:
            return None
        found = await self._queue(_LEFT)
        waits = self._far.tier.journal.waits
        told = [row for row in found["rows"] if row["state"] != "waiting" or row["id"] in waits]
        return {"totals": found["totals"], "rows": told, "breaker": self._breaker()}

    # --- changing ------------------------------------------------------------------------------------------------

    async def _wanted(self, params: dict[str, Any]) -> tuple[list[JournalRow], list[int]]:
        """The rows that are meant, and the ids that are not in the queue (any more)."""
        rows = self._far.tier.journal.rows
        if params.get("all"):
            found: list[JournalRow] = []
            await self._far.tier.journal.tally.look_at_all(found.append)
            return found, []
        given = params.get("ids")
        ids = given if isinstance(given, list) else []
        if not ids or not all(isinstance(each, int) and not isinstance(each, bool) for each in ids):
            raise InvalidArgument("give the numbers that `recfs queue` shows, or --all")
        return [rows[each] for each in ids if each in rows], [each for each in ids if each not in rows]

    async def retry(self, params: dict[str, Any]) -> dict[str, Any]:
        """Try at once what failed, and uploads that are settling. `kept`: what was asked for by number, and is not."""
        rows, gone = await self._wanted(params)
        journal, turn, running = self._far.tier.journal, Turn(), 0
        retried, kept = [], []
        for row in rows:
            if turn.is_over:
                await turn.pass_on()
            running += row.id in journal.running
            row = journal.rows.get(row.id, row)
            is_tried, reason = self._far.services.queue.retry(row)
            if is_tried:
                retried.append(row.id)
            elif reason is not None and not params.get("all"):
                kept.append({"id": row.id, "reason": reason})
        return {"retried": retried, "kept": kept, "gone": gone, "running": running, "trouble": self._far.trouble}

    async def drop(self, params: dict[str, Any]) -> dict[str, Any]:
        """Take work out of the queue, as `QueueChanges.drop` does; `kept` says what stays, and why."""
        rows, gone = await self._wanted(params)
        dropped, kept, turn = [], [], Turn()
        for row in rows:
            if turn.is_over:
                await turn.pass_on()
            if row.id not in self._far.tier.journal.rows:
                gone.append(row.id)
                continue
            refused = await self._far.services.queue.drop(row)
            if refused is None:
                dropped.append(row.id)
            else:
                kept.append({"id": row.id, "reason": refused})
        await self._far.vfs.behind.durable()
        return {"dropped": dropped, "kept": kept, "gone": gone}
