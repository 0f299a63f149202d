"""`recfs sweep multiparts` and its like: what nobody needs any more, shown or cleared away."""

from __future__ import annotations

from typing import Any

import click

from recfs.cli.common import other_rules, output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import open_store
from recfs.cli.upkeep.sweep import run_and_wait, sweep, tell_run

__all__ = ["archive", "multiparts", "orphans", "sweep", "versions"]

_MULTIPARTS = """
$ recfs sweep multiparts --dry-run
Key                                   Begun       Upload
users/5/recordings/142/source.mp4     9d 4h ago   2~Yk3sQ
1 upload would be aborted
"""


_ARCHIVE = """
$ recfs sweep archive --dry-run
Path                               Size      Why
users/5/recordings/142/source.mp4  29.1 MiB  its storage class is STANDARD, not GLACIER_IR; rule 1 (users/**): goes \
to S3; its recording is older than archive_threshold 30d (rule 1)
1 file would be stored anew, 29.1 MiB
""".replace("\\\n", "")


@sweep.command("archive", exits={ExitCode.PROBLEMS: "the run failed, or was stopped"}, example=_ARCHIVE)
@click.option("--dry-run", is_flag=True, help="Only say which files would be stored anew, and why.")
@store_options
@click.pass_context
def archive(ctx: click.Context, dry_run: bool) -> None:
    """Give the objects of recordings that are old enough the storage class that their `[[retention]]` rule names.

    What has another one is fetched, if it is not here, and uploaded anew. The daemon does so by itself every
    `[recordings].sweep_interval`. Needs a daemon.
    """
    invocation = ctx.ensure_object(Invocation)
    store = open_store(invocation)
    other_rules.tell(invocation, store, "retention")
    if not dry_run:
        tell_run(ctx, run_and_wait(store, "archive"))
        return
    result = store.call("sweep_archive")
    if invocation.json:
        output.emit_json(result)
        return
    if result["moved"]:
        output.print_table(
            ("Path", "Size", "Why"),
            [
                (output.show_name(each["path"]), output.size(each["size_bytes"]), output.show_name(each["reason"]))
                for each in result["moved"]
            ],
            right=("Size",),
        )
    if result["more"]:
        output.say(f"and {result['more']:,} more")
    anew = result["steps"]["store anew"]
    output.say(f"{output.number_of(anew['files'], 'file')} would be stored anew, {output.size(anew['bytes'])}")
    output.say_kept(result)


@sweep.command(
    "multiparts", exits={ExitCode.PROBLEMS: "the run failed, or was stopped"}, example=_MULTIPARTS
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would be aborted.")
@store_options
@click.pass_context
def multiparts(ctx: click.Context, dry_run: bool) -> None:
    """Abort uploads in parts that were begun in the bucket and never finished: their parts cost as much as objects.

    Only those below the store's prefix, older than `[sweep].multiparts_age`, that the queue knows nothing of. The
    daemon does so by itself every `[sweep].multiparts_every`. Needs a daemon.
    """
    invocation = ctx.ensure_object(Invocation)
    store = open_store(invocation)
    if not dry_run:
        tell_run(ctx, run_and_wait(store, "multiparts"))
        return
    uploads = store.call("sweep_multiparts")["uploads"]
    if invocation.json:
        output.emit_json(uploads)
        return
    if uploads:
        output.print_table(
            ("Key", "Begun", "Upload"),
            [
                (output.show_name(each["key"]), f"{output.duration(each['age_s'])} ago", each["upload_id"])
                for each in uploads
            ],
        )
    output.say(f"{output.number_of(len(uploads), 'upload')} would be aborted")


_ORPHANS = """
$ recfs sweep orphans
Where    What   Size     Changed     If adopted  If deleted  Name, and why
home     bytes  4.1 MiB  3d 2h ago   adopt       lost+found  users/5/recordings/142/cut.mp4: no row has this name
staging  bytes  0 B      26d 4h ago  -           delete      .recfs/staging/c01d5e-7: half of a copy
home     row    29 MiB   -           -           -           users/5/recordings/9/video.mp4: its entry is not there
2 without a row, 4.1 MiB; 1 rows without bytes; 1,204 files looked at
"""


@sweep.command(
    "orphans",
    exits={
        ExitCode.PROBLEMS: "the run failed or was stopped, rows have lost their bytes, or a directory is not readable"
    },
    example=_ORPHANS,
)
@click.option("--adopt", is_flag=True, help="Make files of bytes that no row knows.")
@click.option("--delete", is_flag=True, help="Have go what is certainly nobody's.")
@store_options
@click.pass_context
def orphans(ctx: click.Context, adopt: bool, delete: bool) -> None:
    """Look for bytes that no row knows, and for rows whose bytes are gone: on the disk, and in the bucket.

    Without an option it only tells, and what either option would do. `--adopt` makes files of bytes where they lie,
    and of objects that recfs wrote; a file whose local copy is gone is in S3 alone then, and one whose object is gone
    is uploaded again. `--delete` removes halves of copies, what is left of removed files, and objects that recfs
    wrote, once they have been left alone for `[sweep].orphans_grace`; what lies in the home tree goes to
    `.recfs/lost+found` instead. Nothing is deleted that is older than a catalogue that was restored, and no row is
    ever removed.

    The daemon looks by itself every `[sweep].orphans_every`. Needs a daemon.
    """
    if adopt and delete:
        raise click.UsageError("--adopt or --delete, not both: what is adopted is nobody's no more")
    mode = "adopt" if adopt else "delete" if delete else "report"
    invocation = ctx.ensure_object(Invocation)
    store = open_store(invocation)
    ended = run_and_wait(store, "orphans" if mode == "report" else f"orphans-{mode}")
    found = store.call("sweep_orphans", mode=mode)
    if invocation.json:
        output.emit_json(found)
    else:
        _print_orphans(found, ended["result"] or "-")
    tell_run(ctx, ended, quiet=True)
    if found["missing"] or found.get("unread"):
        ctx.exit(ExitCode.PROBLEMS)


def _print_orphans(found: dict[str, Any], result: str) -> None:
    if found["found"]:
        output.print_table(
            ("Where", "What", "Size", "Changed", "If adopted", "If deleted", "Name, and why"),
            [
                (
                    each["where"],
                    each["what"],
                    output.size(each["size_bytes"]),
                    f"{output.duration(each['age_s'])} ago" if each["age_s"] is not None else "-",
                    each["adopt"],
                    each["delete"],
                    output.show_name(f"{each['name']}: {each['why']}"),
                )
                for each in found["found"]
            ],
            right=("Size",),
        )
    if found["more"]:
        output.say(f"and {found['more']:,} more")
    for why in found.get("unread", ()):
        output.say(f"not looked into: {output.show_name(why)}")
    output.say(f"{output.show_name(result)}; {output.number_of(found['files'], 'file')} looked at")


_VERSIONS = """
$ recfs sweep versions --dry-run
Path                                Size     Verdict  Why
users/5/recordings/142/topics_v12   3.1 MiB  kept     number 1 of the newest 2
users/5/recordings/142/topics_v11   3 MiB    kept     number 2 of the newest 2
users/5/recordings/142/topics_v2    2.9 MiB  removed  2 newer, 2 are kept
1 version would be removed, 2.9 MiB
"""


@sweep.command(
    "versions", exits={ExitCode.PROBLEMS: "the run failed, or was stopped"}, example=_VERSIONS
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only say what would go, and why the rest stays.")
@store_options
@click.pass_context
def versions(ctx: click.Context, dry_run: bool) -> None:
    """Of numbered versions that lie beside each other remove all but the last, as `[[versions]]` rules say.

    Numbers count as numbers, and may have gaps. One of which a file is open, or not committed, stays, and so does
    what changed within the rule's `min_age`. What goes, goes into the trash, where that keeps anything. The daemon
    does so by itself every `[sweep].versions_every`; without rules it removes nothing. Needs a daemon.
    """
    invocation = ctx.ensure_object(Invocation)
    store = open_store(invocation)
    other_rules.tell(invocation, store, "versions")
    if not dry_run:
        tell_run(ctx, run_and_wait(store, "versions"))
        return
    found = store.call("sweep_versions")
    if invocation.json:
        output.emit_json(found)
        return
    if found["versions"]:
        output.print_table(
            ("Path", "Size", "Verdict", "Why"),
            [
                (
                    output.show_name(each["path"]),
                    output.size(each["size_bytes"]),
                    "removed" if each["removes"] else "kept",
                    output.show_name(each["reason"]),
                )
                for each in found["versions"]
            ],
            right=("Size",),
        )
    if found["more"]:
        output.say(f"and {found['more']:,} more")
    output.say(f"{output.number_of(found['removed'], 'version')} would be removed, {output.size(found['bytes'])}")
