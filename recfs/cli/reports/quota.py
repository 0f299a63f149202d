"""`recfs quota`: show, set and check what users may store."""

from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import SIZE_UNIT, UserId
from recfs.cli.common.store import open_store

USER_COLUMNS = ("User", "Used", "Of", "Files", "Of files", "File size", "Uploads", "Of uploads", "Month")
USER_NUMBERS = USER_COLUMNS[1:-1]
_OWN_MARK = "*"


class Limit(click.ParamType[int | str]):
    """A limit: a number or size, `unlimited`, or `default` for what recfs.conf says."""

    name = "limit"

    def __init__(self, *, is_size: bool) -> None:
        self._is_size = is_size
        self.unit = SIZE_UNIT if is_size else "a whole number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value).strip()
        if text.lower() in ("unlimited", "default"):
            return text.lower()
        try:
            return self._parse(text)
        except ValueError as exc:
            self.fail(f"{exc}; or write `unlimited` or `default`", param, ctx)

    def _parse(self, text: str) -> int:
        from recfs.core.units import MAX_SIZE_BYTES, parse_size

        if text.startswith("-") and text[1:2].isdigit():
            raise ValueError(f"a limit cannot be negative: {text!r}")
        if self._is_size:
            return parse_size(text)
        if not (text.isascii() and text.isdigit()) or int(text[:20]) > MAX_SIZE_BYTES or len(text) > 19:
            raise ValueError(f"not a whole number below 2^63: {text[:64]!r}")
        return int(text)


def user_row(user: dict[str, Any]) -> tuple[str, ...]:
    """Return a <user> of the control protocol as a row of USER_COLUMNS; own limits carry a star."""
    limits, own = user["limits"], user["own_limits"]

    def limit(key: str, *, is_size: bool) -> str:
        text = output.size(limits[key]) if is_size else output.count(limits[key])
        return text + (_OWN_MARK if own.get(key) is not None else "")

    return (
        user["user"],
        output.size(user["used_bytes"]),
        limit("max_bytes", is_size=True),
        output.count(user["used_files"]),
        limit("max_files", is_size=False),
        limit("max_file_size", is_size=True),
        output.count(user["month_uploads"]),
        limit("max_monthly_uploads", is_size=False),
        user["month"],
    )


def _print_users(users: list[dict[str, Any]]) -> None:
    if not users:
        output.say("no users")
        return
    output.print_table(USER_COLUMNS, [user_row(user) for user in users], right=USER_NUMBERS)
    for user in users:
        if user.get("trashed_bytes"):
            output.say(f"{user['user']}: {output.size(user['trashed_bytes'])} in the trash count as well")
    if any(value is not None for user in users for value in user["own_limits"].values()):
        output.say(f"{_OWN_MARK} the user's own limit; the others are the defaults of recfs.conf")


_SET = """
$ recfs quota set 5 --max-bytes 4MB
User   Used        Of  Files   Of files  File size  Uploads  Of uploads  Month
5     3 MiB  3.8 MiB*      2  unlimited  unlimited        1   unlimited  2026-11
* the user's own limit; the others are the defaults of recfs.conf
$ recfs quota set 5 --max-bytes -1
Usage: recfs quota set [OPTIONS] USER
Try 'recfs quota set --help'.
recfs: Invalid value for '--max-bytes': a limit cannot be negative: '-1'; or write `unlimited` or `default`
"""
_CHECKED = """
$ recfs quota check
1 user and 4 files checked: all counters are right
"""


@click.group(cls=Group)
def quota() -> None:
    """Show, set and check users' quotas."""


@quota.command("show")
@click.argument("user", required=False, type=UserId())
@store_options
@click.pass_obj
def show(invocation: Invocation, user: str | None) -> None:
    """Show usage and limits of USER, or of all who have files, uploads of this month, or limits of their own."""
    users = open_store(invocation).call("quota_show", user=user)
    if invocation.json:
        output.emit_json(users)
    else:
        _print_users(users)


@quota.command("set", example=_SET)
@click.argument("user", type=UserId())
@click.option("--max-bytes", type=Limit(is_size=True), metavar="SIZE", help="All files together, `temp/<id>` included.")
@click.option("--max-files", type=Limit(is_size=False), metavar="N", help="Number of files.")
@click.option("--max-file-size", type=Limit(is_size=True), metavar="SIZE", help="A single file.")
@click.option(
    "--max-monthly-uploads",
    type=Limit(is_size=False),
    metavar="N",
    help="Files `source.<ext>` made directly in a recording, per calendar month (UTC).",
)
@store_options
@click.pass_context
def set_(ctx: click.Context, /, user: str, **limits: int | str | None) -> None:
    """Set limits of USER, who need not exist yet.

    Each is a value, `unlimited`, or `default` (what the configuration says). They hold for the next byte written, and
    are on stable storage when the command returns.
    """
    given = {key: value for key, value in limits.items() if value is not None}
    if not given:
        raise click.UsageError("nothing to set: give at least one limit, such as --max-bytes 10GiB", ctx)
    invocation = ctx.ensure_object(Invocation)
    result = open_store(invocation).call("quota_set", user=user, **given)
    if invocation.json:
        output.emit_json(result)
    else:
        _print_users([result])


@quota.command("check", exits={ExitCode.PROBLEMS: "they differ and were not repaired"}, example=_CHECKED)
@click.option("--repair", is_flag=True, help="Correct the counters, also while files change.")
@store_options
@click.pass_context
def check(ctx: click.Context, repair: bool) -> None:
    """Prove the usage counters against the files: add everything up anew, directories' totals included."""
    invocation = ctx.ensure_object(Invocation)
    result = open_store(invocation).call("quota_check", repair=repair)
    differences, repaired = result["differences"], result["repaired"]
    if invocation.json:
        output.emit_json(result)
    else:
        if differences:
            output.print_table(
                ("Counter", "Recorded", "Actual"),
                [
                    (output.show_name(str(each["what"])), str(each["recorded"]), str(each["actual"]))
                    for each in differences
                ],
                right=("Recorded", "Actual"),
            )
        users, files = result["checked_users"], result["checked_files"]
        checked = f"{users:,} user{'s' * (users != 1)} and {files:,} file{'s' * (files != 1)} checked"
        if not differences:
            output.say(f"{checked}: all counters are right", style="green")
        elif repaired:
            output.say(f"{checked}: {len(differences):,} differences repaired", style="yellow")
        else:
            output.say(
                f"{checked}: {len(differences):,} differences; `recfs quota check --repair` corrects them",
                style="bold red",
            )
    if differences and not repaired:
        ctx.exit(ExitCode.PROBLEMS)
