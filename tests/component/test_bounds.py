"""Integers that programs and disks hand in: clamped or refused before they reach the catalogue, whatever they are."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from recfs.api import summaries
from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.core.bounds import MAX_INT, MAX_TIME_NS, MIN_TIME_NS
from recfs.disk.staging import Label
from recfs.errors import FileTooLarge, InvalidArgument
from recfs.fs.attributes import Changes
from recfs.ports.batch import Batch
from recfs.ports.rows import JournalRow
from tests.helpers.reports import answer_of, check

from .build import OPERATOR, REC, filesystem, until
from .test_migrations import stored

S = 10**9
FILE = f"{REC}/clip.mp4"
HUGE = 1 << 62


# --- times --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (-11_644_473_600 * S, MIN_TIME_NS),  # 1601-01-01, Windows' null date
        (-62_135_596_800 * S, MIN_TIME_NS),  # 0001-01-01
        (253_402_214_400 * S + 7, MAX_TIME_NS),  # 9999-12-31
        (10_413_792_000 * S + 123_456_789, 10_413_792_000 * S + 123_456_789),  # 2300-01-01
        (-S // 2, -S // 2),  # 1969-12-31 23:59:59.5
        (-1, -1),
    ],
)
@pytest.mark.table(2)
async def test_times_are_those_of_ext4_here_on_disk_and_after_a_restart(place: Path, given: int, kept: int) -> None:
    async with filesystem(place) as fs:
        await fs.write(FILE, b"x")
        await fs.drain()
        node = await fs.node(FILE)
        await fs.vfs.setattr(node.ino, Changes(atime_ns=given, mtime_ns=given), OPERATOR)
        await fs.vfs.setattr((await fs.node(REC)).ino, Changes(mtime_ns=given), OPERATOR)
        await fs.drain()
        assert (node.atime_ns, node.mtime_ns) == (kept, kept)
        assert os.lstat(fs.root / FILE).st_mtime_ns == kept
        told = answer_of(fs.parts.store.catalogue_path, summaries.info, fs.config, FILE, None)
        assert (told["atime_ns"], told["mtime_ns"]) == (kept, kept)
        assert answer_of(fs.parts.store.catalogue_path, summaries.ls_files, FILE, False, None)[0]["mtime_ns"] == kept
        assert not fs.parts.catalogue.refused
        await fs.reopen()
        assert (await fs.node(FILE)).mtime_ns == (await fs.node(REC)).mtime_ns == kept
        await fs.write(FILE, b"y")  # the old bytes, with their time, wait as garbage meanwhile
        await fs.drain()
        await fs.assert_consistent()


async def test_a_file_below_with_an_impossible_time_is_followed(place: Path) -> None:
    from tests.fakes import FakeKernelFiles

    async with filesystem(place, start=False) as fs:
        fs.files = FakeKernelFiles()
        await fs.start()
        await fs.mkdirs("temp/5/1")
        number, _ = await fs.pass_open("temp/5/1/f", os.O_RDWR | os.O_CREAT)
        fs.pass_write(number, b"12345")
        os.utime(fs.vfs.files.handles[number].body.fd, ns=(0, 253_402_214_400 * S))
        below = os.fstat(fs.vfs.files.handles[number].body.fd).st_mtime_ns
        fs.vfs.files.modes.measure()
        node = await fs.node("temp/5/1/f")
        assert node.mtime_ns == min(below, MAX_TIME_NS)
        assert (await fs.node("temp/5/1")).activity_ns <= fs.clock.now_ns(), "a job does not live for ever for it"
        await fs.close(number)
        await fs.assert_consistent()


async def test_times_of_an_older_store_before_1901_are_clamped(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    stored(path, "0002")
    with sqlite3.connect(path) as db:
        db.execute(
            "insert into node (ino, parent, name, kind, mode, uid, gid, size_bytes, atime_ns, mtime_ns, ctime_ns)"
            " values (7, 1, x'61', 'dir', 0, 0, 0, 0, ?, ?, 5)", (-4_000_000_000 * S, -9_000_000_000 * S),
        )  # fmt: skip
    again = open_catalogue(path)
    row = await again.node(7)
    assert row is not None
    assert (row.atime_ns, row.mtime_ns, row.ctime_ns) == (MIN_TIME_NS, MIN_TIME_NS, 5)
    again.close()


# --- sizes, and sums of them --------------------------------------------------------------------------------------


async def test_a_size_that_the_disk_does_not_take_is_efbig(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def refuse(fd: int, *args: object) -> int:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    async with filesystem(place) as fs:
        await fs.write(FILE, b"bytes")
        node = await fs.node(FILE)
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", refuse)
            with pytest.raises(FileTooLarge):
                await fs.vfs.setattr(node.ino, Changes(size=999_999_999_999_999), OPERATOR)
        number = await fs.open(FILE, os.O_RDWR)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", refuse)
            with pytest.raises(FileTooLarge):
                await fs.vfs.files.write(number, 1 << 50, b"x")
        fs.vfs.files.space.max_file_bytes = 1 << 20
        with pytest.raises(FileTooLarge):
            await fs.vfs.files.write(number, 1 << 20, b"x")
        with pytest.raises(FileTooLarge):
            await fs.vfs.files.truncate(node, (1 << 20) + 1)
        with pytest.raises(FileTooLarge):
            await fs.vfs.ranges.allocate(number, 0, 1 << 20, 1)
        await fs.close(number)
        assert await fs.read(FILE) == b"bytes"
        assert fs.account() == (5, 1)
        await fs.assert_consistent()


async def test_ranges_beyond_what_a_file_can_have_are_refused(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.write(FILE, b"bytes")
        number = await fs.open(FILE, os.O_RDWR)
        files, ranges = fs.vfs.files, fs.vfs.ranges
        with pytest.raises(FileTooLarge):
            await files.write(number, MAX_INT, b"x")
        with pytest.raises(FileTooLarge):
            await files.truncate((await fs.node(FILE)), MAX_INT + 1)
        with pytest.raises(FileTooLarge):
            await ranges.allocate(number, 0, MAX_INT, 1)
        with pytest.raises(InvalidArgument):
            await ranges.allocate(number, 0, -1, 1)
        with pytest.raises(InvalidArgument):
            await ranges.allocate(number, 0, 0, 0)
        with pytest.raises(FileTooLarge):
            await ranges.copy(number, 0, number, MAX_INT, 5)
        assert await ranges.copy(number, 5, number, 10, MAX_INT) == 0
        assert await ranges.seek(number, MAX_INT, os.SEEK_DATA) is None
        await fs.close(number)
        assert await fs.read(FILE) == b"bytes"
        await fs.assert_consistent()


async def test_sums_beyond_64_bits_are_kept_and_come_back(place: Path) -> None:
    """Files without a byte in them can be so large that a few pass any 64-bit sum; nobody else may feel that."""
    sizes = [HUGE, HUGE, HUGE, 7]
    async with filesystem(place, services=False) as fs:
        for n, size in enumerate(sizes):
            number = await fs.open(f"{(await fs.mkdirs(REC)).path}/{n}", os.O_RDWR | os.O_CREAT)
            os.pwrite(fs.vfs.files.handles[number].body.fd, b"x", 0)
            try:
                await fs.vfs.files.truncate(await fs.node(f"{REC}/{n}"), size)
            except FileTooLarge:
                pytest.skip("the file system of the test's directory has smaller files")
        assert fs.account() == (sum(sizes), 4)
        assert await fs.xattrs.get((await fs.node("users")).ino, b"user.recfs.rbytes") == b"%d" % sum(sizes)
        await fs.parts.behind.flush()
        assert not fs.parts.catalogue.refused, "sums that saturate are nobody's fault"
        assert not check(fs.parts.store.catalogue_path).differences
        told = answer_of(fs.parts.store.catalogue_path, summaries.live, fs.config, fs.clock.calendar_ns())
        assert told["users"][0]["used_bytes"] == MAX_INT
        assert await fs.answers()["status"]({})
        await fs.reopen(services=False)
        await fs.node(f"{REC}/0")
        assert fs.account() == (sum(sizes), 4), "what the row could not say is added up anew"
        assert fs.parts.tree.root.rbytes == sum(sizes)
        for n in range(3):
            await fs.unlink(f"{REC}/{n}")
            await fs.parts.behind.flush()
            assert not check(fs.parts.store.catalogue_path).differences
        assert fs.account() == (7, 1)
        assert fs.rows("select size_bytes from node where ino = 1") == [7]
        await fs.unlink(f"{REC}/3")
        fs.parts.tree.check_invariants()


# --- what is left of an out-of-range row -----------------------------------------------------------------------------


@pytest.mark.expect_log("a row does not fit")
async def test_a_row_that_does_not_fit_stops_nobody(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.write(FILE, b"1")
        await fs.write(f"{REC}/other", b"2")
        await fs.drain()
        node = await fs.node(FILE)
        node.uid = 1 << 70  # whatever the fault may be that lets it through
        fs.parts.behind.node(node)
        await fs.write(f"{REC}/other", b"33")
        await fs.parts.behind.flush()
        assert fs.rows("select uid from node where ino = ?", node.ino) == [MAX_INT]
        assert fs.rows("select size_bytes from node where name = ?", b"other") == [2]
        problems = (await fs.answers()["status"]({}))["problems"]
        assert [f"inode {node.ino}: uid" in problem for problem in problems] == [True]
        node.uid = OPERATOR.uid
        fs.parts.behind.node(node)
        await fs.assert_consistent()


@pytest.mark.expect_log("constraint failed")
async def test_a_row_against_a_constraint_is_set_aside_and_told(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.write(FILE, b"1")
        await fs.drain()
        node = await fs.node(FILE)
        node.sha256 = b"short"
        fs.parts.behind.node(node)
        await fs.write(f"{REC}/other", b"2")
        other = await fs.node(f"{REC}/other")
        fs.parts.committer.hurry(other.ino)
        await until(lambda: other.state.is_whole)
        await fs.parts.behind.flush()
        assert fs.rows("select length(sha256) from node where ino = ?", node.ino) == [32], "the last good row stays"
        assert fs.rows("select state from node where name = ?", b"other") == ["committed"]
        assert ["constraint" in each["reason"] for each in fs.parts.problems.as_json()] == [True]
        node.sha256 = other.sha256  # whatever the fault may be that let it through: it is mended
        fs.parts.behind.node(node)
        await fs.drain()
        assert not fs.parts.problems.as_json()
        fs.checked_at_end = False


@pytest.mark.expect_log("a row does not fit")
async def test_words_that_are_not_utf8_do_not_stop_the_catalogue(tmp_path: Path) -> None:
    catalogue: SqliteCatalogue = open_catalogue(tmp_path / "catalogue.db")
    error = os.fsdecode(b"users/5/\xff: No such file")
    await catalogue.apply(Batch(journal=[JournalRow(1, "upload", 10, "k", "", "", 7, 0, 60, 0, error, 40)]))
    assert [row.error for row in await catalogue.journal()] == ["users/5/\\udcff: No such file"]
    catalogue.close()


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label",
    [
        b"1 %d 2 644 0 0 -1 users/5/recordings/142/x" % (1 << 70),
        b"1 0 2 644 0 0 -1 users/5/recordings/142/x",
        b"1 99 %d 644 0 0 -1 users/5/recordings/142/x" % (1 << 70),
        b"1 99 2 7777777777 0 0 -1 users/5/recordings/142/x",
        b"1 99 2 644 %d 0 -1 users/5/recordings/142/x" % (1 << 40),
        b"1 99 2 644 0 -5 -1 users/5/recordings/142/x",
        b"1 99 2 644 0 0 %d users/5/recordings/142/x" % (1 << 64),
        b"1 99 2 644 0 0 -1 users/5/recordings/142/..",
        b"1 99 2 644 0 0 -1 users/5/recordings/142/",
        b"1 99 2 644 0 0 -1 users/5/recordings/142/" + b"n" * 300,
        b"1 99 2 644 0 0 -1 users/5/recordings/142/a\0b",
        b"1 " + b"9" * 5000 + b" 2 644 0 0 -1 users/5/recordings/142/x",
        b"\xff\xfe",
    ],
)
@pytest.mark.expect_log("cannot be adopted")
@pytest.mark.table(4)
async def test_a_label_with_impossible_values_is_no_label(place: Path, label: bytes) -> None:
    with pytest.raises(ValueError):  # whatever int() and unpacking say
        Label.decode(label)
    async with filesystem(place) as fs:
        await fs.write(FILE, b"1")
        await fs.stop()
        (fs.root / ".recfs/staging/stray-1").write_bytes(b"somebody's bytes")
        os.setxattr(fs.root / ".recfs/staging/stray-1", "user.recfs.label", label)
        await fs.reopen()
        assert await fs.read(FILE) == b"1"
        assert fs.leftovers("lost+found") == ["staging-stray-1"]
