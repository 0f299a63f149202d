"""A removal that has returned is not undone by the daemon's death, and what was made in its place is there."""

from __future__ import annotations

import os

import pytest

from recfs.errors import IoFailure
from recfs.fs.attributes import Changes

from .build import OPERATOR, REC, Filesystem

FILE = f"{REC}/f"


def notes(fs: Filesystem) -> list[int]:
    return fs.parts.store.removals.left(fs.parts.store.boot_id())


async def die(fs: Filesystem) -> None:
    """kill -9, and a start."""
    await fs.crash()
    await fs.reopen()


async def names(fs: Filesystem) -> set[str]:
    return {path.removeprefix(f"{REC}/") for path in await fs.tree(REC)} - {REC, ""}


@pytest.mark.parametrize("before", ["rows-written", "rows-lost", "committed"])
@pytest.mark.parametrize("trash", [False, True])
@pytest.mark.table(2)
async def test_a_removed_file_stays_removed(fs: Filesystem, before: str, trash: bool) -> None:
    await fs.mkdirs(REC)
    await fs.drain()
    await fs.write(FILE, b"bytes")
    await fs.write(f"{REC}/other", b"stays")
    if before == "committed":
        await fs.drain()
    elif before == "rows-written":
        await fs.parts.behind.flush()
    await fs.unlink(FILE)
    await die(fs)
    await fs.drain()
    assert await names(fs) == {"other"}
    assert fs.account() == (5, 1)
    assert fs.leftovers("lost+found") == []
    await fs.assert_consistent()


@pytest.mark.parametrize("closed", [True, False])
async def test_the_file_made_in_its_place_is_there(fs: Filesystem, closed: bool) -> None:
    await fs.write(FILE, b"old")
    await fs.drain()
    await fs.unlink(FILE)
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"fresh")
    if closed:
        await fs.close(number)
    await die(fs)
    await fs.drain()
    assert await fs.read(FILE) == b"fresh"
    assert await fs.state(FILE) == ("committed" if closed else "incomplete")
    assert fs.account() == (5, 1)
    assert fs.leftovers("lost+found") == []


async def test_a_tree_that_was_removed_is_gone(fs: Filesystem) -> None:
    folder = await fs.mkdirs(f"{REC}/a/b/c")
    await fs.write(f"{REC}/a/b/c/file", b"bytes")
    await fs.vfs.symlink(folder.ino, b"link", b"file", OPERATOR)
    await fs.drain()
    for name in ("a/b/c/file", "a/b/c/link"):
        await fs.unlink(f"{REC}/{name}")
    for name in ("a/b/c", "a/b", "a"):
        await fs.rmdir(f"{REC}/{name}")
    await die(fs)
    await fs.drain()
    assert await names(fs) == set()
    assert not (fs.root / REC / "a").exists()
    assert fs.parts.recovered.removed
    await fs.assert_consistent()


async def test_a_file_in_the_place_of_a_removed_directory(fs: Filesystem) -> None:
    await fs.mkdirs(FILE)
    await fs.drain()
    await fs.rmdir(FILE)
    await fs.write(FILE, b"a file now")
    await die(fs)
    await fs.drain()
    assert await fs.read(FILE) == b"a file now"


async def test_a_replaced_file_is_not_taken_for_a_removed_one(fs: Filesystem) -> None:
    """rename(2) is written before it returns, and as a whole."""
    await fs.write(FILE, b"old")
    await fs.drain()
    await fs.write(f"{REC}/new", b"new")
    plan = fs.faults.fail("apply", OSError(5, "no more"), times=100)
    await fs.rename(f"{REC}/new", FILE)  # it stands, and would be written as soon as can be
    assert plan.hits
    await fs.crash()
    fs.faults.heal()
    await fs.reopen()
    await fs.drain()
    assert await fs.read(FILE) in (b"old", b"new")


async def test_notes_end_with_the_batch_that_tells_the_catalogue(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    await fs.write(f"{REC}/g", b"bytes")
    await fs.drain()
    ino = (await fs.node(FILE)).ino
    await fs.unlink(FILE)
    assert notes(fs) == [ino]
    await fs.parts.behind.flush()
    assert notes(fs) == []
    await fs.unlink(f"{REC}/g")
    await fs.stop()
    assert notes(fs) == []
    await fs.reopen()


async def test_notes_survive_a_batch_that_fails(fs: Filesystem) -> None:
    for name in "fgh":
        await fs.write(f"{REC}/{name}", b"bytes")
    await fs.drain()
    fs.faults.fail("apply", OSError(5, "no more"), times=100)
    for name in "fg":
        await fs.unlink(f"{REC}/{name}")
        with pytest.raises(IoFailure, match="no more"):
            await fs.parts.behind.flush()
    await fs.crash()
    fs.faults.heal()
    await fs.reopen()
    await fs.drain()
    assert await names(fs) == {"h"}


async def test_after_a_power_cut_notes_count_for_nothing(fs: Filesystem) -> None:
    """The catalogue is at an earlier moment, as a whole; a later removal does not belong there."""
    await fs.write(FILE, b"bytes")
    await fs.drain()
    await fs.unlink(FILE)
    await fs.crash()
    fs.boot = "another"
    await fs.reopen()
    assert await fs.read(FILE) == b"bytes"
    assert sorted(path.name for path in (fs.root / ".recfs").glob("removals-*")) == [
        "removals-another-0",
        "removals-another-1",
    ]


async def test_notes_that_make_no_sense_do_no_harm(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    folder = await fs.node(REC)
    await fs.drain()
    await fs.crash()
    odd = [1, 2, 1 << 63, folder.ino, folder.parent.ino]
    path = fs.root / f".recfs/removals-{fs.parts.store.boot_id()}-0"
    path.write_bytes(b"".join(each.to_bytes(8, "little") for each in odd) + b"abc")
    await fs.reopen()
    await fs.drain()
    assert await fs.read(FILE) == b"bytes"
    await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(mode=0o600), OPERATOR)
    await fs.assert_consistent()


async def test_a_removed_file_that_was_overwritten_before_leaves_nothing(fs: Filesystem) -> None:
    """Its last version had been closed, and the one before it committed."""
    await fs.write(FILE, b"committed")
    await fs.drain()
    await fs.write(FILE, b"closed")
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, b"unfinished")
    await fs.parts.behind.flush()
    await fs.unlink(FILE)
    await die(fs)
    await fs.drain()
    assert await names(fs) == set()
    assert fs.leftovers("lost+found") == []
    assert fs.account() == (0, 0)
    await fs.assert_consistent()
