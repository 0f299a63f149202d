"""`recfs status`: what the daemon is doing, who uses how much, what is open."""

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from recfs.cli.common import output
from recfs.cli.common.last_daemon import left_behind
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH
from recfs.cli.common.store import open_store
from recfs.cli.reports.quota import USER_COLUMNS, USER_NUMBERS, user_row
from recfs.cli.work.queue import summary
from recfs.cli.work.waiting import aside, progress, staying

NAMED = 5
"""How many of the files that outlived writers have open are named."""


@click.command()
@click.argument("path", required=False, type=ANY_PATH)
@store_options
@click.pass_obj
def status(invocation: Invocation, path: Path | None) -> None:
    """Show states, pipeline, usage and open files.

    PATH is any path inside the mount. Without a daemon the catalogue is read as the last one left it.
    """
    result = open_store(invocation, path).call("status")
    if invocation.json:
        output.emit_json(result)
        return
    output.print_facts(_facts(result))
    for problem in result.get("problems", []):
        output.say(f"problem: {problem}", style="bold red")
    for item in result.get("set_aside", []):
        tries = "" if item.get("next_try_s") is not None else f", tried {_times(item['tries'])}"
        output.say(f"set aside: {aside(item)} (since {item['since']}{tries})", style="bold red")
    if result.get("users"):
        click.echo()
        rows = [user_row(user) for user in result["users"]]
        output.print_table(USER_COLUMNS, rows, right=USER_NUMBERS, title="Users")
    files = (result.get("pipeline") or {}).get("files")
    if files:
        click.echo()
        output.print_table(
            ("Path", "Done", "Per second", "To go"),
            [
                (
                    output.show_name(file["path"]),
                    progress(file),
                    output.size(file["bytes_per_s"]),
                    "" if file["eta_s"] is None else output.duration(file["eta_s"]),
                )
                for file in files
            ],
            right=("Done", "Per second", "To go"),
            title="Being hashed",
        )
    if result.get("open_files"):
        click.echo()
        output.print_table(
            ("Path", "State", "Writers", "Readers", "By the kernel"),
            [
                (
                    output.show_name(file["path"]),
                    output.state(file["state"]),
                    output.count(file["writers"]),
                    output.count(file["readers"]),
                    output.count(file["passthrough"]),
                )
                for file in result["open_files"]
            ],
            right=("Writers", "Readers", "By the kernel"),
            title="Open files",
        )


def _times(count: int) -> str:
    return "once" if count == 1 else output.number_of(count, "time")


def passthrough(found: dict[str, Any]) -> Text:
    """What the kernel does by itself, and if that is less than was asked for, why."""
    if found["reads"]:
        return Text("the kernel reads and writes" if found["writes"] else "the kernel reads", style="green")
    if found["why_not"] is None:
        return Text("off in the configuration")
    return Text(f"off: {output.show_name(found['why_not'])}", style="yellow")


def _mounted_on(result: dict[str, Any]) -> str | Text:
    point = output.show_name(str(result["mountpoint"]))
    if result.get("mounted", True):
        return point
    why = "it was unmounted by other means, and something holds it; `recfs umount --root` ends the daemon"
    return Text(f"no longer on {point}: {why}", style="yellow")


def _facts(result: dict[str, Any]) -> list[tuple[str, str | Text]]:
    facts: list[tuple[str, str | Text]] = [("store", output.show_name(str(result["root"])))]
    if result.get("mode") == "daemon":
        facts += [
            ("mounted on", _mounted_on(result)),
            (
                "daemon",
                Text(
                    f"running, pid {result['pid']}, version {result['version']}, "
                    f"up {output.duration(result['uptime_s'])}",
                    style="green",
                ),
            ),
        ]
    else:
        facts.append(("daemon", Text("not running; this is what the catalogue says", style="yellow")))
        dead = left_behind(Path(result["root"]))
        if dead is not None:
            point = output.show_name(str(dead))
            helps = f"a dead mount: `recfs mount` serves it again, `recfs umount {point}` clears it"
            facts.append(("mounted on", Text(f"{point}, {helps}", style="yellow")))
    if result.get("passthrough"):
        facts.append(("passthrough", passthrough(result["passthrough"])))
    states = Text(", ").join(
        Text.assemble(f"{number:,} ", output.state(word)) for word, number in result["states"].items() if number
    )
    facts.append(("files", states if states.plain else "none"))
    pipeline = result.get("pipeline")
    if pipeline:
        facts.append(("pipeline", _pipeline(pipeline, live=result.get("mode") == "daemon")))
        facts += _hashing(pipeline)
    if result.get("survivors"):
        facts.append(("still written", Text(_survivors(result["survivors"]), style="yellow")))
    disk = result.get("disk")
    if disk:
        facts.append(
            (
                "disk",
                f"{output.size(disk['free_bytes'])} free of {output.size(disk['total_bytes'])}, "
                f"{output.size(disk['min_free_bytes'])} kept in reserve",
            )
        )
    if lost := result.get("lost_found"):
        names = ", ".join(map(output.show_name, lost["names"])) + ", …" * (lost["entries"] > len(lost["names"]))
        count = output.number_of(lost["entries"], "entry", "entries")
        facts.append(("lost+found", Text(f"{count}: {names}", style="yellow")))
    if result.get("s3"):
        facts += _s3(result["s3"])
    if result.get("clock"):
        facts.append(("clock", Text(f"it was {result['clock']}; nothing waits longer or goes earlier", style="yellow")))
    if result.get("inodes_cached") is not None:
        facts.append(("inodes cached", output.count(result["inodes_cached"])))
    return facts


def _pipeline(pipeline: dict[str, Any], *, live: bool) -> str | Text:
    told = (
        f"{pipeline['sealing']:,} sealing, {pipeline['settling']:,} settling, "
        f"{output.size(pipeline['hashing_bytes'])} to hash"
    )
    if live:
        in_use = f", {pipeline['in_use']:,} in use" if pipeline.get("in_use") else ""
        return f"{told}, {pipeline['dirty']:,} unsaved changes{in_use}"
    if not pipeline["sealing"] and not pipeline["settling"]:
        return "nothing waits"
    return Text(f"{told}: nobody works on it before the next mount", style="yellow")


def _survivors(paths: list[str]) -> str:
    """The first few of the files that programs of before the start write to."""
    named = ", ".join(output.show_name(path) for path in paths[:NAMED])
    more = f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else ""
    return f"since before this start, sealed when the programs let go: {named}{more}"


def _hashing(pipeline: dict[str, Any]) -> list[tuple[str, str | Text]]:
    """What goes on in each lane, where something does."""
    told = [
        f"{lane}: {queue['running']:,} under way, {queue['waiting']:,} wait"
        for lane, queue in (pipeline.get("lanes") or {}).items()
        if queue["running"] or queue["waiting"]
    ]
    if pipeline.get("set_aside"):
        told.append(f"{pipeline['set_aside']:,} left for the next start")
    return [("hashing", "; ".join(told))] if told else []


def _s3(far: dict[str, Any]) -> list[tuple[str, str | Text]]:
    breaker = far.get("breaker")
    place = Text(output.show_name(far["url"]))
    if breaker is not None and breaker["state"] != "closed":
        place.append(f", down: {output.show_name(breaker['error'] or breaker['state'])}", style="bold red")
    facts: list[tuple[str, str | Text]] = [
        ("s3", place),
        ("queue", summary(far["queue"])),
        ("local copies", f"{output.size(far['local_bytes'])} of {output.size(far['budget_bytes'])}"),
    ]
    for read in far.get("failed_reads") or ():
        what = f"{output.show_name(read['path'])}: {output.show_name(read['reason'])}"
        facts.append(
            ("read failed", Text(f"{what} (since {read['since']}, {_times(read['tries'])})", style="bold red"))
        )
    if stays := staying(far.get("stays")):
        facts.append(("not uploaded", Text(stays, style="yellow")))
    run = far.get("tier_run")
    if run is not None:
        done = sum(step["files"] for step in run["steps"].values())
        facts.append(("tier run", f"under way: {output.number_of(run['files'], 'file')} looked at, {done:,} moved"))
    return facts
