"""`recfs sweep`: clear away what has expired, now; and tell what the daemon looks at by itself."""

from typing import Any

import click

from recfs.cli.common import other_rules, output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Group
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.progress import ProgressLine, to_go
from recfs.cli.common.store import Store, open_store

_SWEPT = """
$ recfs sweep temp --dry-run
Job              Age  Size  Files  Verdict  Why
temp/5/77  246.592ms   2 B      1  kept     last change 246.592ms ago, max_age 1d: due in 23h 59m
0 of 1 jobs would be removed, 0 B
"""


_EXPIRED = """
$ recfs sweep expired --dry-run
Recording               Status   Action  Why
users/5/recordings/142  active   expire  last change 91d 2h ago, retention 90d (rule 1)
users/7/recordings/9    expired  none    expires_at 2026-11-01T00:00:00Z; grace 7d is over, but 1 file is open
1 expired, 0 removed, 0 active again; dry run: nothing is done
"""


_LISTED = """
$ recfs sweep list
Name        Every  Last (UTC)            Took  Next  Result
memory         1s  2026-11-21 09:03:15     0s  998ms  nothing to do
clock          2s  2026-11-21 09:03:14     0s  1.4s   nothing to do
temp           5m  2026-11-21 09:01:02  12ms  2m 47s  3 removed
trash          5m  2026-11-21 09:01:02     0s  2m 47s  failed: cannot read the catalogue: disk I/O error
"""


_HISTORY = """
$ recfs sweep history temp
Began (UTC)          Sweep  Outcome   Took  Asked  Result
2026-11-21 09:06:02  temp   nothing   1ms   -      nothing to do (12 times)
2026-11-21 08:01:02  temp   done      2.1s  -      3 removed
2026-11-20 21:14:40  temp   stopped   9.4s  yes    812 removed
"""
_RAN = """
$ recfs sweep run temp
temp: 3 removed, in 2.1s
"""
_SLICE_S = 1.0


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
    store = open_store(invocation)
    other_rules.tell(invocation, store, "temp.max_age")
    result = store.call("sweep_temp", dry_run=dry_run)
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


@sweep.command("expired", example=_EXPIRED)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@store_options
@click.pass_obj
def expired(invocation: Invocation, dry_run: bool) -> None:
    """Have recordings expire that are due, and remove those whose grace is over.

    The daemon does so by itself every `[recordings].sweep_interval`. Those that are due and stay all the same are
    named, with the reason.
    """
    store = open_store(invocation)
    hint = "; `recfs recording list` with the same --config goes by the file"
    other_rules.tell(invocation, store, *other_rules.LIVES, hint=hint)
    result = store.call("sweep_expired", dry_run=dry_run)
    if invocation.json:
        output.emit_json(result)
        return
    recordings = result["recordings"]
    if recordings:
        output.print_table(
            ("Recording", "Status", "Action", "Why"),
            [
                (output.show_name(each["path"]), each["status"], each["action"], output.show_name(each["reason"]))
                for each in recordings
            ],
        )
    counts = [
        f"{sum(each['action'] == action for each in recordings):,} {done}"
        for action, done in (("expire", "expired"), ("remove", "removed"), ("revive", "active again"))
    ]
    output.say(", ".join(counts) + ("; dry run: nothing is done" if dry_run else ""))


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
    _table(sweeps)


@sweep.command("status", exits={ExitCode.PROBLEMS: "the last run of one failed, or takes too long"})
@click.argument("name", required=False)
@store_options
@click.pass_context
def status(ctx: click.Context, name: str | None) -> None:
    """Show those sweeps that run, and those whose last run failed; or one, as `recfs sweep list` does. For monitoring.

    Needs a daemon.
    """
    invocation = ctx.ensure_object(Invocation)
    sweeps = open_store(invocation).call("sweep_list")["sweeps"]
    if name is not None and name not in {each["name"] for each in sweeps}:
        raise click.UsageError(f"there is no sweep {name!r}; there are {', '.join(each['name'] for each in sweeps)}")
    bad = [each for each in sweeps if each["outcome"] == "failed" or each["late"]]
    shown = [
        each for each in sweeps if (each["name"] == name if name else each in bad or each["running_s"] is not None)
    ]
    if invocation.json:
        output.emit_json(shown)
    elif shown:
        _table(shown)
    else:
        output.say(f"{len(sweeps)} sweeps; none runs, and none failed")
    if any(each in bad for each in shown):
        ctx.exit(ExitCode.PROBLEMS)


def _table(sweeps: list[dict[str, Any]]) -> None:
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
        return f"running: {_progress(sweep)}"
    if sweep["every_s"] is None:
        return "when asked"
    return "when due" if sweep["next_s"] is None else output.duration(sweep["next_s"])


@sweep.command("run", exits={ExitCode.PROBLEMS: "the run failed, or was stopped"}, example=_RAN)
@click.argument("name")
@click.option("--no-wait", is_flag=True, help="Only begin it.")
@store_options
@click.pass_context
def run(ctx: click.Context, name: str, no_wait: bool) -> None:
    """Have a sweep run now, and wait for its end. `recfs sweep list` names them.

    One that is under way already is waited for: no sweep runs twice at a time. Ctrl-C ends the waiting, and not the
    run; `recfs sweep stop` does. On a terminal it shows how far the run is. Needs a daemon.
    """
    invocation = ctx.ensure_object(Invocation)
    store = open_store(invocation)
    number = store.call("sweep_run", name=name)["run"]
    if no_wait:
        if invocation.json:
            output.emit_json({"name": name, "run": number})
        return
    tell_run(ctx, _wait(store, name, number))


def run_and_wait(store: Store, name: str) -> dict[str, Any]:
    """Have a sweep run now, and wait for its end; the sweep as JSON."""
    return _wait(store, name, store.call("sweep_run", name=name)["run"])


def tell_run(ctx: click.Context, ended: dict[str, Any], *, quiet: bool = False) -> None:
    """Tell of a run that has ended, also by the exit code; *quiet*: what it found was told in another way."""
    if not quiet and ctx.ensure_object(Invocation).json:
        output.emit_json(ended)
    elif not quiet:
        result = output.show_name(ended["result"] or "-")
        output.say(f"{ended['name']}: {result}, in {output.duration(ended['took_s'])}")
    if ended["outcome"] in ("failed", "stopped"):
        ctx.exit(ExitCode.PROBLEMS)


def _wait(store: Store, name: str, number: int) -> dict[str, Any]:
    """Wait for a run's end, and tell how far it is."""
    line = ProgressLine()
    while True:
        found: dict[str, Any] = store.call("sweep_wait", name=name, run=number, timeout_s=_SLICE_S)
        if found["ended"]:
            break
        if told := _progress(found):
            line.show(told)
    line.clear()
    return found


def _progress(sweep: dict[str, Any]) -> str:
    if sweep["running_s"] is None:
        return ""
    of = f" of {sweep['total']:,}" if sweep["total"] is not None else ""
    left = to_go(sweep["done"], sweep["total"], sweep["running_s"])
    return f"{sweep['done']:,}{of} done, {output.duration(sweep['running_s'])}{left}"


@sweep.command("stop")
@click.argument("name")
@store_options
@click.pass_obj
def stop(invocation: Invocation, name: str) -> None:
    """Have the run of a sweep that is under way end after what it is at; the next run goes on with the rest."""
    running = open_store(invocation).call("sweep_stop", name=name)["running"]
    if invocation.json:
        output.emit_json({"name": name, "running": running})
    else:
        output.say(f"{name}: " + ("ends soon" if running else "does not run"))


@sweep.command("history", example=_HISTORY)
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="So many at most.")
@store_options
@click.pass_obj
def history(invocation: Invocation, name: str | None, limit: int) -> None:
    """Show the last runs of the sweeps, or of one: when, for how long, what they did.

    Of each sweep the last hundred are kept, over restarts. Runs in a row that found nothing to do are one line, with
    the time of the last. What only looks after memory and the catalogue's log every few seconds leaves none.
    """
    runs = open_store(invocation).call("sweep_history", name=name, limit=limit)["runs"]
    if invocation.json:
        output.emit_json(runs)
        return
    if not runs:
        output.say("no runs are known of")
        return
    output.print_table(
        ("Began (UTC)", "Sweep", "Outcome", "Took", "Asked", "Result"),
        [
            (
                output.moment(each["began_ns"]),
                each["name"],
                each["outcome"],
                output.duration(each["took_s"]),
                "yes" if each["asked"] else "-",
                output.show_name(each["result"] or "-") + (f" ({each['times']:,} times)" if each["times"] > 1 else ""),
            )
            for each in runs
        ],
        right=("Took",),
    )
