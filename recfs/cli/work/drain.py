"""`recfs drain`: wait until everything written is committed, and in S3 if it belongs there."""

from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import Duration
from recfs.cli.common.store import Store, open_store
from recfs.cli.work.waiting import Teller, aside, failing, lines_of, staying

_SLICE_S = 5.0
"""How often people are told what is waited for."""


_EXITS = {
    ExitCode.PROBLEMS: (
        "something is still pending after the timeout or does not get done, S3 refuses a file, or the bucket has lost"
        " what was there"
    )
}
_EXAMPLE = """
$ recfs drain --root /mnt/recordings
waiting for S3: 5 uploads (4 running, 1 pending), 114.4 MiB not uploaded yet, 9.2 MiB sent
everything is committed, and in S3 where it belongs there
"""


@click.command(cls=Command, exits=_EXITS, example=_EXAMPLE)
@click.option("--timeout", "timeout_s", type=Duration(), default="60s", show_default=True, help="Longest wait.")
@store_options
@click.pass_context
def drain(ctx: click.Context, timeout_s: float) -> None:
    """Wait until everything written is committed, and in S3 where it belongs there.

    Closed files are sealed, committed, in the home tree and uploaded, and the catalogue is on stable storage. Says
    every 5 seconds what it waits for; what fails is told with the time of its next try. Uploads that are settling
    start at once, those that failed wait for their next try.

    Files that are still open are not waited for, nor what lies in the home tree, or is to come there or to go, while
    programs read or write it through the kernel (`in use` in `recfs status`). Files whose name looks temporary
    (`.part`, `.tmp`, a leading dot) are not uploaded, nor waited for, but named. What S3 refuses for its own sake (a
    path that is too long for a key) is named as well, and not waited for.

    Once nothing else is left, the wait ends with what will not get done by waiting (`stuck` in JSON): rows that S3
    refuses altogether, and what the catalogue or the store's disk has refused three times, each with what to do about
    it. Files that S3 has but may yet replace, since it left earlier requests for their names unanswered (`watched` in
    JSON), keep their local copies for up to 10 minutes; how many they are is said.
    """
    invocation = ctx.ensure_object(Invocation)
    store = open_store(invocation)
    if invocation.json:
        result = store.call("drain", timeout_s=timeout_s)
        output.emit_json(result)
    else:
        result = _in_slices(store, timeout_s)
        if _stuck(result):
            _say_stuck(result)
        elif result["pending"]:
            output.say(f"{result['pending']:,} still pending after {output.duration(timeout_s)}", style="yellow")
            for line in lines_of(result.get("left", {})):
                output.say(f"  {line}")
        else:
            _say_done(result)
    if result["pending"] or result.get("lost") or _unsent(result):
        ctx.exit(ExitCode.PROBLEMS)


def _unsent(result: dict[str, Any]) -> int:
    """Files that belong in S3 and that it refuses."""
    return int((result.get("refused") or {}).get("uploads", 0))


def _stuck(result: dict[str, Any]) -> int:
    """What waiting does not get done."""
    return int((result.get("stuck") or {}).get("items", 0))


def _say_stuck(result: dict[str, Any]) -> None:
    stuck = result["stuck"]
    output.say(f"{stuck['items']:,} will not get done by waiting; everything else is done", style="yellow")
    for item in stuck["first"]:
        output.say(f"  {aside(item)}: {item['remedy']}")
    if stuck["items"] > len(stuck["first"]):
        output.say("  …: `recfs status` and `recfs queue` name them all")


def _say_done(result: dict[str, Any]) -> None:
    refused = result.get("refused") or {"rows": 0, "first": []}
    lost = result.get("lost")
    far = ", and in S3 where it belongs there" if result.get("s3") and not lost and not _unsent(result) else ""
    output.say(f"everything is committed{far}", style="green")
    if lost:
        output.say(lost, style="bold red")
    if stays := staying(result.get("stays")):
        output.say(f"not uploaded: {stays}", style="yellow")
    if watched := result.get("watched"):
        output.say(
            f"{output.number_of(watched, 'file')} of them S3 may yet replace by what it was asked before: until that "
            "is over, for up to 10 minutes, local copies stay, and objects keep the names they had"
        )
    for row in refused["first"]:
        output.say(f"S3 refuses it: {failing(row)}", style="yellow")
    if refused["rows"] > len(refused["first"]):
        output.say(f"… {refused['rows']:,} in all: recfs queue", style="yellow")


def _in_slices(store: Store, timeout_s: float) -> dict[str, Any]:
    """Drain piece by piece, and tell in between what is waited for. Only the first has what was refused tried again."""
    teller = Teller(output.say)
    left_s = timeout_s
    since: dict[str, float] = {}
    while True:
        slice_s = min(left_s, _SLICE_S)
        result: dict[str, Any] = store.call("drain", timeout_s=slice_s, **since)
        if not since and "since_s" in result:
            since = {"since_s": result["since_s"]}
        left_s -= slice_s
        if not result["pending"] or _stuck(result) or left_s <= 0:
            return result
        teller.tell(lines_of(result.get("left", {})))
