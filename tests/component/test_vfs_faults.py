"""The disk, or the catalogue, says no in the middle of an operation: the metadata stays right and nothing is lost."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import trio

from recfs.catalogue.headroom import FILE_BYTES, LOG_BYTES
from recfs.errors import IoFailure, NotEmpty, OutOfSpace, RecfsError
from recfs.fs.attributes import Changes
from recfs.ports.batch import Batch
from recfs.stores.local import BALLAST_BYTES

from .build import OPERATOR, REC, Filesystem, filesystem, until

ExpectLog = Callable[[str], None]
FILE = f"{REC}/file"


@pytest.fixture
def small_reserves() -> None:
    """Not here: what is put aside is what it is about."""


async def test_a_full_disk_under_write_leaves_the_books_right(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"12345")
    for code, error in ((errno.ENOSPC, OutOfSpace), (errno.EDQUOT, OutOfSpace), (errno.EIO, IoFailure)):
        fs.faults.fail("pwrite", code, "staging")
        with pytest.raises(error):
            await fs.vfs.files.write(number, 5, b"67890")
        assert fs.account() == (5, 1)
    fs.faults.fail("ftruncate", errno.ENOSPC, "staging")
    with pytest.raises(OutOfSpace):
        await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(size=9), OPERATOR)
    assert fs.account() == (5, 1)
    fs.faults.fail("fsync", errno.EIO, "staging/")  # the file: its directory is synced by somebody else meanwhile
    with pytest.raises(IoFailure):
        await fs.vfs.files.fsync(number)
    await fs.vfs.files.write(number, 5, b"67890")
    await fs.close(number)
    assert await fs.read(FILE) == b"1234567890"


async def test_a_full_disk_under_create_leaves_nothing(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.mkdirs(REC)
        full = fs.faults.fail("create", errno.ENOSPC, "staging", times=10_000)
        made = 0

        async def fill() -> None:
            nonlocal made
            while made < 2000:
                await fs.write(f"{REC}/file{made}", b"x")
                made += 1

        with pytest.raises(OSError, match="No space left"):
            await fill()
        assert full.hits
        assert not await fs.exists(f"{REC}/file{made}")
        fs.faults.heal()
        await fs.write(f"{REC}/after", b"there is room again")
        await fs.assert_consistent()


async def test_the_reserve_is_kept(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.write(FILE, b"bytes")
        fs.vfs.files.space.min_free = 1 << 60
        fs.vfs.files.space._checked = float("-inf")
        number = await fs.open(FILE, os.O_RDWR)
        with pytest.raises(OutOfSpace):
            await fs.vfs.files.write(number, 5, b"more")
        assert await fs.vfs.files.write(number, 0, b"BYTES") == 5
        fs.vfs.files.space._checked = float("-inf")
        with pytest.raises(OutOfSpace):
            await fs.write(f"{REC}/new", b"")
        await fs.close(number)
        await fs.unlink(FILE)
        await fs.assert_consistent()


async def test_a_catalogue_that_cannot_be_written_loses_nothing(fs: Filesystem, expect_log: ExpectLog) -> None:
    await fs.write(FILE, b"before")
    await fs.drain()
    full = fs.faults.fail("apply", OutOfSpace("the disk is full"), times=1_000_000)
    expect_log("catalogue cannot be written")
    fs.parts.committer._problem = "told already"
    await fs.write(f"{REC}/new", b"meanwhile")
    await fs.unlink(FILE)
    await fs.rename(f"{REC}/new", f"{REC}/newer")
    await fs.xattrs.set((await fs.node(f"{REC}/newer")).ino, b"user.a", b"1", OPERATOR)
    number = await fs.open(f"{REC}/open", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OutOfSpace):
        await fs.vfs.files.fsync(number)
    await until(lambda: full.hits >= 5 and fs.parts.behind.problem)
    assert await fs.names(REC) == ["newer", "open"]
    assert await fs.read(f"{REC}/newer") == b"meanwhile"
    fs.faults.heal()
    await fs.close(number)
    await fs.drain()
    assert fs.parts.behind.problem is None
    assert fs.rows("select name, state from node where kind = 'file' order by name") == [
        (b"newer", "committed"), (b"open", "committed"),
    ]  # fmt: skip
    assert await fs.xattrs.get((await fs.node(f"{REC}/newer")).ino, b"user.a") == b"1"


async def test_a_failed_move_to_staging_leaves_the_file_as_it_was(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await fs.drain()
    number = await fs.open(FILE, os.O_RDWR)
    fs.faults.fail("rename", errno.EIO, FILE)
    with pytest.raises((OSError, RecfsError)):
        await fs.vfs.files.write(number, 0, b"B")
    assert await fs.read_handle(number) == b"bytes"
    assert await fs.vfs.files.write(number, 0, b"B") == 1
    await fs.close(number)
    await fs.drain()
    assert await fs.read(FILE) == b"Bytes"


async def test_the_catalogue_has_room_when_others_took_all(place: Path) -> None:
    """Without it not even `rm` would work. It is put aside again when there is room."""
    async with filesystem(place) as fs:
        space, store, behind = fs.vfs.files.space, fs.parts.store, fs.parts.behind
        ballast = store.private / "ballast"
        assert ballast.stat().st_blocks * 512 >= BALLAST_BYTES
        await fs.write(f"{REC}/file", b"bytes")
        apply, refused = behind._catalogue.apply, 0

        async def full(batch: Batch) -> None:
            nonlocal refused
            if ballast.exists():
                refused += 1
                raise OutOfSpace("the disk is full")
            await apply(batch)

        behind._catalogue.apply = full
        space.min_free = 1 << 60  # nothing is put aside meanwhile
        await fs.unlink(f"{REC}/file")
        await behind.flush()
        assert refused == 1
        assert not fs.rows("SELECT 1 FROM node WHERE name = ?", b"file")
        space.min_free = 0
        space.keep_emergency_reserve()
        assert ballast.exists()


async def test_the_catalogues_files_have_room_beyond_their_ends(place: Path) -> None:
    """Blocks that nobody else can take; put aside anew as the files grow."""
    async with filesystem(place) as fs:
        for n in range(3):
            await fs.write(f"{REC}/file{n}", b"bytes")
            await fs.drain()
            fs.vfs.files.space.keep_emergency_reserve()
            for suffix, room in (("-wal", LOG_BYTES), ("", FILE_BYTES)):
                info = os.stat(f"{fs.parts.store.catalogue_path}{suffix}")
                assert info.st_blocks * 512 >= info.st_size + room // 2


async def test_on_a_full_disk_the_log_is_folded_in_and_written_anew(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.write(f"{REC}/file", b"bytes")
        await fs.drain()
        log = Path(f"{fs.parts.store.catalogue_path}-wal")
        size = log.stat().st_size
        assert await fs.parts.behind._make_room()
        await fs.rename(f"{REC}/file", f"{REC}/moved")
        assert log.stat().st_size == size


async def test_drain_and_status_answer_while_the_catalogue_has_no_room(fs: Filesystem, expect_log: ExpectLog) -> None:
    expect_log("the disk is full")
    apply, answers = fs.parts.behind._catalogue.apply, fs.answers()

    async def full(batch: Batch) -> None:
        raise OutOfSpace("the disk is full")

    await fs.write(f"{REC}/file", b"bytes")
    fs.parts.behind._catalogue.apply = full  # type: ignore[method-assign]
    assert (await answers["drain"]({"timeout_s": 0.1}))["pending"] > 0
    assert (await answers["status"]({}))["states"] is not None
    fs.parts.behind._catalogue.apply = apply  # type: ignore[method-assign]
    await fs.drain()
    assert await fs.state(f"{REC}/file") == "committed"


async def test_a_charge_never_reaches_the_catalogue_without_its_size(fs: Filesystem) -> None:
    """Or the counters of a daemon that dies then would be wrong for good: here while a thread grows the file."""
    await fs.mkdirs(REC)
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"12345")
    await fs.parts.behind.flush()
    cutting, go_on = trio.Event(), threading.Event()
    loop = trio.lowlevel.current_trio_token()

    def grow(fd: int, size: int) -> None:
        loop.run_sync_soon(cutting.set)
        go_on.wait(20)
        ftruncate(fd, size)

    ftruncate = os.ftruncate
    with mock.patch.object(os, "ftruncate", grow):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fs.vfs.setattr, (await fs.node(FILE)).ino, Changes(size=1_000_000), OPERATOR)
            await cutting.wait()
            try:
                await fs.parts.behind.flush()
                assert fs.rows("select size_bytes from node where kind = 'file'") == fs.rows(
                    "select used_bytes from account"
                )
            finally:
                go_on.set()
    await fs.close(number)


@pytest.mark.may_log("generation: the disk is full")  # where time goes by on a busy machine
async def test_what_lies_behind_removed_names_is_seen_while_the_catalogue_cannot_be_written(
    fs: Filesystem, expect_log: ExpectLog
) -> None:
    """A directory whose first entry is removed, and not yet in the catalogue, is not empty because of that."""
    folder = await fs.mkdirs(f"{REC}/folder")
    for name in (b"first", b"second"):
        await fs.vfs.symlink(folder.ino, name, b"target", OPERATOR)
    await fs.drain()
    for ino in [child.ino for child in folder.children.values()]:
        fs.vfs.tree.memory.let_go(ino)
    assert not folder.children
    expect_log("catalogue cannot be written")
    fs.faults.fail("apply", OutOfSpace("the disk is full"), times=1_000_000)
    await fs.unlink(f"{REC}/folder/first")
    await until(lambda: fs.parts.behind.problem)
    with pytest.raises(NotEmpty):
        await fs.rmdir(f"{REC}/folder")
    assert await fs.names(f"{REC}/folder") == ["second"]
    fs.faults.heal()
    await fs.drain()
    await fs.assert_consistent()
