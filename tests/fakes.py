"""Fakes of recfs's ports; `tests/contract` holds them to the same contracts as the real ones."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from recfs.clock import ClockStep
from recfs.core import bounds
from recfs.core.life import Life
from recfs.core.model import Kind, State
from recfs.errors import RowRefused
from recfs.fuse.acceleration import Acceleration
from recfs.ports.batch import Batch
from recfs.ports.rows import (
    ROOT_INO,
    AccountRow,
    Content,
    EventRow,
    GarbageRow,
    JournalRow,
    MediaRow,
    NodeRow,
    ObjectRow,
    Placement,
    Promise,
    SweepRow,
    TrashRow,
    UnansweredRow,
)

START_NS = 1_793_880_000_000_000_000
"""2026-11-05 12:00 UTC."""


class FakeClock:
    """The Clock port; stands still until told otherwise. Its calendar believes the wall clock."""

    def __init__(self) -> None:
        self.ns = START_NS
        self.passed_ns = START_NS
        self.step: ClockStep | None = None

    def now_ns(self) -> int:
        """What the tests say it is."""
        return self.ns

    def steady_ns(self) -> int:
        """Only what passed."""
        return self.passed_ns

    def calendar_ns(self) -> int:
        """As the wall clock."""
        return self.ns

    def look(self) -> bool:
        """Nothing new."""
        return False

    def facts(self) -> dict[str, str]:
        """It is handed from run to run by the tests."""
        return {}

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.ns += round(seconds * 1e9)
        self.passed_ns += round(seconds * 1e9)

    def put(self, seconds: float) -> None:
        """The wall clock is put ahead, or (negative) back, and no time passes."""
        self.ns += round(seconds * 1e9)


@dataclass
class KernelRecorder:
    """The KernelCache port; keeps what the kernel would have been told."""

    entries: list[tuple[int, bytes, int]] = field(default_factory=list)
    inodes: list[int] = field(default_factory=list)

    def forget_entry(self, parent: int, name: bytes, ino: int) -> None:
        """Keep."""
        self.entries.append((parent, name, ino))

    def forget_inode(self, ino: int) -> None:
        """Keep."""
        self.inodes.append(ino)

    async def flush(self) -> None:
        """At once."""


class FakeKernelFiles:
    """The KernelFiles port: what the kernel would do with a file handed to it, done by the tests themselves."""

    def __init__(self, *, reads: bool = True, writes: bool = True) -> None:
        self.acceleration = Acceleration("auto", reads=reads, writes=writes)
        self.error: int | None = None
        """errno with which the next registrations fail."""
        self.backing: dict[int, int] = {}
        """Descriptor by backing id: like the kernel, opened anew from the one handed over."""
        self._ids = itertools.count(1)

    def backing_open(self, fd: int) -> int:
        """Register."""
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        number = next(self._ids)
        self.backing[number] = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        return number

    def backing_close(self, backing_id: int) -> None:
        """Give back."""
        os.close(self.backing.pop(backing_id))


class StagedAnswers:
    """What of a FuseSession the handlers use; keeps (handle, flags, backing id) of each answer."""

    def __init__(self) -> None:
        self.staged: list[tuple[int, int, int]] = []

    def stage(self, fh: int, open_flags: int, backing_id: int = 0) -> None:
        """Keep."""
        self.staged.append((fh, open_flags, backing_id))


class MemoryCatalogue:
    """The Catalogue port in dictionaries. `error`, when set, is raised by the next `apply`, which changes nothing."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.refused: Sequence[str] = []
        self.syncs = 0
        self._nodes: dict[int, NodeRow] = {}
        self._garbage: dict[int, GarbageRow] = {}
        self._accounts: dict[str, AccountRow] = {}
        self._xattrs: dict[int, dict[bytes, bytes]] = {}
        self._whiteouts: dict[int, set[bytes]] = {}
        self._views: dict[int, int] = {}
        self._objects: dict[int, ObjectRow] = {}
        self._journal: dict[int, JournalRow] = {}
        self._unanswered: dict[str, UnansweredRow] = {}
        self._sweeps: dict[int, SweepRow] = {}
        self._trash: dict[int, TrashRow] = {}
        self._meta: dict[str, str] = {}
        self._lives: dict[int, Life] = {}
        self._events: dict[int, EventRow] = {}
        self._media: dict[int, MediaRow] = {}

    async def apply(self, batch: Batch, *, trial: bool = False) -> None:
        """All of it, or (with `error` set, or a checksum that is none) nothing."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if any(row.sha256 is not None and len(row.sha256) != 32 for row in batch.nodes):
            raise RowRefused("a constraint")
        if trial:
            return
        for parent, first, last in batch.emptied:
            for ino in [
                ino for ino in range(first, last + 1) if ino in self._nodes and self._nodes[ino].parent == parent
            ]:
                del self._nodes[ino]
                self._xattrs.pop(ino, None)
                self._media.pop(ino, None)
        for row in batch.nodes:
            self._put(row._replace(size_bytes=bounds.total(row.size_bytes), uid=min(row.uid, bounds.MAX_INT)))
            if row.uid > bounds.MAX_INT:
                self.refused = [*self.refused, f"inode {row.ino}: uid"]
                logging.getLogger("recfs.catalogue").error("a row does not fit: %s", self.refused[-1])
        self._accounts |= {row.user: row._replace(used_bytes=bounds.total(row.used_bytes)) for row in batch.accounts}
        self._garbage |= {row.gid: row for row in batch.garbage}
        for gid in batch.purged:
            self._garbage.pop(gid, None)
        for ino, name, value in batch.xattrs:
            own = self._xattrs.setdefault(ino, {})
            own.pop(name, None)
            if value is not None:
                own[name] = value
        for parent, name, hidden in batch.whiteouts:
            names = self._whiteouts.setdefault(parent, set())
            names.add(name) if hidden else names.discard(name)
        for view_id, ino in batch.views:
            self._views = {known: shown for known, shown in self._views.items() if shown != ino}
            self._views[view_id] = ino
        for ino in batch.objects_gone:
            self._objects.pop(ino, None)
        self._objects |= {row.ino: row for row in batch.objects}
        self._journal |= {row.id: row for row in batch.journal}
        for done in batch.journal_done:
            self._journal.pop(done, None)
        self._unanswered |= {row.key: row for row in batch.unanswered}
        for key in batch.answered:
            self._unanswered.pop(key, None)
        self._trash |= {row.gid: row for row in batch.trash}
        for gone in (*batch.trash_gone, *batch.purged):
            self._trash.pop(gone, None)
        self._sweeps |= {row.id: row for row in batch.sweeps}
        for gone in batch.sweeps_gone:
            self._sweeps.pop(gone, None)
        self._media |= {row.ino: row for row in batch.media}
        self._lives |= {row.ino: row.life for row in batch.recordings}
        for ino in batch.removed:
            self._lives.pop(ino, None)
            self._media.pop(ino, None)
            self._nodes.pop(ino, None)
            self._objects.pop(ino, None)
            self._xattrs.pop(ino, None)
            self._whiteouts.pop(ino, None)
            self._views = {known: shown for known, shown in self._views.items() if shown != ino}
        self._events |= {row.id: row for row in batch.events}
        for gone in batch.events_gone:
            self._events.pop(gone, None)
        self._meta |= batch.meta

    def _put(self, row: NodeRow) -> None:
        holder = self._child(row.parent, row.name)
        if holder is not None:
            del self._nodes[holder.ino]
        self._nodes[row.ino] = row

    def _child(self, parent: int, name: bytes) -> NodeRow | None:
        for row in self._nodes.values():
            if (row.parent, row.name) == (parent, name) and row.ino != ROOT_INO:
                return row
        return None

    async def event_span(self) -> tuple[int, int]:
        """The first and the last."""
        return min(self._events, default=0), max(self._events, default=0)

    async def event_since(self, at_ns: int) -> int | None:
        """The first that is not older."""
        return min((row.id for row in self._events.values() if row.at_ns >= at_ns), default=None)

    async def sync(self) -> None:
        """Counts the calls."""
        self.syncs += 1

    async def node(self, ino: int) -> NodeRow | None:
        """By number."""
        return self._nodes.get(ino)

    async def child(self, parent: int, name: bytes) -> NodeRow | None:
        """By name."""
        return self._child(parent, name)

    async def children(self, parent: int, after_ino: int, limit: int, *, placed: bool = False) -> Sequence[NodeRow]:
        """A page."""
        rows = [row for row in self._nodes.values() if row.parent == parent and row.ino > max(after_ino, ROOT_INO)]
        return sorted(row if placed else row._replace(placement=Placement()) for row in rows)[:limit]

    async def named(self, parent: int, prefix: bytes, limit: int) -> Sequence[NodeRow]:
        """Those whose names begin so."""
        rows = await self.children(parent, 0, len(self._nodes))
        return [row for row in rows if row.name.startswith(prefix)][:limit]

    async def contents(self, parent: int, after_ino: int, limit: int) -> Sequence[Content]:
        """The same in short."""
        return [
            Content(
                row.ino, row.name, row.placement.home_ino, row.size_bytes,
                row.kind is Kind.FILE and row.state is State.COMMITTED and not row.has_object
                and row.placement._replace(home_ino=None) == Placement(),
            )
            for row in await self.children(parent, after_ino, limit, placed=True)
        ]  # fmt: skip

    async def unsettled(self) -> Sequence[NodeRow]:
        """What was under way."""
        open_states = (State.WRITING, State.SEALING)
        return sorted(
            row for row in self._nodes.values()
            if row.placement.pending or (row.state in open_states and not row.placement.promised & Promise.UNHASHED)
        )  # fmt: skip

    async def unhashed(self, after_ino: int, limit: int) -> Sequence[int]:
        """Of those, the ones left out."""
        found = (ino for ino, row in self._nodes.items() if row.placement.promised & Promise.UNHASHED)
        return sorted(ino for ino in found if ino > after_ino)[:limit]

    async def staged(self) -> set[str | None]:
        """Staging ids."""
        return {staging for row in self._nodes.values() if (staging := row.placement.staging) is not None}

    async def forget_home_inos(self) -> None:
        """No st_ino is worth anything."""
        for ino, row in self._nodes.items():
            self._nodes[ino] = row._replace(placement=row.placement._replace(home_ino=None))
        self._garbage = {gid: row._replace(home_ino=None) for gid, row in self._garbage.items()}

    async def garbage(self) -> Sequence[GarbageRow]:
        """Oldest first."""
        return [self._garbage[gid] for gid in sorted(self._garbage)]

    async def account(self, user: str) -> AccountRow | None:
        """One user's counters."""
        return self._accounts.get(user)

    async def xattrs(self, ino: int) -> dict[bytes, bytes]:
        """A copy."""
        return dict(self._xattrs.get(ino, {}))

    async def whiteouts(self, parent: int) -> set[bytes]:
        """A copy."""
        return set(self._whiteouts.get(parent, set()))

    async def views(self) -> Sequence[tuple[int, int]]:
        """All pairs."""
        return list(self._views.items())

    async def jobs(self, activity_before_ns: int) -> Sequence[NodeRow]:
        """Oldest first."""
        rows = [
            row for row in self._nodes.values() if row.kind is Kind.DIR and 0 < row.activity_ns < activity_before_ns
        ]
        return sorted(rows, key=lambda row: row.activity_ns)

    async def recording(self, ino: int) -> Life | None:
        """By number."""
        return self._lives.get(ino)

    async def media(self, ino: int) -> MediaRow | None:
        """By number."""
        return self._media.get(ino)

    async def media_pending(self, checkers: Sequence[str], after_ino: int, limit: int) -> Sequence[MediaRow]:
        """In order."""
        found = [row for ino, row in sorted(self._media.items()) if ino > after_ino and row.verdict == "pending"]
        return [row for row in found if row.checker in checkers][:limit]

    async def media_alike(self, sha256: bytes, checker: str) -> MediaRow | None:
        """The first."""
        known = [row for row in self._media.values() if row.verdict in ("whole", "broken")]
        return next((row for row in known if (row.sha256, row.checker) == (sha256, checker)), None)

    async def unlooked(self, after_ino: int, limit: int) -> Sequence[tuple[int, bytes]]:
        """In order."""
        found = [row for ino, row in sorted(self._nodes.items()) if ino > after_ino and ino not in self._media]
        return [(row.ino, row.name) for row in found if row.kind is Kind.FILE and row.sha256 is not None][:limit]

    async def meta(self) -> dict[str, str]:
        """A copy."""
        return dict(self._meta)

    # --- S3 ------------------------------------------------------------------------------------------------------

    async def object(self, ino: int) -> ObjectRow | None:
        """By number."""
        return self._objects.get(ino)

    async def unanswered(self) -> Sequence[UnansweredRow]:
        """Requests that S3 may carry out yet."""
        return list(self._unanswered.values())

    async def trash(self) -> Sequence[tuple[TrashRow, int]]:
        """In order."""
        rows = [self._trash[number] for number in sorted(self._trash)]
        return [(row._replace(xattrs=b""), len(row.xattrs)) for row in rows]

    async def trash_xattrs(self, gid: int) -> bytes:
        """Under a number."""
        return self._trash[gid].xattrs if gid in self._trash else b""

    async def sweeps(self) -> Sequence[SweepRow]:
        """In order."""
        return [self._sweeps[number] for number in sorted(self._sweeps)]

    async def journal(self) -> Sequence[JournalRow]:
        """In order."""
        return [self._journal[number] for number in sorted(self._journal)]

    async def upload_names(self) -> Sequence[tuple[int, bytes, str | None]]:
        """By walking up."""
        found: list[tuple[int, bytes, str | None]] = []
        for row in self._journal.values():
            if row.kind != "upload" or row.ino not in self._nodes:
                continue
            node = self._nodes[row.ino]
            parts = [node.name]
            while (node := self._nodes[node.parent]).ino != ROOT_INO:
                parts.append(node.name)
            user = parts[-2].decode() if parts[-1] in (b"users", b"temp") else None
            found.append((row.id, parts[0], user))
        return found

    async def any_object(self) -> bool:
        """Any row."""
        return bool(self._objects)

    async def some_objects(self) -> tuple[Sequence[str], int]:
        """All of them."""
        remote = sum(row.state is not None and row.state.is_remote for row in self._nodes.values())
        return [held.key for held in self._objects.values()], remote

    async def objects_after(self, key: str, limit: int) -> Sequence[ObjectRow]:
        """In order of their keys."""
        found = sorted(self._objects.values(), key=lambda held: held.key.encode())
        return [held for held in found if held.key.encode() > key.encode()][:limit]

    async def object_at(self, key: str, but: int) -> int | None:
        """By key."""
        return next((held.ino for held in self._objects.values() if held.key == key and held.ino != but), None)

    async def objects_of(self, sha256: bytes, but: int, limit: int) -> Sequence[int]:
        """By their bytes."""
        return [held.ino for held in self._objects.values() if held.sha256 == sha256 and held.ino != but][:limit]

    async def objects_by_key(self, after: str, limit: int) -> Sequence[ObjectRow]:
        """A page."""
        return sorted((each for each in self._objects.values() if each.key > after), key=lambda each: each.key)[:limit]

    async def objects_below(self, folder: int, after_ino: int, limit: int) -> Sequence[int]:
        """A page."""
        below, seen = {folder}, 0
        while len(below) > seen:
            seen = len(below)
            dirs = (row for row in self._nodes.values() if row.kind is Kind.DIR and row.ino != ROOT_INO)
            below |= {row.ino for row in dirs if row.parent in below}
        found = (row for row in self._nodes.values() if row.parent in below and row.has_object)
        return sorted(row.ino for row in found if row.ino > after_ino)[:limit]

    async def bytes_below(self, folder: int) -> int:
        """Added up."""
        below, seen = {folder}, 0
        while len(below) > seen:
            seen = len(below)
            dirs = (row for row in self._nodes.values() if row.kind is Kind.DIR and row.ino != ROOT_INO)
            below |= {row.ino for row in dirs if row.parent in below}
        return sum(row.size_bytes for row in self._nodes.values() if row.parent in below and row.kind is Kind.FILE)

    async def highest_ino(self) -> int:
        """Of the rows there are."""
        return max([0, *self._nodes, *(row.ino for row in self._garbage.values())])

    async def files(self, after_ino: int, limit: int) -> Sequence[int]:
        """In order."""
        return sorted(row.ino for row in self._nodes.values() if row.kind is Kind.FILE and row.ino > after_ino)[:limit]

    async def evictable(self, now_ns: int, limit: int) -> Sequence[int]:
        """Least recently used first."""
        rows = [
            held
            for held in self._objects.values()
            if held.copy.local
            and not held.copy.pinned
            and held.copy.keep_until_ns <= now_ns
            and held.ino in self._nodes
            and self._nodes[held.ino].state is State.STORED
        ]
        return [held.ino for held in sorted(rows, key=lambda held: held.copy.used_ns)][:limit]

    async def local_object_bytes(self) -> int:
        """Added up."""
        return sum(held.size_bytes for held in self._objects.values() if held.copy.local)

    async def forget_future(self, now_ns: int) -> None:
        """Recorded just now."""
        for ino, row in self._nodes.items():
            self._nodes[ino] = row._replace(activity_ns=min(row.activity_ns, now_ns))
        for gid, entry in self._garbage.items():
            self._garbage[gid] = entry._replace(deleted_ns=min(entry.deleted_ns, now_ns))
        for ino, held in self._objects.items():
            ahead = max(held.copy.used_ns - now_ns, 0) if held.copy.local and not held.copy.pinned else 0
            kept = max(held.copy.keep_until_ns - ahead, 0)
            self._objects[ino] = held.here(used_ns=held.copy.used_ns - ahead, keep_until_ns=kept)
        for ino, life in self._lives.items():
            times = ("born_ns", "changed_ns", "dated_ns", "expired_ns")
            self._lives[ino] = life._replace(**{name: min(getattr(life, name), now_ns) for name in times})
        for number, work in self._journal.items():
            ahead = max(work.created_ns - now_ns, 0)
            leased_ns = work.lease_until_ns - (ahead if work.lease_until_ns < bounds.MAX_INT else 0)
            self._journal[number] = work._replace(
                created_ns=work.created_ns - ahead, next_try_ns=work.next_try_ns - ahead, lease_until_ns=leased_ns
            )

    async def forget_fetches(self) -> None:
        """No partial copy is left."""
        for ino, row in self._nodes.items():
            if row.state is State.FETCHING:
                self._nodes[ino] = row._replace(state=State.EVICTED)
