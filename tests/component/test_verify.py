"""Verification: what is found of files at each level, what is made of it, and what is not."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.verification.scrubbing import Pace
from recfs.core.verification.verdicts import Copy
from recfs.disk import pagecache
from recfs.disk.verification import LocalCheck
from recfs.errors import InvalidArgument, IoFailure, NotFound
from recfs.fs.verification.verifier import Pacer
from tests.helpers.machine import skip

from .build import REC, Filesystem, filesystem, pattern, until

FILE, OTHER = f"{REC}/file", f"{REC}/other"
corrupt = pytest.mark.expect_log("is corrupt")


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """One file that is committed, of several chunks, and at home."""
    async with filesystem(place / "root") as made:
        await made.write(FILE, pattern(3_000_001))
        await made.drain()
        yield made


async def verify(fs: Filesystem, **params: Any) -> dict[str, Any]:
    """All at once."""
    result: dict[str, Any] = await fs.answers()["verify"](params)
    return result


def flip(path: Path, at: int = -1) -> None:
    """Change one bit, and nothing that stat(2) tells."""
    info = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def problems(fs: Filesystem) -> list[str]:
    """Paths that `recfs status` names."""
    return [each["path"] for each in fs.parts.problems.as_json() if each["part"] == "verification"]


@pytest.mark.parametrize("level", ["presence", "size", "hash", "remote"])
async def test_a_file_that_is_right(fs: Filesystem, level: str) -> None:
    result = await verify(fs, level=level)
    assert (result["files"], result["right"], result["found"]) == (1, 1, [])
    assert result["read_bytes"] == (3_000_001 if level in ("hash", "remote") else 0)
    assert (result["total_files"], result["total_bytes"], result["ended"]) == (1, 3_000_001, True)
    assert await fs.state(FILE) == "committed"


@corrupt
@pytest.mark.parametrize(
    ("level", "damage", "seen"),
    [
        ("presence", "gone", True), ("presence", "size", False), ("presence", "bit", False),
        ("size", "gone", True), ("size", "size", True), ("size", "bit", False),
        ("hash", "gone", True), ("hash", "size", True), ("hash", "bit", True),
    ],
)  # fmt: skip
async def test_what_each_level_sees(
    fs: Filesystem, level: str, damage: str, seen: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = fs.root / FILE
    if damage == "gone":
        path.unlink()
    elif damage == "size":
        os.truncate(path, 2_999_999)
    else:
        flip(path)
    result = await verify(fs, level=level)
    if not seen:
        assert (result["right"], result["found"], await fs.state(FILE)) == (1, [], "committed")
        result = await verify(fs, level="hash")  # the first look has broken nothing
    (found,) = result["found"]
    assert (found["path"], found["verdict"], result["corrupt"]) == (FILE, "corrupt", 1)
    assert await fs.state(FILE) == "corrupt"
    assert problems(fs) == [FILE]
    with pytest.raises(IoFailure):
        await fs.read(FILE)
    assert sum("is corrupt" in record.message for record in caplog.records) == 1
    assert (await verify(fs, level=level))["corrupt"] == 1
    assert sum("is corrupt" in record.message for record in caplog.records) == 1, "told once"


@corrupt
@pytest.mark.expect_log("right again")
async def test_a_corrupt_file_is_committed_again_when_its_bytes_are_right(fs: Filesystem) -> None:
    path = fs.root / FILE
    flip(path)
    await verify(fs)
    flip(path)
    for level in ("presence", "hash"):  # of a corrupt file only its bytes prove anything: they are read at any level
        result = await verify(fs, level=level)
        assert (result["right"], await fs.state(FILE), problems(fs)) == (1, "committed", [])
    assert await fs.read(FILE) == pattern(3_000_001)
    await fs.assert_consistent()


@corrupt
async def test_overwriting_or_removing_ends_it(fs: Filesystem) -> None:
    await fs.write(OTHER, b"other")
    await fs.drain()
    flip(fs.root / FILE)
    (fs.root / OTHER).unlink()
    assert (await verify(fs))["corrupt"] == 2
    assert problems(fs) == [FILE, OTHER]
    await fs.write(FILE, b"anew")
    await fs.write(OTHER, b"made whole again, though its bytes were gone")
    await fs.drain()
    assert problems(fs) == []
    assert (await verify(fs))["right"] == 2
    flip(fs.root / FILE)
    await verify(fs)
    await fs.unlink(FILE)
    assert problems(fs) == []
    await fs.assert_consistent()


async def test_what_is_being_written_is_left_alone(fs: Filesystem) -> None:
    number = await fs.open(OTHER, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"half")
    held = await fs.open(FILE, os.O_RDWR)
    await fs.vfs.files.write(held, 7, b"changed")
    result = await verify(fs)
    assert (result["files"], result["skipped"], result["found"], result["read_bytes"]) == (2, 2, [], 0)
    await fs.close(held)
    await fs.close(number)
    await fs.drain()
    assert (await verify(fs))["right"] == 2


@pytest.mark.expect_log("home tree")
async def test_bytes_that_wait_in_staging_are_verified_there(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        fs.faults.fail("rename", errno.EIO, "staging", times=1000)
        await fs.write(FILE, b"data")
        await until(lambda: fs.rows("select state from node where kind = 'file'") == ["committed"])
        assert not (fs.root / FILE).exists()
        assert (await verify(fs))["right"] == 1
        fs.faults.heal()


@pytest.mark.parametrize("where", ["open", "read"])
async def test_an_error_of_the_disk_is_no_mismatch(
    fs: Filesystem, where: str, expect_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("verification")
    if where == "read":
        fs.faults.fail("preadv", errno.EIO, "file", times=1, skip=1)
    else:
        opened = fs.parts.store.open_file

        def refuse(path: bytes, flags: int) -> int:
            if path.endswith(b"/file"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return opened(path, flags)

        monkeypatch.setattr(fs.parts.store, "open_file", refuse)
    result = await verify(fs)
    assert (result["unreadable"], result["corrupt"], result["right"]) == (1, 0, 0)
    assert result["found"][0]["verdict"] == "unreadable"
    assert await fs.state(FILE) == "committed"
    assert problems(fs) == [FILE]
    fs.faults.heal()
    monkeypatch.undo()
    assert (await verify(fs))["right"] == 1
    assert problems(fs) == []


class DuringTheRead:
    """Does something in the middle of the read of the file: after its first piece."""

    def __init__(self, fs: Filesystem, act: Any, *, times: int = 1) -> None:
        self.left = times
        self._act = act
        self._preadv = os.preadv
        self._path = os.fsencode(fs.root / FILE)

    def __call__(self, fd: int, buffers: Any, offset: int, *flags: int) -> int:
        got = self._preadv(fd, buffers, offset, *flags)
        if self.left and offset == 0 and os.fsencode(os.readlink(f"/proc/self/fd/{fd}")) == self._path:
            self.left -= 1
            self._act(buffers[0])
        return got


async def test_what_changes_meanwhile_is_skipped_and_never_corrupt(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, token = fs.root / FILE, trio.lowlevel.current_trio_token()

    async def write() -> None:
        number = await fs.open(FILE, os.O_RDWR)
        await fs.vfs.files.write(number, 0, b"other bytes")
        await fs.close(number)

    def past_recfs(_part: object) -> None:
        path.write_bytes(pattern(3_000_001, seed=2))

    acts = [past_recfs, lambda _part: trio.from_thread.run(write, trio_token=token)]
    for act in acts:
        await fs.write(FILE, pattern(3_000_001))
        await fs.drain()
        monkeypatch.setattr(os, "preadv", DuringTheRead(fs, act))
        result = await verify(fs)
        monkeypatch.undo()
        assert (result["skipped"], result["corrupt"], result["found"]) == (1, 0, []), act
        assert await fs.state(FILE) != "corrupt"
    await fs.drain()
    assert (await verify(fs))["right"] == 1


@corrupt
async def test_what_was_changed_past_recfs_is_left_to_who_takes_it_over(fs: Filesystem) -> None:
    fs.parts.upkeep.verifier.watched = True
    (fs.root / FILE).write_bytes(b"an admin's new version")
    for level in ("size", "hash"):
        result = await verify(fs, level=level)
        assert (result["skipped"], await fs.state(FILE)) == (1, "committed")
    fs.parts.upkeep.verifier.watched = False
    assert (await verify(fs))["corrupt"] == 1


@pytest.mark.expect_log("read wrong")
async def test_what_is_wrong_once_is_read_again(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(part: memoryview) -> None:
        part[5] ^= 1

    monkeypatch.setattr(os, "preadv", DuringTheRead(fs, spoil))
    result = await verify(fs)
    assert (result["right"], result["flaky"], result["corrupt"]) == (1, 1, 0)
    assert result["read_bytes"] == 2 * 3_000_001
    assert await fs.state(FILE) == "committed"


@corrupt
async def test_a_file_that_somebody_reads_is_told_too(fs: Filesystem) -> None:
    number = await fs.open(FILE)
    flip(fs.root / FILE)
    assert (await verify(fs))["corrupt"] == 1
    assert len(await fs.read_handle(number)) == 3_000_001, "who has it open goes on"
    await fs.close(number)


async def test_holes_are_not_read(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        await fs.mkdirs(REC)
        number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
        await fs.vfs.files.write(number, 5 << 20, b"x" * (1 << 20))
        await fs.vfs.files.write(number, 40 << 20, b"end")
        await fs.close(number)
        await fs.drain()
        result = await verify(fs)
        assert result["right"] == 1
        assert result["read_bytes"] < 8 << 20


async def test_only_what_was_changed_lately(fs: Filesystem) -> None:
    fs.clock.advance(3600)
    await fs.write(OTHER, b"new")
    await fs.drain()
    result = await verify(fs, since_s=600)
    assert (result["files"], result["total_files"]) == (1, None)
    assert (await verify(fs, since_s=7200))["files"] == 2
    assert (await verify(fs, path=OTHER))["files"] == 1
    assert (await verify(fs, path="users/5"))["files"] == 2


async def test_who_writes_goes_first(fs: Filesystem) -> None:
    """A piece that took a second is followed by four of waiting, but only while somebody writes."""
    is_busy = False
    pacer = Pacer(Pace(None), lambda: is_busy)
    waited = []
    for is_busy in (False, True, False):  # noqa: B007  # `pacer` reads it
        await trio.sleep(0.4)
        before = trio.current_time()
        await pacer.took(1 << 20)
        waited.append(round(trio.current_time() - before, 1))
    assert waited == [0.0, 1.6, 0.0]
    number = await fs.open(OTHER, os.O_WRONLY | os.O_CREAT)
    busy = fs.parts.work.upkeep.verifications._is_busy
    assert busy()
    await fs.close(number)
    await fs.drain()
    assert not busy()


async def test_what_cannot_be_meant(fs: Filesystem) -> None:
    with pytest.raises(InvalidArgument, match="presence, size, hash, remote"):
        await verify(fs, level="deep")
    with pytest.raises(InvalidArgument, match="rate"):
        await verify(fs, rate=10)
    with pytest.raises(NotFound):
        await verify(fs, path="users/77")
    with pytest.raises(NotFound):
        await fs.answers()["verify_wait"]({"run": 99})


async def test_a_rate_is_kept(fs: Filesystem) -> None:
    began = trio.current_time()
    assert (await verify(fs, rate=1_000_000))["right"] == 1
    assert trio.current_time() - began > 2.7, "no faster; how much slower a thread is, this clock does not know"


async def test_the_page_cache_stays_as_it_was(fs: Filesystem) -> None:
    """On the disk of this machine: what is in memory anyway (tmpfs) is not asked about."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder, "file")
        data = pattern(40 << 20)
        path.write_bytes(data)
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # else more than is asked for is read
            os.pread(file.fileno(), 2 << 20, 16 << 20)
            before = resident(file.fileno())
            if not 0 < sum(before) < len(before):
                skip("needs a file system with a page cache of its own")
            check = LocalCheck(_Beneath(), os.fsencode(path), len(data), hashlib.sha256(data).digest())  # type: ignore[arg-type]
            while check.found is None:
                check.go_on(8 << 20)
            check.close()
            assert check.found is Copy.RIGHT
            assert resident(file.fileno()) == before


class _Beneath:
    """Opens what is in no store."""

    def open_file(self, path: bytes, flags: int) -> int:
        """open(2)."""
        return os.open(path, flags)


def resident(fd: int) -> list[bool]:
    """Of each MiB, whether anything is in the page cache."""
    pages = pagecache._resident(fd, 0, os.fstat(fd).st_size)
    assert pages is not None
    step = (1 << 20) // pagecache.PAGE
    return [any(pages[start : start + step]) for start in range(0, len(pages), step)]


@pytest.mark.expect_log("is corrupt")
async def test_a_file_found_changed_when_it_is_opened_counts_as_corrupt(fs: Filesystem) -> None:
    await fs.write(FILE, b"four")
    await fs.drain()
    with (fs.root / FILE).open("ab") as file:
        file.write(b"more")
    with pytest.raises(IoFailure):
        await fs.read(FILE)
    assert fs.parts.work.upkeep.verifications.as_json()["corrupt"] == 1
