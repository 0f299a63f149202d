"""`recfs migrate cleanup`: delete the sources that were verified."""

from pathlib import Path

import click

from recfs.cli.common import output
from recfs.cli.common.options import Invocation
from recfs.cli.migration.site import asked, finish, opened, plan_command
from recfs.core.migration.plan import MOVED, Action, Plan
from recfs.errors import NotSupported
from recfs.migration.run.cleaning import Cleaning

_EXAMPLE = """
$ recfs migrate cleanup media.plan
delete 12,315 verified files, 81.2 GiB, of /srv/media? [y/N]: y
12,315 files deleted, and 38 directories that were left empty
"""


def _sizes(plan: Plan) -> int:
    return sum(entry.size for entry in plan.entries if entry.action in MOVED or entry.action is Action.DUPLICATE)


@plan_command("cleanup", _EXAMPLE)
@click.option("--yes", is_flag=True, help="Do not ask.")
def cleanup(
    ctx: click.Context, /, plan: Path, mount: Path | None, home: bool, page: Path | None, yes: bool
) -> None:  # fmt: skip
    """Delete the sources of PLAN that `recfs migrate verify` has verified, and nothing else.

    Right before it is deleted each is looked at once more: it has to have the size, time and inode number with which it
    was verified, and its target those bytes. Duplicates go with the file that stands for them. No link is followed, and
    nothing is touched that the plan does not name; directories that are left empty below the old tree go, too. What
    was deleted cannot be rolled back.
    """
    if home:
        raise NotSupported("a source is deleted while a daemon tells that its target is there: mount the store")
    invocation = ctx.ensure_object(Invocation)
    with opened(invocation, plan, "deleting", home=False, mount=mount, sizes=_sizes) as site:
        cleaning = Cleaning(site.plan, site.old, site.state, site.destination, site.meter, site.tell)
        sums, directories = cleaning.sums(), 0
        if sums.files:
            told = f"{output.number_of(sums.files, 'verified file')}, {output.size(sums.size)}"
            asked(f"delete {told}, of {output.show_name(site.plan.made_of['old'])}?", yes=yes)
            directories = cleaning.run()
        found = site.reported("cleanup")
        deleted = cleaning.deleted()
    if not invocation.json:
        output.say(
            f"{output.number_of(deleted, 'file')} deleted, and"
            f" {output.number_of(directories, 'directory', 'directories')} left empty"
        )
    finish(ctx, plan, found, page, {"deleted_files": deleted, "deleted_directories": directories})


__all__ = ["cleanup"]
