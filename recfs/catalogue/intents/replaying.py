"""What the daemon before had answered, and SQLite did not have yet: the entries of its log, carried over at a start."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recfs.catalogue.intents.frames import Reader, frames
from recfs.catalogue.intents.log import log_paths
from recfs.errors import RowRefused
from recfs.ports.batch import Batch
from recfs.ports.intents import APPLIED, LOG, applied_in, mark_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recfs.ports.catalogue import Catalogue

log = logging.getLogger("recfs.catalogue")


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a start found in the log."""

    entries: int
    """So many were carried over."""
    is_read: bool
    """False: there were some that this version cannot read; what they told is lost."""


async def replay(catalogue: Catalogue, path: Path) -> Replayed:
    """Carry over what the catalogue at *path* does not have yet. Raises IoFailure or OutOfSpace.

    Done twice, or begun again, it comes to the same: entries say what rows are, not how they change.
    """
    facts = await catalogue.meta()
    applied = applied_in(facts)
    if applied is None:
        return Replayed(0, is_read=True)
    done = 0
    try:
        reader = Reader(facts[LOG])
        for number, body in _following(path, reader.epoch, applied):
            batch, totals = reader.entry(body)
            batch.meta[APPLIED] = mark_of(number, facts)
            await _carry_over(catalogue, batch, totals, number)
            done += 1
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
            found.update(frames(each.read_bytes(), epoch))
    following: list[tuple[int, bytes]] = []
    while (number := number + 1) in found:
        following.append((number, found[number]))
    return following


async def _carry_over(catalogue: Catalogue, batch: Batch, totals: Sequence[tuple[int, int, int]], number: int) -> None:
    for ino, size_bytes, files in totals:
        row = await catalogue.node(ino)
        if row is not None:
            batch.nodes.append(row._replace(size_bytes=size_bytes, rfiles=files))
    try:
        await catalogue.apply(batch)
    except RowRefused as error:
        log.error("entry %s of the intent log is carried over but for rows that the catalogue does not take: %s",
                  number, error)  # fmt: skip
        for change in batch.changes():
            with contextlib.suppress(RowRefused):
                await catalogue.apply(Batch.of([change]))


__all__ = ["Replayed", "replay"]
