"""What the file system asks of the outside world: contracts, and the value types that cross them.

Adapters live in `stores/`, `catalogue/` and `fuse/kernel.py`; they meet their users only in `parts.py`.
Catalogue methods are `async def` although SQLite answers synchronously, so that a server database can stand
behind the same port: callers must treat every call as a point where other tasks may run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from recfs.core.model import Kind, State
from recfs.core.quota import Limits

ROOT_INO = 1
"""Inode number of the mount's root (FUSE_ROOT_ID)."""

LIMBO_INO = 0
"""Stands for `.recfs/limbo` where a home directory is named by inode number."""


class Pending:
    """Bits of `NodeRow.pending`: what the home tree does not show yet. 0 = settled."""

    MAKE = 1
    """The directory or symlink is not there yet."""
    MOVE = 2
    """The bytes or the directory lie elsewhere (staging, or the old name)."""
    ATTRS = 4
    """Mode, owner or times differ from the row."""
    UNMARKED = 8
    """Of a file in state `writing`: its bytes may have been changed where they lie, whatever place and label say."""


class Promise:
    """Bits of `NodeRow.promised`: what the programs that wrote these bytes, uncommitted as they are, were told of them.

    Committed bytes are promised more than either.
    """

    FSYNCED = 1
    """fsync(2) returned: they survive a power cut."""
    CLOSED = 2
    """Their last writer closed them: they survive the daemon's death."""


class NodeRow(NamedTuple):
    """One inode with its only name (recfs has no hard links), as the catalogue keeps it."""

    ino: int
    parent: int
    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size_bytes: int
    """File: logical size. Directory: `rbytes`, the recursive total of logical sizes."""
    rfiles: int
    """Directory: how many files and symlinks lie below it."""
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    state: State | None
    sha256: bytes | None
    md5: bytes | None
    target: bytes | None
    """Symlink: where it points."""
    staging: str | None
    """The bytes lie in staging under this id; None: in the home tree (or nowhere yet)."""
    home_ino: int | None
    """st_ino of the bytes or directory on disk; tells after a crash whether a rename happened."""
    pending: int
    home_parent: int | None
    """With `home_name`: where the entry physically lies while that differs from (parent, name)."""
    home_name: bytes | None
    activity_ns: int
    """Temp job directory: time of the last change anywhere inside the job (`Clock.steady_ns`)."""
    promised: int
    """File that is not committed: bits of `Promise`."""
    has_xattrs: int
    """1: rows in `xattr` exist for this inode."""
    has_object: int = 0
    """1: a row in `object` exists for this inode."""


class ObjectRow(NamedTuple):
    """What S3 holds of an inode: the version that was last confirmed, which may be older than the local bytes."""

    ino: int
    key: str
    """Where the object is; differs from the path between a rename and the move that follows it."""
    etag: str
    size_bytes: int
    sha256: bytes
    md5: bytes
    mtime_ns: int
    storage_class: str
    uploaded_ns: int
    used_ns: int
    """Last use of the local copy (`Clock.steady_ns`): the least recently used go first."""
    local: int
    """1: all the bytes are in the home tree too, and count in the cache's budget."""
    pinned: int
    """1: the local copy is not evicted."""
    keep_until_ns: int
    """The local copy is not evicted before (a route's keep_local; `Clock.steady_ns`)."""
    held: int
    """1: the way back of an overwrite that is not committed yet."""


class JournalRow(NamedTuple):
    """One piece of work on S3 that has to survive any crash. Idempotent: done twice it is as if done once."""

    id: int
    """In order of creation; work on one key is done in this order."""
    kind: str
    """upload, delete, move or abort."""
    ino: int
    """The inode an upload or move is for; 0 for the others."""
    key: str
    """delete and abort: the object. upload: where the last attempt was to put it, and may have; empty before the first.
    """
    upload_id: str
    """The multipart upload that was begun, or empty."""
    parts: str
    """Parts that were confirmed (JSON)."""
    size_bytes: int
    attempts: int
    next_try_ns: int
    """Not before (`Clock.steady_ns`, like `created_ns`); an hour ahead at most for failures, longer for deletes that
    wait for the trash's retention."""
    failed: int
    """1: given up until somebody retries or drops it."""
    error: str
    """What the last attempt met, or empty."""
    created_ns: int


class GarbageRow(NamedTuple):
    """Bytes or a directory that lost their name, not yet gone from disk."""

    gid: int
    ino: int
    kind: Kind
    path: bytes
    """The mount path it had, for people."""
    size_bytes: int
    sha256: bytes | None
    md5: bytes | None
    mode: int
    uid: int
    gid_owner: int
    mtime_ns: int
    staging: str | None
    home_parent: int | None
    home_name: bytes | None
    """Where it lies: staging, or home_parent/home_name, or (both None) the trash under `gid`."""
    home_ino: int | None
    deleted_ns: int
    """`Clock.steady_ns`."""
    held_by: int | None
    """The inode whose next version is to be promised what these bytes were; until then they are the way back."""
    promised: int = 0
    """What was promised of bytes that were not committed: bits of `Promise`."""


class AccountRow(NamedTuple):
    """One user's counters and own limits (None = the default applies; quota.UNLIMITED lifts it)."""

    user: str
    used_bytes: int
    used_files: int
    month: str
    month_uploads: int
    max_bytes: int | None
    max_files: int | None
    max_file_size: int | None
    max_monthly_uploads: int | None


@dataclass(slots=True)
class Batch:
    """Changes that become durable together: rows and the counters that count them."""

    nodes: list[NodeRow] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    accounts: list[AccountRow] = field(default_factory=list)
    garbage: list[GarbageRow] = field(default_factory=list)
    purged: list[int] = field(default_factory=list)
    """gids of garbage that is gone from disk."""
    xattrs: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)
    """(ino, name, value); value None removes."""
    whiteouts: list[tuple[int, bytes, bool]] = field(default_factory=list)
    """(directory, name, hidden)."""
    views: list[tuple[int, int]] = field(default_factory=list)
    """(view id, shared inode) pairs that were given out."""
    meta: dict[str, str] = field(default_factory=dict)
    objects: list[ObjectRow] = field(default_factory=list)
    objects_gone: list[int] = field(default_factory=list)
    """Inodes of which S3 holds nothing any more; applied before `objects`."""
    journal: list[JournalRow] = field(default_factory=list)
    journal_done: list[int] = field(default_factory=list)
    """ids of work that is done or dropped."""

    def __bool__(self) -> bool:
        return bool(
            self.nodes
            or self.objects
            or self.objects_gone
            or self.journal
            or self.journal_done
            or self.removed
            or self.accounts
            or self.garbage
            or self.purged
            or self.xattrs
            or self.whiteouts
            or self.views
            or self.meta
        )

    def changes(self) -> list[tuple[str, Any]]:
        """All changes one by one, with their field's name, in the order in which they are applied."""
        listed = [(name, item) for name in _APPLIED for item in getattr(self, name)]
        return listed + [("meta", item) for item in self.meta.items()]

    @classmethod
    def of(cls, changes: Sequence[tuple[str, Any]]) -> Batch:
        """A batch of some of another's changes."""
        batch = cls()
        for name, item in changes:
            if name == "meta":
                batch.meta[item[0]] = item[1]
            else:
                getattr(batch, name).append(item)
        return batch


_APPLIED = (
    "removed", "nodes", "accounts", "garbage", "purged", "xattrs", "whiteouts", "views", "objects_gone", "objects",
    "journal", "journal_done",
)  # fmt: skip


class Catalogue(Protocol):
    """The books: one row per inode. One writer (the daemon); reads see the writer's last batch."""

    @property
    def refused(self) -> Sequence[str]:
        """The last values that could not be written as they were, and what became of them."""

    async def apply(self, batch: Batch, *, trial: bool = False) -> None:
        """Write *batch* in one transaction: all of it, or nothing. Visible at once, durable after `sync`.

        *trial*: find out whether it would be taken, and change nothing. Times have the range of ext4, sums saturate at
        2**63 - 1. Any other integer that does not fit is written as the nearest that does; `refused` tells. Raises
        IoFailure or OutOfSpace where the catalogue as a whole fails, RowRefused where it does not take some row.
        """

    async def sync(self) -> None:
        """Make everything applied so far survive a power cut."""

    async def node(self, ino: int) -> NodeRow | None:
        """The row of *ino*, or None."""

    async def child(self, parent: int, name: bytes) -> NodeRow | None:
        """The row called *name* in *parent*, or None."""

    async def children(self, parent: int, after_ino: int, limit: int) -> Sequence[NodeRow]:
        """Up to *limit* rows of *parent* with ino > *after_ino*, in order of ino."""

    async def unsettled(self) -> Sequence[NodeRow]:
        """Rows that are not committed, or whose home tree entry is pending."""

    async def forget_home_inos(self) -> None:
        """The store was copied: no recorded st_ino is worth anything."""

    async def staged(self) -> set[str | None]:
        """Staging ids that rows name."""

    async def garbage(self) -> Sequence[GarbageRow]:
        """All garbage rows, oldest first."""

    async def account(self, user: str) -> AccountRow | None:
        """The counters of *user*, or None if there are none yet."""

    async def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """The user's extended attributes of *ino*."""

    async def whiteouts(self, parent: int) -> set[bytes]:
        """Names hidden in the fallback directory *parent*."""

    async def views(self) -> Sequence[tuple[int, int]]:
        """All (view id, shared inode) pairs."""

    async def jobs(self, activity_before_ns: int) -> Sequence[NodeRow]:
        """Temp job directories whose last change is older than *activity_before_ns*."""

    async def meta(self) -> dict[str, str]:
        """Store-wide facts: next_ino, next_gid, boot_id, clean, …"""

    async def object(self, ino: int) -> ObjectRow | None:
        """What S3 holds of *ino*."""

    async def journal(self) -> Sequence[JournalRow]:
        """All work that is not done, in order."""

    async def upload_names(self) -> Sequence[tuple[int, bytes, str | None]]:
        """(journal id, file name, user) of each upload; no user for shared files. Not in any order."""

    async def any_object(self) -> bool:
        """Whether S3 holds anything."""

    async def some_objects(self) -> tuple[Sequence[str], int]:
        """A few keys that S3 should hold, and how many files are in S3 alone."""

    async def object_at(self, key: str, but: int) -> int | None:
        """Another inode than *but* whose object lies under *key*, as of the last batch."""

    async def objects_below(self, folder: int, after_ino: int, limit: int) -> Sequence[int]:
        """Inodes with an object below directory *folder*, at any depth, in order, after *after_ino*."""

    async def evictable(self, now_ns: int, limit: int) -> Sequence[int]:
        """Inodes whose local copy may go, least recently used first."""

    async def local_object_bytes(self) -> int:
        """Bytes of all local copies of what S3 holds."""

    async def forget_future(self, now_ns: int) -> None:
        """No time of `Clock.steady_ns` lies ahead of it: what does was recorded by a clock that was wrong.

        It counts as recorded at *now_ns*, and what was to last some time from then on lasts as long from now.
        """

    async def bytes_below(self, folder: int) -> int:
        """Sizes of all files below directory *folder*, exactly: for a total that says `MAX_INT`, "that or more"."""

    async def highest_ino(self) -> int:
        """The highest inode number that any row of a file or of garbage has; 0 when there is none."""

    async def forget_fetches(self) -> None:
        """Partial copies are gone with the last run: `fetching` is `evicted` again."""


class Clock(Protocol):
    """The times, injected so that waiting and expiry can be tested. `recfs/clock.py` says which is for what."""

    def now_ns(self) -> int:
        """The wall clock, for what is recorded: nanoseconds since the epoch (CLOCK_REALTIME). May step."""

    def steady_ns(self) -> int:
        """The time that passed, for waiting and for ages. Never steps, never goes back."""

    def calendar_ns(self) -> int:
        """The wall clock as far as it can be believed, for months."""


class KernelCache(Protocol):
    """Tells the kernel what the daemon changed behind its back. Asynchronous; never called under a lock."""

    def forget_entry(self, parent: int, name: bytes, ino: int) -> None:
        """The name is gone; *ino* = the inode it named (0 if not known)."""

    def forget_inode(self, ino: int) -> None:
        """Attributes and cached pages of *ino* are out of date."""

    async def told(self) -> None:
        """Wait until the kernel knows everything announced so far. Never from within a request."""


class Acceleration(Protocol):
    """What the kernel does without asking."""

    @property
    def reads(self) -> bool:
        """It reads open files straight from the disk below."""

    @property
    def writes(self) -> bool:
        """It writes them, too."""


class KernelFiles(Protocol):
    """Hands files of the store to the kernel, which then reads and writes them by itself (FUSE passthrough)."""

    @property
    def acceleration(self) -> Acceleration:
        """What is possible on this mount."""

    def backing_open(self, fd: int) -> int:
        """Register the file behind *fd*; a backing id > 0, good until `backing_close`. Raises OSError."""

    def backing_close(self, backing_id: int) -> None:
        """Give the id back. Raises nothing."""


class Pipeline(Protocol):
    """Where the file system hands over files whose last writer closed."""

    def submit(self, ino: int) -> None:
        """The file entered `sealing`. Called again, it replaces the earlier submission."""

    def withdraw(self, ino: int) -> None:
        """The file changes, or has gone: nothing of it is sealed until it is submitted again. Atomic."""

    def hurry(self, ino: int) -> None:
        """Somebody waits for this file: end its settling delay."""

    async def progress(self) -> None:
        """Wait until the pipeline has finished with some file, whatever came of it."""

    @property
    def depth(self) -> int:
        """How many files wait or are being sealed."""

    @property
    def busy_with(self) -> int:
        """How many of them others may have to wait for: not those that somebody keeps mapped."""


class Settler(Protocol):
    """Brings the home tree to what the rows say."""

    worked_on: set[int]
    """Inode numbers of the files of which anything is now being carried out, be it only to their attributes."""

    def add(self, ino: int) -> None:
        """The row of *ino* has pending bits."""

    @property
    def is_moving(self) -> bool:
        """Whether any move is being carried out."""

    def touches(self, inos: Sequence[int]) -> bool:
        """Whether a move now being carried out concerns one of *inos*."""

    async def idle(self) -> None:
        """Wait until no batch at all is being carried out; none is until the next await."""

    async def quiet(self) -> None:
        """Wait until what is now being carried out is done."""

    def remake_above(self, ino: int) -> None:
        """Have the directories above *ino*, as far as they were removed past recfs, made again. Atomic."""


__all__ = [
    "LIMBO_INO",
    "ROOT_INO",
    "Acceleration",
    "AccountRow",
    "Batch",
    "Catalogue",
    "Clock",
    "GarbageRow",
    "JournalRow",
    "KernelCache",
    "KernelFiles",
    "Limits",
    "NodeRow",
    "ObjectRow",
    "Pending",
    "Pipeline",
    "Settler",
]
