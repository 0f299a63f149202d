"""What the passes of a rebuild share: the store, the new catalogue, inode numbers, and rows on their way."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from recfs.core.access.owners import Owner
from recfs.core.model import Kind
from recfs.core.routing import RouteRule, age_of, route
from recfs.core.upkeep.rebuilding import Checksums
from recfs.errors import StoreError
from recfs.fs.rebuild.findings import Findings
from recfs.fs.rebuild.lineage import Lineage
from recfs.fs.rebuild.oldrows import OldRows
from recfs.ports.batch import Batch
from recfs.ports.catalogue import Catalogue
from recfs.ports.rows import ROOT_INO, UPLOAD, JournalRow, NodeRow, ObjectRow, RecordingRow

if TYPE_CHECKING:
    from recfs.ports.clock import Clock
    from recfs.ports.objects import ObjectStore
    from recfs.stores.local import LocalStore

PAGE = 1000
"""Rows that are written at once."""
LOG_PAGES = 16384
"""How long the log becomes, in pages of 4 KiB, until it is folded in: pages that are written again and again
are written to the main file once."""
NEXT_INO = "next_ino"
_NAME_BYTES = 180
"""So much of a name is kept in lost+found."""

Tell = Callable[[str, int, int | None], None]
"""Told how far a rebuild is: what it is at, how many are done, of how many (None: not known)."""


class NewCatalogue(Catalogue, Protocol):
    """The catalogue that is being made."""

    async def checkpoint(self, *, at_least_pages: int) -> None:
        """Fold the log into the main file if it has grown."""

    async def recount(self) -> int:
        """Have every counter say what its rows add up to; how many did not."""

    async def states(self) -> dict[str, int]:
        """How many files are in each state but `committed`."""


@dataclass(slots=True)
class Options:
    """What the operator asked for."""

    checksums: Checksums = Checksums.VERIFY
    salvage: bool = False
    """Whether rows of the old catalogue are believed where they agree with what is there."""
    adopt_foreign: bool = False
    verify_remote: bool = False
    leave_out: bool = False
    """Whether directories that cannot be looked into may be missing."""
    without_s3: bool = False
    """Whether a store that had a bucket goes on without."""

    def text(self) -> str:
        """As a fact of the new catalogue: with others, what was done does not count."""
        return f"{self.checksums} {self.salvage:d}{self.adopt_foreign:d}{self.verify_remote:d}"


@dataclass(slots=True)
class Site:
    """One rebuild."""

    store: LocalStore
    catalogue: NewCatalogue
    objects: ObjectStore | None
    old: OldRows
    """Of the old catalogue, what is believed."""
    options: Options
    rules: tuple[RouteRule, ...]
    hash_threads: int
    s3_threads: int
    clock: Clock
    operators: frozenset[int] = frozenset({0})
    """Uids of whom nothing is kept: what is theirs is no user's alone."""
    tell: Tell = lambda phase, done, total: None
    findings: Findings = field(default_factory=Findings)
    owners: dict[str, Owner] = field(default_factory=dict)
    """Users whose directories belong to a uid and let nobody else in."""
    claimed: set[bytes] = field(default_factory=set)
    """Paths whose newest version lies in staging: the next start gives it its name."""
    batch: Batch = field(default_factory=Batch)
    _given: set[int] = field(default_factory=set)
    """Numbers of the old catalogue in rows on their way."""
    next_ino: int = 2
    first_ino: int = 2
    """Numbers below were the old catalogue's."""
    numbers_tell: bool = False
    """Whether inode numbers on the disk are those of the old catalogue: not in a copy of a store."""
    lineage: Lineage = field(init=False)

    def __post_init__(self) -> None:
        self.lineage = Lineage(self.store, self.old, numbers_tell=self.numbers_tell)

    # --- rows ----------------------------------------------------------------------------------------------------

    def new_ino(self) -> int:
        """An inode number that was never used."""
        ino = self.next_ino
        self.next_ino = ino + 1
        return ino

    async def number(self, old: NodeRow | None, kind: Kind) -> int:
        """The inode number for what the old catalogue calls *old*: that one, if it is nobody else's."""
        if old is None or old.kind is not kind or not ROOT_INO < old.ino < self.first_ino:
            return self.new_ino()
        if old.ino in self._given or await self.catalogue.node(old.ino) is not None:
            return self.new_ino()
        self._given.add(old.ino)
        return old.ino

    async def take_over(self, row: NodeRow, old: NodeRow) -> NodeRow:
        """What the old catalogue alone has of an inode: its attributes, and what was hidden in it."""
        if old.kind is not row.kind:
            return row
        self.findings.salvaged += 1
        attributes = await self.old.xattrs(old)
        self.batch.xattrs += [(row.ino, name, value) for name, value in attributes.items()]
        self.batch.whiteouts += [(row.ino, name, True) for name in await self.old.whiteouts(old)]
        life = await self.old.life(old)
        if life is not None:
            self.batch.recordings.append(RecordingRow(row.ino, life))
        return row._replace(has_xattrs=int(bool(attributes)))

    def full(self) -> bool:
        """Whether the rows on their way are enough for a batch."""
        return len(self.batch.nodes) >= PAGE

    async def write(self) -> None:
        """Write them, with the inode numbers that were given out. Raises OutOfSpace, IoFailure."""
        batch, self.batch = self.batch, Batch()
        self._given.clear()
        batch.meta[NEXT_INO] = str(self.next_ino)
        await self.catalogue.apply(batch)
        await self.catalogue.checkpoint(at_least_pages=LOG_PAGES)

    def queue_upload(self, row: NodeRow, parts: tuple[bytes, ...]) -> None:
        """Journal the upload of a committed file, if the rules want it in S3."""
        if self.objects is None:
            return
        age_s = age_of(self.clock.now_ns(), row.mtime_ns, row.ctime_ns)
        if route(self.rules, parts, row.size_bytes, age_s).store != "s3":
            return
        self.queue(UPLOAD, row)
        self.findings.queued += 1

    def queue(self, kind: str, row: NodeRow) -> None:
        """Journal what is to be done in S3 for a file; once, however often it is asked for: its number is the id."""
        now = self.clock.steady_ns()
        self.batch.journal.append(JournalRow(row.ino, kind, row.ino, "", "", "", row.size_bytes, 0, now, 0, "", now))

    def put(self, row: NodeRow, far: ObjectRow | None = None) -> None:
        """One more row, with its object's."""
        self.batch.nodes.append(row)
        if far is not None:
            self.batch.objects.append(far)

    # --- the disk ------------------------------------------------------------------------------------------------

    def local(self, path: bytes) -> bytes:
        """Local path of a mount path."""
        return self.store.home([path])

    def set_aside(self, path: bytes, why: str, *, local: bytes | None = None) -> bool:
        """Move what lies at a mount path (or at *local*) to lost+found; False where it does not let itself be moved."""
        source = local or self.local(path)
        try:
            info = self.store.stat(source)
            if info is None:
                return True
            name = b"rebuild-%d-%s" % (info.st_ino, path.replace(b"/", b"-")[-_NAME_BYTES:])
            target = self.store.lost(os.fsdecode(name))
            if self.store.stat(target) is not None:
                target = self.store.lost(os.fsdecode(b"%s-%d" % (name, info.st_mtime_ns)))
            self.store.rename(source, target)
        except OSError as error:
            self.findings.unreadable.add(path, f"{why}; it could not be moved: {error.strerror}")
            return False
        self.findings.aside.add(path, f"{why}; it is {os.fsdecode(os.path.relpath(target, self.local(b'')))} now")
        return True

    def make_folder(self, path: bytes, owner: tuple[int, int]) -> None:
        """Have a directory in the home tree. Raises OSError (FileExistsError for what is none)."""
        local = self.local(path)
        with self.store.beneath.folder(local) as (fd, name):
            try:
                os.mkdir(name, 0o755, dir_fd=fd)
            except FileExistsError:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if info.st_mode & 0o170000 != 0o040000:
                    raise
                return
            if self.store.gives_owners:
                os.chown(name, *owner, dir_fd=fd, follow_symlinks=False)


def disk_failure(site: Site, error: OSError) -> StoreError:
    """What ends a rebuild, that the disk does not do."""
    return StoreError(
        f"store {site.store.root}: {error.strerror}: {error.filename}; nothing is lost: `recfs rebuild` goes on where"
        f" it was"
    )
