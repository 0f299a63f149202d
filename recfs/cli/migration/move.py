"""`recfs user move`: a whole user goes from one store to another on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recfs import __version__
from recfs.cli.common import output
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.params import UserId
from recfs.cli.common.store import open_store
from recfs.cli.common.where import resolve
from recfs.cli.migration.stores import Side, opened_mount, side_of, source_of
from recfs.cli.migration.telling import EXITS, Teller
from recfs.errors import InvalidArgument, NotFound, RecfsError

if TYPE_CHECKING:
    from recfs.migration.transfer.items import Outcome

_EXAMPLE = """
$ recfs user move 5 --to /mnt/new
12 files moved, 1.5 GiB, 3 fetched from S3
user 5 is still in the old store: --delete removes it there
$ recfs user move 5 --to /mnt/new --delete
0 files moved, 0 B, 12 were there already, 12 removed where they were
"""


@click.command(cls=Command, exits=EXITS, example=_EXAMPLE)
@click.argument("user", type=UserId())
@click.option(
    "--to", "to", required=True, type=click.Path(path_type=Path, readable=False), metavar="ROOT|MOUNT",
    help="The other store: its root or its mount. Its daemon runs.",
)  # fmt: skip
@click.option("--delete", is_flag=True, help="Remove the user here when every file is verified there.")
@click.option("--replace", is_flag=True, help="Replace files there that differ, and set limits and dates that do.")
@store_options
@click.pass_context
def move(ctx: click.Context, user: str, to: Path, delete: bool, replace: bool) -> None:
    """Copy USER with everything to another store on this machine, verify it there, and with `--delete` remove it here.

    Files, links, directories, modes, times, owners and extended attributes, the user's limits and uid, and dates,
    `keep` and notes of recordings go over, as by `recfs export USER - | recfs import -` without a stream between. Then
    all is looked at once more: each file has to be the same in both stores, by the sha256 of either. Files that are
    being written, corrupt or archived are named, and nothing is removed while anything is.

    It is run again after whatever ended it, and does what is left; a first run while the user goes on working, and a
    second with `--replace --delete` when that is over, keeps the pause short. Files that only the other store has are
    left there. `temp/<id>` is not moved; a user who has files there keeps it, and the uid, until they are gone.

    With a `[trash]` what `--delete` removes can be had back for a time. Each file is looked at once more just before.
    """
    from recfs.migration.transfer.items import Outcome, Why
    from recfs.migration.transfer.moving import Moving

    invocation = ctx.ensure_object(Invocation)
    here = side_of(open_store(invocation))
    there = side_of(open_store(Invocation(root=to)))
    if resolve(here.store.root) == resolve(there.store.root):
        raise InvalidArgument(f"{to} is the store that user {user} is in already")
    top = (b"users", user.encode("ascii"))
    if _is_gone(here, there, user):
        _say_gone(invocation, user)
        return
    teller, outcome = Teller("moved", json=invocation.json), Outcome()
    with opened_mount(there.need_mount()) as mount, opened_mount(here.mount or here.store.root) as old:
        moving = Moving(
            lambda: source_of(here, old, top, __version__, time.time_ns()), mount, there.ask, outcome,
            replace=replace, tell=teller,
        )  # fmt: skip
        if delete:
            here.need_mount()
        moving.copy()
        if delete and outcome.clean:
            for path in _written(here, user):
                outcome.problem(path, Why.WRITING, "it is open for writing")
            if outcome.clean:
                moving.remove(old)
            if outcome.clean:
                _forget(here, user, outcome)
    teller.end(ctx, outcome)
    if not delete and not invocation.json:
        output.say(f"user {user} is still in the old store: --delete removes it there")


def _is_gone(here: Side, there: Side, user: str) -> bool:
    """Whether a run before this one has moved all of the user. Raises NotFound where neither store has it."""
    try:
        here.ask("info", path=f"users/{user}")
    except NotFound:
        there.ask("info", path=f"users/{user}")
        return True
    return False


def _say_gone(invocation: Invocation, user: str) -> None:
    from recfs.migration.transfer.items import Outcome

    if invocation.json:
        output.emit_json(Outcome().as_json())
    else:
        output.say(f"user {user} is in the other store, and not here: there is nothing left to move")


def _written(side: Side, user: str) -> list[bytes]:
    """Files of the user that somebody may write to now."""
    opened = side.ask("status")["open_files"]
    return [
        each["path"].encode("utf-8", "surrogateescape")
        for each in opened
        if each["writers"] and each["path"].startswith(f"users/{user}/")
    ]


def _forget(side: Side, user: str, outcome: Outcome) -> None:
    from recfs.migration.transfer.items import Why

    try:
        side.ask("user_remove", user=user, files=None)
    except NotFound:
        pass  # without a uid the directories were all there was of them, and went with what was in them
    except RecfsError as error:
        outcome.problem(f"users/{user}".encode("ascii"), Why.UNSAID, str(error))


__all__ = ["move"]
