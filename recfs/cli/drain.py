"""`recfs drain`: wait until everything written is committed."""

import click

from recfs.cli import output
from recfs.cli.exits import ExitCode
from recfs.cli.options import Invocation, store_options
from recfs.cli.params import Duration
from recfs.cli.store import open_store


@click.command()
@click.option("--timeout", "timeout_s", type=Duration(), default="60s", show_default=True, help="Longest wait.")
@store_options
@click.pass_context
def drain(ctx: click.Context, timeout_s: float) -> None:
    """Wait until everything written is committed.

    Closed files are sealed and committed, and the catalogue is on disk.

    Exit code 1 when something is still pending after the timeout.
    """
    invocation = ctx.ensure_object(Invocation)
    result = open_store(invocation).call("drain", timeout_s=timeout_s)
    pending = result["pending"]
    if invocation.json:
        output.emit_json(result)
    elif pending:
        output.say(f"{pending:,} still pending after {output.duration(timeout_s)}", style="yellow")
    else:
        output.say("everything is committed", style="green")
    if pending:
        ctx.exit(ExitCode.PROBLEMS)
