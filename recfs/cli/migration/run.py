"""`recfs migrate run`: bring the files of a plan into a store."""

import os
from pathlib import Path

import click

from recfs.cli.common import output
from recfs.cli.common.options import Invocation
from recfs.cli.migration.site import Site, finish, opened, plan_command
from recfs.core.migration.plan import MOVED, Plan
from recfs.migration.run import recordings, rsync
from recfs.migration.run.batches import Settings
from recfs.migration.run.moving import Moving
from recfs.migration.run.running import Outcome, Run

_EXAMPLE = """
$ recfs migrate run media.plan --jobs 2
before: 12,431 files, 81.2 GiB in the plan
  copy        11,903 files, 80.1 GiB
  duplicate   412 files, 1.1 GiB
  skip        116 files, 21.4 MiB
after: 11,903 files, 80.1 GiB at their targets
  copied      11,903 files, 80.1 GiB
all is clean
"""
_NOTE = "migrated"
_JOBS = min(4, os.cpu_count() or 1)


def _sizes(plan: Plan) -> int:
    return sum(entry.size for entry in plan.entries if entry.action in MOVED)


@plan_command("run", _EXAMPLE)
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=_JOBS, show_default="4, or the CPUs", help="Users at a time."
)
@click.option("--bwlimit", metavar="RATE", help="Passed to each rsync: KiB a second, or with a unit as 20M.")
@click.option("--replace", is_flag=True, help="Let other bytes that are at a target give way.")
@click.option("--move", is_flag=True, help="With --home: rename the files into the home tree instead of copying them.")
def run(
    ctx: click.Context, /, plan: Path, mount: Path | None, home: bool, page: Path | None, jobs: int,
    bwlimit: str | None, replace: bool, move: bool,
) -> None:  # fmt: skip
    """Copy what PLAN names to its targets, and carry over when recordings expire. Nothing of the old tree is changed.

    The files go through the mount of the running daemon, or, with --home and the daemon stopped, into the home tree.
    rsync copies them (`-a --partial`), for some users at a time. Run it as often as needed: a run that was ended
    anywhere goes on, and another one brings only what changed in the old tree since. A file at a target that has other
    bytes stays, and is told; the same bytes count as done. A full disk or a mount that goes away stops the run, a
    user's quota that user.

    With --move, files of the same file system are renamed into the home tree; `recfs migrate rollback --home` brings
    them back.
    """
    if move and not home:
        raise click.UsageError("--move renames files into the home tree: stop the daemon, and say --home, too")
    if move and (replace or bwlimit):
        raise click.UsageError("--move copies nothing: --replace and --bwlimit have no meaning with it")
    invocation = ctx.ensure_object(Invocation)
    options = None if move else rsync.found(bwlimit)
    with opened(invocation, plan, "migrating", home=home, mount=mount, sizes=_sizes) as site:
        outcome = Outcome()
        try:
            if options is None:
                Moving(site.plan, site.old, site.state, site.destination, site.meter, site.tell).run()
            else:
                settings = Settings(jobs, replace)
                outcome = Run(
                    site.plan, site.old, site.state, site.destination, options, settings, site.meter, site.tell
                ).run()
        except OSError as error:
            raise _gone(site, error) from None
        if not home and outcome.stopped is None:
            carry_expiry(site)
        found = site.reported("run", stopped=outcome.stopped, users=outcome.users)
    finish(ctx, plan, found, page)
    if home and not invocation.json:
        output.say("next: mount the store, wait until `recfs watch status` shows nothing waiting, then verify the plan")


def carry_expiry(site: Site) -> None:
    """Tell the store when recordings expire."""

    def tell(path: str, date: str) -> None:
        if date == recordings.NOW:
            site.store.call("recording_expire", path=path, note=_NOTE)
        else:
            site.store.call("recording_set_expiry", path=path, date=date, note=_NOTE)

    recordings.carry_expiry(site.plan, site.state, tell)


def _gone(site: Site, error: OSError) -> click.ClickException:
    return click.ClickException(f"{os.fsdecode(site.old)}: {error.strerror or error}")


__all__ = ["carry_expiry", "run"]
