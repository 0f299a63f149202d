"""`recfs probe`: what is in recordings, looked into once more."""

import time
from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH
from recfs.cli.common.progress import ProgressLine
from recfs.cli.common.store import Place, locate
from recfs.core.media.facts import describe

_POLL_S = 0.5
_EXITS = {ExitCode.PROBLEMS: "files are broken, or could not be looked into; they are named"}
_VERDICTS = {
    "whole": "it is what its name says, as far as was looked",
    "broken": "it does not parse, is cut off, or is not what its name says; its bytes are those that were written",
    "pending": "it has not been looked into yet",
    "unknown": "it could not be looked into, several times",
}
_EXAMPLE = """
$ recfs probe users/5/recordings/142
users/5/recordings/142/audio.mp3: whole: audio/mpeg, 62.5s, mp3
users/5/recordings/142/video.mp4: broken: its index (moov) is missing: it was not finished, or is cut off
2 files: 1 broken, 1 whole
"""


@click.command(cls=Command, exits=_EXITS, sections={"Verdicts": _VERDICTS}, example=_EXAMPLE)
@click.argument("paths", type=ANY_PATH, nargs=-1, required=True, metavar="PATH…")
@click.option("--no-wait", is_flag=True, help="Have them looked into, and do not wait for that.")
@store_options
@click.pass_context
def probe(ctx: click.Context, paths: tuple[Path, ...], no_wait: bool) -> None:
    """Look into recordings, JSON and subtitles again: each PATH, and all files below it.

    The daemon looks into files by itself once they are committed (`[media]` of the configuration). This is for what
    could not be looked into, or after ffmpeg was updated. It goes on when this command is interrupted.
    `recfs ls-files -r --media` shows what is known without another look.
    """
    invocation = ctx.ensure_object(Invocation)
    places = [locate(invocation, path) for path in paths]
    asked = [place.store.call("probe", path=place.path) for place in places]
    missing = next((each["missing"] for each in asked if each["missing"]), None)
    files = _files(places)
    if not no_wait:
        try:
            files = _follow(places, files, quiet=invocation.json, missing=missing)
        except KeyboardInterrupt:
            ctx.exit(ExitCode.INTERRUPTED)
    _tell(invocation, files, missing)
    if any(file["media"]["verdict"] in ("broken", "unknown") for file in files):
        ctx.exit(ExitCode.PROBLEMS)


def _files(places: list[Place]) -> list[dict[str, Any]]:
    found = {
        file["path"]: file
        for place in places
        for file in place.store.call("ls_files", path=place.path, recursive=True, media=True)
    }
    return [found[path] for path in sorted(found)]


def _follow(
    places: list[Place], files: list[dict[str, Any]], *, quiet: bool, missing: str | None
) -> list[dict[str, Any]]:
    """Wait until all are known that can be: without ffprobe recordings are not."""
    line = ProgressLine()
    while True:
        left = [file for file in files if file["media"]["verdict"] == "pending" and not file["media"]["attempts"]]
        if missing is not None:
            left = [file for file in left if file["media"]["checker"] != "media"]
        if not left:
            line.clear()
            return files
        if not quiet:
            line.show(f"{len(files) - len(left):,} of {output.number_of(len(files), 'file')} looked into")
        time.sleep(_POLL_S)
        files = _files(places)


def _tell(invocation: Invocation, files: list[dict[str, Any]], missing: str | None) -> None:
    if invocation.json:
        output.emit_json(files)
        return
    counts: dict[str, int] = {}
    for file in files:
        verdict = file["media"]["verdict"]
        counts[verdict] = counts.get(verdict, 0) + 1
        style = "bold red" if verdict in ("broken", "unknown") else ""
        known = describe(file["media"])
        told = f"{output.show_name(file['path'])}: {verdict}{f': {output.show_name(known)}' if known else ''}"
        output.say(told, style=style)
    summed = ", ".join(f"{counts[each]:,} {each}" for each in sorted(counts)) or "nothing that is looked into"
    output.say(f"{output.number_of(len(files), 'file')}: {summed}")
    if missing is not None:
        output.say(f"recordings are not looked into: {missing}", style="yellow")


__all__ = ["probe"]
