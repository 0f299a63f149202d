"""Aborts uploads in parts that nobody goes on with: their parts cost as much as objects, and are in no listing.

`[lifecycle].abort_multipart` has S3 do so by itself; not every server does. Those of recfs's own journal are never
touched: it goes on with them, or aborts them itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.sweeping import Schedule
from recfs.core.upkeep.leftovers import Begun, Now, stale_uploads
from recfs.ports.sweep import Progress, Sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recfs.state.tree import Tree
    from recfs.tier.tier import Tier

PART = "unfinished uploads"
PATIENCE_S = 3600.0


class Multiparts:
    """The sweep "multiparts"."""

    def __init__(self, tier: Tier, tree: Tree, *, every_s: float, age_s: float) -> None:
        """*age_s*: how old an upload has to be."""
        self._tier = tier
        self._tree = tree
        self.every_s = every_s
        self.age_s = age_s
        self._progress = Progress()

    def sweep(self) -> Sweep[Any, Any]:
        """For the registry."""
        schedule = Schedule.every(self.every_s, patience_s=PATIENCE_S)
        return Sweep(
            "multiparts", PART, schedule, self._look, lambda stale: stale or None, self._act,
            mounted=True, progress=self._progress,
        )  # fmt: skip

    async def preview(self) -> list[dict[str, Any]]:
        """What a run would abort now, as JSON. Raises what S3 answers."""
        now = self._now()
        return [
            {"key": each.key, "upload_id": each.upload_id, "age_s": now.age_s(each.initiated_ns)}
            for each in await self._look()
        ]

    def _now(self) -> Now:
        clock = self._tree.clock
        return Now(clock.now_ns(), clock.calendar_ns())

    def _known(self, begun: Sequence[Begun]) -> set[tuple[str, str]]:
        """Those that rows of the queue name, of the keys of *begun*."""
        journal, keys = self._tier.journal, {each.key for each in begun}
        rows = (journal.rows[row_id] for key in keys for row_id in journal.tally.at(key))
        return {(row.key, row.upload_id) for row in rows if row.upload_id}

    async def _look(self) -> list[Begun]:
        listed = await trio.to_thread.run_sync(
            self._tier.objects.list_multiparts, limiter=self._tier.limiter, abandon_on_cancel=True
        )
        begun = [Begun(each.key, each.upload_id, each.initiated_ns) for each in listed]
        return stale_uploads(begun, self._known(begun), self._now(), self.age_s)

    async def _act(self, stale: Sequence[Begun], going_on: trio.Nursery) -> str:
        await self._tier.ownership.ensure()
        self._progress.total = len(stale)
        problems, aborted = self._tree.behind.problems, 0
        for each in stale:
            if self._progress.is_stopping:
                break
            with problems.aside(PART, each.key, each.key):
                if (each.key, each.upload_id) not in self._known([each]):
                    abort = partial(self._tier.objects.abort_multipart, each.key, each.upload_id)
                    await trio.to_thread.run_sync(abort, limiter=self._tier.limiter)
                    aborted += 1
            self._progress.done += 1
        left = f" of {len(stale):,}" if aborted < len(stale) else ""
        return f"{aborted:,}{left} aborted"


__all__ = ["Multiparts"]
