"""`recfs stats --trend`: how a store grew from day to day."""

from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.options import Invocation
from recfs.cli.common.store import open_store

FIELDS = {
    "`days` of --trend": (
        "each day that is remembered: what there was when it began, and how much more (`grown_*`) at the next one, so "
        "many `days` later, or now"
    ),
    "`since`, `gaps` of --trend": (
        "the first day that is remembered; first and last day of each stretch of which nothing is"
    ),
    "`categories`, `users` of --trend": (
        'what there is now, and how much more than on the first of these days; `""`: nobody\'s'
    ),
    "`stores`, `classes` of --trend": (
        "the same by where the bytes are, and by storage class (`local`: on the disk), since `placed_since`; `classes` "
        "of a day are null before it"
    ),
    "`placed_since` of --trend": (
        "the first of these days of which it is known where the bytes were: earlier versions did not keep that"
    ),
    "`uploads` of --trend": (
        "files `source.<ext>` that are there, and their bytes, by the month in which they were last written"
    ),
}
_MOST = 20
_NONE = {"grown_bytes": 0}


def show_trend(invocation: Invocation, days: int, user: str | None, category: str | None, store: str | None) -> None:
    """Ask for it, and print it."""
    found = open_store(invocation).call("stats_trend", days=days, user=user, category=category, store=store)
    if invocation.json:
        output.emit_json(found)
        return
    if found["since"] is None:
        click.echo("nothing is remembered of these days yet: the daemon remembers each day that it is there")
        return
    columns = ("Day", "Files", "Bytes", "Files more", "Bytes more", "In all")
    first, rows = found["days"][0], []
    for each in found["days"]:
        name = (
            each["day"] if each["days"] == 1 else f"{each['day']} and {output.number_of(each['days'] - 1, 'day')} more"
        )
        in_all = each["bytes"] + each["grown_bytes"] - first["bytes"]
        rows.append((name, output.count(each["files"]), output.size(each["bytes"]), *_more(each), _signed(in_all)))
    output.print_table(
        columns, rows, right=columns[1:], title="At the beginning of each day (UTC), and what came in it"
    )
    for begin, end in found["gaps"]:
        click.echo(f"nothing is known of {begin}" + (f" to {end}" if end != begin else ""))
    for title, column, sums in (("Categories", "Category", found["categories"]), ("Users", "User", found["users"])):
        _grown(title, column, sums, found["since"])
    if found["placed_since"] is not None:
        stores = {name.replace("_", " "): each for name, each in found["stores"].items()}
        _grown("Stores", "Where", stores, found["placed_since"])
        _grown("Storage classes", "Class", found["classes"], found["placed_since"])
        _by_class(found["days"], list(found["classes"]))
    if found["uploads"]:
        click.echo()
        months = [
            (month, output.count(each["files"]), output.size(each["bytes"])) for month, each in found["uploads"].items()
        ]
        output.print_table(
            ("Month", "Uploads", "Bytes"), months, right=("Uploads", "Bytes"), title="Uploads that are there"
        )


def _grown(title: str, column: str, sums: dict[str, Any], since: str) -> None:
    columns = (column, "Files", "Bytes", "Files more", "Bytes more")
    rows = [
        (output.show_name(name) or "nobody", output.count(each["files"]), output.size(each["bytes"]), *_more(each))
        for name, each in list(sums.items())[:_MOST]
    ]
    if rows:
        click.echo()
        output.print_table(columns, rows, right=columns[1:], title=f"{title}, and what came since {since}")
    if len(sums) > _MOST:
        click.echo(f"{len(sums) - _MOST:,} more, which grew less (--json has them)")


def _by_class(days: list[dict[str, Any]], classes: list[str]) -> None:
    """What came each day in each class; where there is one, that is told already."""
    placed = [each for each in days if each["classes"] is not None]
    if len(classes) < 2:
        return
    rows = [
        (each["day"], *(_signed(each["classes"].get(name, _NONE)["grown_bytes"]) for name in classes))
        for each in placed
    ]
    click.echo()
    columns = ("Day", *map(output.show_name, classes))
    output.print_table(columns, rows, right=columns[1:], title="Bytes that came each day, by storage class")


def _more(each: dict[str, Any]) -> tuple[str, str]:
    return f"{each['grown_files']:+,}", _signed(each["grown_bytes"])


def _signed(value: int) -> str:
    return f"{'-' if value < 0 else '+'}{output.size(abs(value))}"
