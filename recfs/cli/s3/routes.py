"""`recfs route explain` and `recfs tier run`: where the rules want files, and bringing them there."""

import os
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from recfs.cli.common import other_rules, output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH, Duration, Size
from recfs.cli.common.store import locate, open_store
from recfs.core.naming import is_temporary_name

_DONE = {
    "upload": "queued for upload",
    "unqueue": "taken out of the queue",
    "bring home": "brought home",
    "store anew": "queued to be stored in another class",
}


_EXPLAINED = """
$ recfs route explain users/9/recordings/1/source.mp4 --size 1GiB
Rule  Conditions  To  Verdict  Why
   1  users/**    s3  decides  decides: goes to S3

file      users/9/recordings/1/source.mp4 (does not exist)
taken as  1 GiB, changed 0s ago (assumed; --age says otherwise)
belongs   in S3
because   rule 1 (users/**): goes to S3
"""
_DRY_RUN = """
$ recfs tier run --dry-run
Step    State           Size  Path                               Why
upload  committed  28.6 MiB  users/5/recordings/142/source.mp4  rule 1 (users/**): goes to S3
34 files looked at
1 would be queued for upload, 28.6 MiB
"""


@click.group(cls=Group)
def route() -> None:
    """Look at the rules that say which files go to S3."""


@route.command("explain", example=_EXPLAINED)
@click.argument("path", type=ANY_PATH)
@click.option("--size", "size_bytes", type=Size(), metavar="SIZE", help="As if the file had this size.")
@click.option("--age", "age_s", type=Duration(), metavar="DURATION", help="As if it had been changed so long ago.")
@store_options
@click.pass_obj
def explain(invocation: Invocation, path: Path, size_bytes: int | None, age_s: float | None) -> None:
    """Say which rule decides where the file PATH belongs, and why. PATH need not exist."""
    place = locate(invocation, path)
    other_rules.tell(invocation, place.store, "route")
    result = place.store.call("route_explain", path=place.path, size_bytes=size_bytes, age_s=age_s)
    if invocation.json:
        output.emit_json(result)
        return
    if result["rules"]:
        output.print_table(
            ("Rule", "Conditions", "To", "Verdict", "Why"),
            [_rule(rule) for rule in result["rules"]],
            right=("Rule",),
        )
        click.echo()
    output.print_facts(_facts(result))


def _rule(rule: dict[str, Any]) -> tuple[str | Text, ...]:
    verdict = Text("decides", style="green") if rule["decides"] else Text("matches" if rule["matched"] else "no")
    return str(rule["rule"]), output.show_name(rule["conditions"]), rule["to"], verdict, output.show_name(rule["why"])


def _facts(result: dict[str, Any]) -> list[tuple[str, str | Text]]:
    decision, now = result["decision"], result["now"]
    about = f"{output.size(result['size_bytes'])}, changed {output.duration(result['age_s'])} ago"
    if result["assumed"]:
        options = " and ".join(f"--{each}" for each in result["assumed"])
        about += f" (assumed; {options} {'say' if len(result['assumed']) > 1 else 'says'} otherwise)"
    belongs = "in S3" if decision["store"] == "s3" else "here"
    if decision["storage_class"]:
        belongs += f", storage class {decision['storage_class']}"
    facts: list[tuple[str, str | Text]] = [
        ("file", f"{output.show_name(result['path'])}{'' if result['exists'] else ' (does not exist)'}"),
        ("taken as", about),
        ("belongs", Text(belongs, style="bold")),
        ("because", output.show_name(decision["reason"])),
    ]
    if result["s3"] is None:
        facts.append(("note", Text("this configuration has no [s3]: everything stays here", style="yellow")))
    name = os.fsencode(os.path.basename(result["path"]))
    if decision["store"] == "s3" and is_temporary_name(name):
        facts.append(("not uploaded", Text("its name looks temporary: it waits until it is renamed", style="yellow")))
    if now is not None:
        facts.append(("now", Text.assemble(output.state(now["state"]), f", bytes: {now['location']}")))
        move = result["move"]
        facts.append(
            ("tier run", f"{move['step']}: {output.show_name(move['reason'])}" if move else "leaves it as it is")
        )
    return facts


@click.group(cls=Group)
def tier() -> None:
    """Bring files to where the rules want them."""


@tier.command("run", exits={ExitCode.PROBLEMS: "a file could not be brought"}, example=_DRY_RUN)
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and why.")
@store_options
@click.pass_context
def run(ctx: click.Context, dry_run: bool) -> None:
    """Bring every file to where the rules want it now, to S3 and back.

    Looks at every file: uploads what belongs to S3, brings home (verified, then its object goes) what does not, stores
    anew what is in another storage class. Uploads are put into the queue, never more at a time than half of
    `[cache].max_size`; `recfs status` shows how far it is.

    Changing the rules moves nothing by itself, and files come of age: run it after such a change, or every night.
    """
    invocation = ctx.ensure_object(Invocation)
    store = open_store(invocation)
    other_rules.tell(invocation, store, "route")
    result = store.call("tier_run", dry_run=dry_run)
    if invocation.json:
        output.emit_json(result)
    else:
        _print(result, dry_run=dry_run)
    if result["kept_files"]:
        ctx.exit(ExitCode.PROBLEMS)


def _print(result: dict[str, Any], *, dry_run: bool) -> None:
    if result["moved"]:
        output.print_table(
            ("Step", "State", "Size", "Path", "Why"),
            [
                (
                    each["step"],
                    output.state(each["state"]),
                    output.size(each["size_bytes"]),
                    output.show_name(each["path"]),
                    output.show_name(each["reason"]),
                )
                for each in result["moved"]
            ],
            right=("Size",),
        )
    if result["more"]:
        output.say(f"and {result['more']:,} more")
    output.say(f"{output.number_of(result['files'], 'file')} looked at")
    for step, done in result["steps"].items():
        if done["files"]:
            would = "would be " if dry_run else ""
            output.say(f"{done['files']:,} {would}{_DONE[step]}, {output.size(done['bytes'])}")
    if not any(done["files"] for done in result["steps"].values()) and not result["kept_files"]:
        output.say("every file is where it belongs", style="green")
    output.say_kept(result)
