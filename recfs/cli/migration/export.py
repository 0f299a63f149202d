"""`recfs export`: a user or a recording as plain files, or as a stream."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from recfs import __version__
from recfs.cli.common import cwd
from recfs.cli.common.help import Command
from recfs.cli.common.options import Invocation, store_options
from recfs.cli.common.store import TOP_LEVELS, locate, open_store
from recfs.cli.migration.stores import Side, opened_mount, side_of, source_of
from recfs.cli.migration.telling import EXITS, Teller
from recfs.core.layout import is_id
from recfs.errors import InvalidPath, IoFailure, RecfsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recfs.migration.transfer.items import Ask, Item

_WHYS = {
    "writing": "it is being written, or was just written; the next export has it",
    "damaged": "it is incomplete or corrupt, or what was read has another sha256 than recfs recorded",
    "away": "its bytes are in an archive class of S3, or in S3 and no daemon runs that could fetch them",
    "unreadable": "it, or its directory, could not be read",
    "refused": "the destination did not take it",
    "differs": "something that is no file is in its place at the destination",
    "unsaid": "it is there, but a stream cannot hold one of its extended attributes",
}
_EXAMPLE = """
$ recfs export 5 /backup/of-5
users/5/recordings/142/video.mp4: away: it is archived in S3: `recfs restore` has it brought back
11 files exported, 1.5 GiB, 3 fetched from S3, 1 not transferred
$ cd /backup/of-5 && sha256sum --check --quiet SHA256SUMS
$ recfs export users/5/recordings/142 - | ssh other recfs import -
"""
_READ_BEFORE = 64
_LET_GO_S, _LOOK_S = 5.0, 0.05
_RECORDING_DEPTH, _USER_DEPTH = 4, 2


@click.command(cls=Command, exits=EXITS, sections={"Reasons": _WHYS}, example=_EXAMPLE)
@click.argument("what", metavar="USER|RECORDING")
@click.argument("destination", metavar="DEST")
@click.option("--delete", is_flag=True, help="Remove at DEST what an earlier export brought and the store has no more.")
@click.option("--evict-again", is_flag=True, help="Let the local copies go again of files that were in S3 alone.")
@store_options
@click.pass_context
def export(ctx: click.Context, what: str, destination: str, delete: bool, evict_again: bool) -> None:
    """Copy a user, or one recording, out of recfs: as plain files below DEST, or as a tar(1) stream for DEST `-`.

    USER is an id or `users/<id>`, RECORDING is `users/<id>/recordings/<id>`, or either's path in the mount. Below DEST
    they lie at the same paths. Beside them are `SHA256SUMS`, which sha256sum(1) checks, and `recfs-manifest.json` with
    what plain files do not hold: lives of recordings, limits and uid of the user, extended attributes. Several exports
    into one DEST share these. A stream has the manifest first and SHA256SUMS last.

    Files that only S3 has are fetched as they are read. Each is proven by recfs's sha256 before it gets its name, so
    an export that was broken off is simply run again: what is right at DEST already is not copied again, and what
    differs is replaced. What an earlier export brought and the store has no more is named and left, with its line
    in SHA256SUMS, unless there is `--delete`. What cannot be had as it should be is named and left out. Modes and
    times are kept, owners are not, and so group and others cannot write in directories; links are copied as links.
    What is shown of `shared/` in a user's `thumbnails` is not the user's, and left out.

    Without a daemon all that lies on this disk is exported.
    """
    from recfs.migration.transfer.exporting import export_stream, export_tree
    from recfs.migration.transfer.items import Outcome

    invocation = ctx.ensure_object(Invocation)
    is_stream = destination == "-"
    if is_stream and invocation.json:
        raise click.UsageError("--json prints on standard output, where the stream goes: give a DEST", ctx)
    if is_stream and delete:
        raise click.UsageError("--delete is for a DEST that is a directory", ctx)
    if is_stream and sys.stdout.isatty():
        raise click.UsageError("a stream is not written to a terminal: redirect it, or give a DEST", ctx)
    side, top = _meant(invocation, what)
    teller, outcome = Teller("exported", json=invocation.json, apart=is_stream), Outcome()

    evicting = _Evicting(side.ask) if evict_again and side.mount is not None else None
    placed = evicting.placed if evicting is not None else None
    with opened_mount(side.mount or side.store.root) as folder:
        source = source_of(side, folder, top, __version__, time.time_ns())
        if is_stream:
            export_stream(source, sys.stdout.buffer, outcome, tell=teller, placed=placed)
        else:
            path = cwd.absolute(Path(destination))
            with _destination(side, path) as to, _told_of(path):
                export_tree(source, top, to, outcome, delete=delete, tell=teller, placed=placed)
    if evicting is not None:
        evicting.finish()
    teller.end(ctx, outcome)


class _Evicting:
    """Lets local copies go again, some time after they were read: the daemon hears late that a file was closed."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._read: deque[str] = deque()
        self._kept: list[str] = []

    def placed(self, item: Item, _: str) -> None:
        """A file went out."""
        if item.was_away:
            self._read.append(os.fsdecode(item.path))
            if len(self._read) > _READ_BEFORE and not self._is_gone(first := self._read.popleft()):
                self._kept.append(first)

    def finish(self) -> None:
        """All is read. What has to stay stays until its room is needed."""
        until_s = time.monotonic() + _LET_GO_S
        left = [*self._kept, *self._read]
        while left := [path for path in left if not self._is_gone(path)]:
            if time.monotonic() >= until_s:
                return
            time.sleep(_LOOK_S)

    def _is_gone(self, path: str) -> bool:
        try:
            return not self._ask("evict", path=path, recursive=False)["kept_files"]
        except RecfsError:
            return True  # it is no more: there is nothing to let go


def _meant(invocation: Invocation, what: str) -> tuple[Side, tuple[bytes, ...]]:
    """The store, and the path in it, of a user or recording. Raises RecfsError."""
    if is_id(os.fsencode(what)):
        store, inside = open_store(invocation), f"users/{what}"
    else:
        place = locate(invocation, Path(what))
        store, inside = place.store, place.path
    top = tuple(os.fsencode(inside).split(b"/"))
    user = len(top) in (_USER_DEPTH, _RECORDING_DEPTH) and top[0] == b"users" and is_id(top[1])
    if not user or (len(top) == _RECORDING_DEPTH and not (top[2] == b"recordings" and is_id(top[3]))):
        raise InvalidPath(f"{what}: neither a user (5, users/5) nor a recording (users/5/recordings/142)")
    side = side_of(store)
    side.ask("info", path=inside)  # NotFound
    return side, top


@contextmanager
def _destination(side: Side, path: Path) -> Iterator[int]:
    """A descriptor of DEST, which is made. Raises InvalidPath inside the store or its mount, IoFailure."""
    from recfs.migration.transfer.exporting import is_below, make_destination

    own = set()
    for top in (side.store.root, side.mount):
        for each in (top, *(top / name for name in (*TOP_LEVELS, ".recfs"))) if top is not None else ():
            with suppress(OSError):
                info = os.stat(each)
                own.add((info.st_dev, info.st_ino))
    with _told_of(path):
        above = os.open(path if path.is_dir() else path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            inside = is_below(above, own)
        finally:
            os.close(above)
        if inside:
            raise InvalidPath(f"{path} lies in the store that is exported, or in its mount")
        to = make_destination(path)
    try:
        yield to
    finally:
        os.close(to)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IoFailure(f"{path} cannot be written: {error.strerror or error}") from error


__all__ = ["export"]
