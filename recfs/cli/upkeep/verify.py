"""`recfs verify`: whether the bytes of files are still those that were committed; what is not is repaired, or named."""

from pathlib import Path
from typing import Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import ANY_PATH, Duration, Size
from recfs.cli.common.progress import ProgressLine, to_go
from recfs.cli.common.store import Store, here_or_top, locate, open_store
from recfs.cli.work.scrubbing import scrub_line
from recfs.errors import DaemonNotRunning

_POLL_S = 1.0
_LEVELS = {
    "presence": "the bytes are where the catalogue has them",
    "size": "and there are as many",
    "hash": "and they are read, and have the sha256 that was recorded when they were committed",
    "remote": (
        "and the object in S3 has it, too: by what the server says of it (HEAD: size, an etag that is the MD5 or has "
        "not changed, recfs's own metadata), or, where that does not tell, by reading all of it"
    ),
}
_VERDICTS = {
    "corrupt": (
        "the bytes that would be read are gone or wrong, and there is no copy that is right. It cannot be read until "
        "it is written anew, or `recfs verify` finds right bytes in its place"
    ),
    "repaired": (
        "one of two copies was bad: bytes were brought back from S3 (the bad ones are kept in lost+found), or are "
        "uploaded again"
    ),
    "unreadable": "the disk or S3 answered with an error: nothing is known of the bytes, and nothing was changed",
    "skipped": "being written or read from S3, archived, or changed meanwhile: nothing is said of it",
    "elsewhere": "S3 alone has the bytes, and this level does not look there",
}
_EXITS = {ExitCode.PROBLEMS: "files are corrupt or unreadable, or were and have been repaired; they are named"}
_EXAMPLE = """
$ recfs verify users/5 --level hash
users/5/recordings/142/audio.mp3: corrupt: its bytes are not those that were committed: another sha256
1,204 files, 81.3 GiB read in 3m 12s: 1,203 right, 1 corrupt
$ recfs verify --status
scrub  reads: 1,902 of 10,441 files, 211 GiB read, 0 problems; round begun 2d 3h ago
"""
_ORDER = ("right", "elsewhere", "skipped", "repaired", "corrupt", "unreadable")


@click.command(cls=Command, exits=_EXITS, sections={"Levels": _LEVELS, "Verdicts": _VERDICTS}, example=_EXAMPLE)
@click.argument("path", required=False, type=ANY_PATH)
@click.option("--level", type=click.Choice(list(_LEVELS)), default="hash", show_default=True, help="How closely.")
@click.option("--since", type=Duration(), metavar="DURATION", help="Only files changed within this time.")
@click.option("--rate", type=Size(), metavar="SIZE", help="Read no more than this a second.")
@click.option("--status", "only_status", is_flag=True, help="Tell how far the background scrub is, and verify nothing.")
@store_options
@click.pass_context
def verify(
    ctx: click.Context, path: Path | None, level: str, since: float | None, rate: int | None, only_status: bool
) -> None:
    """Look whether files still have the bytes that were committed: PATH and all below it, or all files.

    What is found wrong is looked at again before it is said. It becomes `corrupt`, which is not served, or is
    repaired from the other copy where there are two. What is being written is left alone. The page cache stays as it
    was. Reading has a low priority, and while files are open for writing it takes a fifth of the time; `--rate`, of
    disk and S3 together, is for disks that feel it all the same.

    Ctrl-C ends it; what was found until then has been said. Without a daemon the store is opened for the time.
    `[scrub]` of the configuration has the daemon do so by itself.
    """
    invocation = ctx.ensure_object(Invocation)
    if only_status:
        _status(invocation, path)
        return
    place = locate(invocation, path) if path is not None else here_or_top(invocation)
    asked = {"path": place.path, "level": level, "since_s": since, "rate": rate}
    teller = _Teller(quiet=invocation.json)
    try:
        _follow(place.store, asked, teller)
    except KeyboardInterrupt:
        teller.interrupted()
        teller.end()
        ctx.exit(ExitCode.INTERRUPTED)
    teller.end()
    if teller.last.get("failed") or any(teller.last.get(each) for each in ("corrupt", "repaired", "unreadable")):
        ctx.exit(ExitCode.PROBLEMS)


def _follow(store: Store, asked: dict[str, Any], teller: "_Teller") -> None:
    """Have it done, and tell; KeyboardInterrupt ends it, too."""
    try:
        number = store.client().call("verify_begin", **asked)["run"]
    except DaemonNotRunning:
        teller.heard(store.call_alone("verify", **asked, tell=teller.heard))
        return
    try:
        while not teller.last.get("ended"):
            teller.heard(store.client().call("verify_wait", run=number, timeout_s=_POLL_S))
    except KeyboardInterrupt:
        teller.heard(store.client().call("verify_stop", run=number))
        raise


class _Teller:
    """Says what is found as it comes, and how far it is."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._found: list[dict[str, str]] = []
        self._line = ProgressLine()
        self.last: dict[str, Any] = {}

    def heard(self, told: dict[str, Any]) -> None:
        """An answer: how far it is, and what is new."""
        self._line.clear()
        for each in told["found"]:
            self._found.append(each)
            if not self._quiet:
                style = "yellow" if each["verdict"] == "repaired" else "bold red"
                output.say(f"{each['path']}: {each['verdict']}: {each['reason']}", style=style)
        self.last = told
        if not self._quiet and not told["ended"]:
            self._line.show(_progress(told))

    def interrupted(self) -> None:
        """It was ended before it was done."""
        self.last = {**self.last, "interrupted": True}

    def end(self) -> None:
        """Say what came of it."""
        self._line.clear()
        told = {**self.last, "found": self._found}
        if self._quiet:
            output.emit_json(told)
            return
        if told.get("unnamed"):
            output.say(f"and {told['unnamed']:,} more: `recfs ls-files -r --state corrupt` names all that are corrupt")
        if told.get("files") is not None:
            output.say(_summary(told), style="" if _bad(told) else "green")
        if told.get("failed"):
            output.say(f"it ended before its time: {told['failed']}", style="bold red")


def _bad(told: dict[str, Any]) -> bool:
    return bool(told["corrupt"] or told["repaired"] or told["unreadable"])


def _read(told: dict[str, Any]) -> str:
    far = f", {output.size(told['remote_bytes'])} from S3" if told["remote_bytes"] else ""
    return f"{output.size(told['read_bytes'])} read{far}"


def _progress(told: dict[str, Any]) -> str:
    of = f" of {told['total_files']:,}" if told["total_files"] is not None else ""
    rate = output.size(int(told["read_bytes"] / told["took_s"])) if told["took_s"] else "0 B"
    left = to_go(told["files"], told["total_files"], told["took_s"])
    return f"{told['files']:,}{of} files, {_read(told)}, {rate}/s{left}"


def _summary(told: dict[str, Any]) -> str:
    counts = ", ".join(f"{told[each]:,} {each}" for each in _ORDER if told[each]) or "nothing to verify"
    flaky = f"; {told['flaky']:,} were read wrong once: look after memory and disk" if told["flaky"] else ""
    early = "interrupted: " if told["interrupted"] else ""
    took = output.duration(told["took_s"])
    return f"{early}{output.number_of(told['files'], 'file')}, {_read(told)} in {took}: {counts}{flaky}"


def _status(invocation: Invocation, path: Path | None) -> None:
    found = open_store(invocation, path).call("verify_status")["scrub"]
    if invocation.json:
        output.emit_json(found)
    elif found is None:
        output.say("no scrub: [scrub] enabled is false")
    else:
        output.print_facts([("scrub", scrub_line(found))])
