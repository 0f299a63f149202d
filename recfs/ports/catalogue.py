"""The catalogue: one row per inode. One writer, the daemon; reads see the writer's last batch.

Methods are `async def` although SQLite answers synchronously, so that a server database can stand behind the same
port: callers must treat every call as a point where other tasks may run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from recfs.core.life import Life
from recfs.ports.batch import Batch
from recfs.ports.rows import (
    AccountRow,
    Content,
    GarbageRow,
    JournalRow,
    MediaRow,
    NodeRow,
    ObjectRow,
    SweepRow,
    TrashRow,
    UnansweredRow,
)


class Books(Protocol):
    """What is written, all of it through `apply`."""

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


class Names(Protocol):
    """Inodes, and the names they have."""

    async def node(self, ino: int) -> NodeRow | None:
        """The row of *ino*, or None."""

    async def child(self, parent: int, name: bytes) -> NodeRow | None:
        """The row called *name* in *parent*, or None."""

    async def children(self, parent: int, after_ino: int, limit: int, *, placed: bool = False) -> Sequence[NodeRow]:
        """Up to *limit* rows of *parent* with ino > *after_ino*, by ino; their places are left out if not *placed*."""

    async def named(self, parent: int, prefix: bytes, limit: int) -> Sequence[NodeRow]:
        """Up to *limit* rows of *parent* whose names begin with *prefix*, without their places.

        *prefix* is not empty, and its last byte is not 255.
        """

    async def contents(self, parent: int, after_ino: int, limit: int) -> Sequence[Content]:
        """The same in short; also of a *parent* that has no row any more."""

    async def files(self, after_ino: int, limit: int) -> Sequence[int]:
        """Up to *limit* inode numbers of files above *after_ino*, in order, whatever state they are in."""

    async def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """The user's extended attributes of *ino*."""

    async def whiteouts(self, parent: int) -> set[bytes]:
        """Names hidden in the fallback directory *parent*."""

    async def views(self) -> Sequence[tuple[int, int]]:
        """All (view id, shared inode) pairs."""

    async def jobs(self, activity_before_ns: int) -> Sequence[NodeRow]:
        """Temp job directories whose last change is older than *activity_before_ns*."""

    async def highest_ino(self) -> int:
        """The highest inode number that any row of a file or of garbage has; 0 when there is none."""


class Unfinished(Protocol):
    """What a start has to look at."""

    async def unsettled(self) -> Sequence[NodeRow]:
        """Rows being written or sealed, incomplete ones in staging, and rows with pending bits.

        But not those of `unhashed`, unless they have pending bits: there may be a million.
        """

    async def unhashed(self, after_ino: int, limit: int) -> Sequence[int]:
        """A page, in order, of the inode numbers of files that are hashed when there is time (`Promise.UNHASHED`)."""

    async def staged(self) -> set[str | None]:
        """Staging ids that rows name."""

    async def garbage(self) -> Sequence[GarbageRow]:
        """All garbage rows, oldest first."""

    async def trash(self) -> Sequence[tuple[TrashRow, int]]:
        """What the trash keeps beside bytes, in order of its numbers: rows without their extended attributes, and how
        many bytes these have.
        """

    async def trash_xattrs(self, gid: int) -> bytes:
        """The extended attributes that the trash keeps under a number, as `TrashRow.xattrs`; empty: it has none."""

    async def forget_home_inos(self) -> None:
        """The store was copied: no recorded st_ino is worth anything."""

    async def forget_future(self, now_ns: int) -> None:
        """No time of `Clock.steady_ns` lies ahead of it: what does was recorded by a clock that was wrong.

        It counts as recorded at *now_ns*, and what was to last some time from then on lasts as long from now.
        """

    async def forget_fetches(self) -> None:
        """Partial copies are gone with the last run: `fetching` is `evicted` again."""


class Usage(Protocol):
    """What users and directories hold."""

    async def account(self, user: str) -> AccountRow | None:
        """The counters of *user*, or None if there are none yet."""

    async def bytes_below(self, folder: int) -> int:
        """Sizes of all files below directory *folder*, exactly: for a total that says `MAX_INT`, "that or more"."""


class Objects(Protocol):
    """What S3 holds, and what is still to be done there."""

    async def object(self, ino: int) -> ObjectRow | None:
        """What S3 holds of *ino*."""

    async def any_object(self) -> bool:
        """Whether S3 holds anything."""

    async def some_objects(self) -> tuple[Sequence[str], int]:
        """A few keys that S3 should hold, and how many files are in S3 alone."""

    async def objects_after(self, key: str, limit: int) -> Sequence[ObjectRow]:
        """What lies under keys after *key*, in order of their UTF-8 bytes, as a bucket lists them."""

    async def object_at(self, key: str, but: int) -> int | None:
        """Another inode than *but* whose object lies under *key*, as of the last batch."""

    async def objects_of(self, sha256: bytes, but: int, limit: int) -> Sequence[int]:
        """Other inodes than *but* whose objects have those bytes, as of the last batch."""

    async def objects_by_key(self, after: str, limit: int) -> Sequence[ObjectRow]:
        """Up to *limit* of them with key > *after*, in order of the bytes of their keys."""

    async def objects_below(self, folder: int, after_ino: int, limit: int) -> Sequence[int]:
        """Inodes with an object below directory *folder*, at any depth, in order, after *after_ino*."""

    async def evictable(self, now_ns: int, limit: int) -> Sequence[int]:
        """Inodes whose local copy may go, least recently used first."""

    async def local_object_bytes(self) -> int:
        """Bytes of all local copies of what S3 holds."""

    async def journal(self) -> Sequence[JournalRow]:
        """All work that is not done, in order."""

    async def unanswered(self) -> Sequence[UnansweredRow]:
        """Requests that S3 gave no answer to, and may carry out yet. Not in any order."""

    async def upload_names(self) -> Sequence[tuple[int, bytes, str | None]]:
        """(journal id, file name, user) of each upload; no user for shared files. Not in any order."""


class Lives(Protocol):
    """How long recordings live."""

    async def recording(self, ino: int) -> Life | None:
        """What is kept of the recording whose directory is *ino*; None: nothing is."""


class Contents(Protocol):
    """What is known of files' contents."""

    async def media(self, ino: int) -> MediaRow | None:
        """What is known of the content of *ino*; None: it is nothing that is looked into, or was not queued yet."""

    async def media_pending(self, checkers: Sequence[str], after_ino: int, limit: int) -> Sequence[MediaRow]:
        """Up to *limit* of those that are to be looked into by one of *checkers*, above *after_ino*, in order."""

    async def media_alike(self, sha256: bytes, checker: str) -> MediaRow | None:
        """What was found in some file with just these bytes; None: none was looked into."""

    async def unlooked(self, after_ino: int, limit: int) -> Sequence[tuple[int, bytes]]:
        """A page, in order, of committed files of whose content nothing is known: inode number and name."""


class Facts(Protocol):
    """What is true of the store as a whole."""

    async def meta(self) -> dict[str, str]:
        """Store-wide facts: next_ino, next_gid, boot_id, clean, …"""

    async def sweeps(self) -> Sequence[SweepRow]:
        """The runs of sweeps that are remembered, oldest first."""

    async def event_span(self) -> tuple[int, int]:
        """The ids of the first and the last event that is kept; 0 and 0 where there is none."""

    async def event_since(self, at_ns: int) -> int | None:
        """The id of the first event that happened at *at_ns* or later; None: there is none."""


class Catalogue(Books, Names, Unfinished, Usage, Objects, Lives, Contents, Facts, Protocol):
    """All of it."""
