"""What a batch changes of the counters: how its rows are counted, less how the rows are that they take the place of.

Both are rows of the catalogue, so the counters cannot leave them: whatever a batch is made of, and whichever of its
rows are not taken, what is counted is what is written. What was written last is known (`Known`); others are read.

A directory that becomes another place (moved to another user, say, or from `video` to `audio`) takes all files below it
to other counters. These are read and counted in the same transaction, up to MOVED_FILES. Of more the batch only notes
that the counters are to be counted anew (RECOUNT_DUE), which is done in a thread (`services/figures/`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from recfs.catalogue.counting.changes import REMOTE, SOURCE, Changes, File, Row, Sums
from recfs.catalogue.figures import BELOW
from recfs.core.figures.counters import RECOUNT_DUE
from recfs.core.figures.places import ROOT, Place, inside
from recfs.core.layout import Role
from recfs.core.model import Kind
from recfs.ports.rows import ROOT_INO

if TYPE_CHECKING:
    import sqlite3

    from recfs.catalogue.rows import Known, Run
    from recfs.ports.batch import Batch
    from recfs.ports.rows import NodeRow

LEFT_FILES: Final = 1500
"""So many files at most are counted at once that lost their name together with their directory: 5 ms …"""
LEFT_ALIKE: Final = 10_000
"""… and so many where all have one category, and can be added up: 5 ms, too."""
MOVED_FILES: Final = 5000
"""So many files at most are counted at once that a directory took to another place: 50 ms."""
KNOWN_PLACES: Final = 1 << 16
_DIR, _FILE_KIND = Kind.DIR, Kind.FILE
_MANY: Final = 200
_FILE: Final = ", ".join(f"node.{field}" for field in File._fields)
_FOLDER: Final = "select parent, name from node where ino = ? and kind = 'dir'"
RECOUNT: Final = (
    "insert into meta (key, value) values (?, '1')"
    " on conflict (key) do update set value = cast(cast(value as integer) + 1 as text)"
)
_IN_S3: Final = " and has_object"
_SUMS: Final = (
    "select here, count(*), sum(size_bytes >> 32), sum(size_bytes & 4294967295) from (select"
    f" coalesce(state not in ({', '.join('?' * len(REMOTE))}), 1) here, size_bytes from node where parent = ?"
    " and kind = 'file' and not has_object and ino not in ({marks}) limit ?) group by here"
)
Alike = list[tuple[Place, Sums]]
Pairs = list[tuple[Row | None, Row | None]]
"""A file as it is in the catalogue, and as it will be; None: it is not there."""


class Counting:
    """What batches change. Reads on the writer's connection, before a batch is written."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._highest: int = db.execute("select coalesce(max(ino), 0) from node").fetchone()[0]
        """No row has a higher number."""
        self._are_too_many = False
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
        rows, highest = known.rows, self._highest
        folders: dict[int, NodeRow] = {}
        pairs: Pairs = []
        unread: dict[int, NodeRow | None] = {}
        moved: list[NodeRow] = []
        for row in batch.nodes:
            ino = row.ino
            was = rows.get(ino)
            kind = row.kind
            if kind is _FILE_KIND:
                if was is not None:
                    if not _counts_alike(was, row):
                        pairs.append((was, row))
                elif ino > highest:
                    self._highest = max(self._highest, ino)
                    pairs.append((None, row))
                else:
                    unread[ino] = row
            elif kind is _DIR:
                folders[ino] = row
                if was is not None:
                    if was.parent != row.parent or was.name != row.name:
                        moved.append(row)
                elif ino > highest:
                    self._highest = max(self._highest, ino)
                else:
                    unread[ino] = row
            elif ino > highest:
                self._highest = max(self._highest, ino)
        for ino in batch.removed:
            was = rows.get(ino)
            if was is not None:
                pairs.append((was, None))
            elif ino <= highest:
                unread[ino] = None
        if unread:
            read = self._read(list(unread))
            for ino, now in unread.items():
                there = read.get(ino)
                if now is None or now.kind is _FILE_KIND:
                    if there is not None or now is not None:
                        pairs.append((there, now))
                elif there is not None and (there.parent != now.parent or there.name != now.name):
                    moved.append(now)
        left, alike = self._left(batch, pairs)
        done = self._counted(batch, known, pairs + left, folders, moved, alike)
        if self._are_too_many:
            self._are_too_many = False
            done.append((RECOUNT, (RECOUNT_DUE,)))
        return done

    def _left(self, batch: Batch, pairs: Pairs) -> tuple[Pairs, Alike]:
        """What is still in directories that are removed: it is counted no longer, or all is to be counted anew.

        Files of a temp job, which has thousands, are added up where they lie: one by one they take ten times as long.
        """
        left: Pairs = []
        alike: Alike = []
        for folder in [was.ino for was, row in pairs if row is None and was is not None and was.kind == _DIR]:
            others = {*batch.removed, *(row.ino for row in batch.nodes)}
            place = self._place(folder, {}, self._places)
            are_alike = place is not None and place.category is not None and place.role is not Role.RECORDING
            if place is not None and are_alike:
                mine = [each for each in self._read([*others]).values() if each.parent == folder]
                numbers = [each.ino for each in mine if each.kind == _FILE_KIND]
                sums = self._summed(folder, numbers) if len(numbers) <= LEFT_FILES else None
                if sums is None:
                    self._are_too_many = True
                else:
                    alike += [(place, each) for each in sums]
            query = f"select {_FILE} from node where parent = ? and kind = 'file'{_IN_S3 if are_alike else ''} limit ?"
            inside_it = map(File._make, self._db.execute(query, (folder, LEFT_FILES + len(others) + 1)))
            files = [each for each in inside_it if each.ino not in others]
            if len(files) > LEFT_FILES:
                self._are_too_many = True
            else:
                left += [(each, None) for each in files]
        return left, alike

    def _summed(self, folder: int, but: Sequence[int]) -> list[Sums] | None:
        """The files in a directory, *but* these, of which S3 has nothing; None if they are too many."""
        query = _SUMS.format(marks=_marks(but))
        sums = [Sums(*values) for values in self._db.execute(query, (*map(str, REMOTE), folder, *but, LEFT_ALIKE + 1))]
        return sums if sum(each.files for each in sums) <= LEFT_ALIKE else None

    def _counted(
        self, batch: Batch, known: Known, pairs: Pairs, folders: Mapping[int, NodeRow], moved: Sequence[NodeRow],
        alike: Alike,
    ) -> list[Run]:  # fmt: skip
        classes: dict[int, str] = {}
        new_classes: Mapping[int, str] = classes
        new_places, recount = self._places, False
        if batch.objects or batch.objects_gone:
            pairs = self._with_objects(batch, known, pairs)
        if moved:
            new_places, recount = self._moved(moved, folders, pairs, set(batch.removed))
        held = _inos([pair for pair in pairs if any(map(_has_object, pair))])
        if held:
            classes = self._classes(held)
            new_classes = {ino: name for ino, name in classes.items() if ino not in set(batch.objects_gone)}
            new_classes |= {row.ino: row.storage_class for row in batch.objects}
        changes = Changes()
        for was, row in pairs:
            if was is not None and was.kind == _FILE_KIND:
                place = self._places.get(was.parent) or self._place(was.parent, {}, self._places)
                if place is not None:  # else its directory is of no place: a row that somebody made by hand
                    changes.add(was, place, classes.get(was.ino, "") if was.has_object else "", -1)
            if row is not None and row.kind == _FILE_KIND:
                place = new_places.get(row.parent) or self._place(row.parent, folders, new_places)
                if place is not None:
                    changes.add(row, place, new_classes.get(row.ino, "") if row.has_object else "", 1)
        for where, sums in alike:
            changes.take_off(where, sums)
        done = list(changes.runs())
        if recount:
            done.append((RECOUNT, (RECOUNT_DUE,)))
        if new_places is not self._places:
            self.forget()
        return done

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

    def _with_objects(self, batch: Batch, known: Known, pairs: Pairs) -> Pairs:
        """The same, with all files whose object comes, goes or becomes another."""
        there = set(_inos(pairs))
        others = {row.ino for row in batch.objects}.union(batch.objects_gone) - there
        written = {row.ino: row for row in batch.nodes if row.ino in others}
        before: dict[int, Row] = {ino: known.rows[ino] for ino in others if ino in known.rows}
        before |= self._read([ino for ino in others if ino not in before])
        return pairs + [(was, written.get(ino, was)) for ino, was in before.items()]

    def _place(self, ino: int, folders: Mapping[int, NodeRow], known: dict[int, Place | None]) -> Place | None:
        """What a directory is: of those of a batch as they will be. None: it hangs nowhere."""
        if ino in known:
            return known[ino]
        chain: dict[int, bytes] = {}
        at = ino
        while at not in known:
            row: Any = folders.get(at)
            values = self._db.execute(_FOLDER, (at,)).fetchone() if row is None else (row.parent, row.name)
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
        self, moved: Sequence[NodeRow], folders: Mapping[int, NodeRow], pairs: Pairs, removed: set[int]
    ) -> tuple[dict[int, Place | None], bool]:
        """The places of directories after it, and whether files below are not counted here; else they are added."""
        new_places: dict[int, Place | None] = {ROOT_INO: ROOT}
        both = [(self._place(row.ino, {}, self._places), self._place(row.ino, folders, new_places)) for row in moved]
        if all(old is not None and new is not None and old.counts_like(new) for old, new in both):
            return self._places, False  # they are the places they were
        if sum(row.rfiles for row in moved) > MOVED_FILES:
            return new_places, True
        there = set(_inos(pairs))
        for top in moved:
            for each in self._below(top.ino):
                if each.ino not in there and each.ino not in removed and each.parent not in removed:
                    there.add(each.ino)
                    pairs.append((each, each))
        return new_places, False

    def _below(self, top: int) -> Iterable[File]:
        query = f"{BELOW} select {_FILE} from below cross join node on node.parent = below.ino where node.kind = 'file'"
        return map(File._make, self._db.execute(query, (top,)))


def _counts_alike(was: Row, row: NodeRow) -> bool:
    """Whether nothing has changed that a counter knows of, of a file whose directory and object are what they were."""
    return (
        was.size_bytes == row.size_bytes
        and was.parent == row.parent
        and was.name == row.name
        and was.has_object == row.has_object
        and (was.state is row.state or (was.state in REMOTE) == (row.state in REMOTE))
        and (was.mtime_ns == row.mtime_ns or not row.name.startswith(SOURCE))
    )


def _inos(pairs: Pairs) -> list[int]:
    """Whose rows these are; both of a pair are of one inode."""
    return list(dict.fromkeys(row.ino for pair in pairs for row in pair if row is not None))


def _has_object(row: Row | None) -> bool:
    return row is not None and bool(row.has_object)


def _portions(inos: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(inos), _MANY):
        yield inos[first : first + _MANY]


def _marks(inos: Sequence[int]) -> str:
    return ", ".join("?" * len(inos))


__all__ = ["MOVED_FILES", "RECOUNT", "Counting"]
