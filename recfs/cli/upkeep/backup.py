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
from recfs.cli.common.params import LocalPath
from recfs.cli.common.store import in_effect, open_store
from recfs.cli.upkeep.options import IDENTITY

if TYPE_CHECKING:
    from recfs.rescue.backups import Backups

_MADE = """
$ recfs backup now
catalogue-5b0ce6f2-20261129T031502Z.db.age: 1,000,302 files and directories, 261 MiB, in 3.1s
"""
_LISTED = """
$ recfs backup list
Name                                        Made (UTC)           Age     Size     Encrypted  Entries    Place
catalogue-5b0ce6f2-20261128T031500Z.db.age  2026-11-28 03:15:00  1d 4h   260 MiB  yes        1,000,114  /backup/recfs
catalogue-5b0ce6f2-20261129T031502Z.db.age  2026-11-29 03:15:02  4h 12m  261 MiB  yes        1,000,302  /backup/recfs
"""
_VERIFIED = """
$ recfs backup verify --identity key.txt
catalogue-5b0ce6f2-20261128T031500Z.db.age in /backup/recfs: good
catalogue-5b0ce6f2-20261129T031502Z.db.age in /backup/recfs: its bytes are not those that were written: its checksum \
is another
"""
_DRILLED = """
$ recfs backup drill --identity key.txt
catalogue-5b0ce6f2-20261129T031502Z.db.age: 4h 12m old, opened and checked in 2.4s, 6.1s in all
the counters of 912,440 files add up
97 of 100 files looked at are what it says, 3 were changed since, 0 are wrong, 0 could not be looked at
"""


@click.group(cls=Group)
def backup() -> None:
    """Make, list and prove backups of the catalogue.

    A backup has what recfs knows of the files (names, owners, checksums, quotas, attributes, what lies in S3), and not
    their bytes. The daemon makes one every `[backup].every`, while the store is in use; `recfs restore-catalogue` puts
    one back.
    """


@backup.command("now", exits={ExitCode.PROBLEMS: "it is made, and did not get to the bucket"}, example=_MADE)
@store_options
@click.pass_context
def now(ctx: click.Context) -> None:
    """Make a backup now, and let go of those beyond `[backup].keep`.

    It holds nobody up. What could not be made to its end is none, and is cleared away by the next one.
    """
    invocation = ctx.ensure_object(Invocation)
    made = open_store(invocation).call("backup_now")
    if invocation.json:
        output.emit_json(made)
    else:
        took, sent = output.duration(made["took_s"]), ", and in the bucket" if made["sent"] else ""
        files = output.number_of(made["rows"].get("node", 0), "file and directory", "files and directories")
        output.say(f"{made['name']}: {files}, {output.size(made['size_bytes'])}, in {took}{sent}")
        if made["not_sent"]:
            output.say(f"not in the bucket; the daemon tries again: {made['not_sent']}", style="bold red")
    if made["not_sent"]:
        ctx.exit(ExitCode.PROBLEMS)


@backup.command("list", example=_LISTED)
@store_options
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """List the backups of this store, oldest first."""
    backups = _backups(invocation)
    found = [each.as_json(time.time_ns()) for each in backups.kept()]
    _say_trouble(backups)
    if invocation.json:
        output.emit_json(found)
        return
    if not found:
        output.say(f"there is none in {output.show_name(backups.place)}")
        return
    output.print_table(
        ("Name", "Made (UTC)", "Age", "Size", "Encrypted", "Entries", "Place"),
        [_row(each) for each in found],
        right=("Size", "Entries"),
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


@backup.command(
    "verify", exits={ExitCode.PROBLEMS: "one is damaged, and named; or the bucket does not answer"}, example=_VERIFIED
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@IDENTITY
@store_options
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], identity: Path | None) -> None:
    """Read all of the backups, or of those named, and look whether each is what was written and a whole catalogue.

    Of an encrypted one without `--identity` only the former can be told.
    """
    invocation = ctx.ensure_object(Invocation)
    backups = _backups(invocation)
    found = backups.verify(names, identity)
    _say_trouble(backups)
    if invocation.json:
        output.emit_json(found)
    else:
        for each in found:
            good = "good" if each["opened"] else "its file is what was written; --identity looks into it"
            style = "bold red" if each["damage"] else ""
            output.say(f"{each['name']} in {each['place']}: {each['damage'] or good}", style=style)
        if not found:
            output.say(f"there is none in {output.show_name(backups.place)}")
    if any(each["damage"] for each in found) or (backups.trouble and backups.config.backup.to_bucket):
        ctx.exit(ExitCode.PROBLEMS)


@backup.command(
    "drill",
    exits={
        ExitCode.PROBLEMS: "the counters do not add up, or a file is not what the backup says; it is named",
        ExitCode.STORE: "the backup is damaged",
        ExitCode.REFUSED: "there is none, or the key is not its",
    },
    example=_DRILLED,
)
@click.argument("name", required=False, metavar="[NAME]")
@IDENTITY
@click.option(
    "--files", type=click.IntRange(0, 1_000_000), default=100, show_default=True, help="How many are looked at."
)
@click.option("--scratch", type=LocalPath(), metavar="DIR", help="Where it is opened, if not in $TMPDIR or /tmp.")
@store_options
@click.pass_context
def drill(ctx: click.Context, name: str | None, identity: Path | None, files: int, scratch: Path | None) -> None:
    """Prove that the newest good backup, or the one called NAME, can be relied on.

    It is decrypted into a scratch directory, looked through, brought up to date as a start would, and its counters are
    added up anew. Then some files, chosen at random, are held against it: the bytes on the disk, or what S3 says of the
    object. Nothing of the store is changed, a daemon may run, and nothing is left behind.
    """
    from recfs.rescue.drill import Drill

    invocation = ctx.ensure_object(Invocation)
    backups = _backups(invocation)
    found = Drill(backups.config, backups, backups.objects).run(name, identity, files=files, scratch=scratch)
    if invocation.json:
        output.emit_json(found)
    else:
        _say_drilled(found)
    if not found["good"]:
        ctx.exit(ExitCode.PROBLEMS)


def _say_drilled(found: dict[str, Any]) -> None:
    told, looked = found["backup"], found["sample"]
    output.say(
        f"{told['name']}: {output.duration(told['age_s'])} old, opened and checked in"
        f" {output.duration(found['opened_s'])}, {output.duration(found['took_s'])} in all"
    )
    for off in found["differences"]:
        output.say(f"{off}: its counters do not add up", style="bold red")
    if not found["differences"]:
        output.say(f"the counters of {output.number_of(found['checked_files'], 'file')} add up")
    output.say(
        f"{looked['proved']:,} of {sum(looked.values()):,} files looked at are what it says, {looked['since']:,} were"
        f" changed since, {looked['wrong']:,} are wrong, {looked['unknown']:,} could not be looked at"
    )
    for each in found["wrong"]:
        output.say(f"{each['path']}: {each['reason']}", style="bold red")


def _say_trouble(backups: Backups) -> None:
    if backups.trouble:
        click.echo(f"recfs: those in the bucket are not known: {output.show_name(backups.trouble)}", err=True)


def _backups(invocation: Invocation) -> Backups:
    from recfs.rescue.backups import Backups

    config, _ = in_effect(invocation)
    return Backups(config)
