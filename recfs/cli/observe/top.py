"""`recfs top`: what goes on in a mounted store, as it happens."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from recfs.cli.common import output
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import Duration
from recfs.cli.common.store import Store, open_store
from recfs.core.observing.lines import line_of
from recfs.errors import DaemonNotRunning

_UPLOADS = 20
_ROWS = 10
_FIELDS = {
    "`requests`": "of the kernel, by kind: how many a second, how many of them failed, and how long one took",
    "`users`, `files`": (
        "requests and bytes a second, the busiest first: `read` and `written` by the daemon, `kernel` what grew of "
        "files that the kernel writes by itself (`passthrough`). What it reads by itself nobody sees. No user: shared"
    ),
    "`pipeline`": "closed files that wait for their commit, bytes to be hashed, what the home tree does not show yet",
    "`uploads`": "to S3, under way: bytes sent of all, and bytes a second",
}
_EXAMPLE = """
$ recfs top --once
1 s: 1,204 requests/s, 0 failed; 12 open (3 write, 3 by the kernel); 4 to commit, 0 B to hash, 2 to settle, 31 to save
Request  Per s  Failed    Mean
write      801       0   41 us
getattr    403       0   22 us

User  Requests/s  Read/s  Written/s  By the kernel/s
5            801     0 B    100 MiB          210 MiB
"""


@click.command("top", cls=Command, sections={"Fields": _FIELDS}, example=_EXAMPLE)
@click.option("--once", is_flag=True, help="Tell of one interval, and end.")
@click.option(
    "--interval", metavar="DURATION", type=Duration(0.1, 5.0), default="1s", show_default=True,
    help="How long one look is: 100ms to 5s.",
)  # fmt: skip
@store_options
@click.pass_obj
def top(invocation: Invocation, once: bool, interval: float) -> None:
    """Show what goes on: requests by kind, who moves how many bytes, busiest files, the pipeline, uploads, problems.

    On a terminal the page is drawn anew at each interval, until `q` or Ctrl-C; elsewhere, and where `$TERM` is
    unset or dumb, each interval is some lines, with `--json` one line of JSON. The daemon counts only while
    somebody looks, and stops within ten seconds of the last look.
    """
    store = open_store(invocation)
    try:
        store.client().peer_pid()
    except DaemonNotRunning as error:
        raise DaemonNotRunning(f"{error}: without one nothing goes on") from error
    looks = _looks(store, interval)
    if once or invocation.json or not (output.console().is_terminal and output.may_be_drawn_on()):
        for rates in looks:
            _tell(rates, as_json=invocation.json)
            if once:
                break
        return
    _watch(looks)


def _looks(store: Store, interval_s: float) -> Iterator[dict[str, Any]]:
    """What went on in each interval. Raises RecfsError."""
    before, sent = _look(store)
    while True:
        if _Keys.quits(interval_s):
            return
        after, now_sent = _look(store)
        yield _rates(before, after, sent, now_sent)
        before, sent = after, now_sent


def _look(store: Store) -> tuple[dict[str, Any], dict[str, Any]]:
    found = store.call("top")
    rows: list[dict[str, Any]] = []
    if store.config.s3 is not None:
        rows = store.call("queue", limit=_UPLOADS)["rows"]
    uploads = {str(row["id"]): row for row in rows if row["kind"] == "upload" and row["state"] == "running"}
    return found, uploads


def _rates(
    before: dict[str, Any], after: dict[str, Any], sent: dict[str, Any], now_sent: dict[str, Any]
) -> dict[str, Any]:
    """What went on between two looks, a second."""
    took_s = max(after["at_s"] - before["at_s"], 0.001)
    requests = {}
    for op, now in after["requests"].items():
        was = before["requests"].get(op, {"count": 0, "failed": 0, "seconds": 0.0})
        if now["count"] < was["count"]:
            was = {"count": 0, "failed": 0, "seconds": 0.0}  # counted anew since
        count = now["count"] - was["count"]
        if count:
            requests[op] = {
                "per_s": count / took_s,
                "failed": now["failed"] - was["failed"],
                "mean_s": (now["seconds"] - was["seconds"]) / count,
            }
    uploads = [
        {
            "path": row["path"],
            "sent_bytes": row["sent_bytes"],
            "size_bytes": row["size_bytes"],
            "per_s": max(0, row["sent_bytes"] - sent.get(number, row)["sent_bytes"]) / took_s,
        }
        for number, row in now_sent.items()
    ]
    return {
        "took_s": took_s,
        "requests": dict(sorted(requests.items(), key=lambda each: -each[1]["per_s"])),
        "users": _doing(before["users"], after["users"], "user", took_s),
        "files": _doing(before["files"], after["files"], "ino", took_s),
        "open": after["open"],
        "pipeline": after["pipeline"],
        "uploads": uploads,
        "problems": after["problems"],
    }


_COUNTED = ("requests", "read_bytes", "written_bytes", "kernel_bytes")


def _doing(before: list[dict[str, Any]], after: list[dict[str, Any]], key: str, took_s: float) -> list[dict[str, Any]]:
    known = {each[key]: each for each in before}
    told = []
    for now in after:
        was = known.get(now[key], {})
        rates = {name: max(0, now[name] - was.get(name, 0)) / took_s for name in _COUNTED}
        if any(rates.values()):
            told.append({name: value for name, value in now.items() if name not in _COUNTED} | rates)
    return sorted(told, key=lambda each: (-sum(each[name] for name in _COUNTED[1:]), -each["requests"]))


# --- lines ---------------------------------------------------------------------------------------------------------


def _tell(rates: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(line_of(rates))
    else:
        click.echo(_summary(rates))
        for title, columns, rows in _tables(rates):
            click.echo()
            output.print_table(columns, rows, right=columns[1:], title=title)
        for problem in rates["problems"]:
            click.echo(f"problem: {output.show_name(problem)}")
        click.echo()
    sys.stdout.flush()


def _summary(rates: dict[str, Any]) -> str:
    requests, opened, pipeline = rates["requests"].values(), rates["open"], rates["pipeline"]
    per_s, failed = sum(each["per_s"] for each in requests), sum(each["failed"] for each in requests)
    return (
        f"{rates['took_s']:.1f} s: {per_s:,.0f} requests/s, {failed:,} failed; {opened['handles']:,} open"
        f" ({opened['writers']:,} write, {opened['kernel']:,} by the kernel); {pipeline['sealing']:,} to commit,"
        f" {output.size(pipeline['hashing_bytes'])} to hash, {pipeline['settling']:,} to settle,"
        f" {pipeline['dirty']:,} to save"
    )


_Columns = tuple[str, ...]


def _tables(rates: dict[str, Any]) -> Iterator[tuple[str, _Columns, list[tuple[str, ...]]]]:
    """All tables that have rows."""
    requests: list[tuple[str, ...]] = [
        (op, f"{each['per_s']:,.0f}", f"{each['failed']:,}", _mean(each["mean_s"]))
        for op, each in list(rates["requests"].items())[:_ROWS]
    ]
    moved = ("Requests/s", "Read/s", "Written/s", "By the kernel/s")
    users: list[tuple[str, ...]] = [
        (output.show_name(each["user"]) or "nobody", *_moved(each)) for each in rates["users"][:_ROWS]
    ]
    files: list[tuple[str, ...]] = [(_name(each["path"]), *_moved(each)) for each in rates["files"][:_ROWS]]
    hashing: list[tuple[str, ...]] = [
        (_name(each["path"]), output.size(each["done_bytes"]), output.size(each["total_bytes"]))
        for each in rates["pipeline"].get("files", [])[:_ROWS]
    ]
    uploads: list[tuple[str, ...]] = [
        (_name(each["path"]), output.size(each["sent_bytes"]), output.size(each["size_bytes"]), _size(each["per_s"]))
        for each in rates["uploads"][:_ROWS]
    ]
    tables: list[tuple[str, _Columns, list[tuple[str, ...]]]] = [
        ("Requests", ("Request", "Per s", "Failed", "Mean"), requests),
        ("Users", ("User", *moved), users),
        ("Files", ("File", *moved), files),
        ("Hashed", ("File", "Done", "Of"), hashing),
        ("Uploads", ("File", "Sent", "Of", "Per s"), uploads),
    ]
    yield from (table for table in tables if table[2])


def _name(path: str | None) -> str:
    return output.show_name(path) if path is not None else "?"


def _size(value: float) -> str:
    return output.size(round(value))


def _moved(each: dict[str, Any]) -> tuple[str, ...]:
    return f"{each['requests']:,.0f}", *(_size(each[name]) for name in _COUNTED[1:])


def _mean(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} us" if seconds < 0.01 else f"{seconds * 1e3:,.0f} ms"


# --- a terminal ----------------------------------------------------------------------------------------------------


class _Keys:
    """Whether somebody pressed `q`, where keys come one by one."""

    one_by_one = False

    @classmethod
    @contextmanager
    def reading(cls) -> Iterator[None]:
        """Have keys come one by one, if there are any."""
        import termios
        import tty

        if not sys.stdin.isatty():
            yield
            return
        fd = sys.stdin.fileno()
        was = termios.tcgetattr(fd)
        try:
            tty.setcbreak(fd)
            cls.one_by_one = True
            yield
        finally:
            cls.one_by_one = False
            termios.tcsetattr(fd, termios.TCSADRAIN, was)

    @classmethod
    def quits(cls, seconds: float) -> bool:
        """Wait so long, or until it is pressed."""
        if not cls.one_by_one:
            time.sleep(seconds)
            return False
        import os
        import select

        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            if select.select([sys.stdin], [], [], left_s)[0] and os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b""):
                return True
        return False


def _watch(looks: Iterator[dict[str, Any]]) -> None:
    out = output.console()
    try:
        with _Keys.reading(), Live(console=out, screen=True, auto_refresh=False) as live:
            live.update(Text("looking ..."), refresh=True)
            for rates in looks:
                live.update(_page(rates), refresh=True)
    except KeyboardInterrupt:
        return  # it is how one leaves


def _page(rates: dict[str, Any]) -> RenderableType:
    parts: list[RenderableType] = [Text(_summary(rates), style="bold")]
    for title, columns, rows in _tables(rates):
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in columns:
            first = column == columns[0]
            table.add_column(column, justify="left" if first else "right", no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*map(Text, row))
        parts += [Text(), table]
    parts += [Text(f"problem: {output.show_name(problem)}", style="bold red") for problem in rates["problems"]]
    return Group(*parts)
