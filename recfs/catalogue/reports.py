"""SQLite behind the Reports port: a read-only connection of its own for each question, beside the writer's.

A reader sees the last written batch as a whole, so rows and counters agree.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

import trio

from recfs.catalogue import figures
from recfs.catalogue.check import check
from recfs.catalogue.counting import days, proof
from recfs.catalogue.reading import has_table, reading
from recfs.catalogue.reuse.duplicates import DuplicateQueries
from recfs.catalogue.rows import (
    COPIES,
    EVENT,
    LIFE,
    MEDIA,
    NODE,
    NODE_ALONE,
    NODE_FIELDS,
    NODES,
    OBJECT,
    OBJECT_FIELDS,
    OBJECTS,
    REMOTE_COUNT,
    SOME_KEYS,
    SUM,
    SWEEP,
    UNDER_WAY,
    UNHASHED,
    added_up,
    life,
    node_row,
    object_row,
)
from recfs.core.layout import owner_of
from recfs.core.model import Kind
from recfs.core.retention import Inside
from recfs.ports.reports import Checked, Entry, Health, InS3, Listed, Queued, Recorded, Waiting
from recfs.ports.rows import ROOT_INO, AccountRow, EventRow, JournalRow, LocalCopy, MediaRow, Placement, SweepRow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from recfs.core.retention import Horizon
    from recfs.ports.figures import Counted, Duplicates, FiguresProof, Folder, OfDay, Remembered, Surveyed, Tally
    from recfs.ports.reports import Snapshot
    from recfs.ports.rows import NodeRow, ObjectRow

Answer = TypeVar("Answer")
Args = TypeVarTuple("Args")


class SqliteSnapshot(DuplicateQueries):
    """The Snapshot port on one connection, whose transaction has begun."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._knows_s3 = has_table(db, "object") and has_table(db, "journal")
        self._is_apart = has_table(db, "placement")
        """Whether what is true of one machine alone has tables of its own."""
        self._node, self._nodes, self._node_alone = NODE, NODES, NODE_ALONE
        self._object, self._objects, self._copies = OBJECT, OBJECTS, COPIES
        if not self._is_apart:
            self._node, self._nodes = self._older("node", (*NODE_FIELDS, *Placement._fields)), "node"
            self._node_alone = self._older("node", NODE_FIELDS)
            self._object, self._objects = self._older("object", (*OBJECT_FIELDS, *LocalCopy._fields)), "object"
            self._copies = "object where true"
        self._journal = self._older("journal", JournalRow._fields)
        self._keeps_lives = has_table(db, "recording")
        there = {row[1] for row in db.execute("pragma table_info(account)")}
        self._account = ", ".join(each if each in there else "null" for each in AccountRow._fields)

    def _older(self, table: str, fields: Sequence[str]) -> str:
        """The columns of a row, of which an older catalogue lacks some."""
        there = {row[1] for row in self._db.execute(f"pragma table_info({table})")}
        defaults = JournalRow._field_defaults
        return ", ".join(f"{table}.{each}" if each in there else str(defaults.get(each, 0)) for each in fields)

    def _number(self, query: str, values: Sequence[object] = ()) -> int:
        return int(self._db.execute(query, values).fetchone()[0])

    # --- files, users, the store ---------------------------------------------------------------------------------

    def meta(self) -> dict[str, str]:
        """Store-wide facts."""
        return dict(self._db.execute("select key, value from meta"))

    def entry(self, parts: Sequence[bytes]) -> Entry | None:
        """What is at a mount path."""
        found = self._db.execute(f"select {self._node} from {self._nodes} where node.ino = ?", (ROOT_INO,)).fetchone()
        query = f"select {self._node} from {self._nodes} where parent = ? and name = ? and node.ino <> {ROOT_INO}"
        for name in parts:
            found = self._db.execute(query, (found[0], name)).fetchone()
            if found is None:
                return None
        row = node_row(found)
        xattrs = dict(self._db.execute("select name, value from xattr where ino = ?", (row.ino,)))
        return Entry(row, xattrs, self._held(row), self._is_queued(row.ino))

    def _held(self, row: NodeRow) -> ObjectRow | None:
        if not row.has_object:
            return None
        found = self._db.execute(
            f"select {self._object} from {self._objects} where object.ino = ?", (row.ino,)
        ).fetchone()
        return object_row(found) if found is not None else None

    def _is_queued(self, ino: int) -> bool:
        query = "select exists (select 1 from journal where kind = 'upload' and ino = ?)"
        return self._knows_s3 and bool(self._number(query, (ino,)))

    def below(self, folder: int, *, recursive: bool, state: str | None) -> Sequence[Listed]:
        """The entries of a directory."""
        found: list[Listed] = []
        pending = [(folder, b"")]
        query = f"select {self._node} from {self._nodes} where parent = ? and node.ino <> {ROOT_INO}"
        while pending:
            parent, prefix = pending.pop()
            for row in map(node_row, self._db.execute(query, (parent,))):
                if recursive and row.kind is Kind.DIR:
                    pending.append((row.ino, prefix + row.name + b"/"))
                if state is None or (row.state is not None and row.state.value == state):
                    found.append(Listed(prefix + row.name, row))
        return found

    def media(self, inos: Iterable[int]) -> dict[int, MediaRow]:
        """What is known of files' contents; an earlier catalogue knows nothing."""
        if not has_table(self._db, "media"):
            return {}
        query = f"select {MEDIA} from media where ino = ?"
        found = (self._db.execute(query, (ino,)).fetchone() for ino in inos)
        return {row[0]: MediaRow._make(row) for row in found if row is not None}

    def media_open(self) -> dict[str, int]:
        """By their indexes: the many that are whole are not looked at."""
        if not has_table(self._db, "media"):
            return {}
        bad = "select verdict, count(*) from media where verdict in ('broken', 'unknown') group by verdict"
        found = {"pending": self._number("select count(*) from media where verdict = 'pending'")}
        return found | dict(self._db.execute(bad))

    def accounts(self, user: str | None = None) -> Sequence[AccountRow]:
        """Those of all users, or of one."""
        where, values = ("where user = ?", (user,)) if user is not None else ("", ())
        rows = self._db.execute(f"select {self._account} from account {where} order by length(user), user", values)
        return [AccountRow._make(row) for row in rows]

    def recordings(self, user: str | None = None, beyond: Horizon | None = None) -> Iterator[Recorded]:
        """Those of all users, or of one."""
        lives, and_life = "", ""
        if self._keeps_lives:
            lives, and_life = f", {LIFE}", "left join recording on recording.ino = node.ino"
        which = "and owner.name = ?" if user is not None else ""
        if beyond is not None and self._keeps_lives:
            which += " and (case when recording.ino is null then ? else status <> 'active' or expires_ns is not null"
            which += " or changed_ns <= ? or born_ns <= ? end)"
        query = (
            f"select owner.name, {self._node_alone}{lives}"
            " from node as top join node as owner on owner.parent = top.ino join node as folder"
            " on folder.parent = owner.ino and folder.name = ?"
            f" join node on node.parent = folder.ino {and_life}"
            f" where top.parent = {ROOT_INO} and top.name = ? and node.kind = 'dir' {which} order by node.ino"
        )
        values: list[bytes | int] = [b"recordings", b"users"]
        if user is not None:
            values.append(os.fsencode(user))
        if beyond is not None and self._keeps_lives:
            values += [max(beyond) >= 0, *beyond]
        width = len(NODE_FIELDS)
        for owner, *rest in self._db.execute(query, values):
            row, kept = node_row(tuple(rest[:width])), rest[width:]
            is_kept = bool(kept) and kept[0] is not None
            yield Recorded((b"users", owner, b"recordings", row.name), row, life(tuple(kept)) if is_kept else None)

    def inside(self) -> Iterator[Inside]:
        """As the port says: all that is kept or has a date, but for what is called users/<id>/recordings/<id>."""
        if not self._keeps_lives:
            return
        query = (
            f"select node.ino, {LIFE} from recording join node on node.ino = recording.ino"
            " join node as folder on folder.ino = node.parent join node as owner on owner.ino = folder.parent"
            " join node as top on top.ino = owner.parent"
            " where (recording.keep = 1 or recording.expires_ns is not null) and not (folder.name = ?"
            f" and top.name = ? and top.parent = {ROOT_INO} and owner.ino <> {ROOT_INO} and top.ino <> {ROOT_INO})"
        )
        for ino, *kept in self._db.execute(query, (b"recordings", b"users")):
            names: list[bytes] = []
            at: list[int] = [ino]
            while at[-1] != ROOT_INO:
                ((parent, name),) = self._db.execute("select parent, name from node where ino = ?", (at[-1],))
                names.append(name)
                at.append(parent)
            yield Inside(tuple(reversed(names)), life(tuple(kept)), at)

    def states(self) -> dict[str, int]:
        """How many files are in each state. Only the uncommitted are counted; the root's total tells the rest."""
        uncommitted = "state is not null and state <> 'committed'"
        counts = dict(self._db.execute(f"select state, count(*) from node where {uncommitted} group by state"))
        links = self._number("select count(*) from node where kind = 'symlink'")
        total = self._number("select rfiles from node where ino = ?", (ROOT_INO,))
        return counts | {"committed": total - links - sum(counts.values())}

    def waiting(self) -> Waiting:
        """What is left for the next daemon."""
        sealing = self._db.execute(f"select count(*), {SUM} from node where state = 'sealing'").fetchone()
        here = UNDER_WAY if self._is_apart else "node where true"
        moves = self._number(f"select count(*) from {here} and pending & 7")
        places = "staging is not null or home_name is not null or kind = 'dir'"  # which lies nowhere to stay there
        removals = self._number(f"select count(*) from garbage where held_by is null and ({places})")
        return Waiting(sealing[0], added_up([(sealing[1], sealing[2])]), moves + removals)

    def unhashed(self) -> tuple[int, int]:
        """How many files are yet to be hashed when there is time, and their bytes."""
        if not self._is_apart:
            return 0, 0
        count, *halves = self._db.execute(f"select count(*), {SUM} {UNHASHED}").fetchone()
        return count, added_up([(halves[0], halves[1])])

    def trashed(self) -> dict[str, int]:
        """Bytes in the trash by the user whose they were."""
        found: Counter[str] = Counter()
        queries = ["select path, size_bytes from garbage where kind = 'file'"]
        if has_table(self._db, "trash_entry"):
            queries.append("select path, size_bytes from trash_entry where object_key is not null")
        for query in queries:
            for path, size_bytes in self._db.execute(query):
                user = owner_of(tuple(path.split(b"/")))
                if user is not None:
                    found[user] += size_bytes
        return dict(found)

    def sweeps(self, name: str | None, limit: int) -> Sequence[SweepRow]:
        """The last runs of sweeps, newest first."""
        if not has_table(self._db, "sweep_run"):
            return []
        where, values = ("where name = ?", (name,)) if name is not None else ("", ())
        query = f"select {SWEEP} from sweep_run {where} order by id desc limit ?"
        return [SweepRow._make(row) for row in self._db.execute(query, (*values, limit))]

    def events(self, after: int, limit: int) -> Sequence[EventRow]:
        """Events, in order."""
        if not has_table(self._db, "event"):
            return []
        query = f"select {EVENT} from event where id > ? order by id limit ?"
        return [EventRow._make(row) for row in self._db.execute(query, (after, limit))]

    def event_span(self) -> tuple[int, int]:
        """The first and the last event."""
        if not has_table(self._db, "event"):
            return 0, 0
        first, last = self._db.execute("select coalesce(min(id), 0), coalesce(max(id), 0) from event").fetchone()
        return first, last

    def event_since(self, at_ns: int) -> int | None:
        """The first event that is not older."""
        if not has_table(self._db, "event"):
            return None
        found = self._db.execute("select id from event where at_ns >= ? order by id limit 1", (at_ns,)).fetchone()
        return found[0] if found is not None else None

    # --- sums over many files ------------------------------------------------------------------------------------

    def folders(self, top: int | None) -> Iterator[Folder]:
        """Directories."""
        return figures.folders(self._db, top)

    def tallies(self, top: int | None, since_ns: int) -> Iterator[Tally]:
        """Files in groups."""
        return figures.tallies(self._db, top, since_ns, knows_s3=self._knows_s3, knows_uses=self._is_apart)

    def counted(self, user: str | None = None) -> Counted | None:
        """The counters of files."""
        return proof.counted(self._db, user)

    def survey(self, name: str) -> Surveyed | None:
        """What the last one found."""
        return days.survey(self._db, name)

    def changed_since(self, day: str) -> Sequence[OfDay] | None:
        """What is to be kept of a day."""
        return days.changed(self._db, day)

    def last_day(self) -> str | None:
        """The last that is remembered."""
        return days.last_day(self._db)

    def remembered(self, since: str) -> Remembered:
        """What is remembered from a day on."""
        return days.remembered(self._db, since)

    def prove(self) -> FiguresProof:
        """Count all files anew."""
        return proof.prove(self._db)

    def duplicates(self, worst: int, named: int) -> Duplicates:
        """Files with the same bytes."""
        return figures.duplicates(self._db, worst, named)

    # --- the catalogue itself ------------------------------------------------------------------------------------

    def health(self) -> Health:
        """Look through the whole file: PRAGMA quick_check (sqlite.org/pragma.html)."""
        page = self._number("pragma page_size")
        sizes = [page * self._number(f"pragma {each}") for each in ("page_count", "freelist_count")]
        (found,) = self._db.execute("pragma quick_check(1)").fetchone()
        return Health(sizes[0], sizes[1], None if found == "ok" else str(found))

    def check(self) -> Checked:
        """Add everything up anew."""
        return check(self._db)

    # --- S3 ------------------------------------------------------------------------------------------------------

    def journal(self) -> Sequence[Queued]:
        """All work that is not done."""
        if not self._knows_s3:
            return []
        names = dict(
            self._db.execute(
                "select id, name from journal join node on node.ino = journal.ino where journal.kind = 'upload'"
            )
        )
        rows = map(JournalRow._make, self._db.execute(f"select {self._journal} from journal order by id"))
        return [Queued(row, names.get(row.id)) for row in rows]

    def paths(self, inos: Iterable[int]) -> dict[int, Sequence[bytes]]:
        """Where these are. Every directory is looked up once."""
        known: dict[int, tuple[bytes, ...] | None] = {ROOT_INO: ()}
        found = {ino: self._path(ino, known) for ino in inos}
        return {ino: path for ino, path in found.items() if path is not None}

    def _path(self, ino: int, known: dict[int, tuple[bytes, ...] | None]) -> tuple[bytes, ...] | None:
        chain: list[tuple[int, bytes]] = []
        while ino not in known:
            row = self._db.execute("select parent, name from node where ino = ?", (ino,)).fetchone()
            if row is None:
                known[ino] = None
                break
            chain.append((ino, row[1]))
            ino = row[0]
        path = known[ino]
        for below, name in reversed(chain):
            path = None if path is None else (*path, name)
            known[below] = path
        return path

    def in_s3(self) -> InS3:
        """How much is there, or on its way."""
        if not self._knows_s3:
            return InS3(0, 0, 0)
        objects, queued = (self._number(f"select count(*) from {table}") for table in ("object", "journal"))
        return InS3(objects, queued, self._number(REMOTE_COUNT))

    def some_objects(self) -> tuple[Sequence[str], int]:
        """A few keys that S3 should hold, and how many files are in S3 alone."""
        if not self._knows_s3:
            return (), 0
        return tuple(str(key) for (key,) in self._db.execute(SOME_KEYS)), self._number(REMOTE_COUNT)

    def local_bytes(self) -> int:
        """Bytes of all local copies."""
        return self._object_bytes("local = 1")

    def pinned_bytes(self) -> int:
        """Bytes of all files that are pinned."""
        return self._object_bytes("pinned = 1")

    def _object_bytes(self, which: str) -> int:
        query = f"select {SUM} from {self._copies} and {which}"
        return added_up(self._db.execute(query).fetchall()) if self._knows_s3 else 0


class SqliteReports:
    """The Reports port on one SQLite file, which need not be open otherwise."""

    def __init__(self, path: Path, limiter: trio.CapacityLimiter | None = None) -> None:
        """*limiter*: of the threads in which questions are answered."""
        self._path = path
        self._limiter = limiter

    @contextmanager
    def reading(self) -> Iterator[SqliteSnapshot]:
        """A snapshot, in the caller's thread. Raises NotAStore, or as `connect`."""
        with reading(self._path) as db:
            yield SqliteSnapshot(db)

    async def ask(self, question: Callable[[Snapshot, Unpack[Args]], Answer], *args: *Args) -> Answer:
        """What *question* says of a snapshot, in a thread."""
        return await trio.to_thread.run_sync(self._answer, question, args, limiter=self._limiter)

    def _answer(self, question: Callable[[Snapshot, Unpack[Args]], Answer], args: tuple[*Args]) -> Answer:
        with self.reading() as snapshot:
            return question(snapshot, *args)


__all__ = ["SqliteReports", "SqliteSnapshot"]
