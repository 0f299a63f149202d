"""`recfs chunks`: how long audio is cut, and its chunks as files."""

from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH, Duration
from recfs.cli.common.progress import ProgressLine
from recfs.cli.common.store import Store, locate

_POLL_S = 2.0
_EXITS = {ExitCode.PROBLEMS: "a chunk could not be written; it is named, with the reason"}
_EXAMPLE = """
$ recfs chunks users/5/recordings/142/audio.mp3 --extract mp3
Chunk  Start   End     Duration  Name                 Status
0      0.0     300.0   300.0     audio_chunk_000.mp3  completed
1      300.0   600.0   300.0     audio_chunk_001.mp3  completed
2      600.0   731.4   131.4     audio_chunk_002.mp3  completed
3 chunks of 731.4 s: 3 completed, in temp/5/0c6a35b8-7d8e-4c8e-9f0a-6f7c1d2b3a44
"""


@click.command(cls=Command, exits=_EXITS, example=_EXAMPLE)
@click.argument("path", type=ANY_PATH)
@click.option("--extract", type=click.Choice(["mp3", "wav"]), help="Write the chunks that are not there, as this.")
@click.option("--length", type=Duration(1.0, 86_400.0), metavar="DURATION", help="Of a chunk.")
@click.option("--overlap", type=Duration(), metavar="DURATION", help="How much each begins before the last one's end.")
@click.option("--silences/--no-silences", default=None, help="Cut at silences near by, where there are any.")
@click.option("--no-wait", is_flag=True, help="With --extract: do not wait for it.")
@store_options
@click.pass_context
def chunks(
    ctx: click.Context, path: Path, extract: str | None, length: float | None, overlap: float | None,
    silences: bool | None, no_wait: bool,
) -> None:  # fmt: skip
    """Show how the audio of the file at PATH is cut into chunks, and have them be written.

    The plan is made once and kept in the catalogue, until the file changes or is to be cut otherwise: by the options
    here, else as it was planned last, else as `[chunks]` of the configuration says. Audio that is no longer than
    `chunks.threshold` is not cut. Times are seconds.

    `--extract` writes 16 kHz mono, MP3 of 64 kbit/s or WAV, into a temp job of the file's user, a few chunks at a time;
    run again, it writes those that are missing. The job goes by the rules of temp jobs. The daemon does the work, and
    goes on with it when this command is interrupted.
    """
    invocation = ctx.ensure_object(Invocation)
    place = locate(invocation, path)
    method = "chunks_extract" if extract is not None else "chunks"
    told = place.store.call(
        method, path=place.path, length_s=length, overlap_s=overlap, silences=silences, format=extract
    )
    if extract is not None and not no_wait:
        try:
            told = _follow(place.store, told, quiet=invocation.json)
        except KeyboardInterrupt:
            ctx.exit(ExitCode.INTERRUPTED)
    _tell(invocation, told)
    if extract is not None and any(each["status"] == "failed" for each in told["chunks"]):
        ctx.exit(ExitCode.PROBLEMS)


def _follow(store: Store, told: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Wait until nothing is written any more."""
    line = ProgressLine()
    while told["writing"]:
        told = store.client().call("chunks_wait", ino=told["ino"], timeout_s=_POLL_S)
        if not quiet:
            count = _counts(told)
            running = f", {count['processing']:,} being written" if count.get("processing") else ""
            line.show(f"{count.get('completed', 0):,} of {output.number_of(told['total'], 'chunk')} completed{running}")
    line.clear()
    return told


def _counts(told: dict[str, Any]) -> dict[str, int]:
    if "counts" in told:  # while they are written
        return dict(told["counts"])
    counts: dict[str, int] = {}
    for each in told["chunks"]:
        counts[each["status"]] = counts.get(each["status"], 0) + 1
    return counts


def _tell(invocation: Invocation, told: dict[str, Any]) -> None:
    if invocation.json:
        output.emit_json(told)
        return
    output.print_table(
        ("Chunk", "Start", "End", "Duration", "Name", "Status"),
        [
            (
                str(each["index"]),
                f"{each['start_s']:.1f}",
                f"{each['end_s']:.1f}",
                f"{each['duration_s']:.1f}",
                output.show_name(each["name"]),
                each["status"] + (f": {output.show_name(each['reason'])}" if each["reason"] else ""),
            )
            for each in told["chunks"]
        ],
    )
    counts = ", ".join(f"{count:,} {status}" for status, count in _counts(told).items())
    where = f", in {told['job']}" if told["job"] else ""
    output.say(f"{output.number_of(told['total'], 'chunk')} of {told['duration_s']:.1f} s: {counts}{where}")


__all__ = ["chunks"]
