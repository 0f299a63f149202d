"""`recfs cache`: results of processing, kept so that nothing is made twice of the same bytes."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import IO, Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH, Duration, LocalFile
from recfs.cli.common.store import Place, locate, open_store
from recfs.core.units import format_duration

WAIT_S = 30.0
"""So long one request waits; then it is asked again."""

_GET = """
$ recfs cache get users/5/recordings/142/audio.mp3 --kind transcription --options '{"language": "de"}'
{"text": "Guten Tag ..."}
"""
_PUT = """
$ recfs cache put users/5/recordings/142/audio.mp3 --kind transcription --options '{"language": "de"}' result.json
kept for everybody who may read such a file
"""
_STATS = """
$ recfs cache stats
entries  1,204, 38.2 MiB of JSON in 6.1 MiB (ratio 6.26) of 1 GiB
asked    5,310 times: 4,102 were there, 1,208 were not
given up 0 for room, 4 by age, 0 damaged
Kind           Entries  JSON      Stored   Ratio  Uses   Kept for
transcription    1,204  38.2 MiB  6.1 MiB  6.26   4,102  90d
"""
_KIND = click.option("--kind", required=True, metavar="KIND", help='What the result is, such as "transcription".')
_OPTIONS = click.option("--options", metavar="JSON", help="How it was made: JSON, of which the keys' order is nothing.")

_MADE_OF = click.option("--made-of", metavar="SHA256", help="Of the bytes it was made of: `get --json` tells it.")


@click.group(cls=Group)
def cache() -> None:
    """Keep results of processing by the checksum of what they were made of: the same bytes are not processed twice.

    A result is found again by the file's bytes, whatever it is called and whoever it belongs to, with its kind and
    options. What root, the operator and `[processing_cache].writers` put is given to everybody who may read such a
    file; what anybody else puts, to that user alone.
    """


@cache.command("get", exits={ExitCode.PROBLEMS: "there is no such result"}, example=_GET)
@click.argument("path", type=ANY_PATH)
@_KIND
@_OPTIONS
@click.option(
    "--claim", type=Duration(1.0, 86_400.0), metavar="DURATION",
    help="Where there is none: have others who ask wait for it for so long (users: an hour at most), and print the"
    " number of the claim.",
)  # fmt: skip
@click.option("--wait", is_flag=True, help="Where somebody else has claimed it: wait until they have made it.")
@store_options
@click.pass_context
def get(ctx: click.Context, path: Path, kind: str, options: str | None, claim: float | None, wait: bool) -> None:
    """Print the result that is kept of the file at PATH."""
    place = locate(ctx.ensure_object(Invocation), path)
    asked = _asked(place, kind, options)
    while True:
        found = place.store.call("cache_get", **asked, claim_s=claim, packed=True)
        is_others = claim is not None and not found["found"] and found["claim"] is None
        if found["found"] or not wait or not (claim is None or is_others):
            break
        if place.store.call("cache_wait", **asked, wait_s=WAIT_S, timeout_s=WAIT_S)["free"] and claim is None:
            found = place.store.call("cache_get", **asked, packed=True)
            break
    text = zlib.decompress(base64.b64decode(found.pop("packed"))).decode() if found["found"] else None
    if ctx.ensure_object(Invocation).json:
        output.emit_json(found | ({"result": json.loads(text)} if text is not None else {}))
    elif text is not None:
        click.echo(text)
    elif claim is not None and found["claim"] is not None:
        output.say(f"no result; claimed by you for {format_duration(claim)}, as {found['claim']}")
    else:
        output.say("no result" + ("; claimed by somebody else" if is_others else ""))
    if text is None:
        ctx.exit(ExitCode.PROBLEMS)


@cache.command("put", example=_PUT)
@click.argument("path", type=ANY_PATH)
@click.argument("result", type=LocalFile(), metavar="FILE|-")
@_KIND
@_OPTIONS
@_MADE_OF
@store_options
@click.pass_obj
def put(
    invocation: Invocation, path: Path, result: IO[bytes], kind: str, options: str | None, made_of: str | None
) -> None:
    """Keep a result, a file of JSON or what comes on standard input, of the file at PATH.

    With `--made-of` nothing is kept where the file was overwritten since.
    """
    place = locate(invocation, path)
    packed = base64.b64encode(zlib.compress(result.read(), 6)).decode("ascii")
    done = place.store.call("cache_put", **_asked(place, kind, options), packed=packed, **_made_of(made_of))
    if invocation.json:
        output.emit_json(done)
        return
    whose = "everybody who may read such a file" if done["for_everybody"] else "you alone"
    gone = f"; {output.number_of(done['evicted'], 'result')} made room for it" if done["evicted"] else ""
    output.say(f"kept for {whose}{gone}")


@cache.command("release")
@click.argument("path", type=ANY_PATH)
@click.argument("claim", type=int)
@_KIND
@_OPTIONS
@_MADE_OF
@store_options
@click.pass_obj
def release(
    invocation: Invocation, path: Path, claim: int, kind: str, options: str | None, made_of: str | None
) -> None:
    """Give up the claim of a result that will not be made: CLAIM is the number that `get --claim` printed.

    With `--made-of` also where the file was overwritten since, or is gone.
    """
    place = locate(invocation, path)
    done = place.store.call("cache_release", **_asked(place, kind, options), claim=claim, **_made_of(made_of))
    if invocation.json:
        output.emit_json(done)
    else:
        output.say("released" if done["released"] else "it was over already")


@cache.command("stats", example=_STATS)
@store_options
@click.pass_obj
def stats(invocation: Invocation) -> None:
    """Tell what is kept, what it takes, and how often it was of use."""
    found = open_store(invocation).call("cache_stats")
    if invocation.json:
        output.emit_json(found)
        return
    ratio = f" (ratio {found['ratio']})" if found["ratio"] else ""
    output.say(
        f"entries  {found['entries']:,}, {output.size(found['json_bytes'])} of JSON in"
        f" {output.size(found['stored_bytes'])}{ratio} of {output.size(found['max_bytes'])}"
    )
    hits, misses = found["hits"], found["misses"]
    output.say(f"asked    {hits + misses:,} times: {hits:,} were there, {misses:,} were not")
    output.say(f"given up {found['evicted']:,} for room, {found['expired']:,} by age, {found['corrupt']:,} damaged")
    if found["begun_anew"]:
        output.say(f"{output.number_of(found['begun_anew'], 'time')} its file could not be read, and was made anew")
    if found["kinds"]:
        output.print_table(
            ("Kind", "Entries", "JSON", "Stored", "Ratio", "Uses", "Kept for"),
            [_row(each) for each in found["kinds"]],
            right=("Entries", "JSON", "Stored", "Ratio", "Uses"),
        )


def _row(kind: dict[str, Any]) -> tuple[str, ...]:
    return (
        kind["kind"],
        f"{kind['entries']:,}",
        output.size(kind["json_bytes"]),
        output.size(kind["stored_bytes"]),
        f"{kind['ratio']}",
        f"{kind['uses']:,}",
        output.duration(kind["expires_s"]),
    )


@cache.command("purge")
@click.argument("path", required=False, type=ANY_PATH)
@click.option("--kind", metavar="KIND", help="Only those of this kind.")
@click.option("--older-than", type=Duration(), metavar="DURATION", help="Only those that were made before that.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@store_options
@click.pass_obj
def purge(
    invocation: Invocation, path: Path | None, kind: str | None, older_than: float | None, everything: bool
) -> None:
    """Give up results: of the file at PATH, of a kind, of an age, or all.

    Without an age, claims of such results end as well.
    """
    if path is None and kind is None and older_than is None and not everything:
        raise click.UsageError("which results? give PATH, --kind, --older-than or --all")
    place = Place(open_store(invocation), "") if path is None else locate(invocation, path)
    asked: dict[str, Any] = {"kind": kind, "older_than_s": older_than, "all": everything}
    if path is not None:
        asked["path"] = place.path
    done = place.store.call("cache_purge", **asked)
    if invocation.json:
        output.emit_json(done)
    else:
        claims = f"; {output.number_of(done['claims'], 'claim')} ended" if done.get("claims") else ""
        output.say(f"{output.number_of(done['removed'], 'result')} given up, {output.size(done['bytes'])}{claims}")


def _made_of(sha256: str | None) -> dict[str, str]:
    return {} if sha256 is None else {"made_of": sha256}


def _asked(place: Place, kind: str, options: str | None) -> dict[str, Any]:
    try:
        parsed = json.loads(options) if options is not None else None
    except (ValueError, RecursionError) as exc:
        raise click.UsageError(f"--options is no JSON: {exc}") from exc
    return {"path": place.path, "kind": kind, "options": parsed}


__all__ = ["cache"]
