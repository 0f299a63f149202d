"""`recfs import SRC --rules FILE`: a foreign tree gets a plan, which `recfs migrate run` carries out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from recfs.cli.migration.plan import write_plan

if TYPE_CHECKING:
    from pathlib import Path

    import click


def plan_by_rules(ctx: click.Context, source: Path, rules: Path, target: Path, *, force: bool) -> None:
    """Write the plan to *target*, and say what is in it. Leaves with PROBLEMS where something needs a person."""
    from recfs.migration.ruled import make_by_rules

    write_plan(
        ctx, source, target, lambda teller: make_by_rules(source, rules, datetime.now(UTC), teller), force=force,
        after=f"recfs migrate run {target}  carries it out",
    )  # fmt: skip


__all__ = ["plan_by_rules"]
