"""What a scrape finds out of a store in use: read from memory at once, and from the catalogue in a thread."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from recfs.core.quota import Limits, merge, month_of
from recfs.disk.staging import inode_reserve
from recfs.errors import RecfsError
from recfs.ports.rows import JOURNAL_KINDS

if TYPE_CHECKING:
    from recfs.config import Config
    from recfs.core.observing.kinds import EventKind
    from recfs.disk.commit.committer import Committer
    from recfs.disk.home.publisher import HomePublisher
    from recfs.fs.vfs import Vfs
    from recfs.fuse.passthrough import FuseSession
    from recfs.metrics.happened import Happened
    from recfs.observing.assembly import Observing
    from recfs.ports.reports import Reports, Snapshot
    from recfs.services.backups import Backups
    from recfs.services.probing import Probing
    from recfs.services.sweeps import Sweeps
    from recfs.stores.local import LocalStore
    from recfs.tier.tier import Tier


STATES_S = 60.0
"""How old the number of files in each state may be: to count a million takes a tenth of a second."""


NEAR = 0.8
"""Who has used more than this of a limit comes first among the users that are told: the alert is at 0.9."""
FIRST_LOOK_S = 1.0
"""So long a scrape waits, at most, to hear what backups there are, until that is known once."""


@dataclass(frozen=True, slots=True)
class OfUser:
    """One user's figures against the limits that apply to them."""

    user: str
    used_bytes: int
    used_files: int
    month_uploads: int
    limits: Limits

    @property
    def is_near(self) -> bool:
        """Whether so much of a limit is used that somebody may want to hear of it."""
        limits = self.limits
        used = (
            (self.used_bytes, limits.max_bytes), (self.used_files, limits.max_files),
            (self.month_uploads, limits.max_monthly_uploads),
        )  # fmt: skip
        return any(limit is not None and amount > NEAR * limit for amount, limit in used)


@dataclass(frozen=True, slots=True)
class Written:
    """What the catalogue says. What is dirty in memory is at most `[catalogue].flush_interval` ahead of it."""

    states: Mapping[str, int]
    users: Sequence[OfUser]
    """Those that are near a limit of theirs, and then those that use most."""
    more_users: int
    """How many are left out."""
    media: Mapping[str, int] = field(default_factory=dict)
    """Files that are to be looked into, or are broken, by verdict."""


@dataclass(frozen=True, slots=True)
class Queue:
    """What is to be done in S3."""

    rows: Mapping[str, int]
    """By kind."""
    failing: int
    oldest_s: float
    """How long the oldest of them waits; 0: nothing does."""
    cached_bytes: int
    cache_limit_bytes: int


@dataclass(frozen=True, slots=True)
class Told:
    """What happened since the start, and what of it could not be told."""

    events: Mapping[EventKind, int]
    """What became of files, by kind."""
    file_bytes: Mapping[EventKind, int]
    """How many bytes that was about, of the kinds that move bytes."""
    audit_written: Mapping[str, int]
    """Lines of the audit log, by where they went; empty where there is none."""
    audit_dropped: Mapping[str, int]
    """Lines that are missing there."""
    events_dropped: int | None
    """Events that were dropped before their time; None: none are written."""
    notify_given_up: int | None
    """Events for which the operator's command failed to the end; None: there is no command."""


@dataclass(frozen=True, slots=True)
class BackupAge:
    """How old the newest good backup of the catalogue is."""

    every_s: float
    """One is to be made so often; 0: never."""
    age_s: float | None
    """Infinite: there is none, as far as is known; None: none is to be made."""


@dataclass(frozen=True, slots=True)
class Seen:
    """All of it."""

    sealing: int
    settling: int
    hashing_bytes: int
    dirty: int
    open_files: int
    inodes: int
    free_bytes: int
    total_bytes: int
    passthrough: tuple[bool, bool] | None
    """Whether the kernel reads and writes by itself; None: nothing is mounted."""
    problems: Mapping[str, int]
    """By part."""
    sweeps: Sequence[Mapping[str, Any]]
    queue: Queue | None
    """None: there is no [s3]."""
    written: Written
    looks: Mapping[str, int] = field(default_factory=dict)
    """Looks into files since the start, by what came of them."""
    reserve_bytes: int = 0
    """`min_free`: what writers leave free on the disk."""
    inodes_of_disk: tuple[int, int, int] | None = None
    """How many there are, how many are free, and how many writers leave free; None: it makes them as needed."""
    sealing_s: float = 0.0
    """How long the oldest closed file waits for its commit."""
    hashing_rate: float = 0.0
    """Bytes a second that one thread hashes, as far as is known."""
    backup: BackupAge = BackupAge(0.0, None)
    told: Told | None = None
    """None: nobody counts."""


@dataclass(slots=True)
class Looking:
    """The parts that are looked at."""

    config: Config
    store: LocalStore
    vfs: Vfs
    tier: Tier | None
    committer: Committer
    publisher: HomePublisher
    reports: Reports
    sweeps: Sweeps
    session: FuseSession | None
    probing: Probing | None = None
    """None: nothing is looked into."""
    backups: Backups | None = None
    observing: Observing | None = None
    happened: Happened | None = None
    _counted: list[tuple[float, Mapping[str, int]]] = field(default_factory=list)
    """When files were counted by state last, and what came of it."""

    async def look(self) -> Seen:
        """Look at everything. Raises StoreError, CatalogueCorrupt."""
        calendar_ns = self.vfs.tree.clock.calendar_ns()
        now_s = trio.current_time()
        known = self._counted[0][1] if self._counted and now_s - self._counted[0][0] < STATES_S else None
        written = await self.reports.ask(written_of, self.config, month_of(calendar_ns), known)
        if known is None:
            self._counted[:] = [(now_s, written.states)]
        space = self.store.space()
        found = self.session.acceleration.as_dict() if self.session is not None else None
        return Seen(
            sealing=self.committer.depth,
            settling=self.publisher.depth,
            hashing_bytes=self.committer.outlook.hashing_bytes,
            dirty=self.vfs.behind.depth,
            open_files=len(self.vfs.files.handles),
            inodes=len(self.vfs.tree.nodes),
            free_bytes=space.f_bavail * space.f_frsize,
            total_bytes=space.f_blocks * space.f_frsize,
            passthrough=None if found is None else (bool(found["reads"]), bool(found["writes"])),
            problems=self.vfs.behind.problems.counts(),
            sweeps=self.sweeps.as_json(),
            queue=self._queue(),
            looks=dict(self.probing.counts) if self.probing is not None else {},
            written=written,
            reserve_bytes=self.vfs.files.space.min_free,
            inodes_of_disk=(space.f_files, space.f_favail, inode_reserve(space)) if space.f_files else None,
            sealing_s=self.committer.oldest_s,
            hashing_rate=self.committer.outlook.rate,
            backup=await self._backup(),
            told=self._told(),
        )

    async def _backup(self) -> BackupAge:
        backups = self.backups
        if backups is None or not backups.settings.every_s:
            return BackupAge(0.0, None)
        if not backups.has_looked:  # the sweep does it now and then, and never where the disk does not answer
            with trio.move_on_after(FIRST_LOOK_S), contextlib.suppress(OSError, RecfsError):
                await backups.look()
        last, age_s = backups.newest, math.inf
        if last is not None:
            age_s = max(0, self.vfs.tree.clock.now_ns() - last.header.made_ns) / 1e9
        return BackupAge(backups.settings.every_s, age_s)

    def _told(self) -> Told | None:
        observing, happened = self.observing, self.happened
        if observing is None or happened is None:
            return None
        written, dropped = {}, {}
        if (audit := observing.audit) is not None:
            written["file"], dropped["file"] = audit.written, audit.dropped
            if audit.journal is not None:
                written["journal"], dropped["journal"] = audit.journal.sent, audit.journal.dropped
        journal, notify = observing.journal, observing.notify
        return Told(
            dict(happened.events), dict(happened.file_bytes), written, dropped,
            journal.dropped_early if journal is not None else None,
            notify.given_up if notify is not None and notify.is_on else None,
        )  # fmt: skip

    def _queue(self) -> Queue | None:
        if self.tier is None:
            return None
        journal, copies = self.tier.journal, self.tier.copies
        by_kind = {kind: journal.tally.kinds[kind] for kind in JOURNAL_KINDS}
        oldest_ns = journal.oldest_ns
        waits_s = 0.0 if oldest_ns is None else max(0, journal.now_ns() - oldest_ns) / 1e9
        return Queue(by_kind, journal.tally.failing, waits_s, copies.used_bytes, copies.settings.max_bytes)


def written_of(snapshot: Snapshot, config: Config, month: str, states: Mapping[str, int] | None = None) -> Written:
    """What the catalogue says, in the thread that reads it. *states*: what is known of them; None: they are counted."""
    defaults, most = config.quota.limits(), config.metrics.users
    users = [
        OfUser(
            row.user,
            row.used_bytes,
            row.used_files,
            row.month_uploads if row.month >= month else 0,
            merge(Limits(row.max_bytes, row.max_files, row.max_file_size, row.max_monthly_uploads), defaults),
        )
        for row in snapshot.accounts()
    ]
    users.sort(key=lambda each: (not each.is_near, -each.used_bytes))
    counted = snapshot.states() if states is None else states
    return Written(counted, users[:most], len(users[most:]), snapshot.media_open())


__all__ = ["BackupAge", "Looking", "OfUser", "Queue", "Seen", "Told", "Written", "written_of"]
