"""`recfs migrate verify`: every byte of what was brought, by its checksum."""

from pathlib import Path

import click

from recfs.cli.common.options import Invocation
from recfs.cli.migration.run import carry_expiry
from recfs.cli.migration.site import finish, opened, plan_command
from recfs.core.migration.plan import MOVED, Action, Plan
from recfs.errors import NotSupported
from recfs.migration.run.verifying import Verification

_EXAMPLE = """
$ recfs migrate verify media.plan
before: 12,315 files, 81.2 GiB in the plan
  copy        11,903 files, 80.1 GiB
  duplicate   412 files, 1.1 GiB
after: 11,903 files, 80.1 GiB at their targets
  verified    11,903 files, 80.1 GiB
duplicates saved: 412 files, 1.1 GiB
all is clean
"""


def _sizes(plan: Plan) -> int:
    return sum(entry.size for entry in plan.entries if entry.action in MOVED or entry.action is Action.DUPLICATE)


@plan_command("verify", _EXAMPLE)
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Files that are read at a time.")
def verify(
    ctx: click.Context, /, plan: Path, mount: Path | None, home: bool, page: Path | None, jobs: int
) -> None:  # fmt: skip
    """Compare the sha256 of every source of PLAN with the one that recfs has of its target.

    Sources are read, once: again only if size, time or inode number changed. Of the targets nothing is read, wherever
    they are: recfs has hashed them itself. Duplicates are compared with the file that stands for them. A daemon has to
    run; it is waited for until files are sealed. Recordings of which the store was not told when they expire are told
    then.
    """
    if home:
        raise NotSupported("what is verified is what recfs has hashed: mount the store, and verify without --home")
    invocation = ctx.ensure_object(Invocation)
    with opened(invocation, plan, "verifying", home=False, mount=mount, sizes=_sizes) as site:
        Verification(
            site.plan, site.old, site.state, site.destination, site.meter, jobs=jobs, tell=site.tell
        ).run()  # fmt: skip
        carry_expiry(site)
        found = site.reported("verify")
    finish(ctx, plan, found, page)


__all__ = ["verify"]
