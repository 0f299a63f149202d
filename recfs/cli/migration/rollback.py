"""`recfs migrate rollback`: take away again what a run has brought."""

from pathlib import Path

import click

from recfs.cli.common import output
from recfs.cli.common.options import Invocation
from recfs.cli.migration.site import asked, finish, opened, plan_command
from recfs.core.migration.plan import MOVED, Plan
from recfs.migration.run.undoing import Undoing

_EXAMPLE = """
$ recfs migrate rollback media.plan --yes
11,903 files taken back, and 412 directories
"""


def _sizes(plan: Plan) -> int:
    return sum(entry.size for entry in plan.entries if entry.action in MOVED)


@plan_command("rollback", _EXAMPLE)
@click.option("--yes", is_flag=True, help="Do not ask.")
def rollback(
    ctx: click.Context, /, plan: Path, mount: Path | None, home: bool, page: Path | None, yes: bool
) -> None:  # fmt: skip
    """Remove from the store what runs of PLAN have brought, and nothing else.

    A file goes while it has the sha256 of its source, and the source is still there as it was copied; so does the
    beginning of one whose copying was cut off. What was there before stays, and so does what took another file's place
    (--replace) and what has lost its source to `cleanup`; each is told. Directories that the runs have made go when
    they are empty. With --home, and the daemon stopped, files that `run --move` has moved go back to where they were.
    """
    invocation = ctx.ensure_object(Invocation)
    with opened(invocation, plan, "taking back", home=home, mount=mount, sizes=_sizes) as site:
        undoing = Undoing(site.old, site.state, site.destination, site.meter, site.tell)
        directories = 0
        if undoing.todo or undoing.kept:
            asked(f"take {output.number_of(len(undoing.todo), 'file')} out of {site.store.root} again?", yes=yes)
            directories = undoing.run()
        found = site.reported("rollback")
        gone = undoing.gone()
    if not invocation.json:
        output.say(
            f"{output.number_of(gone, 'file')} taken back, and"
            f" {output.number_of(directories, 'directory', 'directories')}"
        )
    finish(ctx, plan, found, page, {"taken_back_files": gone, "removed_directories": directories})


__all__ = ["rollback"]
