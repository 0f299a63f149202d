"""`recfs rebuild`: make the catalogue anew of what lies on the disk and in the bucket."""

import dataclasses
import time
from typing import TYPE_CHECKING, Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.progress import ProgressLine, to_go
from recfs.cli.common.store import configured

if TYPE_CHECKING:
    from recfs.fs.rebuild import Findings

_LOOK_S = 0.2
_EXITS = {
    ExitCode.PROBLEMS: "something is to be looked after; it is named",
    ExitCode.STORE: "a daemon runs, or the store cannot be used; run it again, and it goes on",
    ExitCode.OBJECT_STORE: "S3 does not answer as it should; run it again, and it goes on",
}
_LOST = (
    "nothing of the old catalogue could be read: it is missing, damaged or of another version of recfs. Lost are users'"
    " own limits, keep marks, dates and notes of recordings, extended attributes, pins, hidden names, inode numbers"
)
_EXAMPLE = """
$ recfs rebuild --config /etc/recfs/recfs.conf
104 directories, 2 links and 1,912 files at home (1,830 of them in S3, too), 12,400 in S3 only
1,912 files hashed, 81.3 GiB; 82 to be uploaded
the old catalogue is /srv/recfs/.recfs/catalogue.db.before-rebuild-20261129T134550Z now
"""


@click.command("rebuild", cls=Command, exits=_EXITS, example=_EXAMPLE)
@click.option(
    "--checksums",
    type=click.Choice(["verify", "trust", "later"]),
    default="verify",
    show_default=True,
    help="`verify` reads every local file. `trust` believes S3's metadata (with --salvage, the old catalogue, too)"
    " where size and mtime agree, and reads the others. `later` has the next daemon read those.",
)
@click.option(
    "--salvage",
    is_flag=True,
    help="Take what can be read of the old catalogue and agrees with what is there: inode numbers, users' limits,"
    " dates and keep marks of recordings, extended attributes, pins, hidden names.",
)
@click.option("--verify-remote", is_flag=True, help="Read every object, too, and compare it with its checksum.")
@click.option(
    "--adopt-foreign", is_flag=True, help="Take objects in that recfs did not write. Each is read for its checksum."
)
@click.option(
    "--leave-out", is_flag=True, help="Go on although directories cannot be looked into: their files are missing then."
)
@click.option("--without-s3", is_flag=True, help="The store had a bucket, and goes on without: what is there is lost.")
@store_options
@click.pass_context
def rebuild(ctx: click.Context, /, **chosen: Any) -> None:
    """Make the catalogue anew of the home tree, the bucket's listing and its objects' metadata. For one that is lost.

    If there is a backup, `recfs restore-catalogue` brings back more. No daemon may run. Interrupted, it goes on where
    it was when it is run again with the same options. The old catalogue is moved aside and never changed; what has no
    place goes to `.recfs/lost+found`. Nothing is deleted.
    """
    from recfs.core.upkeep.rebuilding import Checksums
    from recfs.fs.rebuild import Options
    from recfs.rescue.rebuild import rebuild as run

    invocation = ctx.ensure_object(Invocation)
    config = configured(invocation)
    chosen["checksums"] = Checksums(chosen["checksums"])
    tell = _Teller()
    try:
        findings = run(config, Options(**chosen), tell)
    finally:
        tell.end()
    if invocation.json:
        output.emit_json(_plain(findings))
    else:
        _say(findings)
    if findings.has_problems:
        ctx.exit(ExitCode.PROBLEMS)


class _Teller:
    """Tells how far it is: what a phase has done, how fast, and how long it will take where it is known of how much."""

    def __init__(self) -> None:
        self._line = ProgressLine()
        self._phase, self._began_s = "", 0.0
        self._next_s = 0.0

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        now_s = time.monotonic()
        if phase != self._phase:
            self._phase, self._began_s = phase, now_s
        if now_s < self._next_s:
            return
        self._next_s = now_s + _LOOK_S
        told = output.size if phase.startswith("bytes") else output.count
        took_s = now_s - self._began_s
        line = f"{phase.removeprefix('bytes ')}: {told(done)}{f' of {told(total)}' if total is not None else ''}"
        if took_s >= 1.0:
            line += f", {told(round(done / took_s))}/s{to_go(done, total, took_s)}"
        self._line.show(line)

    def end(self) -> None:
        """Take the line away."""
        self._line.clear()


def _plain(findings: "Findings") -> dict[str, Any]:
    plain = dataclasses.asdict(findings)
    for kind in ("newer", "foreign", "unplaced", "damaged", "unreadable", "aside", "linked", "unseen"):
        named = plain[kind]
        plain[kind] = {
            "count": named["count"],
            "some": [{"path": path, "reason": reason} for path, reason in named["some"]],
        }
    return plain


def _say(findings: "Findings") -> None:
    if findings.ended_before:
        output.say("what an earlier run had made to its end is the store's catalogue now")
    else:
        _say_found(findings)
    if findings.moved_to is not None:
        output.say(f"the old catalogue is {output.show_name(findings.moved_to)} now")


def _say_found(findings: "Findings") -> None:
    number = output.number_of
    output.say(
        f"{number(findings.directories, 'directory', 'directories')}, {number(findings.links, 'link')} and"
        f" {number(findings.files, 'file')} at home ({findings.stored:,} of them in S3, too), {findings.evicted:,}"
        f" in S3 only"
    )
    told = [f"{number(findings.hashed_files, 'file')} hashed, {output.size(findings.hashed_bytes)}"]
    told += [f"{findings.trusted:,} trusted"] * bool(findings.trusted)
    told += [f"{findings.unsealed:,} are left to the next daemon"] * bool(findings.unsealed)
    told += [f"{findings.kept:,} done by an earlier run"] * bool(findings.kept)
    told += [f"{number(findings.owners, 'uid')} of users taken from their directories"] * bool(findings.owners)
    told += [f"{findings.salvaged:,} known to the old catalogue"] * bool(findings.salvaged)
    told += [f"{findings.queued:,} to be uploaded"] * bool(findings.queued)
    output.say("; ".join(told))
    if findings.nothing_salvaged:
        output.say(_LOST, style="yellow")
    for kind in findings.kinds():
        for path, reason in kind.some:
            output.say(f"{kind.what}: {output.show_name(path)}: {reason}", style="yellow" if kind.is_problem else "")
        if kind.count > len(kind.some):
            output.say(f"{kind.what}: {kind.count - len(kind.some):,} more")
    if findings.claim_needed:
        output.say(
            "the bucket's prefix is marked as another store's: files in it can be read, and nothing in it is changed"
            " before `recfs bucket claim --force`",
            style="yellow",
        )
    if not findings.in_place:
        output.say(
            "the new catalogue was not put in place: have the directories that are named readable and run it again, or"
            " leave them out with --leave-out",
            style="bold red",
        )
