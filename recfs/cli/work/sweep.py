"""`recfs sweep`: clear away what has expired, now."""

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


@click.group(cls=Group)
def sweep() -> None:
    """Clear away what has expired."""


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
