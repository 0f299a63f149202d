"""`recfs sweep multiparts` and its like: what nobody needs any more, shown or cleared away."""

from __future__ import annotations

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import open_store
from recfs.cli.upkeep.sweep import run_and_wait, sweep, tell_run

__all__ = ["archive", "multiparts", "sweep"]

_MULTIPARTS = """
$ recfs sweep multiparts --dry-run
Key                                   Begun       Upload
users/5/recordings/142/source.mp4     9d 4h ago   2~Yk3sQ
1 upload would be aborted
"""


_ARCHIVE = """
$ recfs sweep archive --dry-run
Path                               Size      Why
users/5/recordings/142/source.mp4  29.1 MiB  its storage class is STANDARD, not GLACIER_IR; rule 1 (users/**): goes \
to S3; its recording is older than archive_threshold 30d (rule 1)
1 file would be stored anew, 29.1 MiB
""".replace("\\\n", "")


@sweep.command("archive", exits={ExitCode.PROBLEMS: "the run failed, or was stopped"}, example=_ARCHIVE)
@click.option("--dry-run", is_flag=True, help="Only say which files would be stored anew, and why.")
@store_options
@click.pass_context
def archive(ctx: click.Context, dry_run: bool) -> None:
    """Give the objects of recordings that are old enough the storage class that their `[[retention]]` rule names.

    What has another one is fetched, if it is not here, and uploaded anew. The daemon does so by itself every
    `[recordings].sweep_interval`. Needs a daemon.
    """
    invocation = ctx.ensure_object(Invocation)
    store = open_store(invocation)
    if not dry_run:
        tell_run(ctx, run_and_wait(store, "archive"))
        return
    result = store.call("sweep_archive")
    if invocation.json:
        output.emit_json(result)
        return
    if result["moved"]:
        output.print_table(
            ("Path", "Size", "Why"),
            [
                (output.show_name(each["path"]), output.size(each["size_bytes"]), output.show_name(each["reason"]))
                for each in result["moved"]
            ],
            right=("Size",),
        )
    if result["more"]:
        output.say(f"and {result['more']:,} more")
    anew = result["steps"]["store anew"]
    output.say(f"{output.number_of(anew['files'], 'file')} would be stored anew, {output.size(anew['bytes'])}")
    output.say_kept(result)


@sweep.command(
    "multiparts", exits={ExitCode.PROBLEMS: "the run failed, or was stopped"}, example=_MULTIPARTS
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would be aborted.")
@store_options
@click.pass_context
def multiparts(ctx: click.Context, dry_run: bool) -> None:
    """Abort uploads in parts that were begun in the bucket and never finished: their parts cost as much as objects.

    Only those below the store's prefix, older than `[sweep].multiparts_age`, that the queue knows nothing of. The
    daemon does so by itself every `[sweep].multiparts_every`. Needs a daemon.
    """
    invocation = ctx.ensure_object(Invocation)
    store = open_store(invocation)
    if not dry_run:
        tell_run(ctx, run_and_wait(store, "multiparts"))
        return
    uploads = store.call("sweep_multiparts")["uploads"]
    if invocation.json:
        output.emit_json(uploads)
        return
    if uploads:
        output.print_table(
            ("Key", "Begun", "Upload"),
            [
                (output.show_name(each["key"]), f"{output.duration(each['age_s'])} ago", each["upload_id"])
                for each in uploads
            ],
        )
    output.say(f"{output.number_of(len(uploads), 'upload')} would be aborted")
