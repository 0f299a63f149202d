"""`recfs events`: what becomes of files, as it happens."""

import sys
import time
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import Store, open_store
from recfs.core.observing.cursors import NOW, OLDEST
from recfs.core.observing.kinds import MEANING, EventKind
from recfs.core.observing.lines import line_of
from recfs.errors import ControlError, DaemonNotRunning

WAIT_S = 20.0
"""How long one question waits for an event; the next one goes on from its cursor."""
AGAIN_S = 1.0
"""How long a daemon that does not answer is left alone."""

_EXAMPLE = """
$ recfs --json events --follow --kind committed
{"cursor":"5f0c2a91-18233","time":"2026-11-29T16:42:42.123456Z","time_ns":1796056962123456000,"event":"committed",
 "path":"users/5/recordings/142/video.mp4","user":"5","ino":771,"size_bytes":734003200,"sha256":"9f86d081..."}
"""


@click.command(
    "events",
    cls=Command,
    exits={ExitCode.REFUSED: "the cursor is too old, or of a catalogue that was restored meanwhile"},
    sections={"Kinds": {kind.value: MEANING[kind] for kind in EventKind}},
    example=_EXAMPLE,
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes; without --since, only with that.")
@click.option(
    "--since",
    metavar="CURSOR|TIME",
    help="Begin after this cursor, or at this time: a date, how long ago (2h, 7d), `oldest` or `now`.",
)
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice([each.value for each in EventKind]), help="Only these kinds."
)
@click.option("--user", metavar="ID", help="Only of this user's files.")
@store_options
@click.pass_obj
def events(invocation: Invocation, follow: bool, since: str | None, kinds: tuple[str, ...], user: str | None) -> None:
    """Tell what became of files: which are committed, renamed, removed, uploaded, expired and so on.

    With `--json` each event is one line of JSON with a `cursor`; who keeps the cursor of the last event it has dealt
    with goes on there with `--since`, and misses none: the events are in the catalogue, with the rows that they are
    about, and what was told survives a power cut. They are kept as `[events]` in the configuration says. A cursor that
    is too old, or of a catalogue that was restored meanwhile, is refused (exit code 7).

    Without a daemon those that are there can be read. `--follow` takes one, and outlives its restart. However slow it
    is read, it holds nobody up.
    """
    store = open_store(invocation)
    asked = {"kinds": list(kinds) or None, "user": user}
    cursor = since or (NOW if follow else OLDEST)
    if follow:
        _require_daemon(store)
    while True:
        page = _page(store, asked, cursor)
        _show(page["events"], as_json=invocation.json)
        cursor = page["cursor"]
        if not page["more"]:
            break
    if follow:
        _follow(store, asked, cursor, as_json=invocation.json)


def _require_daemon(store: Store) -> None:
    try:
        store.client().peer_pid()
    except DaemonNotRunning as error:
        raise DaemonNotRunning(f"{error}: to follow what happens takes one") from error


def _page(store: Store, asked: dict[str, Any], since: str) -> dict[str, Any]:
    page: dict[str, Any] = store.call("events", **asked, since=since)
    return page


def _follow(store: Store, asked: dict[str, Any], cursor: str, *, as_json: bool) -> None:
    """Ask the daemon again and again; it answers when there is something to tell. Raises RecfsError."""
    client = store.client(WAIT_S + 30.0)
    told = False
    while True:
        try:
            page = client.call("events", **asked, since=cursor, wait_s=WAIT_S)
        except ControlError as error:
            if not told:
                click.echo(f"recfs: {output.show_name(str(error))}; waiting for it to come back", err=True)
            told = True
            time.sleep(AGAIN_S)
            continue
        told = False
        _show(page["events"], as_json=as_json)
        cursor = page["cursor"]


def _show(events: list[dict[str, Any]], *, as_json: bool) -> None:
    for event in events:
        click.echo(line_of(event) if as_json else _line(event))
    if events:
        sys.stdout.flush()


def _line(event: dict[str, Any]) -> str:
    what = output.show_name(event["path"])
    if "was" in event:
        what = f"{output.show_name(event['was'])} -> {what}"
    if "size_bytes" in event:
        what += f" ({output.size(event['size_bytes'])})"
    if "detail" in event:
        what += f": {output.show_name(event['detail'])}"
    return f"{event['time'][:19]}Z  {event['event']:<13}  {what}"


__all__ = ["events"]
