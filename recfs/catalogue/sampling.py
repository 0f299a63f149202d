"""Some files of a catalogue, chosen at random: for who holds a few of them against what is there."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from recfs.catalogue.reading import reading
from recfs.catalogue.rows import NAMED
from recfs.core.model import State
from recfs.ports.rows import ROOT_INO

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

TRIES = 4
"""So many numbers are drawn for each file that is wanted: several may lead to one file."""


class Sampled(NamedTuple):
    """A file whose checksum is known, and that lies where its name says."""

    path: tuple[bytes, ...]
    state: State
    size_bytes: int
    sha256: bytes
    key: str | None
    """Of its object, if S3 has one."""
    etag: str | None


def sample(catalogue: Path, files: int, seed: int) -> list[Sampled]:
    """Up to so many files, none twice; as many as there are, if there are no more. Raises StoreError."""
    dice = random.Random(seed)
    found: dict[int, Sampled] = {}
    with reading(catalogue) as db:
        lowest, highest = db.execute("select min(ino), max(ino) from node where kind = 'file'").fetchone()
        draws = [dice.randint(lowest, highest) for _ in range(files * TRIES)] if highest is not None else []
        # Where many numbers are those of directories, the draws may meet few files: the first ones make up for that.
        for first, count in (*((draw, 1) for draw in draws), (0, files)):
            if len(found) >= files:
                break
            for ino, state, size, sha256, key, etag in db.execute(_NEXT, (first, count)).fetchall():
                if ino not in found and len(found) < files:
                    found[ino] = Sampled(_path(db, ino), State(state), size, sha256, key, etag)
    return list(found.values())


_NEXT = (
    "select node.ino, state, node.size_bytes, node.sha256, key, etag from node"
    " left join object using (ino) left join placement on placement.host = 1 and placement.ino = node.ino"
    " where node.ino >= ? and kind = 'file' and state in ('committed', 'uploading', 'stored', 'evicted', 'archived')"
    f" and {NAMED} and node.sha256 is not null and coalesce(placement.pending, 0) = 0 and placement.staging is null"
    " order by node.ino limit ?"
)


def _path(db: sqlite3.Connection, ino: int) -> tuple[bytes, ...]:
    names: list[bytes] = []
    while ino != ROOT_INO:
        ino, name = db.execute("select parent, name from node where ino = ?", (ino,)).fetchone()
        names.append(name)
    return tuple(reversed(names))


__all__ = ["Sampled", "sample"]
