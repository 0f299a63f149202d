"""`recfs trash`: what was deleted or overwritten, and how it comes back."""

from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH, Duration
from recfs.cli.common.store import Store, locate, open_store
from recfs.errors import NotFound

_WHAT = click.argument("what", nargs=-1, metavar="[NUMBER|PATH]...")
_SINCE = click.option(
    "--since", type=Duration(), metavar="DURATION", help="Only what was deleted within that time, such as 2h."
)
_USER = click.option("--user", metavar="ID", help="Only what was this user's: in users/ID and temp/ID.")
_MOST_DIGITS = 100
_OLDER = click.option("--older", type=Duration(), metavar="DURATION", help="Only what was deleted longer ago.")

_LISTED = """
$ recfs trash list users/5
No  Deleted     Kept for  Kind  Size      Path
17  3m 12s ago  6d 23h    file  79.2 KiB  users/5/recordings/142/audio.mp3
18  3m 12s ago  6d 23h    S3    29 MiB    users/5/recordings/142/video.mp4
19  3m 12s ago  6d 23h    dir   -         users/5/recordings/142
3 entries, 29.1 MiB
"""
_RESTORED = """
$ recfs trash restore users/5/recordings/142
2 files restored, 29.1 MiB
$ recfs trash restore --user 5 --since 1h
14 files restored, 310 MiB
$ recfs trash restore 17 --to users/5/recordings/142/old-audio.mp3
1 file restored, 79.2 KiB
"""


@click.group(cls=Group)
def trash() -> None:
    """Show, bring back and give up what was deleted or overwritten.

    `[trash].retention` says how long it is kept: by default not at all. Directories, links and extended attributes are
    kept as well. What only S3 had stays there meanwhile (kind S3), and comes back without a transfer. What is kept
    takes its room on the disk or in S3; it counts towards no quota unless `[trash].charged` says so. Beyond a user's
    `[trash].max_metadata` what was deleted first goes early.
    """


@trash.command("list", example=_LISTED)
@click.argument("path", required=False, type=ANY_PATH)
@_USER
@_SINCE
@_OLDER
@store_options
@click.pass_obj
def list_(
    invocation: Invocation, path: Path | None, user: str | None, since: float | None, older: float | None
) -> None:
    """Show what is in the trash: all of it, or what was at PATH and below.

    Of a file that was overwritten several times each version has a number; the highest is the newest. The times are
    those that passed while the machine ran. A path that ends with "/…" is the beginning of one that was too long to be
    kept whole: `recfs trash restore NUMBER --to PATH` brings such a file back.
    """
    store, inside = _at(invocation, path)
    asked = {"path": inside, "user": user, "since_s": since, "older_s": older}
    result = store.call("trash_list", **asked)
    while (following := result.pop("next", None)) is not None:  # in pages, so that the daemon holds nobody up
        page = store.call("trash_list", **asked, after=following)
        result = page | {"entries": result["entries"] + page["entries"]}
    if invocation.json:
        output.emit_json(result)
        return
    entries = result["entries"]
    if not entries:
        kept = "" if result["retention_s"] else "; [trash] retention is 0s: nothing is kept"
        output.say(f"nothing there{kept}")
        return
    output.print_table(
        ("No", "Deleted", "Kept for", "Kind", "Size", "Path"),
        [
            (
                str(each["number"]),
                f"{output.duration(each['age_s'])} ago",
                output.duration(each["left_s"]),
                _KIND.get(each["kind"]) or ("S3" if each["in"] == "s3" else "file"),
                output.size(each["size_bytes"]) if each["kind"] == "file" else "-",
                output.show_name(each["path"]) + ("…" if each["path"].endswith("/") else ""),
            )
            for each in entries
        ],
        right=("No",),
    )
    size = output.size(sum(each["size_bytes"] for each in entries))
    output.say(f"{output.number_of(len(entries), 'entry', 'entries')}, {size}")


@trash.command("restore", exits={ExitCode.PROBLEMS: "something could not be restored; it is named"}, example=_RESTORED)
@_WHAT
@_USER
@_SINCE
@click.option("--to", type=ANY_PATH, metavar="PATH", help="Where one version is to come, if not to its old path.")
@click.option("--force", is_flag=True, help="Replace a file that is there by now; it goes to the trash in turn.")
@store_options
@click.pass_context
def restore(
    ctx: click.Context, what: tuple[str, ...], user: str | None, since: float | None, to: Path | None, force: bool
) -> None:
    """Bring files back, with their times, owner, mode and checksum.

    Give the numbers that `recfs trash list` shows, or paths: of each file that was there or below, the version that was
    deleted last comes back; or all that was a user's, or was deleted within some time. Below a path that is everything
    the trash has, also what was deleted earlier, one by one: with `--since` it is what went lately. Directories come
    back as they were, or are made anew, as the file's owner. The quota has to have room.
    """
    invocation = ctx.ensure_object(Invocation)
    if not (what or user or since):
        raise click.UsageError("give the numbers that `recfs trash list` shows, or paths, --user or --since")
    target = locate(invocation, to) if to is not None else None
    results = [
        (target.store if target is not None else store).call(
            "trash_restore", **chosen, to=target.path if target is not None else None, force=force
        )
        for store, chosen in _chosen(invocation, what, user=user, since_s=since)
    ]
    _say(ctx, results, "restored")


@trash.command("purge", exits={ExitCode.PROBLEMS: "something could not be removed; it is named"})
@_WHAT
@_USER
@_SINCE
@_OLDER
@click.option("--all", "every", is_flag=True, help="All that is in the trash.")
@store_options
@click.pass_context
def purge(
    ctx: click.Context, what: tuple[str, ...], user: str | None, since: float | None, older: float | None, every: bool
) -> None:
    """Remove for good what is in the trash: by number, by path (all versions there and below), user, age, or all."""
    invocation = ctx.ensure_object(Invocation)
    chooses = bool(what) or any(each is not None for each in (user, since, older))
    if chooses == every:
        raise click.UsageError("give numbers, paths, --user, --since or --older, or else --all")
    asked = [
        store.call("trash_purge", **chosen, all=every)
        for store, chosen in _chosen(invocation, what, user=user, since_s=since, older_s=older)
    ]
    _say(ctx, asked, "removed")


def _at(invocation: Invocation, path: Path | None) -> tuple[Store, str | None]:
    if path is None:
        return open_store(invocation), None
    place = locate(invocation, path)
    return place.store, place.path or None


_KIND = {"dir": "dir", "symlink": "link"}


def _chosen(invocation: Invocation, what: tuple[str, ...], **by: Any) -> list[tuple[Store, dict[str, Any]]]:
    """What is to be asked, and whom: once for all numbers, and once for each path, or else by the rest alone."""
    by = {key: value for key, value in by.items() if value is not None}
    if not what:
        return [(open_store(invocation), by)]
    numbers = [_number(each) for each in what if each.isascii() and each.isdigit()]
    paths = [locate(invocation, Path(each)) for each in what if not (each.isascii() and each.isdigit())]
    chosen: list[tuple[Store, dict[str, Any]]] = [(place.store, {"path": place.path, **by}) for place in paths]
    return ([(open_store(invocation), {"ids": numbers, **by})] if numbers else []) + chosen


def _number(text: str) -> int:
    """Raises NotFound for one that no version can have; of thousands of digits Python makes no number."""
    if len(text) > _MOST_DIGITS or int(text) >= 1 << 63:
        raise NotFound(f"the trash has no number {text[:40]}")
    return int(text)


def _say(ctx: click.Context, results: list[dict[str, Any]], done: str) -> None:
    total = {
        key: sum((result[key] for result in results), start=type(results[0][key])())
        for key in ("files", "bytes", "kept", "kept_files")
    }
    if ctx.ensure_object(Invocation).json:
        output.emit_json(total | {"restored": [each for result in results for each in result.get("restored", ())]})
    else:
        folders = len([each for result in results for each in result.get("restored", ())]) - total["files"]
        and_folders = f" and {output.number_of(folders, 'directory', 'directories')}" if folders > 0 else ""
        output.say(f"{output.number_of(total['files'], 'file')}{and_folders} {done}, {output.size(total['bytes'])}")
        output.say_kept(total)
    if total["kept_files"]:
        ctx.exit(ExitCode.PROBLEMS)
