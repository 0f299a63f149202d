"""Counters of files by user, category and place: whatever a batch does, they say what the rows say."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from random import Random
from unittest import mock

import pytest

from recfs.catalogue.counting import counters
from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.reports import SqliteReports
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.core.figures.categories import Category
from recfs.core.figures.counters import RECOUNT_DUE, FigureKey, MonthKey
from recfs.core.model import Kind, State
from recfs.errors import RowRefused
from recfs.ports.batch import Batch
from recfs.ports.figures import FiguresProof
from recfs.ports.rows import NodeRow, ObjectRow
from recfs.services.figures.counting import Counting
from tests.contract.catalogue_contract import held, row

DIRS = [
    row(1, b"", kind=Kind.DIR),
    row(2, b"users", kind=Kind.DIR),
    row(3, b"temp", kind=Kind.DIR),
    row(4, b"shared", kind=Kind.DIR),
    row(5, b"5", 2, kind=Kind.DIR),
    row(6, b"6", 2, kind=Kind.DIR),
    row(7, b"recordings", 5, kind=Kind.DIR),
    row(8, b"recordings", 6, kind=Kind.DIR),
    row(9, b"1", 7, kind=Kind.DIR),
    row(10, b"1", 8, kind=Kind.DIR),
    row(11, b"video", 9, kind=Kind.DIR),
    row(12, b"5", 3, kind=Kind.DIR),
    row(13, b"1", 12, kind=Kind.DIR),
]
REC5, REC6, VIDEO, JOB, SHARED = 9, 10, 11, 13, 4
JUNE, JULY = 1_780_300_000 * 10**9, 1_783_000_000 * 10**9


@pytest.fixture
async def catalogue(tmp_path: Path) -> AsyncIterator[SqliteCatalogue]:
    made = open_catalogue(tmp_path / "catalogue.db")
    await made.apply(Batch(nodes=DIRS))
    yield made
    made.close()


def proof(catalogue: SqliteCatalogue) -> FiguresProof:
    with SqliteReports(catalogue._path).reading() as snapshot:
        return snapshot.prove()


def told(catalogue: SqliteCatalogue, user: str | None = None) -> dict[FigureKey | MonthKey, tuple[int, int]]:
    with SqliteReports(catalogue._path).reading() as snapshot:
        found = snapshot.counted(user)
        assert found is not None
        return {key: (files, size) for key, files, size in (*found.figures, *found.months)}


def local(user: str, category: Category) -> FigureKey:
    return FigureKey(user, category, True, "")


async def test_files_count_where_they_are_as_what_they_are(catalogue: SqliteCatalogue) -> None:
    await catalogue.apply(
        Batch(
            nodes=[
                row(20, b"source.mp4", REC5, mtime_ns=JUNE),
                row(21, b"audio.mp3", REC5, size_bytes=2**62),
                row(22, b"audio.mp3", REC6, size_bytes=2**62),
                row(23, b"more.mp3", REC6, size_bytes=2**62),
                row(24, b"a.mp3", VIDEO, state=State.STORED, has_object=1),
                row(25, b"source.mp4", SHARED),
                row(26, b"link", REC5, kind=Kind.SYMLINK),
                row(27, b"source.mp4", JOB),
            ],
            objects=[held(24, storage_class="GLACIER")],
        )
    )
    assert told(catalogue) == {
        local("5", Category.SOURCE): (1, 7),
        local("5", Category.AUDIO): (1, 2**62),
        local("6", Category.AUDIO): (2, 2**63),
        FigureKey("5", Category.VIDEO, True, "GLACIER"): (1, 7),
        local("", Category.SHARED): (1, 7),
        local("5", Category.TEMP): (1, 7),
        MonthKey("5", "2026-06"): (1, 7),
    }
    assert set(told(catalogue, "6")) == {local("6", Category.AUDIO)}
    await catalogue.apply(Batch(nodes=[row(24, b"a.mp3", VIDEO, state=State.STORED, has_object=0)]))
    assert told(catalogue)[local("5", Category.VIDEO)] == (1, 7)
    await catalogue.apply(Batch(nodes=[row(24, b"a.mp3", VIDEO, state=State.STORED, has_object=1)]))
    assert told(catalogue)[FigureKey("5", Category.VIDEO, True, "GLACIER")] == (1, 7)
    await catalogue.apply(Batch(objects_gone=[24]))
    assert told(catalogue)[local("5", Category.VIDEO)] == (1, 7)
    await catalogue.apply(Batch(objects=[held(24, storage_class="GLACIER")]))
    await catalogue.apply(Batch(nodes=[row(24, b"a.mp3", VIDEO, state=State.EVICTED, has_object=1)]))
    assert told(catalogue)[FigureKey("5", Category.VIDEO, False, "GLACIER")] == (1, 7)
    await catalogue.apply(Batch(nodes=[row(20, b"source.mp4", REC5, mtime_ns=JULY, size_bytes=9)]))
    assert MonthKey("5", "2026-06") not in told(catalogue)
    assert told(catalogue)[MonthKey("5", "2026-07")] == (1, 9)
    await catalogue.apply(Batch(removed=[20, 21, 22, 23, 24, 25, 27]))
    assert told(catalogue) == {}
    assert proof(catalogue).off == []


class Player:
    """Does at random what batches do, and knows the rows."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.rows: dict[int, NodeRow] = {each.ino: each for each in DIRS}
        self.objects: dict[int, ObjectRow] = {}
        self.next_ino = 100

    def _of(self, kind: Kind) -> list[NodeRow]:
        return [each for each in self.rows.values() if each.kind is kind and each.ino > 8]

    def _name(self, parent: int) -> bytes:
        taken = {each.name for each in self.rows.values() if each.parent == parent}
        names = [
            b"source.mp4",
            b"audio.mp3",
            b"words.vtt",
            b"x",
            b"video",
            b"audio",
            b"assets",
            b"a.mp4",
            b"thumbnail.png",
        ]
        free = [name for name in names if name not in taken]
        return self.random.choice(free) if free else b"n%d" % self.next_ino

    def _below(self, top: int) -> set[int]:
        found = {top}
        while more := {each.ino for each in self.rows.values() if each.parent in found} - found:
            found |= more
        return found

    def _goes_whole(self, folder: NodeRow, batch: Batch) -> bool:
        """Whether it has files alone, and nothing in the batch is about it or them."""
        below = self._below(folder.ino)
        told = {each.ino for each in (*batch.nodes, *batch.objects)} | {*batch.removed, *batch.objects_gone}
        return not told & below and all(self.rows[ino].kind is Kind.FILE for ino in below - {folder.ino})

    def step(self, batch: Batch) -> None:
        """One change more in a batch; the last of a row counts."""
        random = self.random
        files, folders = self._of(Kind.FILE), self._of(Kind.DIR)
        acts = ["make", "make", "mkdir", "write", "move", "move dir", "remove", "object", "no object", "remove whole"]
        act = random.choice(acts)
        changed: NodeRow | None = None
        if act in ("make", "mkdir"):
            parent = random.choice([*folders, self.rows[SHARED]]).ino
            kind = Kind.FILE if act == "make" else Kind.DIR
            changed = row(self.next_ino, self._name(parent), parent, kind, mtime_ns=random.choice([JUNE, JULY]))
            self.next_ino += 1
        elif act == "write" and files:
            one = random.choice(files)
            state = random.choice([State.COMMITTED, State.EVICTED, State.STORED, State.ARCHIVED])
            changed = one._replace(
                size_bytes=random.randrange(2**40), state=state, mtime_ns=random.choice([JUNE, JULY])
            )
        elif act in ("move", "move dir") and (some := files if act == "move" else [f for f in folders if f.ino > 13]):
            one = random.choice(some)
            where = [each for each in folders if each.ino not in self._below(one.ino)]
            parent = random.choice(where).ino
            changed = one._replace(parent=parent, name=self._name(parent))
        elif act == "remove" and files:
            one = random.choice(files)
            del self.rows[one.ino]
            batch.nodes[:] = [each for each in batch.nodes if each.ino != one.ino]
            batch.objects[:] = [each for each in batch.objects if each.ino != one.ino]
            self.objects.pop(one.ino, None)
            batch.removed.append(one.ino)
        elif act == "remove whole" and (
            some := [each for each in folders if each.ino > VIDEO and self._goes_whole(each, batch)]
        ):
            one = random.choice(some)
            batch.removed.append(one.ino)
            for ino in self._below(one.ino):  # the rows of its files stay for a while, and hang nowhere
                del self.rows[ino]
        elif act in ("object", "no object") and files:
            one = random.choice(files)
            there = act == "object"
            changed = one._replace(has_object=int(there))
            batch.objects[:] = [each for each in batch.objects if each.ino != one.ino]
            if there:
                self.objects[one.ino] = held(one.ino, storage_class=random.choice(["STANDARD", "GLACIER"]))
                batch.objects.append(self.objects[one.ino])
            else:
                batch.objects_gone.append(one.ino)
        if changed is not None:
            self.rows[changed.ino] = changed
            batch.nodes[:] = [each for each in batch.nodes if each.ino != changed.ino] + [changed]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.table(3)
async def test_whatever_batches_do_the_counters_say_what_the_rows_say(catalogue: SqliteCatalogue, seed: int) -> None:
    random = Random(seed)
    player = Player(random)
    for _ in range(60):
        batch = Batch()
        for _ in range(random.choice([1, 1, 2, 12])):
            player.step(batch)
        if random.random() < 0.2:
            await catalogue.apply(batch, trial=True)
        if random.random() < 0.3:
            catalogue._forget()
        await catalogue.apply(batch)
        found = proof(catalogue)
        assert found.off == []
        assert not found.is_due


async def test_a_batch_that_is_not_taken_counts_nothing(catalogue: SqliteCatalogue) -> None:
    await catalogue.apply(Batch(nodes=[row(20, b"a.mp4", REC5)]))
    with pytest.raises(RowRefused):
        await catalogue.apply(Batch(nodes=[row(21, b"b.mp4", REC5), row(22, b"c.mp4", REC5, sha256=b"short")]))
    assert told(catalogue) == {local("5", Category.VIDEO): (1, 7)}
    await catalogue.apply(Batch(nodes=[row(21, b"b.mp4", REC5)]))
    assert told(catalogue) == {local("5", Category.VIDEO): (2, 14)}


async def test_of_a_directory_with_many_files_that_becomes_another_place_all_are_counted_anew(
    catalogue: SqliteCatalogue,
) -> None:
    files = [row(20 + number, b"%d" % number, VIDEO) for number in range(3)]
    folder = DIRS[10]._replace(rfiles=3)
    await catalogue.apply(Batch(nodes=[folder, *files]))
    with mock.patch.object(counters, "MOVED_FILES", 2):
        await catalogue.apply(Batch(nodes=[folder._replace(name=b"audio")]))
    found = proof(catalogue)
    assert found.is_due
    assert found.off
    with SqliteReports(catalogue._path).reading() as snapshot:
        assert snapshot.counted() is None
    # what comes between the count and its correction stays right
    await catalogue.apply(Batch(nodes=[row(30, b"late", VIDEO)], removed=[20]))
    await catalogue.correct(found)
    assert told(catalogue) == {local("5", Category.AUDIO): (3, 21)}
    assert proof(catalogue).off == []


async def test_what_became_uncounted_during_a_count_is_counted_by_the_next(catalogue: SqliteCatalogue) -> None:
    folder = DIRS[10]._replace(rfiles=1)
    await catalogue.apply(Batch(nodes=[folder, row(20, b"x", VIDEO)]))
    with mock.patch.object(counters, "MOVED_FILES", 0):
        await catalogue.apply(Batch(nodes=[folder._replace(name=b"audio")]))
        found = proof(catalogue)
        await catalogue.apply(Batch(nodes=[folder._replace(name=b"assets")]))
    await catalogue.correct(found)
    assert proof(catalogue).is_due
    await catalogue.correct(proof(catalogue))
    assert told(catalogue) == {local("5", Category.ASSETS): (1, 7)}


async def test_the_daemon_counts_what_was_there_before_there_were_counters(
    catalogue: SqliteCatalogue, autojump_clock: object
) -> None:
    await catalogue.apply(Batch(nodes=[row(20, b"a.mp4", REC5), row(21, b"b.mp4", REC6)]))
    with closing(sqlite3.connect(catalogue._path)) as db, db:
        db.execute("delete from figure")
        db.execute("replace into meta values (?, '1')", (RECOUNT_DUE,))
    sweep = Counting(catalogue, SqliteReports(catalogue._path)).sweep()
    due = await sweep.look()
    assert sweep.decide(due)
    await sweep.act(due, mock.Mock())
    assert told(catalogue) == {local("5", Category.VIDEO): (1, 7), local("6", Category.VIDEO): (1, 7)}
    assert sweep.decide(await sweep.look()) is None
