"""`recfs next-version` and `recfs versions`: numbered versions of files that lie beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.help import Command, Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH, Duration
from recfs.cli.common.store import here_or_top, locate

_NEXT = """
$ recfs next-version users/5/recordings/142 topics json
users/5/recordings/142/topics_v3.json
"""
_LISTED = """
$ recfs versions list users/5/recordings/142
Version                                Number  Size     Changed (UTC)
users/5/recordings/142/topics_v1.json       1  4.1 KiB  2026-11-20 09:03:15
users/5/recordings/142/topics_v2.json       2  4.3 KiB  2026-11-21 18:40:02
2 versions
"""
_PRUNED = """
$ recfs versions prune users/5/recordings/142 --keep 1 --dry-run
Version                                Size     What   Why
users/5/recordings/142/topics_v2.json  4.3 KiB  stays  number 1 of the newest 1
users/5/recordings/142/topics_v1.json  4.1 KiB  goes   1 newer, 1 are kept
1 version would be removed, 4.1 KiB
"""
_PATTERN = click.option(
    "--pattern", metavar="NAME", help="Only these names: a glob with {N} once, such as `topics_v{N}.json`."
)
_RECURSIVE = click.option("--recursive", is_flag=True, help="Also in the directories below.")


@click.command("next-version", cls=Command, example=_NEXT)
@click.argument("directory", type=ANY_PATH)
@click.argument("name")
@click.argument("extension", default="")
@store_options
@click.pass_obj
def next_version(invocation: Invocation, directory: Path, name: str, extension: str) -> None:
    """Make the next numbered version of a file, `NAME_v{N}.EXTENSION` in DIRECTORY, and print its path in the mount.

    It is an empty file, made with the rights of whoever asks, and of several that ask at once no two are given the same
    number. A number that was given out is not given out again when its file is removed, as long as the directory is
    there.
    """
    place = locate(invocation, directory)
    made = place.store.call("next_version", path=place.path, name=name, extension=extension)
    if invocation.json:
        output.emit_json(made)
    else:
        output.say(made["path"])


@click.group(cls=Group)
def versions() -> None:
    """Show numbered versions of files that lie beside each other, such as `topics_v1.json`, and have old ones go.

    `[[versions]]` rules of the configuration have the daemon do so by itself: see `recfs sweep versions`.
    """


@versions.command("list", example=_LISTED)
@click.argument("path", required=False, type=ANY_PATH)
@_PATTERN
@_RECURSIVE
@store_options
@click.pass_obj
def list_(invocation: Invocation, path: Path | None, pattern: str | None, recursive: bool) -> None:
    """List the versions in a directory, whether a rule knows them or not. Needs a daemon."""
    place = here_or_top(invocation) if path is None else locate(invocation, path)
    found = place.store.call("versions_list", path=place.path, pattern=pattern, recursive=recursive)
    if invocation.json:
        output.emit_json(found)
        return
    if found["versions"]:
        rows = [
            (
                output.show_name(each["path"]),
                f"{each['number']}",
                output.size(each["size_bytes"]),
                output.moment(each["changed_ns"]) + _remark(each),
            )
            for each in found["versions"]
        ]
        output.print_table(("Version", "Number", "Size", "Changed (UTC)"), rows, right=("Number", "Size"))
    _say_more(found)
    output.say(output.number_of(len(found["versions"]) + found["more"], "version"))


def _remark(version: dict[str, Any]) -> str:
    if version["open_files"]:
        return ", open"
    return "" if version["whole"] else ", not committed"


@versions.command("prune", example=_PRUNED)
@click.argument("path", type=ANY_PATH)
@click.option("--keep", type=click.IntRange(1, 1_000_000), required=True, help="How many of the highest numbers stay.")
@click.option(
    "--min-age", type=Duration(), default=0.0, metavar="DURATION", help="What was changed later than that stays."
)
@_PATTERN
@_RECURSIVE
@click.option("--dry-run", is_flag=True, help="Only say what would be removed, and what stays, and why.")
@store_options
@click.pass_obj
def prune(
    invocation: Invocation, path: Path, keep: int, min_age: float, pattern: str | None, recursive: bool, dry_run: bool
) -> None:
    """Remove all but the last versions in a directory, of each series by itself, as `rm -r` would. Needs a daemon.

    What is open or not committed stays, and so does a directory with a recording in it that is kept.
    """
    place = locate(invocation, path)
    asked = {"pattern": pattern, "recursive": recursive, "keep": keep, "min_age_s": min_age, "dry_run": dry_run}
    done = place.store.call("versions_prune", path=place.path, **asked)
    if invocation.json:
        output.emit_json(done)
        return
    if done["versions"]:
        output.print_table(
            ("Version", "Size", "What", "Why"),
            [
                (
                    output.show_name(each["path"]),
                    output.size(each["size_bytes"]),
                    "goes" if each["removes"] else "stays",
                    output.show_name(each["reason"]),
                )
                for each in done["versions"]
            ],
            right=("Size",),
        )
    _say_more(done)
    what = "would be removed" if dry_run else "removed"
    output.say(f"{output.number_of(done['removed'], 'version')} {what}, {output.size(done['bytes'])}")


def _say_more(found: dict[str, Any]) -> None:
    if found["more"]:
        output.say(f"and {found['more']:,} more")


__all__ = ["next_version", "versions"]
