"""`recfs recording`: how long recordings live."""

from pathlib import Path
from typing import Any

import click

from recfs.cli.common import other_rules, output
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH, Duration
from recfs.cli.common.store import locate, open_store

_LISTED = """
$ recfs recording list --due 30d
Recording               Status   Size      Files  Due (UTC)            Why
users/5/recordings/142  active   29.1 MiB      2  2026-12-20 09:03:15  last change 69d 3h ago, retention 90d (rule 1): \
due in 20d 20h
users/7/recordings/9    expired    1 GiB      14  2026-12-02 00:00:00  expires_at 2026-11-25T00:00:00Z; grace 7d: \
removed in 2d 15h
2 recordings, 1 GiB
""".replace("\\\n", "")
_SHOWN = """
$ recfs recording show users/5/recordings/142
recording  users/5/recordings/142
status     active
created    2026-09-21 09:03:15
size       29.1 MiB in 2 files
expires at -
keep       no
due        2026-12-20 09:03:15
rule       1
why        last change 69d 3h ago, retention 90d (rule 1): due in 20d 20h
"""
_NOTE = click.option("--note", metavar="TEXT", help="What is to be said of it in `recfs recording show`.")
_PATH = click.argument("path", type=ANY_PATH)
_PATHS = click.argument("paths", nargs=-1, required=True, type=ANY_PATH, metavar="PATH...")


@click.group(cls=Group)
def recording() -> None:
    """Show and say how long recordings live.

    A recording is a directory `users/<id>/recordings/<id>`. It expires as a `[[retention]]` rule says, at the date that
    was set, or when told to: it takes nothing new then, and can be read for the time of its grace. After that
    `recfs sweep expired`, which the daemon does by itself, removes it with everything in it.
    """


@recording.command("list", example=_LISTED)
@click.option("--user", metavar="ID", help="Only this user's.")
@click.option("--status", type=click.Choice(["active", "expired", "removing"]), help="Only those of this status.")
@click.option("--due", type=Duration(), metavar="DURATION", help="Only those that expire, or go, within this time.")
@store_options
@click.pass_obj
def list_(invocation: Invocation, user: str | None, status: str | None, due: float | None) -> None:
    """List recordings, when they expire or go, and why.

    With `--config` and a daemon that goes by other rules, it is by those of the file, which changes nothing: so rules
    can be tried before the daemon has them. What is open is not known then.
    """
    store = open_store(invocation)
    asked = store.call_alone if other_rules.reads_rules(invocation, store) else store.call
    found = asked("recording_list", user=user, status=status, due_s=due)
    if invocation.json:
        output.emit_json(found)
        return
    if found:
        output.print_table(
            ("Recording", "Status", "Size", "Files", "Due (UTC)", "Why"),
            [
                (
                    output.show_name(each["path"]),
                    each["status"],
                    output.size(each["rbytes"]),
                    output.count(each["rfiles"]),
                    output.moment(each["due_ns"]),
                    output.show_name(each["reason"]),
                )
                for each in found
            ],
            right=("Size", "Files"),
        )
    output.say(f"{output.number_of(len(found), 'recording')}, {output.size(sum(each['rbytes'] for each in found))}")


@recording.command("show", example=_SHOWN)
@_PATH
@store_options
@click.pass_obj
def show(invocation: Invocation, path: Path) -> None:
    """Show everything of the recording at PATH, or in which PATH lies."""
    place = locate(invocation, path)
    asked = place.store.call_alone if other_rules.reads_rules(invocation, place.store) else place.store.call
    _print(invocation, asked("recording_show", path=place.path))


@recording.command("expire")
@_PATHS
@_NOTE
@store_options
@click.pass_obj
def expire(invocation: Invocation, paths: tuple[Path, ...], note: str | None) -> None:
    """Have recordings be expired from now on, whatever their rules say.

    They can be read for the time of their grace, and be had back by `recfs recording keep` or `set-expiry`. Those that
    are kept, or open for writing, are refused.
    """
    _each(invocation, paths, "recording_expire", note=note)


@recording.command("keep")
@_PATHS
@_NOTE
@store_options
@click.pass_obj
def keep(invocation: Invocation, paths: tuple[Path, ...], note: str | None) -> None:
    """Keep recordings: no rule and no date makes them expire. Those that are expired are active again."""
    _each(invocation, paths, "recording_keep", on=True, note=note)


@recording.command("unkeep")
@_PATHS
@_NOTE
@store_options
@click.pass_obj
def unkeep(invocation: Invocation, paths: tuple[Path, ...], note: str | None) -> None:
    """Keep recordings no more: rules and dates count again."""
    _each(invocation, paths, "recording_keep", on=False, note=note)


@recording.command("set-expiry")
@_PATH
@click.argument("date", metavar="DATE|never")
@_NOTE
@store_options
@click.pass_obj
def set_expiry(invocation: Invocation, path: Path, date: str, note: str | None) -> None:
    """Have a recording expire at a date, in place of what its rule says; `never`: as the rule says again.

    DATE is one of ISO 8601: 2027-01-31 or 20270131, 2027-01-31T18:00, 2027-01-31T18:00:00+01:00; UTC without a zone. It
    counts by the calendar, and not before the time until then has passed while the machine was on: so a clock that is
    put ahead removes nothing.
    """
    place = locate(invocation, path)
    found = place.store.call("recording_set_expiry", path=place.path, date=date, note=note)
    _print(invocation, found)
    if found["action"] == "expire":
        shown = output.show_name(found["path"])
        click.echo(
            f"recfs: {shown}: it is due already: the next look has it expire, and one after its grace removes it;"
            " `recfs recording keep` keeps it, and set-expiry takes another date, or `never`",
            err=True,
        )


def _each(invocation: Invocation, paths: tuple[Path, ...], method: str, **params: Any) -> None:
    found = []
    for path in paths:
        place = locate(invocation, path)
        found.append(place.store.call(method, path=place.path, **params))
        if not invocation.json:
            output.say(f"{found[-1]['path']}: {found[-1]['status']}, {found[-1]['reason']}")
    if invocation.json:
        output.emit_json(found)


def _print(invocation: Invocation, found: dict[str, Any]) -> None:
    if invocation.json:
        output.emit_json(found)
        return
    facts = [
        ("recording", output.show_name(found["path"])),
        ("status", found["status"]),
        ("created", output.moment(found["created_ns"])),
        ("size", f"{output.size(found['rbytes'])} in {output.number_of(found['rfiles'], 'file')}"),
        ("expires at", output.moment(found["expires_at_ns"])),
        ("keep", "yes" if found["keep"] else "no"),
        ("due", output.moment(found["due_ns"])),
        ("rule", str(found["rule"] or "-")),
        ("why", output.show_name(found["reason"])),
    ]
    if found["set_by"]:
        facts.append(("set by", output.show_name(found["set_by"])))
    if found["note"]:
        facts.append(("note", output.show_name(found["note"])))
    if found["open_files"]:
        facts.append(("open files", output.count(found["open_files"])))
    output.print_facts(facts)


__all__ = ["recording"]
