"""Files that there are several times: found, told page by page, and made to share their blocks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.api.reuse.duplicates import duplicates
from recfs.disk import sharing
from recfs.errors import InvalidArgument, NotFound, NotSupported
from recfs.services.reuse import dedupe as dedupe_module
from tests.helpers.disks import disk
from tests.helpers.machine import skip

from .build import Filesystem, filesystem, pattern

A, B, C = (f"users/{user}/recordings/1/video.mp4" for user in (5, 6, 7))
MIB = 1 << 20


async def ask(fs: Filesystem, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = await fs.answers()["duplicates"](params)
    return found


async def dedupe(fs: Filesystem, **params: Any) -> dict[str, Any]:
    done: dict[str, Any] = await fs.answers()["dedupe"](params)
    return done


async def several(fs: Filesystem) -> None:
    for path in (A, B, C):
        await fs.write(path, b"x" * 100)
    for name in ("a", "b"):
        await fs.write(f"users/5/recordings/2/{name}", b"y" * 150)
        await fs.write(f"users/5/recordings/2/empty-{name}", b"")
        await fs.write(f"temp/5/7/{name}", b"z" * 10)
        await fs.write(f"shared/{name}", b"single " + name.encode())
    await fs.drain()


async def test_sets_are_told_with_what_they_waste_and_where_they_are(fs: Filesystem) -> None:
    await several(fs)
    found = await ask(fs)
    assert (found["sets"], found["files"], found["wasted_bytes"], found["next"]) == (3, 7, 360, None)
    assert [(each["files"], each["size_bytes"], each["wasted_bytes"]) for each in found["worst"]] == [
        (3, 100, 200), (2, 150, 150), (2, 10, 10),
    ]  # fmt: skip
    assert sorted(each["path"] for each in found["worst"][0]["where"]) == [A, B, C]
    assert {each["state"] for each in found["worst"][0]["where"]} == {"committed"}
    assert [each["sha256"] for each in (await ask(fs, min_bytes=101))["worst"]] == [found["worst"][1]["sha256"]]
    assert [len(each["where"]) for each in (await ask(fs, named=0))["worst"]] == [0, 0, 0]


async def test_what_is_being_written_is_none(fs: Filesystem) -> None:
    await several(fs)
    handle = await fs.open(A, os.O_WRONLY)
    await fs.vfs.files.write(handle, 0, b"x")
    assert [each["files"] for each in (await ask(fs))["worst"]] == [2, 2, 2]
    await fs.close(handle)
    await fs.drain()
    assert (await ask(fs))["files"] == 7


async def test_those_of_one_user_are_told_apart(fs: Filesystem) -> None:
    await several(fs)
    found = await ask(fs, user="5")
    assert [(each["files"], each["size_bytes"]) for each in found["worst"]] == [(2, 150), (2, 10)]
    assert found["wasted_bytes"] == 160
    assert (await ask(fs, user="6"))["sets"] == 0
    with pytest.raises(NotFound):
        await ask(fs, user="99")
    for wrong in ({"user": "../5"}, {"limit": 10**9}, {"after": "x"}, {"after": "1:zz"}, {"min_bytes": "1"}):
        with pytest.raises(InvalidArgument):
            await ask(fs, **wrong)


async def test_pages_have_each_set_once(fs: Filesystem) -> None:
    for number in range(7):
        for copy in range(2 + number % 2):
            await fs.write(f"users/5/recordings/{copy}/{number}", bytes([number]) * (10 + number // 3))
    await fs.drain()
    whole = [each["sha256"] for each in (await ask(fs))["worst"]]
    paged: list[str] = []
    after = None
    while True:
        page = await ask(fs, limit=2, after=after)
        assert (page["sets"], page["files"]) == (7, 17)
        paged += [each["sha256"] for each in page["worst"]]
        if (after := page["next"]) is None:
            break
    assert paged == whole
    assert len(set(whole)) == 7


async def test_the_files_of_one_set_are_told_in_pages(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    await several(fs)
    digest = (await ask(fs))["worst"][0]["sha256"]
    found = await ask(fs, sha256=digest)
    assert ([each["path"] for each in found["where"]], found["next"]) == ([A, B, C], None)
    monkeypatch.setattr("recfs.api.reuse.duplicates.FILES_MAX", 2)
    first = await ask(fs, sha256=digest)
    rest = await ask(fs, sha256=digest, after=first["next"])
    assert [each["path"] for each in first["where"] + rest["where"]] == [A, B, C]
    assert [each["path"] for each in (await ask(fs, sha256=digest, user="6"))["where"]] == [B]
    for short in (digest[:12], digest[:5].upper()):
        assert (await ask(fs, sha256=short))["sha256"] == digest
    for wrong in ("xy", digest[:3], f"{digest}0", ""):
        with pytest.raises(InvalidArgument, match="nor the beginning of one"):
            await ask(fs, sha256=wrong)
    other = "0000" if not digest.startswith("0000") else "1111"
    with pytest.raises(NotFound, match="begins so"):
        await ask(fs, sha256=other)
    with pytest.raises(NotFound):
        await ask(fs, sha256=(await ask(fs))["worst"][1]["sha256"][:12], user="6")
    monkeypatch.setattr("recfs.api.reuse.duplicates._PREFIX", re.compile("[0-9a-f]*"))
    with pytest.raises(InvalidArgument, match="several checksums begin so"):
        await ask(fs, sha256="")


async def test_sizes_beyond_what_a_product_of_them_can_be(fs: Filesystem) -> None:
    await several(fs)
    await fs.stop()
    with contextlib.closing(sqlite3.connect(fs.root / ".recfs/catalogue.db")) as db, db:
        db.execute("update node set size_bytes = ? where size_bytes = 100", (1 << 62,))
    with fs.parts.reports.reading() as snapshot:
        found = duplicates(snapshot, {"limit": 1})
        assert found["worst"][0]["wasted_bytes"] == 2 << 62
        assert found["wasted_bytes"] == (2 << 62) + 160
        rest = duplicates(snapshot, {"after": found["next"]})
        assert [each["size_bytes"] for each in rest["worst"]] == [150, 10]
    with contextlib.closing(sqlite3.connect(fs.root / ".recfs/catalogue.db")) as db, db:
        db.execute("update node set size_bytes = 100 where size_bytes = ?", (1 << 62,))
    await fs.start()


# --- sharing blocks --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk whose files may share their blocks."""
    at = tmp_path_factory.mktemp("xfs")
    with disk("xfs", at, 320 * MIB) as why_not:
        if why_not is not None:
            skip(f"needs a small xfs: {why_not}")
        yield at


@pytest.fixture
async def shares(xfs: Path, request: pytest.FixtureRequest) -> AsyncIterator[Filesystem]:
    """A store on it."""
    async with filesystem(xfs / request.node.name[:100], fallback=()) as fs:
        yield fs


def physical(fs: Filesystem, path: str) -> list[tuple[int, int, int]] | None:
    fd = os.open(fs.root / path, os.O_RDONLY)
    try:
        return sharing._extents(fd)
    finally:
        os.close(fd)


def look(fs: Filesystem, path: str) -> tuple[int, ...]:
    info = os.stat(fs.root / path)
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode, info.st_uid


async def test_files_with_the_same_bytes_share_their_blocks(shares: Filesystem) -> None:
    fs = shares
    for path in (A, B, C):
        await fs.write(path, pattern(3 * MIB + 5))
    await fs.write("users/5/recordings/2/other", pattern(3 * MIB + 5, 1))
    await fs.drain()
    before = [look(fs, path) for path in (A, B, C)]
    assert physical(fs, A) != physical(fs, B)
    used = fs.account("5")
    done = await dedupe(fs)
    assert (done["files"], done["bytes"], done["kept"], done["next"]) == (2, 2 * (3 * MIB + 5), [], None)
    assert physical(fs, A) == physical(fs, B) == physical(fs, C) != physical(fs, "users/5/recordings/2/other")
    assert [look(fs, path) for path in (A, B, C)] == before
    assert fs.account("5") == used  # whose bytes they are is another question
    await fs.write(B, b"changed", append=False)
    await fs.drain()
    assert await fs.read(A) == await fs.read(C) == pattern(3 * MIB + 5)
    assert await fs.read(B) == b"changed"
    again = await dedupe(fs)
    assert (again["files"], again["already"]) == (0, 1)
    await fs.assert_consistent()


async def test_what_a_writer_changes_later_is_its_own(shares: Filesystem) -> None:
    fs = shares
    for path in (A, B):
        await fs.write(path, pattern(MIB))
    await fs.drain()
    assert (await dedupe(fs))["files"] == 1
    handle = await fs.open(A, os.O_RDWR)
    await fs.vfs.files.write(handle, 4096, b"!" * 4096)
    await fs.close(handle)
    await fs.drain()
    assert await fs.read(B) == pattern(MIB)
    assert (await fs.read(A))[4096:8192] == b"!" * 4096


async def test_what_is_open_for_writing_is_passed_over(shares: Filesystem) -> None:
    fs = shares
    for path in (A, B, C):
        await fs.write(path, pattern(MIB))
    await fs.drain()
    handle = await fs.open(B, os.O_WRONLY)
    assert (await dedupe(fs))["files"] == 1
    assert physical(fs, A) == physical(fs, C) != physical(fs, B)
    await fs.close(handle)
    await fs.drain()
    done = await dedupe(fs)
    assert (done["files"], done["already"]) == (1, 1)


async def test_bytes_that_are_not_what_the_checksum_says_are_never_replaced(
    shares: Filesystem, expect_log: Any
) -> None:
    """As after damage to the disk: the kernel compares by itself."""
    expect_log("does not share its blocks")
    fs = shares
    for path in (A, B):
        await fs.write(path, pattern(MIB))
    await fs.drain()
    times = os.stat(fs.root / B)
    with open(fs.root / B, "r+b") as file:
        file.write(b"damaged")
    os.utime(fs.root / B, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = await dedupe(fs)
    assert (done["files"], [each["path"] for each in done["kept"]], done["kept_files"]) == (0, [B], 1)
    assert (fs.root / B).read_bytes()[:7] == b"damaged"
    assert (fs.root / A).read_bytes() == pattern(MIB)


async def test_it_goes_on_where_it_ended(shares: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fs = shares
    for number in range(9):
        await fs.write(f"users/5/recordings/{number}/a", pattern(MIB, number % 2))
        await fs.write(f"users/6/recordings/{number}/a", pattern(MIB + 1, 7))
    await fs.drain()
    monkeypatch.setattr(dedupe_module, "AT_ONCE", 3)
    total: Counter[str] = Counter()
    after, calls = None, 0
    while True:
        done = await dedupe(fs, after=after, seconds=1e-9)
        total.update({name: done[name] for name in ("files", "bytes", "passed_over", "kept_files")})
        calls += 1
        if (after := done["next"]) is None:
            break
        assert calls < 100
    assert total["files"] == 4 + 3 + 8
    assert (total["passed_over"], total["kept_files"]) == (0, 0)
    assert calls > 3
    for each in ("x", "00" * 32, "zz:1"):
        with pytest.raises(InvalidArgument):
            await dedupe(fs, after=each)


@pytest.mark.parametrize("how", ["holes and data", "holes alone", "zeros and holes", "in pieces"])
async def test_holes_are_no_gain_and_a_second_run_gains_nothing(shares: Filesystem, how: str) -> None:
    fs = shares
    for user in (5, 6):
        path = f"users/{user}/recordings/1/sparse"
        await fs.write(path, b"")
        number = await fs.open(path, os.O_WRONLY)
        node = await fs.node(path)
        await fs.vfs.files.truncate(node, 8 * MIB)
        if how == "holes and data":
            await fs.vfs.files.write(number, 4 * MIB, pattern(MIB))
        elif how == "zeros and holes" and user == 6:
            await fs.vfs.files.write(number, MIB, bytes(MIB))
        elif how == "in pieces":
            for at in range(0, 8 * MIB, 2 * MIB) if user == 5 else range(6 * MIB, -1, -2 * MIB):
                await fs.vfs.files.write(number, at, pattern(MIB, at))
        await fs.close(number)
    await fs.drain()
    done = await dedupe(fs)
    gained = {"holes and data": (1, MIB), "holes alone": (0, 0), "zeros and holes": (1, MIB), "in pieces": (1, 4 * MIB)}
    assert (done["files"], done["bytes"], done["already"]) == (*gained[how], 0 if gained[how][0] else 1), done
    again = await dedupe(fs)
    assert (again["files"], again["bytes"], again["already"]) == (0, 0, 1)


async def test_only_a_users_own_or_larger_files(shares: Filesystem) -> None:
    fs = shares
    for name in ("a", "b"):
        await fs.write(f"users/5/recordings/1/{name}", pattern(MIB))
        await fs.write(f"users/6/recordings/1/{name}", pattern(MIB))
        await fs.write(f"users/6/recordings/1/large-{name}", pattern(2 * MIB))
    await fs.drain()
    assert (await dedupe(fs, user="5"))["files"] == 1
    assert physical(fs, "users/5/recordings/1/a") != physical(fs, "users/6/recordings/1/a")
    assert (await dedupe(fs, min_bytes=MIB + 1))["bytes"] == 2 * MIB
    assert (await dedupe(fs))["files"] == 2


async def test_a_file_that_changes_meanwhile_keeps_its_bytes(
    shares: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = shares
    monkeypatch.setattr(sharing, "SLICE_BYTES", 1 << 20)
    for path in (A, B):
        await fs.write(path, pattern(3 * MIB))
    await fs.drain()
    share = sharing.share

    def change(source: int, target: int, offset: int, length: int) -> int:
        done = share(source, target, offset, length)
        if offset == 0:
            trio.from_thread.run(fs.write, B, b"new")
        return done

    monkeypatch.setattr(sharing, "share", change)
    done = await dedupe(fs)
    assert (done["files"], done["passed_over"]) == (0, 1)
    await fs.drain()
    assert await fs.read(B) == b"new"
    assert await fs.read(A) == pattern(3 * MIB)


async def test_a_file_system_that_cannot_is_told_at_once(fs: Filesystem) -> None:
    """That of the other tests, tmpfs."""
    for path in (A, B):
        await fs.write(path, b"x" * 5000)
    await fs.drain()
    with pytest.raises(NotSupported, match="shares no blocks"):
        await dedupe(fs)
    await fs.unlink(B)
    assert (await dedupe(fs))["files"] == 0


@pytest.mark.parametrize(
    ("status", "raised"), [(0, None), (1, 0), (-errno.EOPNOTSUPP, NotSupported), (-errno.EPERM, PermissionError)]
)
def test_what_the_kernel_answers(monkeypatch: pytest.MonkeyPatch, status: int, raised: Any) -> None:
    def answer(fd: int, request: int, asked: bytearray, mutate: bool) -> int:
        values = list(sharing._RANGE.unpack(asked))
        assert (fd, values[0], values[1], values[2], values[5], values[6]) == (3, 10, 20, 1, 4, 10)
        values[7:9] = 20 if not status else 0, status
        asked[:] = sharing._RANGE.pack(*values)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", answer)
    if isinstance(raised, type):
        with pytest.raises(raised):
            sharing.share(3, 4, 10, 20)
    else:
        assert sharing.share(3, 4, 10, 20) == (20 if raised is None else raised)
