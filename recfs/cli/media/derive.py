"""`recfs derive`: products that rules make from recordings."""

from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH
from recfs.cli.common.progress import ProgressLine
from recfs.cli.common.store import Store, locate

_POLL_S = 2.0
_NAMED = 4
"""So many of those that are being made are named."""
_PRODUCTS = ("thumbnail", "audio", "waveform", "sprite", "hls")
_EXITS = {ExitCode.PROBLEMS: "something could not be made; it is named, with the reason"}
_EXAMPLE = """
$ recfs derive users/5/recordings/142
users/5/recordings/142/assets/thumbnail.png: completed
users/5/recordings/142/audio.mp3: kept: a file is there that recfs did not make
2 products: 1 completed, 1 kept
$ recfs derive users --all --dry-run
users/5/recordings/143/assets/thumbnail.png: would be made
1 product: 1 to be made
"""
_WORDS = {
    "make": "would be made", "done": "completed", "under way": "pending", "keep": "kept", "leave": "failed",
    "wait": "waits",
}  # fmt: skip


@click.command(cls=Command, exits=_EXITS, example=_EXAMPLE)
@click.argument("path", type=ANY_PATH)
@click.option("--all", "everything", is_flag=True, help="PATH may be any directory: all recordings in it.")
@click.option("--only", type=click.Choice(_PRODUCTS), multiple=True, help="This product; may be given several times.")
@click.option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@click.option("--no-wait", is_flag=True, help="Have it be made, and do not wait for that.")
@store_options
@click.pass_context
def derive(
    ctx: click.Context, path: Path, everything: bool, only: tuple[str, ...], dry_run: bool, no_wait: bool
) -> None:
    """Make what `[[derive]]` rules make from recordings: PATH is a recording, or a source in one.

    What was made from the same bytes with the same options is not made again, and no file is replaced that recfs did
    not make. The daemon does the work, a few at a time (`deriving.jobs`), and goes on with it when this command is
    interrupted, or when it is started again. What failed is tried again by this command, and by no rule.
    """
    invocation = ctx.ensure_object(Invocation)
    place = locate(invocation, path)
    found = place.store.call("derive", path=place.path, all=everything, only=list(only), dry_run=dry_run)
    told = [_first(each, dry_run=dry_run) for each in found]
    if not dry_run and not no_wait:
        try:
            _follow(place.store, told, quiet=invocation.json)
        except KeyboardInterrupt:
            _tell(invocation, told, dry_run=dry_run)
            ctx.exit(ExitCode.INTERRUPTED)
    _tell(invocation, told, dry_run=dry_run)
    if any(each["status"] == "failed" for each in told):
        ctx.exit(ExitCode.PROBLEMS)


def _first(each: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
    status = _WORDS[each["step"]]
    if each["step"] == "make":
        status = "to be made" if dry_run else "pending"
    return {**each, "status": status}


def _follow(store: Store, told: list[dict[str, Any]], *, quiet: bool) -> None:
    """Wait until nothing is under way that could end by itself; *told* is brought up to date."""
    line = ProgressLine()
    left = [each for each in told if each["status"] == "pending"]
    while left:
        answers = store.client().call(
            "derive_wait", products=[f"{each['folder']}/{each['product']}" for each in left], timeout_s=_POLL_S
        )
        for each, answer in zip(left, answers, strict=True):
            each["status"], each["reason"] = answer["status"] or "gone", answer["reason"]
            each["share"] = answer["share"]
        # What is pending with a reason waits: for a program, for its source, or for its next try.
        left = [
            each
            for each in left
            if each["status"] == "processing" or (each["status"] == "pending" and not each["reason"])
        ]
        if not quiet and left:
            done = len(told) - len(left)
            line.show(f"{done:,} of {output.number_of(len(told), 'product')} done{_under_way(left)}")
    line.clear()


def _under_way(left: list[dict[str, Any]]) -> str:
    """Return what is being made, and how far each is as far as anybody knows."""
    told = [
        each["product"] + (f" {each['share']:.0%}" if each["share"] is not None else "")
        for each in left
        if each["status"] == "processing"
    ]
    return f", {', '.join(told[:_NAMED])} being made" if told else ""


def _tell(invocation: Invocation, told: list[dict[str, Any]], *, dry_run: bool) -> None:
    if invocation.json:
        output.emit_json(told)
        return
    for each in told:
        reason = f": {each['reason']}" if each["reason"] else ""
        status = "would be made" if each["status"] == "to be made" else each["status"]
        style = "bold red" if each["status"] == "failed" else ""
        output.say(f"{output.show_name(each['path'])}: {status}{output.show_name(reason)}", style=style)
    if not told:
        output.say("no [[derive]] rule makes anything of what is there")
        return
    counts: dict[str, int] = {}
    for each in told:
        counts[each["status"]] = counts.get(each["status"], 0) + 1
    summed = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    output.say(f"{output.number_of(len(told), 'product')}: {summed}")


__all__ = ["derive"]
