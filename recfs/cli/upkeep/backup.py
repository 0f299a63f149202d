"""`recfs backup`: copies of the catalogue, made, listed and proved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH
from recfs.cli.common.store import in_effect, open_store

if TYPE_CHECKING:
    from recfs.rescue import Backups

IDENTITY = click.option(
    "--identity", type=ANY_PATH, metavar="FILE", help="A file with the secret key, as `age-keygen` writes it."
)

_MADE = """
$ recfs backup now
catalogue-5b0ce6f2-20261129T031502Z.db.age: 1,000,302 files and directories, 261 MiB, in 3.1s
"""
_LISTED = """
$ recfs backup list
Name                                        Made (UTC)           Age     Size     Encrypted  Files      Place
catalogue-5b0ce6f2-20261128T031500Z.db.age  2026-11-28 03:15:00  1d 4h   260 MiB  yes        1,000,114  /backup/recfs
catalogue-5b0ce6f2-20261129T031502Z.db.age  2026-11-29 03:15:02  4h 12m  261 MiB  yes        1,000,302  /backup/recfs
"""
_VERIFIED = """
$ recfs backup verify --identity key.txt
catalogue-5b0ce6f2-20261128T031500Z.db.age in /backup/recfs: good
catalogue-5b0ce6f2-20261129T031502Z.db.age in /backup/recfs: its bytes are not those that were written: its checksum \
is another
"""


@click.group(cls=Group)
def backup() -> None:
    """Make, list and prove backups of the catalogue.

    A backup has what recfs knows of the files (names, owners, checksums, quotas, attributes, what lies in S3), and not
    their bytes. The daemon makes one every `[backup].every`, while the store is in use; `recfs restore-catalogue` puts
    one back.
    """


@backup.command("now", example=_MADE)
@store_options
@click.pass_obj
def now(invocation: Invocation) -> None:
    """Make a backup now, and let go of those beyond `[backup].keep`.

    It holds nobody up. What could not be made to its end is none, and is cleared away by the next one.
    """
    made = open_store(invocation).call("backup_now")
    if invocation.json:
        output.emit_json(made)
        return
    took = output.duration(made["took_s"])
    files = output.number_of(made["rows"].get("node", 0), "file and directory", "files and directories")
    output.say(f"{made['name']}: {files}, {output.size(made['size_bytes'])}, in {took}")


@backup.command("list", example=_LISTED)
@store_options
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List the backups of this store, oldest first."""
    found = [each.as_json(time.time_ns()) for each in _backups(invocation).kept()]
    if invocation.json:
        output.emit_json(found)
        return
    if not found:
        output.say("there is none")
        return
    output.print_table(
        ("Name", "Made (UTC)", "Age", "Size", "Encrypted", "Files", "Place"),
        [_row(each) for each in found],
        right=("Size", "Files"),
    )


def _row(each: dict[str, Any]) -> tuple[str | Text, ...]:
    name = output.show_name(each["name"])
    damage = Text(f"{name}: {output.show_name(each['damage'])}", style="bold red") if each["damage"] else name
    return (
        damage,
        output.moment(each["made_ns"]),
        output.duration(each["age_s"]),
        output.size(each["size_bytes"]),
        "yes" if each["encrypted"] else "no",
        output.count(each["rows"].get("node", 0)),
        output.show_name(each["place"]),
    )


@backup.command("verify", exits={ExitCode.PROBLEMS: "one is damaged; it is named"}, example=_VERIFIED)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@IDENTITY
@store_options
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], identity: Path | None) -> None:
    """Read all of the backups, or of those named, and look whether each is what was written and a whole catalogue.

    Of an encrypted one without `--identity` only the former can be told.
    """
    invocation = ctx.ensure_object(Invocation)
    found = _backups(invocation).verify(names, identity)
    if invocation.json:
        output.emit_json(found)
    else:
        for each in found:
            good = "good" if each["opened"] else "its file is what was written; --identity looks into it"
            style = "bold red" if each["damage"] else ""
            output.say(f"{each['name']} in {each['place']}: {each['damage'] or good}", style=style)
        if not found:
            output.say("there is none")
    if any(each["damage"] for each in found):
        ctx.exit(ExitCode.PROBLEMS)


def _backups(invocation: Invocation) -> Backups:
    from recfs.rescue import Backups

    config, _ = in_effect(invocation)
    return Backups(config)
