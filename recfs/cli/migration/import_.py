"""`recfs import`: a tree that has the structure of a store already comes into one."""

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
from recfs.cli.common.store import open_store
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


@click.command("import", cls=Command, exits=EXITS, sections={"What is told": _WHYS}, example=_EXAMPLE)
@click.argument("source", metavar="SRC")
@click.option(
    "--user-map", multiple=True, metavar="OLD=NEW", help="What was user OLD's becomes NEW's; may be repeated."
)
@click.option("--replace", is_flag=True, help="Replace files that differ, and set limits and dates that do.")
@click.option("--files-only", is_flag=True, help="Set no limits and no lives, whatever the manifest says.")
@store_options
@click.pass_context
def import_(ctx: click.Context, source: str, user_map: tuple[str, ...], replace: bool, files_only: bool) -> None:
    """Bring a tree with the structure of a store (`users/<id>/...`, `shared/...`) into the mount.

    SRC is a directory, such as `recfs export` made or the `storage/` of a program that has this structure, or `-` for
    a tar(1) stream on standard input. What is there already and has the same bytes is left as it is, so an import
    that was broken off is simply run again; what differs is left too, and named, unless there is `--replace`.

    Each file is written beside its place and gets its name when recfs's own sha256 of it is that of what was read, and
    the one of `SHA256SUMS` where SRC has that. A stream has SHA256SUMS at its end: what is not in it as it came is
    removed again. Then the limits, dates, `keep` and notes of `recfs-manifest.json` are set: whoever wrote SRC says
    so, unless there is `--files-only`.

    Links are kept as links; those that lead out of their user's tree, names that recfs has no place for, hard links
    and devices are refused. Files belong to whoever their user's files belong to (`recfs user`).
    """
    from recfs.core.migration.arrivals import parsed_user_map
    from recfs.migration.transfer.bringing import Bringing
    from recfs.migration.transfer.items import Outcome

    invocation = ctx.ensure_object(Invocation)
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
