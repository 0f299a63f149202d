"""Hashing in threads, many small files at a time or one large one, while the walk goes on; so many at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, NamedTuple

from recfs.disk.commit.digests import Digest, Pass, Source
from recfs.disk.commit.lanes import SMALL_BYTES
from recfs.disk.commit.small import digest_files

if TYPE_CHECKING:
    from recfs.core.upkeep.rebuilding import Content
    from recfs.ports.rows import NodeRow, ObjectRow
    from recfs.stores.local import LocalStore

AT_ONCE = 64
"""Small files that a thread hashes in one go, …"""
AT_ONCE_BYTES = 16 << 20
"""… or so many bytes."""
AHEAD = 4
"""So many of these wait for each thread."""
LOOK_S = 0.2
"""How often somebody is told how far it is."""


class Unhashed(NamedTuple):
    """A file of the home tree whose row is missing its checksums."""

    row: NodeRow
    path: bytes
    """In the mount."""
    far: ObjectRow | None
    told: Content | None = None
    """What the old catalogue says of it."""
    again: int = 0
    """How often it was found changed once it had been read."""


Group = tuple[Unhashed, ...]


class Hasher:
    """Takes files, and gives them back with their digests, in any order."""

    def __init__(self, store: LocalStore, threads: int) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="recfs-rebuild")
        self._limit = AHEAD * threads
        self._small: list[Unhashed] = []
        self._small_bytes = 0
        self._running: dict[Future[list[Digest]], Group] = {}
        self._passes: dict[Future[list[Digest]], Pass] = {}
        self._done_bytes = 0

    @property
    def done_bytes(self) -> int:
        """How much was hashed so far."""
        return self._done_bytes + sum(each.done_bytes for each in self._passes.values())

    @property
    def busy(self) -> bool:
        """Whether enough is under way that the walk should wait."""
        return len(self._running) >= self._limit

    def add(self, file: Unhashed) -> None:
        """Have a file hashed."""
        if file.row.size_bytes > SMALL_BYTES:
            passing = Pass(Source(self._store.home([file.path]), md5=False), file.row.size_bytes)
            future = self._pool.submit(self._one, passing)
            self._running[future] = (file,)
            self._passes[future] = passing
            return
        self._small.append(file)
        self._small_bytes += file.row.size_bytes
        if len(self._small) >= AT_ONCE or self._small_bytes >= AT_ONCE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Have what was gathered hashed now."""
        if self._small:
            group, self._small, self._small_bytes = tuple(self._small), [], 0
            sources = [Source(self._store.home([file.path]), md5=False) for file in group]
            self._running[self._pool.submit(digest_files, sources, self._store)] = group

    def _one(self, passing: Pass) -> list[Digest]:
        found = passing.run(self._store, math.inf, lambda: False)
        return [found] if found is not None else []

    def finished(self, *, everything: bool = False) -> Iterator[tuple[Unhashed, Digest] | None]:
        """What is done; *everything*: until all is. None now and then, while nothing is."""
        while self._running or (everything and self._small):
            if everything:
                self.flush()  # also what was given meanwhile
            patience = LOOK_S if everything or self.busy else 0.0
            done, _ = wait(self._running, timeout=patience, return_when=FIRST_COMPLETED)
            if not done and not (everything or self.busy):
                return
            if not done:
                yield None
            for future in done:
                yield from self._of(future)

    def _of(self, future: Future[list[Digest]]) -> Iterator[tuple[Unhashed, Digest]]:
        group: Sequence[Unhashed] = self._running.pop(future)
        self._passes.pop(future, None)
        for file, digest in zip(group, future.result(), strict=True):
            self._done_bytes += digest.size_bytes
            yield file, digest

    def close(self) -> None:
        """Stop what is under way, and wait for that."""
        for passing in self._passes.values():
            passing.stop()
        self._pool.shutdown(cancel_futures=True)


__all__ = ["Group", "Hasher", "Unhashed"]
