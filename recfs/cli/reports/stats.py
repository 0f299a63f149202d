"""`recfs stats`: what there is, of what kind, where, how old, and what it costs."""

from collections.abc import Iterable
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import Duration, UserId
from recfs.cli.common.store import open_store
from recfs.cli.reports.trend import FIELDS as TREND_FIELDS
from recfs.cli.reports.trend import show_trend
from recfs.core.figures.categories import Category

_FIELDS = {
    "`files`, `bytes`, `average_bytes`, `oldest_ns`, `newest_ns`": (
        "files without symbolic links, the sum of their sizes, and when the first and the last was written (mtime)"
    ),
    "`categories`": (
        "by place, then by name: `temp/`, `shared/`, `users/<id>/thumbnails/`; in a recording `source.<ext>`, what "
        "lies in a directory `video`, `audio`, `transcription`, `assets` or `thumbnails`, names with `transcript` "
        'or `thumbnail`, and else what the extension says (docs/semantics.md, "25. Figures")'
    ),
    "`stores`": "by where the bytes are: on the disk alone, on the disk and in S3, in S3 alone",
    "`classes`, `costs`": (
        "by storage class, and `local`: what is in both counts in both. What it costs a month, by `[prices]`; "
        "`unpriced` names classes that have no price"
    ),
    "`users`": (
        "what counts against the limits, and what is left (`left_*`, `null`: no limit); `files` and `bytes` are of "
        "this answer. `month_upload_bytes`: bytes of `source.<ext>` last written this month"
    ),
    "`ages`": (
        "recordings by days since any of their files was written (`unchanged_d`: 0, 30, 90, 365 or more) and by when "
        "they were processed, told by the mtime of their transcriptions: never, recently (90 days) or long ago"
    ),
    "`unread`": (
        "recordings by days since any of their files was last read or written here (`unread_d`: as above; `null`: not "
        "known, as of all without S3), and by when they were processed; only bands with recordings"
    ),
    "`archive`": (
        "recordings that `[[retention]]` has come of age for the archive, and of these what `unread` tells of all; "
        "`null`: no rule says when"
    ),
    "`counted`, `surveyed_ns`": (
        "whether `rows` were counted for this answer, or `counters` tell; and when `recordings`, `ages`, `unread`, "
        "`archive`, `duplicates`, `oldest_ns` and `newest_ns` were found out (`null`: they were not, and are `null` "
        "themselves)"
    ),
    "`duplicates`": (
        "with --duplicates, or as of the last survey: sets of files of the same sha256, how many files, what all but "
        "one of each set take, and the 20 sets that waste most with up to 5 of their paths"
    ),
}
_EXAMPLE = """
$ recfs stats
files        7, 63.4 MiB, 9.1 MiB on average
written      2026-11-03 09:12:44 to 2026-11-29 16:42:42
recordings   1

Categories
Category       Files      Bytes    Average
source             1   57.2 MiB   57.2 MiB
audio              1    6.1 MiB    6.1 MiB
transcription      2  120.1 KiB     60 KiB
shared             3    2.9 KiB      990 B
"""


@click.command(cls=Command, sections={"Fields": _FIELDS | TREND_FIELDS}, example=_EXAMPLE)
@click.option("--user", metavar="ID", type=UserId(), help="Only of this user's files, `temp/<id>` included.")
@click.option("--recording", metavar="ID", type=UserId(), help="Only of this recording of the user.")
@click.option("--category", type=click.Choice([each.value for each in Category]), help="Only files of this category.")
@click.option("--store", "where", type=click.Choice(["local", "s3"]), help="Only files that are on the disk, or in S3.")
@click.option("--duplicates", is_flag=True, help="Look for files of the same bytes, too: it takes longer.")
@click.option("--exact", is_flag=True, help="Count all files now, however many there are.")
@click.option(
    "--trend",
    metavar="DURATION",
    type=Duration(86_400.0, 3660 * 86_400.0),
    help="How it grew from day to day in so long, 30d say, with --user, --category or --store.",
)
@store_options
@click.pass_context
def stats(
    ctx: click.Context,
    /,
    user: str | None,
    recording: str | None,
    category: str | None,
    where: str | None,
    duplicates: bool,
    exact: bool,
    trend: float | None,
) -> None:
    """Show what there is: files and bytes by category, store and storage class, their age and what they cost.

    With a daemon, and without one. Up to 20,000 files are counted when it is asked for. Of more, counters tell: they
    are kept with the files, and always right. What no counter tells (when the first and the last file was written, how
    old recordings are, what may be archived) was found out by the last look through all files, once a day
    (`[stats].survey_every`), and it is said when that was.

    With --trend: what the counters said at the beginning of each day, and how that grew, by user, category, store and
    storage class, and uploads by month. The daemon remembers it (`[stats].keep`) of days on which it ran; growth over
    days of which nothing is known is told as one.
    """
    if recording is not None and user is None:
        raise click.UsageError("--recording is one of a user: add --user", ctx)
    if duplicates and (user or category or where):
        raise click.UsageError("--duplicates looks at the whole store: leave the others out", ctx)
    invocation = ctx.ensure_object(Invocation)
    if trend is not None:
        if recording or duplicates or exact:
            raise click.UsageError("--trend goes with --user, --category and --store: leave the others out", ctx)
        show_trend(invocation, round(trend // 86_400), user, category, where)
        return
    found = open_store(invocation).call(
        "stats", user=user, recording=recording, category=category, store=where, duplicates=duplicates, exact=exact
    )
    if invocation.json:
        output.emit_json(found)
        return
    output.print_facts(_facts(found))
    _sums("Categories", "Category", found["categories"])
    _sums("Stores", "Where", {name.replace("_", " "): each for name, each in found["stores"].items()})
    _classes(found)
    _ages(found["ages"] or [])
    _unread("Recordings by last use", found.get("unread") or [])
    _unread("Recordings for the archive, by last use", (found["archive"] or {}).get("unread", []))
    _users(found["users"])
    if found["duplicates"]:
        _worst(found["duplicates"]["worst"])


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    files = f"{found['files']:,}, {output.size(found['bytes'])}"
    if found["files"]:
        files += f", {output.size(found['average_bytes'])} on average"
    facts = [("files", files)]
    if found["newest_ns"] is not None:
        facts.append(("written", f"{output.moment(found['oldest_ns'])} to {output.moment(found['newest_ns'])}"))
    if found["recordings"] is not None:
        facts.append(("recordings", output.count(found["recordings"])))
    if archive := found["archive"]:
        facts.append(
            (
                "for the archive",
                f"{output.number_of(archive['recordings'], 'recording')}, {output.size(archive['bytes'])}",
            )
        )
    if twins := found["duplicates"]:
        told = (
            f"{output.number_of(twins['files'], 'file')} in {output.number_of(twins['sets'], 'set')} of the same bytes"
        )
        facts.append(("duplicates", f"{told}, {output.size(twins['wasted_bytes'])} too many"))
    if found["surveyed_ns"] is None:
        facts.append(("not told", "when files were written, and their age: add --exact"))
    elif found["counted"] == "counters":
        facts.append(("as of", f"{output.moment(found['surveyed_ns'])}: what stands beside numbers and bytes of files"))
    return facts


def _sums(title: str, column: str, sums: dict[str, Any]) -> None:
    rows = [
        (name, output.count(each["files"]), output.size(each["bytes"]), output.size(each["average_bytes"]))
        for name, each in sums.items()
        if each["files"]
    ]
    if rows:
        click.echo()
        output.print_table(
            (column, "Files", "Bytes", "Average"), rows, right=("Files", "Bytes", "Average"), title=title
        )


def _classes(found: dict[str, Any]) -> None:
    costs = found["costs"]
    if not found["classes"]:
        return
    price = f"{costs['currency']} a month".strip()
    rows = [
        (
            name,
            output.count(each["files"]),
            output.size(each["bytes"]),
            "-" if costs["by_class"][name] is None else f"{costs['by_class'][name]:,.2f}",
        )
        for name, each in found["classes"].items()
    ]
    if len(costs["unpriced"]) < len(rows):
        rows.append(("all", "", "", f"{costs['total']:,.2f}"))
    click.echo()
    output.print_table(
        ("Class", "Files", "Bytes", price), rows, right=("Files", "Bytes", price), title="Storage classes"
    )


def _ages(ages: list[dict[str, Any]]) -> None:
    bands = [each["unchanged_d"] for each in ages]
    rows = [
        (
            _since(each["unchanged_d"], bands),
            each["processed"].replace("_", " "),
            output.count(each["recordings"]),
            output.size(each["bytes"]),
        )
        for each in reversed(ages)
        if each["recordings"]
    ]
    if rows:
        click.echo()
        columns = ("Unchanged", "Processed", "Recordings", "Bytes")
        output.print_table(columns, rows, right=columns[2:], title="Recordings by age")


def _unread(title: str, bands: list[dict[str, Any]]) -> None:
    if all(each["unread_d"] is None for each in bands):
        return  # nothing is known that the table of ages does not say
    known = [each["unread_d"] for each in bands]
    rows = [
        (
            "not known" if each["unread_d"] is None else _since(each["unread_d"], known),
            each["processed"].replace("_", " "),
            output.count(each["recordings"]),
            output.size(each["bytes"]),
        )
        for each in sorted(bands, key=lambda each: -1 if each["unread_d"] is None else each["unread_d"], reverse=True)
    ]
    click.echo()
    columns = ("Unread", "Processed", "Recordings", "Bytes")
    output.print_table(columns, rows, right=columns[2:], title=title)


def _since(least_d: int, bands: Iterable[int | None]) -> str:
    """What recordings of *least_d* and more days are called, where there are *bands* that begin at these."""
    if least_d:
        return f"{least_d} d and more"
    next_d = min((each for each in bands if each), default=None)
    return f"less than {next_d} d" if next_d is not None else "any"


def _users(users: list[dict[str, Any]]) -> None:
    columns = ("User", "Used", "Left", "Files", "Left of files", "Uploads", "Left of uploads", "Uploaded")
    rows = [
        (
            each["user"],
            output.size(each["used_bytes"]),
            output.size(each["left_bytes"]),
            output.count(each["used_files"]),
            output.count(each["left_files"]),
            output.count(each["month_uploads"]),
            output.count(each["left_uploads"]),
            output.size(each["month_upload_bytes"]),
        )
        for each in users
    ]
    if rows:
        click.echo()
        output.print_table(columns, rows, right=columns[1:], title="Users, and uploads of this month")


def _worst(worst: list[dict[str, Any]]) -> None:
    rows = [
        (
            output.size(each["wasted_bytes"]),
            output.count(each["files"]),
            ", ".join(map(output.show_name, each["paths"])) + ", …" * (len(each["paths"]) < each["files"]),
        )
        for each in worst
    ]
    if rows:
        click.echo()
        output.print_table(("Too many", "Files", "Paths"), rows, right=("Too many", "Files"), title="Same bytes")
