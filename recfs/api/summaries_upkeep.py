"""Answers about the upkeep of files that come from the catalogue: the daemon's, and the CLI's when none runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recfs.ports.reports import Snapshot
    from recfs.ports.rows import SweepRow


def sweep_history(snapshot: Snapshot, name: str | None, limit: int) -> dict[str, Any]:
    """The last runs of sweeps, or of one, newest first."""
    return {"runs": [_run(row) for row in snapshot.sweeps(name, limit)]}


def _run(row: SweepRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "began_ns": row.began_ns,
        "took_s": row.took_ms / 1000,
        "outcome": row.outcome,
        "result": row.result,
        "asked": bool(row.asked),
        "times": row.times,
    }


__all__ = ["sweep_history"]
