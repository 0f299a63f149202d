"""`recfs migrate report`: where a migration stands, without a look at anything but the plan and its state."""

from pathlib import Path

import click

from recfs.cli.common.help import Command
from recfs.cli.common.options import store_options
from recfs.cli.common.params import LocalPath
from recfs.cli.migration.site import EXITS, finish
from recfs.migration import plans
from recfs.migration.run import state
from recfs.migration.run.report import reported

_EXAMPLE = """
$ recfs migrate report media.plan --html media.html
before: 12,431 files, 81.2 GiB in the plan
  copy        11,903 files, 80.1 GiB
  duplicate   412 files, 1.1 GiB
  skip        116 files, 21.4 MiB
after: 9,120 files, 61.8 GiB at their targets
  pending     2,783 files, 18.3 GiB
  copied      9,120 files, 61.8 GiB
still to be brought: 2,783 files, 18.3 GiB
"""


@click.command("report", cls=Command, exits=EXITS, example=_EXAMPLE)
@click.argument("plan", type=LocalPath(), metavar="PLAN")
@click.option("--html", "page", type=LocalPath(), metavar="FILE", help="Write the report as a page of HTML, too.")
@store_options
@click.pass_context
def report(ctx: click.Context, /, plan: Path, page: Path | None) -> None:
    """Tell where the migration of PLAN stands, by what its runs have written down.

    Counts and bytes of the old tree and of what is at its targets, duplicates saved, and every file that needs a
    person. It is clean when all files have come and none needs a person. As `--html` it is one page with a chart,
    which needs nothing else.
    """
    found = plans.load(plan)
    with state.seen(plan) as kept:
        told = reported("report", found, kept)
    finish(ctx, plan, told, page)


__all__ = ["report"]
