"""`recfs restore`, `recfs presign`, `recfs lifecycle`: what operators ask of the bucket."""

from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command, Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH, Duration
from recfs.cli.common.store import locate, open_store

_PRESIGNED = """
$ curl -s "$(recfs presign users/5/recordings/142/source.mp4 --expires 10m)" | ffprobe -
"""
_APPLIED = """
$ recfs lifecycle apply
Where          Rule                   Prefix  What
configuration  recfs-abort-multipart  (all)   drop unfinished uploads after 7 days
written
"""
_STATES = {
    "archived": "archived: it cannot be read",
    "restoring": "being restored; it can be read when that is done",
    "restored": "restored: it can be read",
}


@click.command(cls=Command)
@click.argument("path", type=ANY_PATH)
@click.option(
    "--days",
    type=click.IntRange(min=1),
    default=7,
    metavar="N",
    show_default=True,
    help="So many days the readable copy stays.",
)
@click.option(
    "--tier",
    type=click.Choice(["Standard", "Bulk", "Expedited"]),
    default="Standard",
    show_default=True,
    help="How fast, and how dear.",
)
@store_options
@click.pass_obj
def restore(invocation: Invocation, path: Path, days: int, tier: str) -> None:
    """Ask S3 for a readable copy of a file in an archive class; asked again, tell how it stands.

    It takes minutes to days: docs/s3.md, "Archive classes".
    """
    place = locate(invocation, path)
    result = place.store.call("restore", path=place.path, days=days, tier=tier)
    if invocation.json:
        output.emit_json(result)
        return
    asked = "asked for now; " if result["requested"] and result["state"] == "restoring" else ""
    state = _STATES.get(result["state"], "it can be read")
    output.say(f"{output.show_name(result['path'])} ({result['storage_class']}): {asked}{state}")


@click.command(cls=Command, example=_PRESIGNED)
@click.argument("path", type=ANY_PATH)
@click.option(
    "--expires",
    "expires_s",
    type=Duration(1.0, 7 * 86400.0),
    default="1h",
    show_default=True,
    help="So long it is good, up to 7 days.",
)
@click.option("--put", is_flag=True, help="A URL to write to, at the key of a path where there is no file.")
@store_options
@click.pass_obj
def presign(invocation: Invocation, path: Path, expires_s: float, put: bool) -> None:
    """Print a URL that reads the file PATH from S3 without credentials.

    Whoever has the URL can use it until it expires; it cannot be taken back but by changing the access key. It reads
    what S3 has: a file that is being written or uploaded is refused.

    What somebody puts by a URL of `--put` is an object of the bucket, and no file of the mount: a file that is made
    under that path later takes its place. Read it with a client of S3, write it into the mount, and it is a file.
    """
    place = locate(invocation, path)
    result = place.store.call("presign", path=place.path, expires_s=expires_s, put=put)
    if invocation.json:
        output.emit_json(result)
    else:
        click.echo(result["url"])


@click.group(cls=Group)
def lifecycle() -> None:
    """Show and write the bucket's lifecycle rules."""


@lifecycle.command("show")
@store_options
@click.pass_obj
def show(invocation: Invocation) -> None:
    """Show recfs's lifecycle rules, as `[lifecycle]` of the configuration has them and as the bucket has them."""
    result = open_store(invocation).call("lifecycle_show")
    if invocation.json:
        output.emit_json(result)
        return
    _print(result)
    if result["differs"]:
        output.say("the bucket differs from the configuration; `recfs lifecycle apply` writes it", style="yellow")
    else:
        output.say("the bucket has what the configuration says", style="green")


@lifecycle.command(
    "apply", exits={ExitCode.PROBLEMS: "with `--dry-run`, there is something to write"}, example=_APPLIED
)
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@store_options
@click.pass_context
def apply(ctx: click.Context, dry_run: bool) -> None:
    """Write the configuration's lifecycle rules into the bucket, in place of recfs's earlier ones.

    Their names begin with `recfs-`; rules of others stay as they are.
    """
    invocation = ctx.ensure_object(Invocation)
    result = open_store(invocation).call("lifecycle_apply", dry_run=dry_run)
    if invocation.json:
        output.emit_json(result)
    else:
        _print(result)
        if not result["differs"]:
            output.say("the bucket has these rules already", style="green")
        elif result["applied"]:
            output.say("written")
        else:
            output.say("would be written")
    if dry_run and result["differs"]:
        ctx.exit(ExitCode.PROBLEMS)


def _print(result: dict[str, Any]) -> None:
    rows = [("configuration", rule) for rule in result["configured"]]
    rows += [("bucket", rule) for rule in result["bucket"] if rule not in result["configured"]]
    if not rows:
        output.say("no rules")
        return
    both = [rule for rule in result["configured"] if rule in result["bucket"]]
    output.print_table(
        ("Where", "Rule", "Prefix", "What"),
        [
            (
                "both" if rule in both else where,
                output.show_name(rule["id"]),
                output.show_name(rule["prefix"]) or "(all)",
                output.show_name(_what(rule)),
            )
            for where, rule in rows
        ],
    )


def _what(rule: dict[str, Any]) -> str:
    what = [f"to {each['storage_class']} after {output.number_of(each['days'], 'day')}" for each in rule["transitions"]]
    if rule["expire_days"] is not None:
        what.append(f"delete after {output.number_of(rule['expire_days'], 'day')}")
    if rule["abort_multipart_days"] is not None:
        what.append(f"drop unfinished uploads after {output.number_of(rule['abort_multipart_days'], 'day')}")
    return ", ".join(what) + ("" if rule["enabled"] else " (disabled)")
