"""`recfs duplicates`: files with the same bytes, what they waste, and what can be done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import Size, UserId
from recfs.cli.common.store import open_store

if TYPE_CHECKING:
    from recfs.cli.common.store import Store

SECONDS = 10.0
"""So long one request works."""
_EXAMPLE = """
$ recfs duplicates --min-size 1MiB
Files  Size      Wasted    Checksum      Where
    3  29.1 MiB  58.2 MiB  9f86d081884c  users/5/recordings/142/source.mp4 (stored)
                                         users/7/recordings/9/source.mp4 (committed)
                                         users/7/recordings/12/source.mp4 (stored)
1 set, 3 files, 58.2 MiB wasted
$ recfs duplicates --dedupe
2 files share their blocks with others now, 58.2 MiB
"""


@click.command(
    "duplicates", cls=Command, example=_EXAMPLE,
    exits={ExitCode.PROBLEMS: "the file system refused that some files share their blocks"},
)  # fmt: skip
@click.option("--user", type=UserId(), metavar="ID", help="Only this user's files.")
@click.option("--min-size", type=Size(), metavar="SIZE", help="Only files of at least this size.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="So many sets.")
@click.option("--named", type=click.IntRange(0, 100), default=5, show_default=True, help="So many files of each.")
@click.option("--after", metavar="PLACE", help="Go on where a page ended, as `next` of --json says.")
@click.option("--sha256", metavar="HEX", help="All files of this checksum, or of the one that begins so, instead.")
@click.option("--dedupe", is_flag=True, help="Have files with the same bytes share their blocks on the disk.")
@store_options
@click.pass_context
def duplicates(
    ctx: click.Context, user: str | None, min_size: int | None, limit: int, named: int, after: str | None,
    sha256: str | None, dedupe: bool,
) -> None:  # fmt: skip
    """Find files with the same bytes, those first that waste most. Only committed files are looked at.

    With `--dedupe` those whose bytes are on the disk share their blocks from then on, on a file system that can do that
    (XFS, btrfs): the kernel compares the bytes itself, and whatever is written to one of them later is its own. Quotas
    count as before, and what is open for writing is passed over. Needs a daemon; it may be stopped at any time.
    """
    invocation = ctx.ensure_object(Invocation)
    store = open_store(invocation)
    which = {"user": user, "min_bytes": min_size}
    if dedupe:
        if sha256 is not None:
            raise click.UsageError("--dedupe is for all files, those of a user, or those of a size")
        _dedupe(ctx, store, which, after)
        return
    found = store.call("duplicates", **which, limit=limit, named=named, after=after, sha256=sha256)
    if invocation.json:
        output.emit_json(found)
        return
    if sha256 is not None:
        for each in found["where"]:
            output.say(f"{each['path']} ({each['state']})")
    else:
        _show(found)
    if found["next"] is not None:
        output.say(f"more: --after {found['next']}")


def _show(found: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = []
    for each in found["worst"]:
        where = [f"{output.show_name(file['path'])} ({file['state']})" for file in each["where"]] or [""]
        if each["files"] > len(each["where"]) and each["where"]:
            where.append(f"and {each['files'] - len(each['where']):,} more")
        size, wasted = output.size(each["size_bytes"]), output.size(each["wasted_bytes"])
        rows.append((f"{each['files']:,}", size, wasted, each["sha256"][:12], where[0]))
        rows += [("", "", "", "", line) for line in where[1:]]
    if rows:
        output.print_table(("Files", "Size", "Wasted", "Checksum", "Where"), rows, right=("Files", "Size", "Wasted"))
    files = output.number_of(found["files"], "file")
    output.say(f"{output.number_of(found['sets'], 'set')}, {files}, {output.size(found['wasted_bytes'])} wasted")


def _dedupe(ctx: click.Context, store: Store, which: dict[str, Any], after: str | None) -> None:
    invocation = ctx.ensure_object(Invocation)
    whole: dict[str, Any] = {"files": 0, "bytes": 0, "already": 0, "passed_over": 0, "kept": [], "kept_files": 0}
    while True:
        done = store.call("dedupe", **which, after=after, seconds=SECONDS, timeout_s=SECONDS)
        for name in whole:
            whole[name] += done[name]
        after = done["next"]
        if after is None:
            break
        click.echo(f"recfs: {whole['files']:,} files, {output.size(whole['bytes'])}; --after {after}", err=True)
    if invocation.json:
        output.emit_json(whole)
    else:
        shares = "1 file shares its" if whole["files"] == 1 else f"{whole['files']:,} files share their"
        output.say(f"{shares} blocks with others now, {output.size(whole['bytes'])}")
        if whole["already"]:
            output.say(f"{output.number_of(whole['already'], 'file')} did so before")
        if whole["passed_over"]:
            output.say(f"{output.number_of(whole['passed_over'], 'file')} passed over: changed meanwhile, or open")
        output.say_kept(whole)
    if whole["kept_files"]:
        ctx.exit(ExitCode.PROBLEMS)


__all__ = ["duplicates"]
