"""What an entry of the home tree is found to be, beside its row."""

from __future__ import annotations

import stat

import pytest

from recfs.core.candidates import MOST, Candidates
from recfs.core.foreign import (
    FEW_GONE,
    FOLDER_QUIET_S,
    KEPT_TO_NS,
    MOST_GONE,
    SECOND_NS,
    UNFINISHED_TIMES,
    Finding,
    Known,
    Seen,
    judge,
    may_forget,
    quiet_for_s,
    refusal,
)
from recfs.core.model import Kind, State

FILE = Seen(stat.S_IFREG | 0o644, 77, 1000, 5 * SECOND_NS + 1, 0, 1, 1005, 1006)
ROW = Known(Kind.FILE, 77, 1000, 5 * SECOND_NS + 1, State.COMMITTED, False, False)
DIR, LINK, FIFO = (FILE._replace(mode=kind | 0o755) for kind in (stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO))
FOLDER = ROW._replace(kind=Kind.DIR, state=None)
SYMLINK = ROW._replace(kind=Kind.SYMLINK, state=None)


@pytest.mark.parametrize(
    ("known", "seen", "finding"),
    [
        (None, None, Finding.OURS),
        (None, FILE, Finding.NEW),
        (None, FIFO, Finding.NEW),
        (ROW, FILE, Finding.OURS),
        (ROW, FILE._replace(ctime_ns=9, links=2, uid=0, gid=0, mode=stat.S_IFREG | 0o600), Finding.OURS),
        (ROW, FILE._replace(size_bytes=999), Finding.CHANGED),
        (ROW, FILE._replace(mtime_ns=5 * SECOND_NS + 2), Finding.CHANGED),
        (ROW, FILE._replace(st_ino=78), Finding.CHANGED),
        (ROW._replace(home_ino=None), FILE._replace(st_ino=78), Finding.OURS),
        (ROW, FILE._replace(mtime_ns=5 * SECOND_NS), Finding.OURS),
        (ROW, FILE._replace(mtime_ns=6 * SECOND_NS), Finding.CHANGED),
        (ROW._replace(mtime_ns=KEPT_TO_NS), FILE, Finding.OURS),
        (ROW._replace(mtime_ns=KEPT_TO_NS), FILE._replace(size_bytes=1), Finding.CHANGED),
        (ROW, None, Finding.GONE),
        (ROW._replace(home_ino=None), None, Finding.NOWHERE),
        (ROW._replace(home_ino=None), LINK, Finding.NOWHERE),
        (ROW._replace(home_ino=None, state=State.INCOMPLETE), None, Finding.NOWHERE),
        (ROW._replace(home_ino=None, busy=True), None, Finding.BUSY),
        (ROW._replace(home_ino=None, in_staging=True), None, Finding.OURS),
        (ROW, DIR, Finding.GONE),
        (ROW, LINK, Finding.GONE),
        (ROW._replace(busy=True), FILE._replace(size_bytes=1), Finding.BUSY),
        (ROW._replace(busy=True), None, Finding.BUSY),
        (ROW._replace(in_staging=True), None, Finding.OURS),
        (ROW._replace(in_staging=True), FILE._replace(st_ino=1), Finding.OURS),
        (FOLDER, DIR, Finding.OURS),
        (FOLDER, DIR._replace(size_bytes=1, mtime_ns=1), Finding.OURS),
        (FOLDER, DIR._replace(st_ino=78), Finding.RENUMBERED),
        (FOLDER, None, Finding.GONE),
        (FOLDER, FILE, Finding.GONE),
        (ROW._replace(attributes=(0o644, 1005, 1006)), FILE, Finding.OURS),
        (ROW._replace(attributes=(0o600, 1005, 1006)), FILE, Finding.DESCRIBED),
        (ROW._replace(attributes=(0o644, 1, 1006)), FILE, Finding.DESCRIBED),
        (ROW._replace(attributes=(0o644, 1, 1006)), FILE._replace(size_bytes=1), Finding.CHANGED),
        (FOLDER._replace(attributes=(0o755, 1005, 1)), DIR, Finding.DESCRIBED),
        (FOLDER._replace(attributes=(0o755, 1005, 1)), DIR._replace(st_ino=1), Finding.RENUMBERED),
        (SYMLINK._replace(attributes=(0o777, 1005, 1006)), LINK, Finding.OURS),
        (SYMLINK._replace(attributes=(0o777, 1, 1006)), LINK, Finding.DESCRIBED),
        (FOLDER._replace(busy=True), None, Finding.BUSY),
        (SYMLINK, LINK, Finding.OURS),
        (SYMLINK, LINK._replace(st_ino=78), Finding.GONE),
        (SYMLINK, FILE, Finding.GONE),
        (ROW._replace(state=State.WRITING), None, Finding.BUSY),
        *(
            (ROW._replace(state=state, busy=busy), seen, finding)
            for state in (State.SEALING, State.INCOMPLETE)
            for busy, seen, finding in (
                (False, None, Finding.GONE),
                (False, DIR, Finding.GONE),
                (False, FILE._replace(size_bytes=1), Finding.BUSY),
                (True, None, Finding.BUSY),
            )
        ),
        (ROW._replace(state=State.UPLOADING), None, Finding.BUSY),
        (ROW._replace(state=State.UPLOADING), FILE._replace(size_bytes=1), Finding.CHANGED),
        (ROW._replace(state=State.STORED), None, Finding.GONE),
        (ROW._replace(state=State.CORRUPT), FILE, Finding.OURS),
        (ROW._replace(state=State.CORRUPT), FILE._replace(size_bytes=1), Finding.CHANGED),
        *(
            (ROW._replace(state=state, home_ino=None), seen, finding)
            for state in (State.EVICTED, State.FETCHING, State.ARCHIVED)
            for seen, finding in ((None, Finding.OURS), (FILE, Finding.CHANGED), (DIR, Finding.BLOCKED))
        ),
        (ROW._replace(state=State.EVICTED, busy=True), FILE, Finding.BUSY),
    ],
)
def test_an_entry_beside_its_row(known: Known | None, seen: Seen | None, finding: Finding) -> None:
    assert judge(known, seen) is finding


def test_half_copies_of_rsync_are_left_alone_for_longer() -> None:
    for name in (b".video.mp4.aZ3x9Q", b"..hidden.123456"):
        assert quiet_for_s(name, Finding.NEW, FILE, 2.0) == 2.0 * UNFINISHED_TIMES
    for name in (b"video.mp4", b".video.mp4", b".video.mp4.backups", b"video.mp4.aZ3x9Q", b".aZ3x9Q"):
        assert quiet_for_s(name, Finding.NEW, FILE, 2.0) == 2.0


def test_a_new_directory_need_not_wait_for_what_is_copied_into_it() -> None:
    assert quiet_for_s(b"name", Finding.NEW, DIR, 2.0) == FOLDER_QUIET_S
    assert quiet_for_s(b"name", Finding.NEW, DIR, 0.1) == 0.1
    assert quiet_for_s(b"name", Finding.GONE, DIR, 2.0) == quiet_for_s(b"name", Finding.GONE, None, 2.0) == 2.0
    waiting = Candidates()
    assert not waiting.is_ready((5, b"name"), Finding.NEW, DIR, 10.0, 0.3)
    assert waiting.is_ready((5, b"name"), Finding.NEW, DIR._replace(mtime_ns=9, size_bytes=9), 10.3, 0.3)
    assert not waiting.is_ready((5, b"name"), Finding.NEW, DIR._replace(uid=9), 10.4, 0.3)


def test_what_is_left_alone() -> None:
    assert refusal(FILE) is None
    assert refusal(DIR._replace(links=5)) is None
    for seen, why in (
        (FIFO, "a FIFO"),
        (FILE._replace(mode=stat.S_IFSOCK), "a socket"),
        (FILE._replace(mode=stat.S_IFBLK), "a device"),
        (FILE._replace(links=2), "2 hard links"),
    ):
        assert why in (refusal(seen) or "")
    assert refusal(FILE._replace(links=2), links_count=False) is None
    assert refusal(FILE, owned_by=1005) is None
    assert "chown" in (refusal(FILE, owned_by=1000) or "")


@pytest.mark.parametrize(
    ("gone", "lately", "files", "may"),
    [
        (1, 0, 1, True),
        (FEW_GONE, 0, FEW_GONE, True),
        (FEW_GONE + 1, 0, 100, False),
        (FEW_GONE, 1, 99, False),
        (1_000, 0, 10_000, True),
        (1_001, 0, 10_000, False),
        (500, 500, 9_500, True),
        (501, 500, 9_500, False),
        (MOST_GONE, 0, 10_000_000, True),
        (MOST_GONE + 1, 0, 10_000_000, False),
        (0, 0, 0, True),
    ],
)
def test_how_many_may_be_forgotten_at_once(gone: int, lately: int, files: int, may: bool) -> None:
    assert may_forget(gone, lately, files) is may


class TestCandidates:
    """Waiting to be believed."""

    KEY = (5, b"name")

    def test_what_stays_as_it_is_is_ready_after_a_while(self) -> None:
        waiting = Candidates()
        assert not waiting.is_ready(self.KEY, Finding.NEW, FILE, 10.0, 2.0)
        assert waiting.next_s == 12.0
        assert waiting.take_due(11.9) == {}
        assert not waiting.is_ready(self.KEY, Finding.NEW, FILE, 11.0, 2.0)
        assert waiting.take_due(12.0) == {5: {b"name"}}
        assert waiting.is_ready(self.KEY, Finding.NEW, FILE, 12.0, 2.0)

    def test_what_changes_waits_anew(self) -> None:
        waiting = Candidates()
        waiting.is_ready(self.KEY, Finding.NEW, FILE, 10.0, 2.0)
        larger = FILE._replace(size_bytes=2000)
        assert not waiting.is_ready(self.KEY, Finding.NEW, larger, 11.9, 2.0)
        assert not waiting.is_ready(self.KEY, Finding.NEW, larger, 12.1, 2.0)
        assert waiting.take_due(13.8) == {}
        assert waiting.take_due(14.0) == {5: {b"name"}}
        assert waiting.is_ready(self.KEY, Finding.NEW, larger, 14.0, 2.0)

    def test_moves_are_told_by_the_inode_number(self) -> None:
        waiting = Candidates()
        waiting.is_ready((5, b"old"), Finding.GONE, None, 10.0, 2.0, row=ROW._replace(mtime_ns=1), files=3)
        waiting.is_ready((7, b"inside"), Finding.GONE, None, 10.0, 2.0, counts=True)
        waiting.is_ready((7, b"stored"), Finding.GONE, None, 10.0, 2.0)
        waiting.is_ready((6, b"new"), Finding.NEW, FILE, 10.0, 2.0)
        assert waiting.gone_from(77) == (5, b"old")
        assert waiting.come_to(77) == (6, b"new")
        assert waiting.come_to(None) is None
        assert waiting.gone_files == 3
        assert waiting.missing() == {5: {b"old"}, 7: {b"inside", b"stored"}}
        waiting.drop((5, b"old"))
        assert waiting.gone_files == 1
        waiting.drop((7, b"inside"))
        assert waiting.gone_files == 0
        waiting.drop((7, b"stored"))
        waiting.drop((6, b"new"))
        waiting.drop((6, b"new"))
        assert (waiting.gone_from(77), waiting.come_to(77), waiting.gone_files, len(waiting)) == (None, None, 0, 0)
        assert waiting.take_due(20.0) == {}

    @pytest.mark.parametrize("finding", [Finding.NEW, Finding.CHANGED])
    @pytest.mark.parametrize("gone_first", [False, True])
    def test_what_was_renamed_is_no_loss(self, finding: Finding, gone_first: bool) -> None:
        waiting = Candidates()

        def gone() -> None:
            waiting.is_ready((5, b"old"), Finding.GONE, None, 10.0, 2.0, row=ROW, counts=True)

        def come() -> None:
            waiting.is_ready((6, b"new"), finding, FILE._replace(mode=stat.S_IFREG | 0o600), 10.0, 2.0)

        waiting.is_ready((5, b"lost"), Finding.GONE, None, 10.0, 2.0, row=ROW._replace(home_ino=78), counts=True)
        for each in (gone, come) if gone_first else (come, gone):
            each()
        assert waiting.gone_files == 1
        waiting.drop((6, b"new"))  # it has left that place, too
        assert waiting.gone_files == 2
        come()
        assert waiting.gone_files == 1
        waiting.drop((6, b"new"), taken=True)  # and now it is what lies there
        assert waiting.gone_files == 1
        waiting.drop((5, b"old"))
        waiting.drop((5, b"lost"))
        assert waiting.gone_files == 0

    @pytest.mark.parametrize("other", [FILE._replace(size_bytes=1), FILE._replace(mtime_ns=1), DIR])
    def test_another_that_got_the_number_of_a_removed_one_is_no_rename(self, other: Seen) -> None:
        waiting = Candidates()
        waiting.is_ready((6, b"new"), Finding.NEW, other, 10.0, 2.0)
        waiting.is_ready((5, b"old"), Finding.GONE, None, 10.0, 2.0, row=ROW, counts=True)
        assert waiting.gone_files == 1

    def test_a_directory_is_renamed_with_its_files(self) -> None:
        waiting = Candidates()
        waiting.is_ready((5, b"old"), Finding.GONE, None, 10.0, 0.3, row=FOLDER, files=60)
        assert waiting.gone_files == 60
        waiting.is_ready((5, b"new"), Finding.NEW, DIR, 10.0, 0.3)
        assert waiting.gone_files == 0

    def test_they_are_bounded(self) -> None:
        waiting = Candidates()
        for number in range(MOST):
            waiting.is_ready((number, b""), Finding.GONE, None, 0.0, 2.0)
        assert not waiting.crowded
        assert not waiting.is_ready((MOST, b""), Finding.GONE, None, 0.0, 0.0)
        assert waiting.crowded
        assert len(waiting) == MOST
