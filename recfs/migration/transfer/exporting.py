"""Part of a store goes out: into a plain tree, or as a stream."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import IO, TYPE_CHECKING

from recfs.core.migration import manifest as manifests
from recfs.core.migration import sums
from recfs.core.migration.manifest import Manifest
from recfs.errors import Busy
from recfs.migration.transfer.beside import read_manifest, read_sums, sums_text, write_whole
from recfs.migration.transfer.items import Outcome, Problem, Stopped
from recfs.migration.transfer.leftovers import Leftovers
from recfs.migration.transfer.placing import PlainPlace, Tree
from recfs.migration.transfer.tars import TarWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.migration.transfer.items import Item, Source


def export_tree(
    source: Source, top: tuple[bytes, ...], to: int, outcome: Outcome, *, delete: bool = False,
    tell: Callable[[Outcome], None] | None = None, placed: Callable[[Item, str], None] | None = None,
) -> None:  # fmt: skip
    """Copy what is at *top* below a directory (a descriptor), with SHA256SUMS and the manifest beside it.

    What these say of other exports there is kept. Files of an earlier export that the store has no more are named,
    and removed if they are to be (*delete*) and have the bytes that were exported. Raises Busy when another export
    writes there, InvalidArgument where the files beside are none of these, OSError when they cannot be written.
    """
    try:
        fcntl.flock(to, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy("another export writes there now") from None
    sums_before, said_before = read_sums(to) or {}, read_manifest(to) or Manifest()
    leftovers = Leftovers(b"/".join(top), sums_before, delete=delete)
    tree = Tree(to, PlainPlace(), outcome, replace=True, all_modes=True, placed=placed)
    with contextlib.closing(tree):
        try:
            for each in source.items():
                leftovers.heard(each, is_problem=isinstance(each, Problem))
                _put(tree, each, outcome)
                if tell is not None:
                    tell(outcome)
            tree.finish()
        except Stopped as error:
            outcome.stopped = str(error)
            tree.save()
    try:
        stay = sums_before if outcome.stopped else leftovers.settle(to, outcome)
        _write_beside(source, b"/".join(top), to, outcome, stay, said_before)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        outcome.stopped = outcome.stopped or f"{sums.NAME.decode()}: {error.strerror}"


def _write_beside(
    source: Source, top: bytes, to: int, outcome: Outcome, stay: dict[bytes, str], said_before: Manifest
) -> None:
    said = said_before.without(top) if source.manifest is not None else said_before
    if source.manifest is not None:
        said.add(source.manifest)
        said.version, said.made_ns = source.manifest.version, source.manifest.made_ns
    said.attributes |= {path: dict(own) for path, own in outcome.attributes.items()}
    said.add_of(said_before, stay.keys() - outcome.sums.keys())
    write_whole(to, manifests.NAME, said.text().encode("ascii"))
    write_whole(to, sums.NAME, sums_text(stay | outcome.sums))


def export_stream(
    source: Source, file: IO[bytes], outcome: Outcome, *,
    tell: Callable[[Outcome], None] | None = None, placed: Callable[[Item, str], None] | None = None,
) -> None:  # fmt: skip
    """Write a tar(1) stream. Raises OSError of the stream."""
    writer = TarWriter(file, source.manifest or Manifest(), outcome, placed)
    for each in source.items():
        _put(writer, each, outcome)
        if tell is not None:
            tell(outcome)
    writer.finish()


def _put(into: Tree | TarWriter, each: Item | Problem, outcome: Outcome) -> None:
    if isinstance(each, Problem):
        outcome.problem(each.path, each.why, each.reason)
    else:
        into.put(each)


def make_destination(path: str | os.PathLike[str]) -> int:
    """Make a directory that was named by a person, unless it is there; a descriptor. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def is_below(folder: int, others: set[tuple[int, int]]) -> bool:
    """Whether a directory (a descriptor) is one of others, by device and inode, or lies below one. Raises OSError.

    By the directories above it as they are, and not by their names: bind mounts and links lead there as well.
    """
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    while True:
        try:
            info = os.fstat(here)
            identity = (info.st_dev, info.st_ino)
            if identity in others:
                return True
            above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
        finally:
            os.close(here)
        here = above
        info = os.fstat(here)
        if (info.st_dev, info.st_ino) == identity:
            os.close(here)
            return False


__all__ = ["export_stream", "export_tree", "is_below", "make_destination"]
