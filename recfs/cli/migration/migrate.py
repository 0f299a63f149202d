"""`recfs migrate`: the group; each of its commands has a file of its own, loaded when it is asked for."""

import click

from recfs.cli.common.commands import Commands
from recfs.cli.common.help import Group

_COMMANDS = {
    "plan": "recfs.cli.migration.plan:plan",
    "run": "recfs.cli.migration.run:run",
    "verify": "recfs.cli.migration.verify:verify",
    "cleanup": "recfs.cli.migration.cleanup:cleanup",
    "report": "recfs.cli.migration.report:report",
    "rollback": "recfs.cli.migration.rollback:rollback",
}


@click.group(cls=Group, commands=Commands(_COMMANDS))
def migrate() -> None:
    """Bring an old `media/` tree into a store: plan, run, verify, clean up.

    `plan` looks at the old tree and the platform's database and writes a file with one line for each file, which
    people read and may edit. Nothing is copied before `run`, and nothing of the old tree is deleted before `cleanup`.
    """
