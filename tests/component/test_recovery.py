"""What a start makes of what it finds, where no mount test can arrange it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from recfs.stores.steps import Outcome, Step

from .build import OPERATOR, REC, USER, Filesystem, pattern, until

if TYPE_CHECKING:
    import trio

ExpectLog = Callable[[str], None]
FILE = f"{REC}/file"


async def test_a_reopened_file_keeps_what_was_fsynced_before(fs: Filesystem) -> None:
    """Overwritten, fsynced and closed; taken up again before its commit; killed: the fsynced bytes are promised."""
    await fs.write(FILE, b"first version")
    await fs.drain()
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, b"second version, fsynced")
    await fs.vfs.files.fsync(number)
    await fs.close(number)
    again = await fs.open(FILE, os.O_WRONLY)
    await fs.vfs.files.write(again, len(b"second version, fsynced"), b" and more")
    await fs.parts.behind.flush()
    await fs.crash()
    await fs.reopen()
    assert (await fs.read(FILE)).startswith(b"second version, fsynced")


async def test_an_overwrite_that_was_never_closed_nor_fsynced_is_taken_back(fs: Filesystem) -> None:
    fs.checked_at_end = False
    await fs.write(FILE, b"first version")
    await fs.drain()
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, b"half of the second")
    await fs.parts.behind.flush()
    await fs.crash()
    await fs.reopen()
    assert await fs.read(FILE) == b"first version"
    assert await fs.state(FILE) == "committed"
    await fs.assert_consistent(lost=1)


@pytest.mark.parametrize("state", ["sealing", "writing"])
async def test_a_file_whose_staging_file_vanished_is_incomplete_and_empty(
    fs: Filesystem, expect_log: ExpectLog, state: str
) -> None:
    await fs.write(f"{REC}/other", b"other")
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"bytes")
    if state == "sealing":
        await fs.close(number)
    await fs.parts.behind.flush()
    staging = fs.root / ".recfs/staging" / (await fs.node(FILE)).staging
    await fs.crash()
    staging.unlink()
    expect_log("its bytes are gone")
    await fs.reopen()
    assert fs.parts.recovered.lost == [FILE]
    await fs.drain()
    assert await fs.state(FILE) == "incomplete"
    assert await fs.read(FILE) == b""
    assert fs.account() == (5, 2)


async def test_a_second_start_has_nothing_left_to_do(fs: Filesystem) -> None:
    for n in range(5):
        await fs.write(f"{REC}/file{n}", pattern(1000, seed=n))
    number = await fs.open(f"{REC}/open", os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"never closed")
    await fs.parts.behind.flush()
    await fs.crash()
    await fs.reopen()
    assert fs.parts.recovered.incomplete == [f"{REC}/open"]
    assert len(fs.parts.recovered.resealed) == 5
    await fs.drain()
    before = await fs.tree()
    await fs.crash()
    await fs.reopen()
    report = fs.parts.recovered
    assert (report.resealed, report.incomplete, report.rolled_back, report.adopted, report.lost) == ([], [], [], [], [])
    assert await fs.tree() == before


async def test_a_file_whose_row_was_lost_is_adopted_by_its_label(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    await fs.drain()
    await fs.write(f"{REC}/closed", b"closed")
    number = await fs.open(f"{REC}/open", os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"open")
    await fs.crash()  # before any flush
    assert fs.rows("select count(*) from node where kind = 'file'") == [0]
    await fs.reopen()
    await fs.drain()
    assert await fs.read(f"{REC}/closed") == b"closed"
    assert await fs.state(f"{REC}/closed") == "committed"
    assert await fs.read(f"{REC}/open") == b"open"
    assert await fs.state(f"{REC}/open") == "incomplete"
    assert fs.account() == (10, 2)


async def test_an_adopted_file_whose_directory_was_lost_gets_it_back(fs: Filesystem) -> None:
    await fs.write(f"{REC}/deep/er/file", b"bytes")
    await fs.crash()
    await fs.reopen()
    await fs.drain()
    assert await fs.read(f"{REC}/deep/er/file") == b"bytes"


async def test_a_staging_file_nobody_can_name_is_kept_in_lost_and_found(fs: Filesystem) -> None:
    fs.checked_at_end = False
    await fs.stop()
    (fs.root / ".recfs/staging/stranger").write_bytes(b"who knows")
    (fs.root / ".recfs/staging/empty").write_bytes(b"")
    await fs.reopen()
    assert fs.leftovers("staging") == []
    assert (fs.root / ".recfs/lost+found/staging-stranger").read_bytes() == b"who knows"
    assert fs.parts.recovered.lost == ["lost+found/staging-stranger"]
    await fs.assert_consistent(lost=1)


async def test_inode_numbers_are_never_used_twice(fs: Filesystem) -> None:
    seen: set[int] = set()
    for run in range(3):
        for n in range(5):
            await fs.write(f"{REC}/{run}-{n}", b"x")
            ino = (await fs.node(f"{REC}/{run}-{n}")).ino
            assert ino not in seen
            seen.add(ino)
            await fs.unlink(f"{REC}/{run}-{n}")
        await fs.crash()
        await fs.reopen()


async def test_garbage_of_a_dead_run_goes_on_its_way(fs: Filesystem) -> None:
    for n in range(5):
        await fs.write(f"{REC}/sub/file{n}", pattern(1000, seed=n))
    await fs.drain()
    await fs.vfs.trees.remove(await fs.node(REC))
    fs.parts.publisher.hurry()
    await fs.parts.behind.flush()
    await fs.crash()
    assert fs.rows("select count(*) from garbage") != [0]
    await fs.reopen()
    await fs.drain()
    assert not (fs.root / REC).exists()
    assert fs.rows("select count(*) from garbage") == [0]


@pytest.mark.parametrize("kind", ["dir", "symlink"])
async def test_what_was_made_before_the_crash_and_removed_after_it_is_gone(fs: Filesystem, kind: str) -> None:
    folder = await fs.mkdirs(REC)
    await fs.drain()
    if kind == "dir":
        await fs.vfs.mkdir(folder.ino, b"made", 0o755, OPERATOR)
    else:
        await fs.vfs.symlink(folder.ino, b"made", b"target", OPERATOR)
    await fs.parts.behind.flush()
    await fs.crash()
    made = fs.root / REC / "made"  # the publisher came as far as this
    if kind == "dir":
        made.mkdir(exist_ok=True)
    elif not made.is_symlink():
        made.symlink_to("target")
    await fs.reopen(services=False)
    await (fs.rmdir if kind == "dir" else fs.unlink)(f"{REC}/made")
    await fs.parts.behind.flush()
    await fs.crash()
    await fs.reopen()
    await fs.drain()
    assert not os.path.lexists(made)


async def test_a_committed_file_taken_up_but_not_changed_is_committed_again(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await fs.drain()
    inode = (await fs.node(FILE)).ino
    number = await fs.open(FILE, os.O_RDWR)
    await fs.vfs.files.write(number, 0, b"B")
    await fs.parts.behind.flush()
    await fs.crash()
    await fs.reopen()
    await fs.drain()
    assert (await fs.node(FILE)).ino == inode
    assert await fs.read(FILE) == b"Bytes"
    assert await fs.state(FILE) == "incomplete"


async def test_a_file_taken_up_on_its_way_to_another_name_has_arrived(fs: Filesystem) -> None:
    """Its row was written before it left the home tree, and says that it is to be moved there."""
    await fs.write(f"{REC}/old", b"bytes")
    await fs.drain()
    await fs.crash()
    await fs.reopen(services=False)
    await fs.rename(f"{REC}/old", FILE)
    number = await fs.open(FILE, os.O_RDWR)
    await fs.vfs.files.write(number, 0, b"B")
    assert fs.rows("select staging from node left join placement using (ino) where name = ?", b"file") == [None]
    await fs.crash()
    await fs.reopen()
    await fs.drain()
    assert await fs.read(FILE) == b"Bytes"
    assert await fs.state(FILE) == "incomplete"
    await fs.assert_consistent()


@pytest.mark.expect_log("set aside, tried again later")
@pytest.mark.parametrize("closed", [False, True], ids=["unfinished", "closed"])
async def test_a_file_replaced_on_its_way_home_is_found_in_staging(fs: Filesystem, closed: bool) -> None:
    """It is the way back, or goes; the metadata has it at home already."""
    fs.checked_at_end = False
    entered, go_on = threading.Event(), threading.Event()

    def never(steps: Sequence[Step], **_: object) -> list[Outcome]:
        entered.set()
        assert go_on.wait(20)
        return [Outcome(error=errno.EIO) for _ in steps]

    await fs.mkdirs(REC)
    await fs.drain()
    with mock.patch.object(fs.parts.store, "apply", never):
        await fs.write(FILE, b"committed")
        fs.parts.committer.hurry((await fs.node(FILE)).ino)
        await until(entered.is_set)
        number = await fs.open(f"{REC}/part", os.O_WRONLY | os.O_CREAT)
        await fs.vfs.files.write(number, 0, b"other")
        await fs.rename(f"{REC}/part", FILE)
        if closed:
            await fs.close(number)
        await fs.parts.behind.flush()
        go_on.set()
        await fs.crash()
    await fs.reopen()
    await fs.drain()
    assert await fs.read(FILE) == (b"other" if closed else b"committed")
    assert await fs.state(FILE) == "committed"
    lost = [path.read_bytes() for path in (fs.root / ".recfs/lost+found").iterdir()]
    assert lost == ([] if closed else [b"other"])
    await fs.assert_consistent(lost=len(lost))


async def test_an_empty_file_in_the_trash_that_was_to_go_goes(nursery: trio.Nursery, place: Path) -> None:
    """An earlier version had made room for another file, and was of no use any more: only the end of it is missing."""
    fs = Filesystem(nursery, place, trash={"retention": 3600.0})
    await fs.start()
    await fs.write(FILE, b"")
    await fs.drain()
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await fs.rename(FILE, f"{REC}/moved")
    await fs.write(FILE, b"another")
    await fs.drain()
    assert fs.rows("select held_by is null from garbage where staging is null and home_name is null") == [0]
    held = fs.parts.publisher
    with mock.patch.object(held, "discarded"):  # it dies before that
        await fs.close(number)
        fs.parts.committer.hurry((await fs.node(f"{REC}/moved")).ino)
        await until(lambda: not fs.parts.committer.depth)
        await fs.parts.behind.flush()
    assert fs.rows("select held_by is null from garbage") == [1]
    await fs.crash()
    await fs.reopen()
    await fs.drain()
    assert fs.rows("select count(*) from garbage") == [0]
    await fs.assert_consistent()
    await fs.stop()


async def test_a_rename_over_by_a_file_still_being_written_gives_the_old_bytes_back(fs: Filesystem) -> None:
    fs.checked_at_end = False
    await fs.write(FILE, b"committed")
    await fs.drain()
    number = await fs.open(f"{REC}/part", os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"half")
    await fs.rename(f"{REC}/part", FILE)
    assert await fs.read(FILE) == b"half"
    await fs.crash()
    await fs.reopen()
    await fs.drain()
    assert await fs.read(FILE) == b"committed"
    assert await fs.names(REC) == ["file"]
    await fs.assert_consistent(lost=1)


async def test_xattrs_whiteouts_and_views_of_the_dead_leave_no_rows(fs: Filesystem) -> None:
    await fs.write("shared/thumbnails/a.png", b"a")
    await fs.write("shared/thumbnails/b.png", b"b")
    await fs.mkdirs("users/5")
    await fs.drain()
    assert await fs.names("users/5/thumbnails") == ["a.png", "b.png"]
    await fs.unlink("users/5/thumbnails/a.png", USER)
    await fs.write(f"{REC}/short", b"lived")
    await fs.xattrs.set((await fs.node(f"{REC}/short")).ino, b"user.a", b"1", OPERATOR)
    await fs.unlink(f"{REC}/short")
    await fs.vfs.trees.remove(await fs.node("users/5"))
    await fs.unlink("shared/thumbnails/b.png")
    await fs.drain()
    for table in ("xattr", "whiteout", "garbage"):
        assert fs.rows(f"select count(*) from {table}") == [0], table
