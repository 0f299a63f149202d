"""`recfs reload`: have the daemon go on with its changed configuration."""

import json

import click

from recfs.cli.common import other_rules, output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import open_store

_EXITS = {
    ExitCode.PROBLEMS: "some settings have changed that cannot change while it runs: they are named, and stay",
    ExitCode.CONFIG: "the configuration has a fault, and nothing has changed",
}
_EXAMPLE = """
$ recfs reload --config /etc/recfs/main.conf
quota.max_bytes: 1099511627776 (was 549755813888)
existing: stays as it is; that takes `recfs upgrade`, for what a home tree held before is looked at by the start
"""


@click.command(cls=Command, exits=_EXITS, example=_EXAMPLE)
@store_options
@click.pass_obj
def reload(invocation: Invocation) -> None:
    """Have the daemon read its configuration anew, and go on with it.

    Limits, rules (`[[fallback]]`, `[[retention]]`, `[[route]]`, `[[versions]]`), prices, the log level, `[notify]`,
    `[trash]`, `[stats]`, when sweeps run, the pace of the scrub and of the watch, and more hold from the next request
    on; programs notice nothing else. What takes another process stays as it is until `recfs upgrade`, and what the
    mount was made with until an unmount; both are named, with the reason. A configuration with a fault changes
    nothing. SIGHUP does the same, with the outcome in the log. The daemon reads what it was started with: its own
    `--config`, options and environment. Keys to S3 are read anew by themselves when their file changes.
    """
    from recfs.config.changes import WHILE_RUNNING

    store = open_store(invocation)
    told = store.call("reload")
    if others := other_rules.differing(invocation, store, WHILE_RUNNING - set(told["left"])):
        where = "the daemon reads what it was started with (`recfs config show` without --config names it), and not {}"
        other_rules.say(invocation, f"{where}: {', '.join(others)} would be others there")
    if invocation.json:
        output.emit_json(told)
    else:
        for key, (old, new) in told["changed"].items():
            output.say(f"{key}: {_plain(new)} (was {_plain(old)})")
        for key, what in told["left"].items():
            output.say(f"{key}: stays as it is; that takes {what}, for {told['why'][key]}", style="yellow")
        if not told["changed"] and not told["left"]:
            output.say("nothing has changed")
    if told["left"]:
        click.get_current_context().exit(ExitCode.PROBLEMS)


def _plain(value: object) -> str:
    return output.show_name(value if isinstance(value, str) else json.dumps(value))
