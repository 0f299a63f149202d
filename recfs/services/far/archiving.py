"""Recordings that have come of age for the archive: the objects of their files get another storage class.

It is what `recfs tier run` does, for these recordings alone and at the storage class alone: an object that has another
class is fetched, if need be, and stored anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from recfs.core.layout import Role
from recfs.core.retention import Candidate, Seen, plan_archive
from recfs.core.sweeping import Schedule
from recfs.errors import Stale
from recfs.ports.sweep import Progress, Sweep
from recfs.state.nodes import DirNode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import trio

    from recfs.core.retention import Policy
    from recfs.state.tree import Tree

PART = "archive"
PATIENCE_S = 86_400.0


class Runs(Protocol):
    """Who brings files to where they belong."""

    async def run(
        self, *, dry_run: bool, swept: Progress | None = None, tops: Sequence[DirNode] | None = None
    ) -> dict[str, Any]:
        """As `TierRun.run`."""


class Archiving:
    """The sweep "archive"."""

    def __init__(
        self, tree: Tree, policy: Policy, look: Callable[[], Awaitable[Seen]], runs: Runs, *, interval_s: float
    ) -> None:
        """*look*: finds all recordings."""
        self._tree = tree
        self._look = look
        self._runs = runs
        self.interval_s = interval_s
        self.policy = policy
        self._progress = Progress()

    def sweep(self) -> Sweep[Seen, Sequence[Candidate]]:
        """For the registry."""
        schedule = Schedule.every(self.interval_s, patience_s=PATIENCE_S)
        return Sweep(
            "archive", PART, schedule, self._look, self._decide, self._act, mounted=True, progress=self._progress
        )  # fmt: skip

    def _decide(self, seen: Seen) -> Sequence[Candidate] | None:
        return plan_archive(self.policy, seen)

    async def preview(self) -> dict[str, Any]:
        """What a run would do now, as JSON."""
        return await self._runs.run(dry_run=True, tops=await self._tops(self._decide(await self._look()) or []))

    async def _act(self, due: Sequence[Candidate], going_on: trio.Nursery) -> str:
        tops = await self._tops(due)
        self._progress.total = len(tops)
        ended = await self._runs.run(dry_run=False, swept=self._progress, tops=tops)
        told = f"{ended['steps']['store anew']['files']:,} of {ended['files']:,} stored anew"
        if ended["kept_files"]:
            told += f", {ended['kept_files']:,} kept: {ended['kept'][0]['path']}: {ended['kept'][0]['reason']}"
        return told

    async def _tops(self, due: Sequence[Candidate]) -> list[DirNode]:
        found = []
        for each in due:
            try:
                folder = await self._tree.get(each.ino)
            except Stale:
                continue  # removed meanwhile
            if isinstance(folder, DirNode) and folder.role is Role.RECORDING:
                found.append(folder)
        return found


__all__ = ["Archiving"]
