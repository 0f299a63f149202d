"""What the daemon before had answered, and SQLite did not have yet: the entries of its log, carried over at a start."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from recfs.catalogue.intents.frames import Reader, frames
from recfs.catalogue.intents.log import log_paths, read
from recfs.errors import OutOfSpace, RowRefused
from recfs.ports.batch import COUNTED, UNSURE, Batch
from recfs.ports.intents import APPLIED, LOG, applied_in, mark_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from recfs.catalogue.sqlite import SqliteCatalogue
    from recfs.ports.catalogue import Catalogue

log = logging.getLogger("recfs.catalogue")

TIGHT_BYTES = 64 << 20
"""On a disk with less than this left the own log of the catalogue is folded in on the way: what it takes, that would
lack."""
FOLDED_EVERY = 32
"""So many entries."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a start found in the log."""

    entries: int
    """So many were carried over."""
    is_read: bool
    """False: there were some that this version cannot read; what they told is lost."""


MakeRoom: TypeAlias = "Callable[[], Awaitable[bool]]"


async def replay(catalogue: SqliteCatalogue, path: Path, make_room: MakeRoom) -> Replayed:
    """Carry over what the catalogue at *path* does not have yet. Raises IoFailure or OutOfSpace.

    *make_room* is called when the disk is full, and true if it made some for the catalogue.

    Done twice, or begun again, it comes to the same: entries say what rows are, not how they change.
    """
    facts = await catalogue.meta()
    applied = applied_in(facts)
    if applied is None:
        return Replayed(0, is_read=True)
    done = 0
    info = os.statvfs(path.parent)
    is_tight = info.f_bavail * info.f_frsize < TIGHT_BYTES
    try:
        reader = Reader(facts[LOG])
        for number, body in _following(path, reader.epoch, applied):
            batch, totals = reader.entry(body)
            batch.meta[APPLIED] = mark_of(number, facts)
            await _carry_over(catalogue, batch, totals, number, make_room)
            done += 1
            if done % FOLDED_EVERY == 0 and is_tight:
                with contextlib.suppress(OutOfSpace):
                    await catalogue.checkpoint(at_least_pages=1)
    except ValueError as error:
        log.error("the intent log of %s cannot be read by this version: %s", path, error)
        return Replayed(done, is_read=False)
    if done:
        log.info("%s changes were in the intent log, and are in the catalogue now", f"{done:,}")
    return Replayed(done, is_read=True)


def _following(path: Path, epoch: int, number: int) -> list[tuple[int, bytes]]:
    """Those behind *number*, without a gap."""
    found: dict[int, bytes] = {}
    for each in log_paths(path):
        with contextlib.suppress(OSError):
            found.update(frames(read(each), epoch))
    following: list[tuple[int, bytes]] = []
    while (number := number + 1) in found:
        following.append((number, found[number]))
    return following


async def _carry_over(
    catalogue: Catalogue, batch: Batch, totals: Sequence[tuple[int, int, int]], number: int, make_room: MakeRoom
) -> None:
    for ino, size_bytes, files in totals:
        try:
            row = await catalogue.node(ino)
        except (KeyError, ValueError):  # the start sets it aside, and tells
            row, batch.meta[UNSURE] = None, "1"
        if row is not None:
            batch.nodes.append(row._replace(size_bytes=size_bytes, rfiles=files))
    try:
        await _apply(catalogue, batch, make_room)
    except RowRefused as error:
        log.error("entry %s of the intent log is carried over but for rows that the catalogue does not take: %s",
                  number, error)  # fmt: skip
        last, batch.meta = batch.meta, {}
        for change in batch.changes():
            try:
                await _apply(catalogue, Batch.of([change]), make_room)
            except RowRefused:
                if change[0] in COUNTED:
                    last[UNSURE] = "1"  # the counters of this entry count it
        await _apply(catalogue, Batch(meta=last), make_room)


async def _apply(catalogue: Catalogue, batch: Batch, make_room: MakeRoom) -> None:
    try:
        await catalogue.apply(batch)
    except OutOfSpace:
        if not await make_room():
            raise
        await catalogue.apply(batch)


__all__ = ["Replayed", "replay"]
