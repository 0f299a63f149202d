"""What every Reports keeps to. SQLite's is the only one."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.reports import SqliteReports
from recfs.core.life import Life, Status
from recfs.core.model import Kind, State
from recfs.core.retention import Horizon
from recfs.errors import CatalogueCorrupt, NotAStore, NotFound
from recfs.ports.batch import Batch
from recfs.ports.reports import Difference, InS3, Queued, Reports, Snapshot, Waiting
from recfs.ports.rows import RecordingRow

from .catalogue_contract import account, garbage, held, row, work

USERS, FIVE, FILE, LINK, LEAVING, AWAY = 2, 3, 10, 11, 12, 13
NODES = [
    row(1, b"", kind=Kind.DIR, rfiles=4, size_bytes=21),
    row(USERS, b"users", kind=Kind.DIR, rfiles=4, size_bytes=21),
    row(FIVE, b"5", USERS, kind=Kind.DIR, rfiles=4, size_bytes=21),
    row(FILE, b"a", FIVE, has_xattrs=1),
    row(LINK, b"l", FIVE, kind=Kind.SYMLINK),
    row(LEAVING, b"sealing", FIVE, state=State.SEALING, sha256=None, md5=None, staging="s-1", pending=2),
    row(AWAY, b"\xff", FIVE, state=State.EVICTED, has_object=1),
]


@pytest.fixture
async def reports(tmp_path: Path) -> Reports:
    """Of one user's files, of which one is in S3."""
    path = tmp_path / "catalogue.db"
    catalogue = open_catalogue(path)
    await catalogue.apply(
        Batch(
            nodes=NODES,
            accounts=[account("10"), account("5", used_bytes=21, used_files=4)],
            xattrs=[(FILE, b"user.note", b"x")],
            objects=[held(AWAY, local=0), held(FILE, local=1, pinned=1)],
            journal=[work(2, ino=LEAVING), work(3, kind="delete", ino=0, key="gone")],
            garbage=[garbage(1), garbage(2, held_by=FILE)],
            meta={"store_id": "one"},
        )
    )
    catalogue.close()
    return SqliteReports(path)


async def test_a_question_is_answered_in_a_thread_from_one_state(reports: Reports) -> None:
    def question(snapshot: Snapshot, more: str) -> tuple[bool, dict[str, str], str]:
        return threading.current_thread() is threading.main_thread(), snapshot.meta(), more

    assert await reports.ask(question, "more") == (False, {"store_id": "one"}, "more")


async def test_what_a_question_raises_comes_out(reports: Reports) -> None:
    def question(snapshot: Snapshot) -> None:
        raise NotFound("nothing")

    with pytest.raises(NotFound):
        await reports.ask(question)


async def test_entries(reports: Reports) -> None:
    with reports.reading() as snapshot:
        entry = snapshot.entry((b"users", b"5", b"a"))
        assert entry is not None
        assert (entry.row, entry.xattrs, entry.held, entry.is_queued) == (NODES[3], {b"user.note": b"x"}, None, False)
        away = snapshot.entry((b"users", b"5", b"\xff"))
        assert away is not None
        assert away.held == held(AWAY, local=0)
        assert snapshot.entry(()) is not None
        assert snapshot.entry((b"users", b"6")) is None
        queued = snapshot.entry((b"users", b"5", b"sealing"))
        assert queued is not None
        assert queued.is_queued


async def test_what_is_below_a_directory(reports: Reports) -> None:
    with reports.reading() as snapshot:
        assert [(each.path, each.row.ino) for each in snapshot.below(1, recursive=False, state=None)] == [(b"users", 2)]
        everything = {each.path: each.row for each in snapshot.below(1, recursive=True, state=None)}
        assert everything[b"users/5/l"] == NODES[4]
        assert len(everything) == len(NODES) - 1
        found = snapshot.below(USERS, recursive=True, state="evicted")
        assert [each.path for each in found] == [b"5/\xff"]


async def test_users_states_and_what_waits(reports: Reports) -> None:
    with reports.reading() as snapshot:
        assert [each.user for each in snapshot.accounts()] == ["5", "10"]
        assert snapshot.accounts("5") == [account("5", used_bytes=21, used_files=4)]
        assert snapshot.accounts("6") == []
        assert snapshot.states() == {"evicted": 1, "sealing": 1, "committed": 1}
        assert snapshot.waiting() == Waiting(sealing=1, hashing_bytes=7, unpublished=2)


async def test_counters_are_proved(reports: Reports) -> None:
    with reports.reading() as snapshot:
        checked = snapshot.check()
    assert (checked.users, checked.files) == (2, 4)
    assert checked.differences == [Difference("user 10", None, "10", 100, 2, 0, 0)]


async def test_the_queue_and_what_is_in_s3(reports: Reports) -> None:
    with reports.reading() as snapshot:
        upload, delete = work(2, ino=LEAVING), work(3, kind="delete", ino=0, key="gone")
        assert snapshot.journal() == [Queued(upload, b"sealing"), Queued(delete, None)]
        assert snapshot.paths([LEAVING, 99]) == {LEAVING: (b"users", b"5", b"sealing")}
        assert snapshot.in_s3() == InS3(objects=2, queued=2, remote_files=1)
        keys, remote = snapshot.some_objects()
        assert (sorted(keys), remote) == (["users/5/10", "users/5/13"], 1)
        assert (snapshot.local_bytes(), snapshot.pinned_bytes()) == (7, 7)


def test_a_store_that_is_none(tmp_path: Path) -> None:
    open_catalogue(tmp_path / "catalogue.db").close()
    with pytest.raises(NotAStore), SqliteReports(tmp_path / "catalogue.db").reading():
        pass
    (tmp_path / "other.db").write_bytes(b"no database" * 1000)
    with pytest.raises(CatalogueCorrupt), SqliteReports(tmp_path / "other.db").reading():
        pass


async def test_recordings_are_found_by_where_they_lie(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    catalogue = open_catalogue(path)
    tree = [
        row(1, b"", kind=Kind.DIR), row(2, b"users", kind=Kind.DIR), row(3, b"5", 2, kind=Kind.DIR),
        row(4, b"recordings", 3, kind=Kind.DIR), row(20, b"142", 4, kind=Kind.DIR, size_bytes=7, rfiles=1),
        row(9, b"7", 4, kind=Kind.DIR), row(5, b"6", 2, kind=Kind.DIR), row(6, b"recordings", 5, kind=Kind.DIR),
        row(21, b"1", 6, kind=Kind.DIR), row(22, b"2", 20, kind=Kind.DIR), row(23, b"file", 20),
        row(30, b"temp", kind=Kind.DIR), row(31, b"5", 30, kind=Kind.DIR), row(32, b"recordings", 31, kind=Kind.DIR),
        row(33, b"1", 32, kind=Kind.DIR),
    ]  # fmt: skip
    lives = [RecordingRow(20, Life(Status.EXPIRED, keep=1)), RecordingRow(22, Life())]
    await catalogue.apply(Batch(nodes=tree, recordings=lives))
    catalogue.close()
    with SqliteReports(path).reading() as snapshot:
        found = list(snapshot.recordings())
        assert [(each.path, each.row.ino, each.row.size_bytes, each.life) for each in found] == [
            ((b"users", b"5", b"recordings", b"7"), 9, 0, None),
            ((b"users", b"5", b"recordings", b"142"), 20, 7, Life(Status.EXPIRED, keep=1)),
            ((b"users", b"6", b"recordings", b"1"), 21, 0, None),
        ]
        assert [each.row.ino for each in snapshot.recordings("5")] == [9, 20]
        assert list(snapshot.recordings("\udcff")) == []
        assert [each.row.ino for each in snapshot.recordings(beyond=Horizon())] == [20]
        assert [each.row.ino for each in snapshot.recordings(beyond=Horizon(99))] == [9, 20, 21]


@pytest.mark.parametrize(
    ("life", "beyond", "found"),
    [
        (Life(born_ns=50, changed_ns=100), Horizon(99, -1), False),
        (Life(born_ns=50, changed_ns=100), Horizon(100, -1), True),
        (Life(born_ns=50, changed_ns=100), Horizon(-1, 49), False),
        (Life(born_ns=50, changed_ns=100), Horizon(-1, 50), True),
        (Life(born_ns=50, changed_ns=100), Horizon(), False),
        (Life(born_ns=50, changed_ns=100, expires_ns=5), Horizon(), True),
        (Life(Status.REMOVING, born_ns=50, changed_ns=100), Horizon(), True),
        (Life(Status.EXPIRED, born_ns=50, changed_ns=100), Horizon(), True),
    ],
)
async def test_recordings_that_no_rule_can_mean_yet_are_left_out(
    tmp_path: Path, life: Life, beyond: Horizon, found: bool
) -> None:
    path = tmp_path / "catalogue.db"
    catalogue = open_catalogue(path)
    names = [(1, b"", 1), (2, b"users", 1), (3, b"5", 2), (4, b"recordings", 3), (20, b"142", 4)]
    tree = [row(ino, name, parent, kind=Kind.DIR) for ino, name, parent in names]
    await catalogue.apply(Batch(nodes=tree, recordings=[RecordingRow(20, life)]))
    catalogue.close()
    with SqliteReports(path).reading() as snapshot:
        assert [each.row.ino for each in snapshot.recordings("5", beyond)] == ([20] if found else [])


async def test_a_catalogue_that_nothing_happened_to_is_whole(reports: Reports) -> None:
    health = await reports.ask(lambda snapshot: snapshot.health())
    assert health.damage is None
    assert 0 <= health.free_bytes < health.size_bytes
