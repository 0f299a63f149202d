"""`recfs import`: a tree that has the structure of a store already comes into one, or one that rules map to it."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recfs.cli.common import cwd
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import LocalPath
from recfs.cli.common.store import open_store
from recfs.cli.migration.bucket import import_by_rules, import_objects
from recfs.cli.migration.ruled import plan_by_rules
from recfs.cli.migration.stores import opened_mount, side_of
from recfs.cli.migration.telling import EXITS, Teller
from recfs.errors import IoFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from recfs.migration.transfer.items import Source

_WHYS = {
    "writing": "it was written to while it was read, or has another size than the stream said",
    "damaged": "its bytes are not those of SHA256SUMS, or of what was written to the mount; nothing of it is left",
    "unreadable": "it could not be read, or SHA256SUMS names it and it is not there",
    "refused": "its name, kind or link is not allowed there, SHA256SUMS does not have it, or the mount did not take it",
    "differs": "something else is there already",
    "unsaid": "the files are there, but a limit or a life could not be set as the manifest has it",
}
_EXAMPLE = """
$ recfs import /backup/of-5 --user-map 5=17
users/5/recordings/142/.part~: refused: SHA256SUMS does not have it
12 files imported, 1.5 GiB, 1 not transferred
"""


@click.command("import", cls=Command, exits=EXITS, sections={"Reasons": _WHYS}, example=_EXAMPLE)
@click.argument("source", metavar="SRC")
@click.option(
    "--user-map", multiple=True, metavar="OLD=NEW", help="What was user OLD's becomes NEW's; may be repeated."
)
@click.option("--replace", is_flag=True, help="Replace files that differ, and set limits and dates that do.")
@click.option("--files-only", is_flag=True, help="Set no limits and no lives, whatever the manifest says.")
@click.option(
    "--rules", type=LocalPath(), metavar="FILE", help="SRC has another layout, which these rules map: write a plan."
)
@click.option(
    "--output", "-o", "plan", type=LocalPath(), metavar="FILE", default="import.plan", show_default=True,
    help="Write the plan of --rules here.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a plan that was edited, or whose run has begun.")
@click.option("--download", is_flag=True, help="Of s3://: read what has no checksum, to know it.")
@click.option("--dry-run", is_flag=True, help="Of s3://: only say what would be; limits are not asked.")
@store_options
@click.pass_context
def import_(
    ctx: click.Context,
    source: str,
    user_map: tuple[str, ...],
    replace: bool,
    files_only: bool,
    rules: Path | None,
    plan: Path,
    force: bool,
    download: bool,
    dry_run: bool,
) -> None:
    """Bring a tree with the structure of a store (`users/<id>/...`, `shared/...`) into the mount.

    SRC is a directory, such as `recfs export` made or the `storage/` of a program that has this structure, or `-`
    for a tar(1) stream on standard input, whose names begin with `users/` or `shared/`, too. What is there already
    and has the same bytes is left as it is, so an import that was broken off is simply run again; what differs is
    left too, and named, unless there is `--replace`.

    Each file is written beside its place and gets its name when recfs's own sha256 of it is that of what was read, and
    the one of `SHA256SUMS` where SRC has that. A stream has SHA256SUMS at its end: what is not in it as it came is
    removed again. Then the limits, dates, `keep` and notes of `recfs-manifest.json` are set: whoever wrote SRC says
    so, unless there is `--files-only`.

    Links are kept as links; those that lead out of their user's tree, names that recfs has no place for, hard
    links, devices and sparse files of a stream (`tar --sparse`) are refused. Files belong to whoever their user's
    files belong to (`recfs user`).
    """
    from recfs.core.migration.arrivals import parsed_user_map
    from recfs.migration.transfer.bringing import Bringing
    from recfs.migration.transfer.items import Outcome

    invocation = ctx.ensure_object(Invocation)
    if source.startswith("s3://"):
        if user_map or replace or files_only:
            raise click.UsageError("s3:// takes --rules, --download and --dry-run, and none of the other options")
        store = open_store(invocation)
        if rules is not None:
            import_by_rules(ctx, invocation, store, source, rules, download=download, dry_run=dry_run)
            return
        import_objects(ctx, invocation, store, source, download=download, dry_run=dry_run)
        return
    if download or dry_run:
        raise click.UsageError("--download and --dry-run are for s3://BUCKET/PREFIX")
    if rules is not None:
        if user_map or replace or files_only:
            raise click.UsageError("--rules writes a plan; --user-map, --replace and --files-only mean nothing to it")
        plan_by_rules(ctx, cwd.absolute(Path(source)), rules, plan, force=force)
        return
    users = parsed_user_map(user_map)
    side = side_of(open_store(invocation))
    teller, outcome = Teller("imported", json=invocation.json), Outcome()
    with opened_mount(side.need_mount()) as mount, _opened(source, users) as tree:
        bringing = Bringing(mount, side.ask, outcome, replace=replace, say=not files_only, user_map=users, tell=teller)
        bringing.bring(tree)
    teller.end(ctx, outcome)


@contextmanager
def _opened(source: str, user_map: Mapping[str, str]) -> Iterator[Source]:
    """What is to be imported. Raises RecfsError."""
    if source == "-":
        from recfs.migration.transfer.tars import TarSource

        yield TarSource(sys.stdin.buffer, user_map)
        return
    from recfs.migration.transfer.trees import TreeSource, open_tree

    path = cwd.absolute(Path(source))
    try:
        top = open_tree(path)
    except OSError as error:
        raise IoFailure(f"{path} cannot be read: {error.strerror}") from error
    try:
        try:
            tree = TreeSource(top, user_map)
        except OSError as error:
            raise IoFailure(f"{path}: {error.strerror}") from error
        yield tree
    finally:
        os.close(top)


__all__ = ["import_"]
