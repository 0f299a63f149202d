"""`recfs watch`: what the daemon makes of what is done to the store's disk past the mount."""

from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import open_store
from recfs.errors import InvalidArgument

_STATUS = """
$ recfs watch status
watched      1,204 directories
looked at    once since the start
found        12 adopted, 3 changed, 0 described, 1 moved, 0 removed, 0 evicted
waiting      0 entries
"""
_ACCEPTED = """
$ recfs watch accept
1,204 files lose their names
"""


@click.group(cls=Group)
def watch() -> None:
    """Show and steer what becomes of files that are put into the store's disk, changed or removed there.

    While the store is mounted, what is done to `users/`, `shared/` and `temp/` in the store's root by other means than
    the mount is noticed within seconds: new files are adopted, changed ones hashed anew, moved ones renamed, and
    removed ones lose their names. `[watch]` in the configuration turns that off.
    """


@watch.command("status", example=_STATUS)
@store_options
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Show how much is watched, what was found since the start, and what waits to be believed."""
    _show(invocation, _call(invocation, "watch_status"))


@watch.command("scan")
@store_options
@click.pass_obj
def scan(invocation: Invocation) -> None:
    """Have everything looked at, beginning now. `recfs watch status` tells when that is done."""
    _show(invocation, _call(invocation, "watch_scan"))


@watch.command("accept", example=_ACCEPTED)
@store_options
@click.pass_obj
def accept(invocation: Invocation) -> None:
    """Let files lose their names that were removed from the store's disk many at once.

    When more than a tenth of all files is gone (20 may always go, 10,000 never without this), recfs keeps their names,
    for their disk may only be away; and so it does of files that `recfs restore-catalogue` found nowhere. Files of
    which S3 has the bytes keep their names in any case. This holds for what is missing now and within the next ten
    minutes.
    """
    result = _call(invocation, "watch_accept")
    if invocation.json:
        output.emit_json(result)
        return
    files = result["files"]
    output.say("1 file loses its name" if files == 1 else f"{files:,} files lose their names")


def _call(invocation: Invocation, method: str) -> dict[str, Any]:
    result: dict[str, Any] = open_store(invocation).call(method)
    if not result["enabled"] and method != "watch_status":
        raise InvalidArgument("nothing is watched: [watch] enabled is false in the configuration of the daemon")
    return result


def _show(invocation: Invocation, result: dict[str, Any]) -> None:
    if invocation.json:
        output.emit_json(result)
        return
    if not result["enabled"]:
        output.say("nothing is watched: [watch] enabled is false")
        return
    scans = {0: "not yet", 1: "once since the start"}.get(result["scans"], f"{result['scans']:,} times since the start")
    found = ("adopted", "changed", "described", "moved", "removed", "evicted")
    mounted = ", ".join(result.get("mounted", ()))
    lines = {
        "watched": f"{result['watched']:,} directories",
        "limit": f"{result['limit']} is reached: everything is looked at now and then" if result["limit"] else "",
        "mounted": f"{mounted}: no part of the store, see recfs status" if mounted else "",
        "looked at": scans + (", and again now" if result["scanning"] else ""),
        "found": ", ".join(f"{result[what]:,} {what}" for what in found),
        "waiting": output.number_of(result["waiting"], "entry", "entries"),
        "missing": result["held"] or "",
    }
    for what, told in lines.items():
        if told:
            output.say(f"{what:<12} {told}")
