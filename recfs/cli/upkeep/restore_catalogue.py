"""`recfs restore-catalogue`: a backup of the catalogue becomes the catalogue again."""

from pathlib import Path
from typing import Any

import click

from recfs.cli.common import cwd, output
from recfs.cli.common.exits import ExitCode
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import configured
from recfs.cli.upkeep.options import IDENTITY

_SHOWN = 20
"""So many paths of each kind are shown; --json has all of them."""
_LINKED = "a hard link: what is written to one of its names changes the others; put a copy in its place"
_KINDS = {
    "moved": "renamed since",
    "in trash": "deleted or overwritten since, and in the trash",
    "to lost+found": "in the trash, and nothing is known of it",
    "changed": "changed since",
    "came": "not in the backup",
    "linked": _LINKED,
    "refused": "not in the backup, and nothing that recfs can have there: it is left alone",
    "gone": "in the backup, and nowhere else",
}
_DONE = {
    "moved": "renamed since; it keeps what was known of it",
    "trashed": "deleted or overwritten since; the trash has it",
    "taken": "changed since; it is taken as it is, and hashed anew",
    "found": "came since; it is in the catalogue now",
    "linked": _LINKED,
    "gone": "nowhere; its row stays, and reading it fails until it is removed or written anew",
    "remade": "an empty directory or a symbolic link that went; it is made again",
    "forgotten": "nowhere; its row is removed",
    "lost": "fits nowhere",
    "kept": "was to be deleted in S3; the object stays, for it may be another's by now",
}
_IN_BUCKET = {
    "bucket lost": "in S3 alone, and not there any more",
    "bucket came": "in S3 alone since; it is in the catalogue now",
    "bucket changed": "in S3 alone, and changed there since; it is what is there",
    "bucket moved": "in S3 alone, and renamed since",
    "bucket again": "sent to S3 again when the store is mounted, for what is there is gone or another version",
    "bucket strange": "an object that nothing is made of; it is left alone",
}
_EXAMPLE = """
$ recfs restore-catalogue --config /etc/recfs/recfs.conf --identity key.txt
recfs: catalogue-5b0ce6f2-20261128T031500Z.db.age is the catalogue now; the one before it is kept as \
.recfs/catalogue.db.before-restore-20261129T091142Z
recfs: comparing with what lies on the disk
renamed since; it keeps what was known of it: 1
  users/5/recordings/142/a.mp4 -> users/5/recordings/142/b.mp4
came since; it is in the catalogue now: 2
  users/5/recordings/143
  users/5/recordings/143/video.mp4
"""


@click.command(
    "restore-catalogue",
    cls=Command,
    exits={ExitCode.PROBLEMS: "files are missing, or something was set aside; it is named"},
    example=_EXAMPLE,
)
@click.argument("backup", required=False, metavar="[NAME|FILE]")
@IDENTITY
@click.option("--dry-run", is_flag=True, help="Only say what it would find on the disk; changes nothing, asks no S3.")
@click.option("--forget-missing", is_flag=True, help="Remove the rows of what is nowhere.")
@click.option("--without-bucket", is_flag=True, help="Leave what is in S3 as the backup has it.")
@store_options
@click.pass_context
def restore_catalogue(
    ctx: click.Context, backup: str | None, identity: Path | None, dry_run: bool, forget_missing: bool,
    without_bucket: bool,
) -> None:  # fmt: skip
    """Put a backup of the catalogue back, and tell it what has changed since.

    NAME is one that `recfs backup list` shows, FILE any other (a path with a slash); without either the newest good one
    is taken. No daemon may run. The present catalogue, whole or damaged, is kept beside the new one.

    What lies on the disk counts, and no file is deleted: what came since is adopted, charged and hashed; what was
    changed is hashed anew; what was renamed is recognised by its inode number and keeps its attributes; what was
    deleted and is in the trash can be restored from there. What is nowhere is named: its row stays, since it is all
    that is left, and a directory or symbolic link is made again, unless `--forget-missing` is given. Bytes in the trash
    of which nothing is known go to lost+found.

    With [s3], the bucket is compared then: objects that came since are adopted with what their metadata say, those that
    were moved or replaced are found by their checksums, and files whose object is gone are sent anew or, where nothing
    is left of them, named. Nothing in the bucket is changed. Until that is done no daemon takes the store.

    After an interruption run it again: it goes on where it was.
    """
    from recfs.rescue.restore import Restore

    if backup is not None and "/" in backup:
        cwd.absolute(Path(backup))  # refuses what leads nowhere
    invocation = ctx.ensure_object(Invocation)
    restore = Restore(configured(invocation), lambda line: click.echo(f"recfs: {line}", err=True))
    if dry_run:
        found = restore.dry_run(backup, identity)
        kinds = {what: [each["path"] for each in found["finds"] if each["what"] == what] for what in _KINDS}
        missing = bool(kinds["gone"])
    else:
        found = restore.run(backup, identity, forget=forget_missing, bucket=not without_bucket)
        afar = found["bucket"]
        kinds = {what: found[what] for what in _DONE} | {f"bucket {what}": afar[what] for what in afar}
        missing = bool(found["gone"] or found["remade"] or found["set_aside"] or (afar["lost"] and not forget_missing))
    if invocation.json:
        output.emit_json(found)
    else:
        _say(kinds, _KINDS if dry_run else _DONE | _IN_BUCKET, found)
    if missing:
        ctx.exit(ExitCode.PROBLEMS)


def _say(kinds: dict[str, list[str]], words: dict[str, str], found: dict[str, Any]) -> None:
    for what, paths in kinds.items():
        if paths:
            output.say(
                f"{words[what]}: {len(paths):,}", style="yellow" if what in ("gone", "lost", "bucket lost") else ""
            )
            for path in paths[:_SHOWN]:
                output.say(f"  {path}")
            if len(paths) > _SHOWN:
                output.say(f"  and {len(paths) - _SHOWN:,} more")
    for each in found.get("set_aside", ()):
        output.say(f"set aside: {each['part']}: {each['path']}: {each['reason']}", style="bold red")
    if not any(kinds.values()):
        output.say(f"{found['backup']}: nothing has changed since")
