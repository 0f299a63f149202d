"""What a batch changes of the counters: how its rows are counted, less how the rows are that they take the place of.

Both are rows of the catalogue, so the counters cannot leave them: whatever a batch is made of, and whichever of its
rows are not taken, what is counted is what is written. What was written last is known (`Known`); others are read.

A directory that becomes another place (moved to another user, say, or from `video` to `audio`) takes all files below it
to other counters. These are read and counted in the same transaction, up to MOVED_FILES. Of more the batch only notes
that the counters are to be counted anew (RECOUNT_DUE), which is done in a thread (`services/counting.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from recfs.catalogue.figures import BELOW
from recfs.catalogue.rows import AT_ONCE, Statement
from recfs.core import bounds
from recfs.core.figures.counters import RECOUNT_DUE, FigureKey, Key, MonthKey, figure_of, month_key
from recfs.core.figures.places import ROOT, Place, inside
from recfs.core.model import Kind, State
from recfs.ports.rows import ROOT_INO, NodeRow

if TYPE_CHECKING:
    import sqlite3

    from recfs.catalogue.rows import Known, Run
    from recfs.ports.batch import Batch
    from recfs.ports.rows import ObjectRow

MOVED_FILES: Final = 5000
"""So many files at most are counted at once that a directory took to another place: 50 ms."""
KNOWN_PLACES: Final = 1 << 16
_LOW: Final = (1 << 32) - 1
_REMOTE: Final = frozenset(state for state in State if state.is_remote)
_SOURCE: Final = b"source."
_MANY: Final = 200


class File(NamedTuple):
    """As much of a row as says where it is counted; names are those of NodeRow."""

    ino: int
    parent: int
    name: bytes
    kind: str
    size_bytes: int
    mtime_ns: int
    state: str | None
    has_object: int


Row = NodeRow | File
_FILE: Final = ", ".join(f"node.{field}" for field in File._fields)
Changes = dict[Key, list[int]]
"""By counter: files, and bytes in two halves, for a sum of sizes may be beyond 64 bits."""


def _upsert(table: str, *key: str) -> Statement:
    before = f"insert into {table} ({', '.join(key)}, files, high, low) values"
    row = f"({', '.join('?' * (len(key) + 3))})"
    added = ", ".join(f"{each} = {each} + excluded.{each}" for each in ("files", "high", "low"))
    after = f"on conflict ({', '.join(key)}) do update set {added}"
    return Statement(tuple(f"{before} {', '.join([row] * count)} {after}" for count in range(AT_ONCE + 1)))


_ADD: Final = _upsert("figure", *FigureKey._fields)
_ADD_MONTHS: Final = _upsert("uploaded", *MonthKey._fields)
_FOLDER: Final = "select parent, name from node where ino = ? and kind = 'dir'"
RECOUNT: Final = (
    "insert into meta (key, value) values (?, '1')"
    " on conflict (key) do update set value = cast(cast(value as integer) + 1 as text)"
)


def added(changes: Mapping[Key, Sequence[int]]) -> Iterator[Run]:
    """What adds to the counters."""
    figures = [(*key, *more) for key, more in changes.items() if isinstance(key, FigureKey) and any(more)]
    months = [(*key, *more) for key, more in changes.items() if isinstance(key, MonthKey) and any(more)]
    if figures:
        yield from _ADD.runs(figures)
    if months:
        yield from _ADD_MONTHS.runs(months)


def count(changes: Changes, name: bytes, place: Place, storage_class: str, size_bytes: int, mtime_ns: int, sign: int,
          *, here: bool) -> None:  # fmt: skip
    """Count a file, or (*sign* -1) no longer."""
    keys: list[Key] = [figure_of(name, place, storage_class, here=here)]
    if name.startswith(_SOURCE):
        month = month_key(name, place, bounds.time_ns(bounds.loaded_time(mtime_ns)))
        if month is not None:
            keys.append(month)
    for key in keys:
        known = changes.get(key)
        if known is None:
            known = changes[key] = [0, 0, 0]
        known[0] += sign
        known[1] += sign * (size_bytes >> 32)
        known[2] += sign * (size_bytes & _LOW)


class Counting:
    """What batches change. Reads on the writer's connection, before a batch is written."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._highest: int = db.execute("select coalesce(max(ino), 0) from node").fetchone()[0]
        """No row has a higher number."""
        self._places: dict[int, Place | None] = {}
        """Of directories as the catalogue has them."""
        self.forget()

    def forget(self) -> None:
        """What was thought to be written was not, or others may have changed it."""
        self._places = {ROOT_INO: ROOT}

    def runs(self, batch: Batch, known: Known) -> list[Run]:
        """What is to be run with *batch*, in the same transaction."""
        if not (batch.nodes or batch.removed or batch.objects or batch.objects_gone):
            return []
        if len(self._places) > KNOWN_PLACES:
            self.forget()
        folders: dict[int, NodeRow] = {}
        files: dict[int, NodeRow] = {}
        before: dict[int, Row] = {}
        unread: list[int] = []
        rows, highest = known.rows, self._highest
        for row in batch.nodes:
            ino = row.ino
            if row.kind is Kind.DIR:
                folders[ino] = row
            elif row.kind is Kind.FILE:
                files[ino] = row
            was = rows.get(ino)
            if was is not None:
                before[ino] = was
            elif ino > highest:
                self._highest = max(self._highest, ino)
            else:
                unread.append(ino)
        removed = batch.removed
        if removed:
            for ino in removed:
                was = rows.get(ino)
                if was is not None:
                    before[ino] = was
                elif ino <= highest:
                    unread.append(ino)
        objects: dict[int, ObjectRow] = {}
        gone: set[int] = set()
        if batch.objects or batch.objects_gone:
            objects, gone = {row.ino: row for row in batch.objects}, set(batch.objects_gone)
            others = objects.keys() | gone
            unread += [ino for ino in others if ino not in before and ino not in files and ino <= highest]
        if unread:
            before.update(self._read(unread))
        after: dict[int, Row] = dict(before) if objects or gone else {}
        for ino in removed:
            after.pop(ino, None)
        after.update(files)
        moved = [
            row for ino, row in folders.items()
            if ino in before and (row.parent != before[ino].parent or row.name != before[ino].name)
        ]  # fmt: skip
        new_places, recount = self._places, False
        if moved:
            new_places, recount = self._moved(moved, folders, before, after, set(removed))
        changes = self._changes(before, after, folders, new_places, objects, gone)
        done = list(added(changes))
        if recount:
            done.append((RECOUNT, (RECOUNT_DUE,)))
        if new_places is not self._places:
            self.forget()
        return done

    def _changes(
        self,
        before: Mapping[int, Row],
        after: Mapping[int, Row],
        folders: Mapping[int, NodeRow],
        new_places: dict[int, Place | None],
        objects: Mapping[int, ObjectRow],
        gone: set[int],
    ) -> Changes:
        changes: Changes = {}
        pairs: list[tuple[Row | None, Row | None]] = []
        held: list[int] = []
        is_moved = new_places is not self._places
        for ino in {**before, **after}:
            was, row = before.get(ino), after.get(ino)
            if was is not None and was.kind != Kind.FILE:
                was = None
            if row is not None and row.kind != Kind.FILE:
                row = None
            if was is not None and row is not None and not is_moved and ino not in objects and ino not in gone:
                if (
                    was.size_bytes == row.size_bytes
                    and was.parent == row.parent
                    and was.name == row.name
                    and was.has_object == row.has_object
                    and (was.state in _REMOTE) == (row.state in _REMOTE)
                    and (was.mtime_ns == row.mtime_ns or not row.name.startswith(_SOURCE))
                ):
                    continue
            elif was is None and row is None:
                continue
            pairs.append((was, row))
            if (was is not None and was.has_object) or (row is not None and row.has_object):
                held.append(ino)
        if not pairs:
            return changes
        classes = self._classes(held) if held else {}
        for was, row in pairs:
            if was is not None:
                place = self._place(was.parent, {}, self._places)
                storage_class = classes.get(was.ino, "") if was.has_object else ""
                self._count(changes, was, place, storage_class, -1)
            if row is not None:
                place = self._place(row.parent, folders, new_places)
                storage_class = ""
                if row.has_object:
                    there = objects.get(row.ino)
                    if there is not None:
                        storage_class = there.storage_class
                    elif row.ino not in gone:
                        storage_class = classes.get(row.ino, "")
                self._count(changes, row, place, storage_class, 1)
        return changes

    @staticmethod
    def _count(changes: Changes, row: Row, place: Place | None, storage_class: str, sign: int) -> None:
        if place is not None:  # else its directory is of no place: a row that somebody made by hand
            here = row.state not in _REMOTE
            count(changes, row.name, place, storage_class, row.size_bytes, row.mtime_ns, sign, here=here)

    # --- rows that are there -------------------------------------------------------------------------------------

    def _read(self, inos: Sequence[int]) -> dict[int, File]:
        found: dict[int, File] = {}
        for some in _portions(inos):
            for values in self._db.execute(f"select {_FILE} from node where ino in ({_marks(some)})", some):
                found[values[0]] = File._make(values)
        return found

    def _classes(self, inos: Sequence[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for some in _portions(inos):
            found.update(self._db.execute(f"select ino, storage_class from object where ino in ({_marks(some)})", some))
        return found

    def _place(self, ino: int, folders: Mapping[int, NodeRow], known: dict[int, Place | None]) -> Place | None:
        """What a directory is: of those of a batch as they will be. None: it hangs nowhere."""
        if ino in known:
            return known[ino]
        chain: dict[int, bytes] = {}
        at = ino
        while at not in known:
            row: Any = folders.get(at)
            if row is None:
                values = self._db.execute(_FOLDER, (at,)).fetchone()
            else:
                values = row.parent, row.name
            if values is None or at in chain:
                return None
            chain[at] = values[1]
            at = values[0]
        place = known[at]
        for below, name in reversed(chain.items()):
            place = None if place is None else inside(place, below, name)
            known[below] = place
        return place

    # --- directories that move -----------------------------------------------------------------------------------

    def _moved(
        self,
        moved: Sequence[NodeRow],
        folders: Mapping[int, NodeRow],
        before: dict[int, Row],
        after: dict[int, Row],
        removed: set[int],
    ) -> tuple[dict[int, Place | None], bool]:
        """The places of directories after it, and whether files below are not counted here; else they are added."""
        new_places: dict[int, Place | None] = {ROOT_INO: ROOT}
        pairs = [(self._place(row.ino, {}, self._places), self._place(row.ino, folders, new_places)) for row in moved]
        if all(old is not None and new is not None and old.counts_like(new) for old, new in pairs):
            return self._places, False  # they are the places they were
        if sum(row.rfiles for row in moved) > MOVED_FILES:
            return new_places, True
        for top in moved:
            for each in self._below(top.ino):
                if each.ino not in before:
                    before[each.ino] = each
                if each.ino not in after and each.ino not in removed:
                    after[each.ino] = each
        return new_places, False

    def _below(self, top: int) -> Iterable[File]:
        query = f"{BELOW} select {_FILE} from below cross join node on node.parent = below.ino where node.kind = 'file'"
        return map(File._make, self._db.execute(query, (top,)))


def _portions(inos: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(inos), _MANY):
        yield inos[first : first + _MANY]


def _marks(inos: Sequence[int]) -> str:
    return ", ".join("?" * len(inos))


__all__ = ["MOVED_FILES", "RECOUNT", "Counting", "added", "count"]
