"""`recfs evict`, `recfs fetch`, `recfs pin`, `recfs unpin`: which files in S3 have a copy here."""

from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH
from recfs.cli.common.store import locate

_PATHS = click.argument("path", nargs=-1, required=True, type=ANY_PATH)
_RECURSIVE = click.option("-r", "--recursive", is_flag=True, help="Everything below a directory.")


_EVICTED = """
$ recfs evict -r users/5
1 file evicted, 79.2 KiB, 1 were evicted before
users/5/recordings/142/.video.part: it is committed: only what is stored in S3 can leave; `recfs route explain` \
tells where it goes
"""


@click.command(cls=Command, exits={ExitCode.PROBLEMS: "a copy had to stay; it is named"}, example=_EVICTED)
@_PATHS
@_RECURSIVE
@store_options
@click.pass_context
def evict(ctx: click.Context, path: tuple[Path, ...], recursive: bool) -> None:
    """Remove the local copies of files that S3 holds.

    They are fetched again when somebody reads them. The cache does so by itself when it needs room. What is not in S3,
    open or pinned stays, and so does what S3 does not have any more: it is asked about each.
    """
    _each(ctx, "evict", path, recursive, "evicted", "were evicted before")


@click.command(cls=Command, exits={ExitCode.PROBLEMS: "a file could not be brought; each says why"})
@_PATHS
@_RECURSIVE
@store_options
@click.pass_context
def fetch(ctx: click.Context, path: tuple[Path, ...], recursive: bool) -> None:
    """Bring files back from S3, and wait until they are here. It stops at `[cache].max_size`."""
    _each(ctx, "fetch", path, recursive, "fetched", "were here before")


@click.command(cls=Command, exits={ExitCode.PROBLEMS: "one could not be pinned or fetched"})
@_PATHS
@_RECURSIVE
@store_options
@click.pass_context
def pin(ctx: click.Context, path: tuple[Path, ...], recursive: bool) -> None:
    """Keep a local copy of files in S3, whatever else needs room. Files that are not here are fetched.

    It holds until `recfs unpin`, also when the file is changed. Pinned files may take `[cache].max_size` together.
    """
    _each(ctx, "pin", path, recursive, "pinned", "were pinned before", pinned=True)


@click.command(cls=Command)
@_PATHS
@_RECURSIVE
@store_options
@click.pass_context
def unpin(ctx: click.Context, path: tuple[Path, ...], recursive: bool) -> None:
    """Let the local copies of files go again when room is needed."""
    _each(ctx, "pin", path, recursive, "unpinned", "were not pinned", pinned=False)


def _each(
    ctx: click.Context, method: str, paths: tuple[Path, ...], recursive: bool, done: str, before: str, **params: Any
) -> None:
    invocation = ctx.ensure_object(Invocation)
    places = [locate(invocation, path) for path in paths]
    results = [place.store.call(method, path=place.path, recursive=recursive, **params) for place in places]
    total = _sum(results)
    fetched = _sum([result["fetched"] for result in results if "fetched" in result])
    if invocation.json:
        output.emit_json(total | ({"fetched": fetched} if method == "pin" else {}))
    else:
        already = f", {total['already']:,} {before}" if total["already"] else ""
        output.say(f"{_files(total['files'])} {done}, {output.size(total['bytes'])}{already}")
        if fetched["files"]:
            output.say(f"{_files(fetched['files'])} fetched, {output.size(fetched['bytes'])}")
        for each in (total, fetched):
            output.say_kept(each)
    if total["kept_files"] or fetched["kept_files"]:
        ctx.exit(ExitCode.PROBLEMS)


def _sum(results: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = {key: sum(result[key] for result in results) for key in ("files", "bytes", "already", "kept_files")}
    return numbers | {"kept": [each for result in results for each in result["kept"]]}


def _files(number: int) -> str:
    return f"{number:,} file{'s' * (number != 1)}"
