"""`recfs migrate verify`: every byte of what was brought, by its checksum."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.options import Invocation
from recfs.cli.common.params import Duration
from recfs.cli.migration.run import carry_expiry
from recfs.cli.migration.site import finish, opened, plan_command
from recfs.core.migration.plan import MOVED, Action, Plan
from recfs.errors import NotSupported
from recfs.migration.run.verifying import Verification
from recfs.migration.updating import Updated, update

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
@click.option(
    "--update-db",
    is_flag=True,
    help="Then set the path columns of the platform's database to where the verified files are, relative to the mount."
    " A copy of it is made first.",
)
@click.option(
    "--db-wait", type=Duration(), default=30.0, show_default="30s", help="So long a locked database is waited for."
)
def verify(
    ctx: click.Context, /, plan: Path, mount: Path | None, home: bool, page: Path | None, jobs: int, update_db: bool,
    db_wait: float,
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
        updated = update(site.plan, site.state, datetime.now(UTC), db_wait) if update_db else None
    if updated is not None and not invocation.json:
        _say(updated)
    finish(ctx, plan, found, page, {} if updated is None else {"database": _plain(updated)})


def _say(updated: Updated) -> None:
    number = output.number_of
    told = f"{output.show_name(str(updated.database))}: {number(updated.columns, 'path')} set"
    if updated.there:
        told += f", {updated.there:,} were set before"
    if updated.waiting:
        told += f", {updated.waiting:,} left as they were, for their files are not verified"
    output.say(told)
    if updated.backup is not None:
        output.say(f"what was before is in {output.show_name(str(updated.backup))}")


def _plain(updated: Updated) -> dict[str, Any]:
    backup = None if updated.backup is None else str(updated.backup)
    found = {"path": str(updated.database), "backup": backup, "set": updated.columns}
    return found | {"set_before": updated.there, "not_verified": updated.waiting}


__all__ = ["verify"]
