"""`recfs migrate plan`: what is to become of each file of an old tree, written down before anything is done."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recfs.cli.common import output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import LocalPath
from recfs.cli.common.progress import ProgressLine
from recfs.core.migration.plan import LEFT, Action

if TYPE_CHECKING:
    from recfs.migration.planning import Made

_LOOK_S = 0.2
_LISTED = 10
"""So many of what needs a person are named here; the plan has all."""
_ACTIONS = {
    Action.COPY: "it is copied to its target",
    Action.ASIDE: (
        "its target is given to a newer file of the same name; it is copied beside it, as `audio.older.mp3`"
    ),
    Action.DUPLICATE: "its bytes are those of the file that goes to the target (sha256): not copied",
    Action.SKIP: "it is not to be migrated: temporary, expired, a copy of a template, an empty directory",
    Action.UNMATCHED: "nothing says to which recording it belongs: left alone",
    Action.AMBIGUOUS: "it may belong to several, or to somebody else than it lies with: left alone",
    Action.UNREADABLE: "it cannot be read, or is a symbolic link or no file: left alone",
}
_EXITS = {
    ExitCode.PROBLEMS: (
        "something needs a person: files that are unmatched, ambiguous or unreadable, paths of the database with no"
        " file, rows that mean nothing. The plan is written, and can be run"
    )
}
_EXAMPLE = """
$ recfs migrate plan /srv/media --db /srv/media/data.db --output media.plan
Action           Files       Size
copy       8,213 files    312 GiB
duplicate  1,022 files    4.1 GiB
skip         571 files    9.7 GiB
unmatched      2 files    1.2 GiB
1,310 recordings in the database, 41 expired and skipped
unmatched: user_7/video/processed/test_processed.mp4: no row names it
unmatched: user_7/video/unprocessed/test.mp4: no row names it
media.plan: 9,808 files; need a person: 2 files
"""
_COLUMNS = """
`--columns FILE` says, in TOML, what the database calls things; what it leaves out is called as here:

\b
table = "recordings"
expired = ["EXPIRED"]       # status of recordings that have expired
[columns]
id = "id"
user_id = "user_id"
display_name = "display_name"      # "" where there is no such column
status = "status"
local_video_path = "local_video_path"
processed_video_path = "processed_video_path"
processed_audio_path = "processed_audio_path"
transcription_dir = "transcription_dir"
expire_at = "expire_at"
# looked for only if it is named; so are processed_video_size and processed_audio_size:
local_video_size = "video_file_size"
"""


@click.command(
    cls=Command, exits=_EXITS, sections={"Actions": {str(key): word for key, word in _ACTIONS.items()}, "": _COLUMNS},
    example=_EXAMPLE,
)  # fmt: skip
@click.argument("old", type=LocalPath())
@click.option("--db", "database", type=LocalPath(), metavar="FILE", help="The platform's SQLite database.")
@click.option("--map", "dump", type=LocalPath(), metavar="FILE", help="Its table of recordings as CSV, with a header.")
@click.option("--columns", type=LocalPath(), metavar="FILE", help="What the database calls its table and columns.")
@click.option("--encoding", metavar="NAME", help="Of the CSV; by default what its first bytes tell, or UTF-8.")
@click.option(
    "--expired", type=click.Choice(["skip", "migrate"]), default="skip", show_default=True,
    help="What becomes of recordings that have expired.",
)  # fmt: skip
@click.option(
    "--elsewhere", type=LocalPath(), multiple=True, metavar="DIR",
    help="Take files below DIR, outside of OLD, that the database names.",
)  # fmt: skip
@click.option("--one-file-system", "-x", is_flag=True, help="Leave out what is mounted below OLD.")
@click.option(
    "--output", "-o", "target", type=LocalPath(), metavar="FILE", default="migration.plan", show_default=True,
    help="Write the plan here.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a plan that was edited, or whose run has begun and goes on.")
@store_options
@click.pass_context
def plan(
    ctx: click.Context,
    /,
    old: Path,
    database: Path | None,
    dump: Path | None,
    columns: Path | None,
    encoding: str | None,
    expired: str,
    elsewhere: tuple[Path, ...],
    one_file_system: bool,
    target: Path,
    force: bool,
) -> None:
    """Write down what is to become of each file of the old tree OLD; nothing else is written, here or there.

    The plan is a text file for people to read and edit, with a line for each file: action, size, target, source and
    reason, parted by tabs. `recfs migrate run` does what it says.

    A file belongs to the recording whose row in the database names it, whatever base directory, Unicode form or
    encoding the path was written in. Else by the recording's id, in the name of the file or of its directory; else by
    the title, or the name of another file of the recording, if only one recording has it. What is not certain is left
    alone, with the reason. Without `--db` and `--map`, ids in names are all there is.

    The database may be in use. It is only read, in one state.
    """
    from recfs.migration.mapping import Names, names_in
    from recfs.migration.planning import Wishes, make

    if database is not None and dump is not None:
        raise click.UsageError("--db or --map: rows come from one of them")
    if encoding is not None:
        _look_up(encoding, dump)
    names = names_in(columns) if columns is not None else Names()
    wishes = Wishes(old, database, dump, encoding, names, expired == "migrate", elsewhere, one_file_system)
    write_plan(ctx, old, target, lambda teller: make(wishes, datetime.now(UTC), teller), force=force)


def write_plan(
    ctx: click.Context, old: Path, target: Path, make: Callable[["Teller"], "Made"], *, force: bool, after: str = ""
) -> None:
    """Have a plan of *old* made, write it to *target*, and say what is in it, and *after* that.

    Leaves with PROBLEMS where something needs a person. Raises UsageError, RecfsError.
    """
    from recfs.migration import plans

    _refuse_inside(target, old)
    plans.refuse_to_lose(target, force=force)  # before the work, and once more after it
    teller = Teller()
    try:
        made = make(teller)
    finally:
        teller.end()
    plans.save(made.plan, target, force=force)
    if ctx.ensure_object(Invocation).json:
        output.emit_json(_told(made, target))
    else:
        _say(made, target)
        if after:
            output.say(after)
    if not made.is_clean:
        ctx.exit(ExitCode.PROBLEMS)


def _look_up(encoding: str, dump: Path | None) -> None:
    if dump is None:
        raise click.UsageError("--encoding is that of the CSV, which --map names")
    try:
        "".encode(encoding)  # what is no encoding of text, such as `hex`, is refused besides
    except (LookupError, UnicodeError):
        raise click.UsageError(f"--encoding: {encoding!r} is no encoding; one is cp1251") from None


def _refuse_inside(target: Path, old: Path) -> None:
    """The old tree is not written to, and a plan in it would be one of its files."""
    folder = os.path.realpath(target.parent)
    top = os.path.realpath(old)
    if folder == top or folder.startswith(top.rstrip("/") + "/"):
        raise click.UsageError(f"{target} lies in the old tree, which is not written to: name another with --output")


class Teller:
    """Tells how far it is: what is being done, and how much of it is."""

    def __init__(self) -> None:
        self._line = ProgressLine()
        self._next_s = 0.0

    def __call__(self, what: str, done: int) -> None:
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _LOOK_S
            self._line.show(f"{output.size(done) if what.startswith('bytes') else output.count(done)} {what}")

    def end(self) -> None:
        """Take the line away."""
        self._line.clear()


def _told(made: "Made", target: Path) -> dict[str, Any]:
    """A plan that was made, for programs."""
    return {
        "plan": str(target),
        "clean": made.is_clean,
        "actions": {
            str(action): {"files": files, "bytes": size} for action, (files, size) in made.plan.counts().items()
        },
        "recordings": made.rows,
        "expired_recordings": made.expired,
        "missing": made.missing,
        "bad_rows": made.bad_rows,
        "mounts": [os.fsdecode(each) for each in made.mounts],
        "vanished": made.vanished,
    }


def _say(made: "Made", target: Path) -> None:
    """Say what is in a plan that was made, and what needs a person."""
    counts = made.plan.counts()
    rows = [
        (str(action), output.number_of(files, "file"), output.size(size)) for action, (files, size) in counts.items()
    ]
    if rows:
        output.print_table(("Action", "Files", "Size"), rows, right=("Files", "Size"))
    if made.rows is not None:
        output.say(f"{output.number_of(made.rows, 'recording')} in the database, {made.expired:,} expired and skipped")
    for mount in made.mounts:
        output.say(f"another file system is mounted at {os.fsdecode(mount)}")
    if made.vanished:
        output.say(f"{output.number_of(made.vanished, 'name')} vanished meanwhile")
    people = [each for each in made.plan.entries if each.action in LEFT]
    for each in people[:_LISTED]:
        output.say(f"{each.action}: {os.fsdecode(each.source)}: {each.reason}", style="yellow")
    if len(people) > _LISTED:
        output.say(f"and {len(people) - _LISTED:,} more", style="yellow")
    for key, value in made.plan.made_of.items():
        if key.startswith("row "):
            output.say(f"a row is no recording's: {value}", style="yellow")
            break
    needed = [
        output.number_of(number, word)
        for number, word in ((len(people), "file"), (made.missing, "missing path"), (made.bad_rows, "bad row"))
        if number
    ]
    told = f"{target}: {output.number_of(len(made.plan.entries), 'file')}"
    output.say(f"{told}; need a person: {', '.join(needed)}" if needed else f"{told}; nothing needs a person")


__all__ = ["plan", "write_plan"]
