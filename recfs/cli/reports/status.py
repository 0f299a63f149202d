"""`recfs status`: what the daemon is doing, who uses how much, what is open."""

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from recfs.cli.common import output
from recfs.cli.common.help import Command
from recfs.cli.common.last_daemon import left_behind
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH
from recfs.cli.common.store import open_store
from recfs.cli.reports.quota import USER_COLUMNS, USER_NUMBERS, user_row
from recfs.cli.work.queue import summary
from recfs.cli.work.scrubbing import scrub_line
from recfs.cli.work.waiting import aside, progress, staying, yet_to_hash

NAMED = 5
"""How many of the files that outlived writers have open are named."""


_FIELDS = {
    "mounted on, `mountpoint`, `mounted`": (
        'where; "no longer on" while the daemon goes on although umount(8) took its mount away, for something holds it'
    ),
    "files, `states`": "how many files are in each state",
    "sealing, `pipeline.sealing`": (
        "closed files that are not committed yet, those waiting for a busy file to settle included"
    ),
    "pipeline, without a daemon, `pipeline`": (
        "what the catalogue says waits; nobody works on it before the next mount"
    ),
    "settling, `pipeline.settling`": "entries the home tree does not show yet, and bytes that are to go",
    "in use, `pipeline.in_use`": (
        "such entries that wait until programs close files the kernel reads or writes for them; nothing waits for these"
    ),
    "still written, `survivors`": (
        "files that programs of before this start go on writing; each is sealed when its program lets go"
    ),
    "to hash, `pipeline.hashing_bytes`": "bytes that are being hashed, or wait for it",
    "hashing, `pipeline.lanes`": (
        "of each size class (small up to 1 MiB, medium up to 64 MiB, large) what is under way and what waits"
    ),
    "being hashed, `pipeline.files`": (
        "up to 10 files under way: how far each is, how fast, and how long it will take"
    ),
    "to read, `pipeline.unhashed`": (
        "files that `recfs rebuild --checksums later` has left to be hashed when there is time"
    ),
    "left for the next start, `pipeline.set_aside`": (
        "files a stop does not wait for, since hashing them would take more than 30 s"
    ),
    "unsaved changes, `pipeline.dirty`": "rows in memory that the catalogue gets with the next batch (100 ms)",
    "disk, `disk`": "of the file system below; writers get ENOSPC when free comes down to the reserve",
    "s3, `s3.url`, `s3.breaker`": "the bucket; `down`, and why, while S3 does not answer",
    "queue, `s3.queue`": "what is to be done in S3, as in `recfs queue`",
    "`s3.trouble`": (
        "what S3 said last, as long as no call has got an answer since, or no read has succeeded since it refused one"
    ),
    "local copies, `s3.local_bytes`, `s3.budget_bytes`": (
        "what counts in `[cache].max_size`: whole and partial copies, and what waits for its upload"
    ),
    "read failed, `s3.failed_reads`": (
        "files in S3 whose last read was EIO (the ten that failed last, of a hundred; wrong credentials before "
        "all): path, reason and what helps, since when, how often. Each goes with its next read that succeeds, with "
        "its file, or when the file needs S3 no more; what is no file's own (credentials, region, an outage) goes "
        "for all of them when any file is read"
    ),
    "not uploaded, `s3.stays`": (
        "files whose name looks temporary (`.part`, `.tmp`, a leading dot): how many, how large, since when, the "
        "five oldest by name. They go to S3 when they are renamed, and count in no budget; from an hour on they are "
        "a problem, too"
    ),
    "tier run, `s3.tier_run`": "how far `recfs tier run` is, while it runs",
    "lost+found, `lost_found`": (
        'what lies there (docs/runbook.md, "There is something in lost+found"), until somebody takes it away: how '
        "many entries, the first five by name"
    ),
    "media, `media`": (
        "files that are to be looked into (`pending`), are `broken`, or could not be looked into (`unknown`), what "
        "the looks since the start came to, and what is missing for them ([media])"
    ),
    "audit, `audit`": "how many acts the audit log has since the start, and how many are missing there ([audit])",
    "notify, `notify`": (
        "how often the command for events ran, how often it failed, what was given up, and how many were killed "
        "and have not ended ([notify])"
    ),
    "backup, `backup`": (
        "the newest good backup of the catalogue, and how often one is made; one that is older than two such periods "
        "is a problem, and so is whatever keeps one from being made"
    ),
    "found, `verification`": (
        "how many files were found corrupt, repaired, unreadable, or read wrong once (flaky) since the daemon's start"
    ),
    "scrub, `scrub`": "how far the background verification is (`[scrub]`); `null` where the configuration has none",
    "products, `deriving`": (
        "how many products of recordings (`[[derive]]`) wait and are being made, and which program is missing for that"
    ),
    "inodes cached, `inodes_cached`": "files and directories in memory",
    "problem, `problems`": (
        "what cannot be written, moved or committed and is tried again every second; bytes the last start could not "
        "place; files that are corrupt; a store with files in S3 that is mounted without its `[s3]`; reads from S3 "
        "that failed; a bucket that was emptied"
    ),
    "set aside, `set_aside`": (
        "single files, rows or steps that failed, while everything else goes on: part, path, reason, since when, "
        "how often tried, and (`next_try_s`) when again. They are tried again after 1 s up to 1 min; what a start "
        'has set aside ("recovery"), at the next start'
    ),
    "a star, `own_limits`": "the user's own limit; the others are the configuration's",
    "passthrough, `passthrough`": "whether the kernel reads and writes by itself, and if not, why",
    "`open_files`": (
        'files open for anything; a deleted one says `(deleted)`; "by the kernel": opens whose reads and writes never '
        "come to the daemon"
    ),
}
_EXAMPLE = """
$ recfs status /mnt/recordings
store          /srv/recfs
mounted on     /mnt/recordings
daemon         running, pid 19468, version 1.0.0, up 2.8s
passthrough    the kernel reads and writes
files          1 writing, 3 committed
pipeline       0 sealing, 0 settling, 0 B to hash, 0 unsaved changes
disk           79.4 GiB free of 252 GiB, 1 GiB kept in reserve
backup         of the catalogue 4h 12m ago, 261 MiB; one is made every 1d
inodes cached  12

Users
User   Used        Of  Files   Of files  File size  Uploads  Of uploads  Month
5     3 MiB  3.8 MiB*      3  unlimited  unlimited        1   unlimited  2026-11

Open files
Path                              State    Writers  Readers  By the kernel
users/5/recordings/142/video.mp4  writing        1        0              0
"""


@click.command(cls=Command, sections={"Fields": _FIELDS}, example=_EXAMPLE)
@click.argument("path", required=False, type=ANY_PATH)
@store_options
@click.pass_obj
def status(invocation: Invocation, path: Path | None) -> None:
    """Show states, pipeline, usage and open files.

    PATH is any path inside the mount. Without a daemon the catalogue is read as the last one left it.

    A pipeline that stays busy is normal while large files are closed. One that grows for long means the disk or
    `[commit].hash_threads` cannot keep up: each size class has that many threads.
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


def _media(media: dict[str, Any]) -> str | Text:
    """How many files wait for a look, or are broken; empty where all is well."""
    told = [f"{media[each]:,} {each}" for each in ("pending", "broken", "unknown") if media.get(each)]
    if media.get("missing"):
        return Text(", ".join([*told, f"recordings are not looked into: {media['missing']}"]), style="yellow")
    return ", ".join(told)


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
        if unhashed := pipeline.get("unhashed"):
            facts.append(("to read", f"{yet_to_hash(unhashed)}, hashed in the background: {unhashed['doing']}"))
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
    if backup := result.get("backup"):
        facts.append(("backup", _backup(backup)))
    if told := _media(result.get("media") or {}):
        facts.append(("media", told))
    if audit := result.get("audit"):
        facts.append(("audit", _audit(audit)))
    if notify := result.get("notify"):
        facts.append(("notify", _notify(notify)))
    if result.get("s3"):
        facts += _s3(result["s3"])
    if found := {word: count for word, count in (result.get("verification") or {}).items() if count}:
        told = ", ".join(f"{count:,} {word}" for word, count in found.items())
        facts.append(("found", Text(f"{told}, since the start of the daemon", style="yellow")))
    if result.get("scrub"):
        facts.append(("scrub", scrub_line(result["scrub"])))
    if found := {word: each for word, each in (result.get("deriving") or {}).items() if each}:
        missing = f": {output.show_name(found.pop('missing'))}" if "missing" in found else ""
        counts = ", ".join(f"{count:,} {word}" for word, count in found.items())
        facts.append(("products", Text(f"{counts}{missing}", style="yellow" if missing else "")))
    if result.get("clock"):
        facts.append(("clock", Text(f"it was {result['clock']}; nothing waits longer or goes earlier", style="yellow")))
    if result.get("inodes_cached") is not None:
        facts.append(("inodes cached", output.count(result["inodes_cached"])))
    return facts


def _audit(audit: dict[str, Any]) -> str | Text:
    """How much of what was done is written down."""
    told = f"{audit['written']:,} acts since the start, in {output.show_name(audit['file'])}"
    if audit["dropped"]:
        told += f"; {audit['dropped']:,} acts are missing: the disk was slow or full"
    if audit["problem"]:
        told += f"; it cannot be written: {output.show_name(audit['problem'])}"
    return Text(told, style="bold red" if audit["dropped"] or audit["problem"] else "")


def _notify(notify: dict[str, Any]) -> str | Text:
    """How the command for events does."""
    told = f"the command ran {output.number_of(notify['runs'], 'time')} since the start"
    if notify["running"]:
        told += ", and is running"
    if notify["failed"]:
        told += f"; {notify['failed']:,} failed, {output.number_of(notify['given_up'], 'event')} given up"
    if notify["lost"]:
        told += "; events were dropped before it had them"
    if notify["hanging"]:
        told += f"; {notify['hanging']:,} killed and not ended"
    return Text(told, style="yellow" if notify["failed"] or notify["lost"] or notify["hanging"] else "")


def _backup(backup: dict[str, Any]) -> str | Text:
    """The newest good backup of the catalogue."""
    last, every = backup["newest"], output.duration(backup["every_s"])
    when = f"one is made every {every}" if backup["every_s"] else "none is made by itself ([backup] every is 0s)"
    if last is None:
        return Text(f"none of the catalogue yet; {when}", style="" if backup["every_s"] else "yellow")
    told = f"of the catalogue {output.duration(last['age_s'])} ago, {output.size(last['size_bytes'])}"
    if backup.get("in_bucket") == last["name"]:
        told += ", in the bucket too"
    return Text(f"{told}; {when}", style="bold red" if backup["problem"] else "")


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
