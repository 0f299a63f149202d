"""Staging files made ahead, and the room there is for them.

The pool is filled by a thread, so that `create` on the trio thread touches the disk only to write a label.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple

import trio

from recfs.core.bounds import MAX_ID, MAX_INT
from recfs.core.layout import NAME_MAX_BYTES
from recfs.core.model import State
from recfs.disk.diskio import file_limit, is_beyond, too_many
from recfs.errors import OutOfSpace
from recfs.ports.rows import ROOT_INO
from recfs.state.problems import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.state.nodes import FileNode
    from recfs.stores.local import LocalStore

log = logging.getLogger("recfs.fs")

POOL_SIZE = 256
INODE_RESERVE = 1024
"""Inodes kept free, at most: directories and links that were taken have yet to be made in the home tree."""
HEADROOM_SHARE = 32
"""Which part of a small disk is put aside in each of the catalogue's files, at most."""
FETCH_LABEL = b"fetch "
"""Label of a partial copy of what S3 has: worth nothing to the next start."""
COPY_LABEL = b"copy "
"""Beginning of the label of a shown file's copy until all of it is there: it is worth nothing either."""
TRASH_LABEL = b"trash "
"""Label of what is brought back from the trash, with its number there: without a row it goes back to it."""
VERSION_LABEL = b"version "
"""Label of the copy of a version that is kept: its file is emptied once a row names the copy, so without it it is worth
nothing."""


LONG_PATH_BYTES = 3000
"""Longer paths are not written on labels, which have to fit into 4 KB on ext4 …"""
ELSEWHERE = b".../"
"""… but the name alone, after this; no name at the top of the mount. The directory's number is there."""


class Label(NamedTuple):
    """What a staging file says of itself (an extended attribute): enough to adopt it if its row never got written."""

    ino: int
    parent: int
    mode: int
    uid: int
    gid: int
    closed_bytes: int | None
    """Size at the last writer's close; None while somebody writes."""
    path: bytes
    written_ns: int = 0
    """When the label was written (CLOCK_MONOTONIC): of two of one boot the later one counts."""

    def encode(self) -> bytes:
        """The attribute's value."""
        closed = -1 if self.closed_bytes is None else self.closed_bytes
        return b"2 %d %d %d %o %d %d %d %b" % (
            self.written_ns, self.ino, self.parent, self.mode, self.uid, self.gid, closed, self.path,
        )  # fmt: skip

    @classmethod
    def decode(cls, value: bytes) -> Label:
        """Read an attribute's value, also as version 1 wrote it. Raises ValueError."""
        version, _, rest = value.partition(b" ")
        if version not in (b"1", b"2"):
            raise ValueError(f"label of version {version[:20]!r}")
        written, _, rest = (b"0", b" ", rest) if version == b"1" else rest.partition(b" ")
        ino, parent, mode, uid, gid, closed, path = rest.split(b" ", 6)
        names = path.split(b"/")
        if any(not name or name in (b".", b"..") or len(name) > NAME_MAX_BYTES or b"\0" in name for name in names):
            raise ValueError("label with a path that is none")
        return cls(
            _within(int(ino), ROOT_INO, MAX_INT), _within(int(parent), ROOT_INO, MAX_INT),
            _within(int(mode, 8), 0, 0o7777), _within(int(uid), 0, MAX_ID), _within(int(gid), 0, MAX_ID),
            None if closed == b"-1" else _within(int(closed), 0, MAX_INT), path, _within(int(written), 0, MAX_INT),
        )  # fmt: skip


def _within(number: int, least: int, most: int) -> int:
    if not least <= number <= most:
        raise ValueError(f"label with {number:.6g}, which is not from {least} to {most}")
    return number


def pool_size() -> int:
    """How many are made ahead; each is open."""
    return min(POOL_SIZE, max(2, file_limit() // 8))


class StagingPool:
    """Staging files made ahead."""

    def __init__(self, store: LocalStore, limiter: trio.CapacityLimiter) -> None:
        self._store = store
        self.limiter = limiter
        self._ready: list[tuple[str, int]] = []
        self._prefix = secrets.token_hex(6)
        self._count = 0
        self._wanted = trio.Event()
        self._size = pool_size()
        self._unsynced = self._synced = 0
        """How many names were made without the thread, and how many of them a power cut would spare."""

    def new_id(self) -> str:
        """A staging id that was never used."""
        self._count += 1
        return f"{self._prefix}-{self._count:x}"

    def spare_ids(self) -> set[str]:
        """Of those that are ready. Atomic."""
        return {staging_id for staging_id, _ in self._ready}

    def try_take(self) -> tuple[str, int] | None:
        """A (staging id, descriptor) if one is ready."""
        if len(self._ready) <= self._size // 2:
            self._wanted.set()
        return self._ready.pop() if self._ready else None

    def take(self) -> tuple[str, int]:
        """A (staging id, descriptor): a ready one, else one made now. Raises OSError when none can be made.

        Never waits for the thread that makes them: who creates a file holds its directory for everybody.
        """
        slot = self.try_take()
        if slot is not None:
            return slot
        staging_id = self.new_id()
        fd = self._store.make_one_staging(staging_id)
        if is_beyond(fd):
            os.close(fd)
            self._store.drop_staging([staging_id])
            raise too_many()
        self._unsynced += 1
        return staging_id, fd

    async def names_durable(self) -> None:
        """Wait until the names of all staging files that were taken are on stable storage. Raises OSError."""
        while (seen := self._unsynced) > self._synced:
            await trio.to_thread.run_sync(self._store.sync_staging, limiter=self.limiter)
            self._synced = max(self._synced, seen)

    def discard(self, staging_id: str) -> None:
        """Remove a staging file that was taken but not used. Blocking."""
        self._store.drop_staging([staging_id])

    def take_over(self, path: bytes) -> str:
        """Have the file at a local path be a staging file; its id. Raises OSError."""
        staging = self.new_id()
        self._store.rename(path, self._store.staging(staging))
        return staging

    def label(self, node: FileNode, *, before_writing: bool = False) -> None:
        """Write on a node's staging file whose it is: enough to adopt it if its row never got written.

        *before_writing*: nothing has been changed yet, and nothing may be while the label says "closed": raises
        OSError. Else a label that cannot be written is a warning: it counts only if the daemon dies at once.
        """
        if node.body is None or node.unlinked:
            return
        closed = node.bytes if node.state is State.SEALING and not before_writing else None
        path = b"/".join(node.parts())
        now = time.monotonic_ns()
        label = Label(node.ino, node.parent.ino, node.mode, node.uid, node.gid, closed, path, now)
        kind = COPY_LABEL if node.body.copying else b""
        try:
            fd = node.body.fd
            if len(path) > LONG_PATH_BYTES or not self._store.label(fd, kind + label.encode()):
                self._store.label(fd, kind + label._replace(path=ELSEWHERE + node.name).encode())
        except Exception as error:
            if before_writing:
                raise
            log.warning("%s: its staging file cannot be labelled: %s", node.path, reason_of(error))

    def label_version(self, fd: int, node: FileNode) -> None:
        """Write on a staging file that it is the copy of a version of this one. Raises OSError."""
        self._store.label(fd, VERSION_LABEL + b"%d" % node.ino)

    async def run(self) -> None:
        """Keep the pool filled. While the disk refuses, whoever takes one meets the same error."""
        while True:
            ids = [self.new_id() for _ in range(self._size - len(self._ready))]
            with contextlib.suppress(OSError):
                fds = await trio.to_thread.run_sync(self._store.make_staging, ids, limiter=self.limiter)
                self._keep(list(zip(ids, fds, strict=True)))
            self._wanted = trio.Event()
            await self._wanted.wait()

    def _keep(self, made: list[tuple[str, int]]) -> None:
        high = [(staging_id, fd) for staging_id, fd in made if is_beyond(fd)]
        for _, fd in high:
            os.close(fd)
        self._store.drop_staging(staging_id for staging_id, _ in high)
        self._ready.extend(slot for slot in made if slot not in high)

    def close(self) -> None:
        """Remove what was made and not used."""
        for _, fd in self._ready:
            os.close(fd)
        self._store.drop_staging(staging_id for staging_id, _ in self._ready)
        self._ready.clear()


class DiskReserve:
    """The disk's reserve: writers get ENOSPC while `min_free` is still there for the catalogue and the operator."""

    REFRESH_BYTES = 64 << 20
    REFRESH_S = 1.0

    def __init__(
        self, store: LocalStore, min_free: int, keep_headroom: Callable[[int], None] = lambda most_bytes: None
    ) -> None:
        """*keep_headroom* puts room aside in the catalogue's own files, so many bytes at most."""
        self._store = store
        self.min_free = min_free
        self.max_file_bytes = store.max_file_bytes
        """Size of the largest file that the disk takes."""
        self._keep_headroom = keep_headroom
        self._budget = 0
        self._checked = float("-inf")

    def left(self) -> int:
        """Bytes free above the reserve; negative when it is being used up."""
        info = self._store.space()
        return info.f_bavail * info.f_frsize - self.min_free

    @property
    def problem(self) -> str | None:
        """Why nothing can be made or grow now, for people; None while there is room. Asks the disk."""
        info = self._store.space()
        free = info.f_bavail * info.f_frsize - self.min_free
        remedy = "new and growing files are refused (ENOSPC): remove files, or make the disk larger"
        if free <= 0:
            return f"the disk is down to min_free ({self.min_free} bytes): {remedy}, or lower min_free"
        if info.f_files and info.f_favail <= inode_reserve(info):
            return f"the disk has no inodes left (df -i): {remedy}"
        return None

    def keep_emergency_reserve(self) -> None:
        """Put room aside for the catalogue, for when the reserve is gone, too, or again after it was used."""
        if self.left() > 0:
            self._store.hold_emergency_reserve()
            disk = self._store.space()
            self._keep_headroom(disk.f_blocks * disk.f_frsize // HEADROOM_SHARE)

    def forget(self) -> None:
        """Others have used up some: look anew before the next byte is admitted."""
        self._budget = 0

    def admit(self, added: int) -> None:
        """Raise OutOfSpace when *added* bytes would eat into the reserve.

        While the reserve is reached every call looks anew: all are refused, until there is room, and then none.
        """
        if added >= self._budget or time.monotonic() - self._checked > self.REFRESH_S:
            free = self.left()
            self._checked = time.monotonic()
            if free <= 0 or added > free:
                self._budget = 0
                raise OutOfSpace(f"disk under {self._store.root}: {max(free, 0)} bytes left above min_free")
            self._budget = min(free, self.REFRESH_BYTES)
        self._budget -= added

    def admit_entry(self) -> None:
        """Raise OutOfSpace when there is no room for one more file, directory or link: no bytes, or no inode."""
        info = self._store.space()
        if info.f_bavail * info.f_frsize <= self.min_free:
            self._budget = 0
            raise OutOfSpace(f"disk under {self._store.root}: nothing left above min_free")
        # File systems that make inodes as they need them say that they have none at all.
        if info.f_files and info.f_favail <= inode_reserve(info):
            raise OutOfSpace(f"disk under {self._store.root}: it has no inodes left (df -i); remove files")


def inode_reserve(info: os.statvfs_result) -> int:
    """How many inodes of a file system that has a fixed number of them are kept for the daemon's own work."""
    return min(INODE_RESERVE, info.f_files // 64)
