"""The sweep "catalogue": proves the counters against the rows, and looks for damage in the catalogue's file.

Both are asked of a snapshot, in a thread with a connection of its own, so that no request waits. Nothing is written:
the counters are put right by `recfs quota check --repair`, when somebody has seen what was wrong. There is no VACUUM,
which would lock everybody out and write the file anew; free pages are used again, or given back to the disk a few at a
time (`services/housekeeper.py`). And no ANALYZE, whose statistics would be written from a second connection, in the way
of the daemon's own writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recfs.core.sweeping import Schedule
from recfs.core.units import format_size
from recfs.errors import IoFailure
from recfs.ports.sweep import Progress, Sweep

if TYPE_CHECKING:
    import trio

    from recfs.ports.reports import Checked, Health, Reports, Snapshot
    from recfs.state.tree import Tree

PART = "catalogue check"
PATIENCE_S = 1800.0


class Maintenance:
    """Looks after the catalogue now and then."""

    def __init__(self, tree: Tree, reports: Reports, *, every_s: float) -> None:
        self._tree = tree
        self._reports = reports
        self.every_s = every_s
        self._progress = Progress()

    def sweep(self) -> Sweep[Any, Any]:
        """For the registry."""
        schedule = Schedule.every(self.every_s, patience_s=PATIENCE_S)
        return Sweep(
            "catalogue", PART, schedule, self._look, lambda seen: seen, self._act,
            mounted=True, progress=self._progress,
        )  # fmt: skip

    async def _look(self) -> tuple[Checked, Health]:
        await self._tree.behind.flush()
        return await self._reports.ask(_checked), await self._reports.ask(_health)

    async def _act(self, seen: tuple[Checked, Health], going_on: trio.Nursery) -> str:
        checked, health = seen
        problems, wrong = self._tree.behind.problems, []
        if health.damage is not None:
            why = f"the catalogue is damaged: {health.damage}; docs/runbook.md tells how to restore it"
            problems.note(PART, "damage", IoFailure(why))
            wrong.append(why)
        else:
            problems.solved(PART, "damage")
        off = len(checked.differences)
        # Rows that the catalogue does not take are counted all the same, and would be taken for differences.
        if off and not self._tree.behind.aside:
            why = f"{off:,} counters are off, {checked.differences[0].what} first: `recfs quota check --repair`"
            problems.note(PART, "counters", IoFailure(why))
            wrong.append(why)
        else:
            problems.solved(PART, "counters")
        size = f"{format_size(health.size_bytes)}, {format_size(health.free_bytes)} of it free"
        return "; ".join(wrong) or f"{checked.files:,} files, all counters right; {size}"


def _checked(snapshot: Snapshot) -> Checked:
    return snapshot.check()


def _health(snapshot: Snapshot) -> Health:
    return snapshot.health()


__all__ = ["Maintenance"]
