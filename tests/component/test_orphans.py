"""Inodes that lost their name are there until the kernel forgets them, and their bytes until the publisher comes."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.errors import FsError, NotFound, Stale
from recfs.fs.attributes import Changes
from recfs.fuse.entries import Entries
from recfs.state.nameless import orphans

from .build import OPERATOR, REC, Filesystem, filesystem

FILE = f"{REC}/file"
NEW = f"{REC}/file.new"
RW = os.O_RDWR


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """A file system whose publisher does nothing until it is asked to (`fs.drain` after `resume`)."""
    async with filesystem(place) as running:
        yield running
        resume(running)
        await running.assert_consistent()


def pause(fs: Filesystem) -> None:
    """Let nothing be carried out on the home tree from now on."""
    fs.parts.publisher.__dict__["publish_some"] = trio.lowlevel.checkpoint


def resume(fs: Filesystem) -> None:
    """Let it go on."""
    fs.parts.publisher.__dict__.pop("publish_some", None)


async def replaced(fs: Filesystem, *, committed: bool = True) -> Any:
    """A file that was replaced by rename: the old inode."""
    await fs.write(FILE, b"old bytes")
    if committed:
        await fs.drain()
    node = await fs.node(FILE)
    pause(fs)
    await fs.write(NEW, b"new")
    await fs.rename(NEW, FILE)
    return node


async def opened(fs: Filesystem, node: Any, flags: int) -> int:
    """OPEN as the kernel asks for it: by number."""
    return int(await fs.vfs.open(node.ino, flags, OPERATOR))


@pytest.mark.parametrize("committed", [True, False])
async def test_a_replaced_file_is_opened_by_whoever_had_found_it(fs: Filesystem, committed: bool) -> None:
    old = await replaced(fs, committed=committed)
    number = await opened(fs, old, os.O_RDONLY)
    assert await fs.read_handle(number) == b"old bytes"
    assert await fs.read(FILE) == b"new"
    await fs.close(number)
    assert fs.account() == (3, 1), "a file without a name is charged to nobody"


@pytest.mark.parametrize("flags", [RW, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC])
async def test_a_writer_of_a_replaced_file_gets_bytes_of_its_own(fs: Filesystem, flags: int) -> None:
    """What was committed before the replacement is the way back until that is committed itself."""
    old = await replaced(fs)
    reader = await opened(fs, old, os.O_RDONLY)
    writer = await opened(fs, old, flags)
    empty = bool(flags & os.O_TRUNC)
    assert await fs.read_handle(reader) == (b"" if empty else b"old bytes")
    assert await fs.vfs.files.write(writer, 0, b"OLD") == 3
    assert await fs.read_handle(reader) == (b"OLD" if empty else b"OLD bytes")
    garbage = old.remains
    assert (fs.root / FILE).read_bytes() == b"old bytes", "where it lies, untouched"
    assert fs.account() == (3, 1)
    await fs.close(writer)
    await fs.close(reader)
    resume(fs)
    await fs.drain()
    assert garbage.gid not in fs.parts.tree.garbage
    assert await fs.read(FILE) == b"new"


async def test_truncate_by_path_of_a_file_that_has_just_been_replaced(fs: Filesystem) -> None:
    old = await replaced(fs)
    node = await fs.vfs.setattr(old.ino, Changes(size=3), OPERATOR)
    assert (node.ino, node.bytes) == (old.ino, 3)
    assert await fs.read(FILE) == b"new"


async def test_when_the_bytes_are_gone_it_is_stale(fs: Filesystem) -> None:
    """The kernel then walks the path anew."""
    old = await replaced(fs)
    resume(fs)
    await fs.drain()
    for flags in (os.O_RDONLY, RW):
        with pytest.raises(Stale):
            await opened(fs, old, flags)
    number = await opened(fs, old, os.O_WRONLY | os.O_TRUNC)
    await fs.close(number)


async def test_bytes_in_the_trash_are_opened_there_and_stay_as_they_are(place: Path) -> None:
    async with filesystem(place, trash={"retention": "1h"}) as fs:
        await fs.write(FILE, b"old bytes")
        await fs.drain()
        old = await fs.node(FILE)
        await fs.unlink(FILE)
        await fs.drain()
        reader, writer = await opened(fs, old, os.O_RDONLY), await opened(fs, old, RW)
        await fs.vfs.files.write(writer, 0, b"OLD")
        assert await fs.read_handle(reader) == b"OLD bytes"
        (kept,) = fs.leftovers("trash")
        assert (fs.root / ".recfs" / "trash" / kept).read_bytes() == b"old bytes"
        await fs.close(reader)
        await fs.close(writer)


async def test_attributes_of_what_lost_its_name(fs: Filesystem) -> None:
    """Files, directories and links: as they were, with a link count of 0."""
    await fs.write(FILE, b"bytes")
    folder = await fs.mkdirs(f"{REC}/folder")
    other = await fs.mkdirs(f"{REC}/other")
    rec = await fs.node(REC)
    link = await fs.vfs.symlink(rec.ino, b"link", b"target", OPERATOR)
    file = await fs.node(FILE)
    await fs.unlink(FILE)
    await fs.unlink(f"{REC}/link")
    await fs.rename(f"{REC}/other", f"{REC}/folder")
    await fs.drain()
    entries = Entries(fs.parts.tree)
    for node, kind in ((file, stat.S_IFREG), (folder, stat.S_IFDIR), (link, stat.S_IFLNK)):
        found = await fs.vfs.node(node.ino)
        assert found is node
        entry = entries.of(found, node.ino)
        assert (stat.S_IFMT(entry.st_mode), entry.st_nlink) == (kind, 0)
    assert entries.of(other).st_nlink == 1
    assert entries.of(file).st_size == 5
    assert await fs.vfs.readlink(link.ino) == b"target"
    number = await fs.vfs.listings.open(folder.ino)
    assert not await fs.vfs.listings.read(number, 0)
    assert await fs.vfs.lookup(folder.ino, b"name") is None
    for make in (fs.vfs.mkdir(folder.ino, b"x", 0o755, OPERATOR), fs.vfs.create(folder.ino, b"x", 0o644, RW, OPERATOR)):
        with pytest.raises(NotFound):
            await make
    fs.vfs.listings.release(number)


async def test_what_has_a_name_is_found_by_its_number_alone(fs: Filesystem) -> None:
    """LOOKUP of `.`, as the kernel asks it for a file handle whose inode it has forgotten."""
    await fs.write(FILE, b"bytes")
    file, folder = await fs.node(FILE), await fs.node(REC)
    for node in (file, folder):
        assert await fs.vfs.lookup(node.ino, b".") is node
    assert await fs.vfs.lookup(folder.ino, b"..") is folder.parent
    await fs.unlink(FILE)
    for number in (file.ino, 999_999):
        with pytest.raises(Stale):
            await fs.vfs.lookup(number, b".")


async def test_they_end_when_the_kernel_forgets_them(fs: Filesystem) -> None:
    await fs.write(FILE, b"bytes")
    node = await fs.node(FILE)
    node.kernel_refs = 3
    await fs.unlink(FILE)
    tree = fs.parts.tree
    tree.orphans.forget(node.ino, 2)
    assert tree.orphans.get(node.ino) is node
    tree.orphans.forget(node.ino, 1)
    assert tree.orphans.get(node.ino) is None
    tree.orphans.forget(node.ino, 1)
    with pytest.raises(FsError):
        await fs.vfs.node(node.ino)


async def test_those_the_kernel_never_knew_do_not_pile_up(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "KEPT", 3)
    for number in range(8):
        await fs.write(f"{REC}/{number}", b"")
        await fs.unlink(f"{REC}/{number}")
    assert len(fs.parts.tree.orphans) == 3


async def test_a_reader_does_not_take_the_writers_descriptor_away(fs: Filesystem) -> None:
    """Both waited for the same move of the file on the disk; the writer was first."""
    await fs.write(FILE, b"bytes")
    await fs.drain()
    node = await fs.node(FILE)
    moving, done = True, trio.Event()
    publisher = fs.parts.publisher
    publisher.__dict__["touches"] = lambda inos: moving
    publisher.__dict__["batch_done"] = done.wait
    handles: dict[str, int] = {}

    async def client(name: str, flags: int) -> None:
        handles[name] = await opened(fs, node, flags)

    async with trio.open_nursery() as clients:
        clients.start_soon(client, "writer", RW)
        clients.start_soon(client, "reader", os.O_RDONLY)
        clients.start_soon(client, "another writer", RW)
        await trio.testing.wait_all_tasks_blocked()
        moving = False
        done.set()
    del publisher.__dict__["touches"], publisher.__dict__["batch_done"]
    assert node.body.writable
    assert await fs.vfs.files.write(handles["writer"], 0, b"B") == 1
    assert await fs.read_handle(handles["reader"]) == b"Bytes"
    for number in handles.values():
        await fs.close(number)
    await fs.drain()
    assert await fs.state(FILE) == State.COMMITTED
