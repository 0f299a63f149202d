"""`recfs import SRC --rules FILE`: a foreign tree gets a plan, which `recfs migrate run` carries out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.migration.plan import Teller, refuse_inside, say_made, told_made

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from recfs.cli.common.options import Invocation


def plan_by_rules(
    ctx: click.Context, invocation: Invocation, source: Path, rules: Path, target: Path, *, force: bool
) -> None:
    """Write the plan to *target*, and say what is in it. Leaves with PROBLEMS where something needs a person."""
    from recfs.migration import plans
    from recfs.migration.ruled import make_by_rules

    refuse_inside(target, source)
    plans.refuse_to_lose(target, force=force)  # before the work, and once more after it
    teller = Teller()
    try:
        made = make_by_rules(source, rules, datetime.now(UTC), teller)
    finally:
        teller.end()
    plans.save(made.plan, target, force=force)
    if invocation.json:
        output.emit_json(told_made(made, target))
    else:
        say_made(made, target)
        output.say(f"recfs migrate run {target}  carries it out")
    if not made.is_clean:
        ctx.exit(ExitCode.PROBLEMS)


__all__ = ["plan_by_rules"]
