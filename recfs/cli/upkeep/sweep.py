"""`recfs sweep`: clear away what has expired, now; and tell what the daemon looks at by itself."""

from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import open_store

_SWEPT = """
$ recfs sweep temp --dry-run
Job              Age  Size  Files  Verdict  Why
temp/5/77  246.592ms   2 B      1  kept     last change 246.592ms ago, max_age 1d: due in 23h 59m
0 of 1 jobs would be removed, 0 B
"""


_LISTED = """
$ recfs sweep list
Name        Every  Last (UTC)            Took  Next  Result
memory         1s  2026-11-21 09:03:15     0s  998ms  nothing to do
clock          2s  2026-11-21 09:03:14     0s  1.4s   nothing to do
temp           5m  2026-11-21 09:01:02  12ms  2m 47s  3 removed
trash          5m  2026-11-21 09:01:02     0s  2m 47s  failed: cannot read the catalogue: disk I/O error
"""


@click.group(cls=Group)
def sweep() -> None:
    """Clear away what has expired, and show what is looked at now and then."""


@sweep.command("temp", example=_SWEPT)
@click.option("--dry-run", is_flag=True, help="Only say what would go, and why the rest stays.")
@store_options
@click.pass_obj
def temp(invocation: Invocation, dry_run: bool) -> None:
    """Remove the jobs in `temp/` whose last change is older than `[temp].max_age`.

    The daemon does so by itself every `[temp].sweep_interval`.
    """
    result = open_store(invocation).call("sweep_temp", dry_run=dry_run)
    if invocation.json:
        output.emit_json(result)
        return
    jobs = result["jobs"]
    if jobs:
        output.print_table(
            ("Job", "Age", "Size", "Files", "Verdict", "Why"),
            [
                (
                    output.show_name(job["path"]),
                    output.duration(job["age_s"]),
                    output.size(job["rbytes"]),
                    output.count(job["rfiles"]),
                    job["action"],
                    output.show_name(job["reason"]),
                )
                for job in jobs
            ],
            right=("Age", "Size", "Files"),
        )
    expired = [job for job in jobs if job["action"] == "expired"]
    freed = output.size(sum(job["rbytes"] for job in expired))
    verb = "would be removed" if dry_run else "removed"
    output.say(f"{len(expired):,} of {len(jobs):,} jobs {verb}, {freed}")


@sweep.command("list", example=_LISTED)
@store_options
@click.pass_obj
def list_(invocation: Invocation) -> None:
    """Show what the daemon looks at now and then, each with its last run, its result, and the next run.

    One that fails or hangs stops no other: it is told as a problem in `recfs status`, and tried again. Needs a daemon.
    """
    sweeps = open_store(invocation).call("sweep_list")["sweeps"]
    if invocation.json:
        output.emit_json(sweeps)
        return
    output.print_table(
        ("Name", "Every", "Last (UTC)", "Took", "Next", "Result"),
        [
            (
                each["name"],
                output.duration(each["every_s"]),
                output.moment(each["last_ns"]),
                output.duration(each["took_s"]),
                _next(each),
                output.show_name(each["result"] or "-"),
            )
            for each in sweeps
        ],
        right=("Every", "Took"),
    )


def _next(sweep: dict[str, Any]) -> str:
    if sweep["running_s"] is not None:
        return f"running for {output.duration(sweep['running_s'])}"
    return "when due" if sweep["next_s"] is None else output.duration(sweep["next_s"])
