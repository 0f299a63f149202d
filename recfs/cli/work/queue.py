"""`recfs queue`: what is still to be done on S3, what of it fails, and why."""

from typing import Any

import click
from rich.text import Text

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import open_store

_SHOWN = 100
_STYLES = {"running": "green", "failed": "bold red", "pending": "yellow", "waiting": ""}


_STATES = {
    "running": 'under way; "Why" says what S3 said last while its tries go on',
    "failed": "did not work, and is tried again at the time shown, or at the next start",
    "pending": "due, and waits for its turn (`[upload].concurrency`)",
    "waiting": (
        "not due: an upload that settles or waits for another file's object to leave its key, a temporary name, "
        "a deletion that waits for the trash's retention or a reader"
    ),
}
_EXAMPLE = """
$ recfs queue
No  What    State    Sent      Size  Tries  Next try  Path                                 Why
 3  upload  running  9.2 MiB  28.6 MiB      0         -  users/5/recordings/143/source.mp4
 1  upload  failed       0 B   293 KiB      2    4m 56s  users/5/recordings/142/audio.mp3     s3://media/users/5/…: \
cannot upload: SignatureDoesNotMatch (…); check the access key and secret …
 2  upload  waiting      0 B  79.2 KiB      0      4.8s  users/5/recordings/143/audio.mp3     settling
3 uploads (1 running, 1 failed, 1 waiting), 29 MiB not uploaded yet
"""


@click.group(cls=Group, invoke_without_command=True, sections={"States": _STATES}, example=_EXAMPLE)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=_SHOWN,
    metavar="N",
    show_default=True,
    help="So many rows; 0 for all.",
)
@store_options
@click.pass_context
def queue(ctx: click.Context, limit: int) -> None:
    """Show what is still to be done on S3: uploads, deletions, moves and aborts.

    Moves come of renames, aborts are of uploads that were begun and are not wanted any more. Work under way comes
    first, then what fails, with its last error and the time of the next try. Nothing in the queue is ever given up by
    itself.
    """
    if ctx.invoked_subcommand is not None:
        return
    invocation = ctx.ensure_object(Invocation)
    result = open_store(invocation).call("queue", limit=limit)
    if invocation.json:
        output.emit_json(result)
        return
    breaker = result.get("breaker")
    if breaker is not None and breaker["state"] != "closed":
        output.say(f"S3 is down: {output.show_name(breaker['error'] or breaker['state'])}", style="bold red")
    if not result["rows"]:
        output.say("nothing to do", style="green")
        return
    output.print_table(
        ("No", "What", "State", "Sent", "Size", "Tries", "Next try", "Path", "Why"),
        [_row(row) for row in result["rows"]],
        right=("No", "Sent", "Size", "Tries", "Next try"),
    )
    output.say(summary(result["totals"]) + (f"; {result['more']:,} more rows with --limit 0" if result["more"] else ""))


def _row(row: dict[str, Any]) -> tuple[str | Text, ...]:
    upload = row["kind"] == "upload"
    return (
        str(row["id"]),
        row["kind"],
        Text(row["state"], style=_STYLES.get(row["state"], "")),
        output.size(row["sent_bytes"]) if upload else "-",
        output.size(row["size_bytes"]) if upload else "-",
        output.count(row["attempts"]),
        "-" if row["next_try_s"] is None else "now" if row["next_try_s"] == 0 else output.duration(row["next_try_s"]),
        output.show_name(row["path"] or row["key"] or "(removed)"),
        output.show_name(row["why"] or (row["error"] if row["attempts"] else "")),
    )


def summary(totals: dict[str, int]) -> str:
    """Return the totals of a queue as one line."""
    words = (("uploads", "uploads"), ("deletes", "deletions"), ("moves", "moves"), ("aborts", "aborts"))
    kinds = ", ".join(
        f"{totals[key]:,} {word[:-1] if totals[key] == 1 else word}" for key, word in words if totals[key]
    )
    states = ", ".join(f"{totals[key]:,} {key}" for key in ("running", "failed", "pending", "waiting") if totals[key])
    if not kinds:
        return "nothing"
    unsent = f", {output.size(totals['unsent_bytes'])} not uploaded yet" if totals["uploads"] else ""
    return f"{kinds} ({states}){unsent}"


def _numbers(ids: tuple[int, ...], every: bool) -> dict[str, Any]:
    if bool(ids) is every:
        raise click.UsageError("give the numbers that `recfs queue` shows, or --all")
    return {"all": True} if every else {"ids": list(ids)}


@queue.command(
    "retry", exits={ExitCode.PROBLEMS: "one of the NUMBERs is not tried so, or is not in the queue any more"}
)
@click.argument("number", nargs=-1, type=int)
@click.option("--all", "every", is_flag=True, help="All that fail, and uploads that are settling.")
@store_options
@click.pass_context
def retry(ctx: click.Context, number: tuple[int, ...], every: bool) -> None:
    """Try at once, without waiting for the next try.

    What waits for a final name, or for the trash's retention, is not tried by asking.
    """
    invocation = ctx.ensure_object(Invocation)
    result = open_store(invocation).call("queue_retry", **_numbers(number, every))
    _say_all(ctx, result, f"{len(result['retried']):,} tried again now{_under_way(result)}")


@queue.command("drop", exits={ExitCode.PROBLEMS: "something was kept, or is not in the queue any more"})
@click.argument("number", nargs=-1, type=int)
@click.option("--all", "every", is_flag=True, help="Everything that can be dropped.")
@store_options
@click.pass_context
def drop(ctx: click.Context, number: tuple[int, ...], every: bool) -> None:
    """Take work out of the queue for good.

    A file whose upload is dropped stays here as `committed`, until it is changed or `recfs tier run` finds it; of a
    deletion, the object stays in the bucket. Moves are not dropped: the next file of the old name would overwrite the
    object. One that S3 refuses ends when that is put right, or its file removed.
    """
    invocation = ctx.ensure_object(Invocation)
    result = open_store(invocation).call("queue_drop", **_numbers(number, every))
    _say_all(ctx, result, f"{len(result['dropped']):,} dropped")


def _say_all(ctx: click.Context, result: dict[str, Any], done: str) -> None:
    """What was done, what not and why; the exit code says so."""
    if ctx.ensure_object(Invocation).json:
        output.emit_json(result)
    else:
        output.say(done)
        _say_kept(result["kept"])
        _say_gone(result["gone"])
    if result["gone"] or result["kept"]:
        ctx.exit(ExitCode.PROBLEMS)


def _under_way(result: dict[str, Any]) -> str:
    """What else is being tried, where that is not heard of: S3 is in trouble."""
    running, trouble = result.get("running", 0), result.get("trouble")
    if not running or trouble is None:
        return ""
    return f"; {running:,} {'is' if running == 1 else 'are'} being tried already: {output.show_name(trouble)}"


def _say_kept(kept: list[dict[str, Any]]) -> None:
    for row in kept:
        output.say(f"{row['id']}: kept, {output.show_name(row['reason'])}", style="yellow")


def _say_gone(gone: list[int]) -> None:
    for number in gone:
        output.say(f"{number}: not in the queue (any more)", style="yellow")
