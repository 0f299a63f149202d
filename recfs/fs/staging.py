"""Staging files made ahead, and the room there is for them.

The pool is filled by a thread, so that `create` on the trio thread touches the disk only to write a label.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from recfs.errors import OutOfSpace
from recfs.fs.diskio import is_beyond, too_many

if TYPE_CHECKING:
    from recfs.stores.local import LocalStore

POOL_SIZE = 256
FETCH_LABEL = b"fetch "
"""Label of a partial copy of what S3 has: worth nothing to the next start."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a staging file says of itself (an extended attribute): enough to adopt it if its row never got written."""

    ino: int
    parent: int
    mode: int
    uid: int
    gid: int
    closed_bytes: int | None
    """Size at the last writer's close; None while somebody writes."""
    path: bytes

    def encode(self) -> bytes:
        """The attribute's value."""
        closed = -1 if self.closed_bytes is None else self.closed_bytes
        return b"1 %d %d %o %d %d %d %b" % (self.ino, self.parent, self.mode, self.uid, self.gid, closed, self.path)

    @classmethod
    def decode(cls, value: bytes) -> Label:
        """Read an attribute's value. Raises ValueError."""
        version, ino, parent, mode, uid, gid, closed, path = value.split(b" ", 7)
        if version != b"1":
            raise ValueError(f"label of version {version!r}")
        return cls(
            int(ino), int(parent), int(mode, 8), int(uid), int(gid), None if closed == b"-1" else int(closed), path
        )


class StagingPool:
    """Staging files made ahead."""

    def __init__(self, store: LocalStore, limiter: trio.CapacityLimiter) -> None:
        self._store = store
        self._limiter = limiter
        self._ready: list[tuple[str, int]] = []
        self._prefix = secrets.token_hex(6)
        self._count = 0
        self._wanted = trio.Event()
        self._refilled = trio.Event()
        self._error: OSError | None = None

    def new_id(self) -> str:
        """A staging id that was never used."""
        self._count += 1
        return f"{self._prefix}-{self._count:x}"

    def try_take(self) -> tuple[str, int] | None:
        """A (staging id, descriptor) if one is ready."""
        if len(self._ready) <= POOL_SIZE // 2:
            self._wanted.set()
        return self._ready.pop() if self._ready else None

    async def take(self) -> tuple[str, int]:
        """A (staging id, descriptor); waits for the thread that makes them. Raises OSError when it cannot."""
        while True:
            slot = self.try_take()
            if slot is not None:
                return slot
            refilled = self._refilled
            await refilled.wait()
            if self._error is not None and not self._ready:
                raise self._error

    def discard(self, staging_id: str) -> None:
        """Remove a staging file that was taken but not used. Blocking."""
        self._store.drop_staging([staging_id])

    async def run(self) -> None:
        """Keep the pool filled."""
        while True:
            ids = [self.new_id() for _ in range(POOL_SIZE - len(self._ready))]
            self._error = None
            try:
                fds = await trio.to_thread.run_sync(self._store.make_staging, ids, limiter=self._limiter)
            except OSError as error:
                self._error = error
            else:
                self._keep(list(zip(ids, fds, strict=True)))
            self._wanted = trio.Event()
            refilled, self._refilled = self._refilled, trio.Event()
            refilled.set()
            await self._wanted.wait()

    def _keep(self, made: list[tuple[str, int]]) -> None:
        high = [(staging_id, fd) for staging_id, fd in made if is_beyond(fd)]
        for _, fd in high:
            os.close(fd)
        self._store.drop_staging(staging_id for staging_id, _ in high)
        self._ready.extend(slot for slot in made if slot not in high)
        if high:
            self._error = too_many()

    def close(self) -> None:
        """Remove what was made and not used."""
        for _, fd in self._ready:
            os.close(fd)
        self._store.drop_staging(staging_id for staging_id, _ in self._ready)
        self._ready.clear()


class Space:
    """The disk's reserve: writers get ENOSPC while `min_free` is still there for the catalogue and the operator."""

    REFRESH_BYTES = 64 << 20
    REFRESH_S = 1.0

    def __init__(self, store: LocalStore, min_free: int) -> None:
        self._store = store
        self.min_free = min_free
        self.has_ballast = False
        """Whether room is put aside for the catalogue, for when the reserve is gone, too."""
        self._budget = 0
        self._checked = float("-inf")

    def left(self) -> int:
        """Bytes free above the reserve; negative when it is being used up."""
        info = self._store.space()
        return info.f_bavail * info.f_frsize - self.min_free

    def keep_ballast(self) -> None:
        """Put room aside, or again after it was used; not from the reserve."""
        if not self.has_ballast:
            self._store.drop_ballast()
        elif self.left() > 0:
            self._store.hold_ballast()

    def forget(self) -> None:
        """Others have used up some: look anew before the next byte is admitted."""
        self._budget = 0

    def admit(self, added: int) -> None:
        """Raise OutOfSpace when *added* bytes would eat into the reserve."""
        now = time.monotonic()
        if added > self._budget or now - self._checked > self.REFRESH_S:
            free = self.left()
            self._checked = now
            if added > free:
                self._budget = 0
                raise OutOfSpace(f"disk under {self._store.root}: {max(free, 0)} bytes left above min_free")
            self._budget = min(free, self.REFRESH_BYTES)
        self._budget -= added
