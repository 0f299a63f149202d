"""The tree without a mount: the bounded cache, listings, forgets, renames, and what moves take with them."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from recfs.errors import (
    Busy,
    Exists,
    InvalidArgument,
    InvalidPath,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    RecfsError,
    Stale,
)
from recfs.fs.attributes import Changes
from recfs.fs.names import listing
from recfs.state.nodes import DirNode, FileNode

from .build import OPERATOR, REC, Filesystem, filesystem

OTHER = "users/6/recordings/7"


# --- a small cache ------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_small_cache_sees_everything(place: Path) -> None:
    async with filesystem(place, catalogue={"cached_inodes": 50}) as fs:
        names = [f"{REC}/dir{n % 10}/file{n:03}" for n in range(300)]
        for n, name in enumerate(names):
            await fs.write(name, b"%d" % n)
            if n % 60 == 0:
                await fs.drain()
                fs.parts.tree.memory.shrink()
        await fs.drain()
        fs.parts.tree.memory.shrink()
        assert len(fs.parts.tree.nodes) <= 60
        numbers = {name: (await fs.node(name)).ino for name in names}
        chance = random.Random(1)
        for step, name in enumerate(chance.sample(names, 120)):
            n = names.index(name)
            if step % 7 == 0:
                fs.parts.tree.memory.shrink()
                fs.parts.tree.check_invariants()
            assert await fs.read(name) == b"%d" % n
            if step % 4 == 0:
                await fs.vfs.setattr(numbers[name], Changes(mode=0o600), OPERATOR)
            elif step % 4 == 1:
                await fs.write(name, b"!", append=True)
                assert await fs.read(name) == b"%d!" % n
            elif step % 4 == 2:
                await fs.rename(name, name + ".renamed")
                assert (await fs.node(name + ".renamed")).ino == numbers[name]
                await fs.rename(name + ".renamed", name)
            else:
                await fs.xattrs.set(numbers[name], b"user.step", b"%d" % step, OPERATOR)
        await fs.drain()
        for n in range(10):
            fs.parts.tree.memory.shrink()
            here = f"{REC}/dir{n}"
            assert [f"{here}/{name}" for name in await fs.names(here)] == [name for name in names if here in name]
        assert {name: (await fs.node(name)).ino for name in names} == numbers
        await fs.assert_consistent()


async def test_what_is_open_dirty_or_on_its_way_stays_loaded(place: Path) -> None:
    async with filesystem(place, catalogue={"cached_inodes": 1}) as fs:
        await fs.write(f"{REC}/open", b"bytes")
        await fs.drain()
        number = await fs.open(f"{REC}/open")
        await fs.write(f"{REC}/dirty", b"bytes")
        kept = {(await fs.node(f"{REC}/{name}")).ino for name in ("open", "dirty")}
        fs.parts.tree.memory.shrink()
        assert kept <= set(fs.parts.tree.nodes)
        fs.parts.tree.check_invariants()
        await fs.close(number)
        await fs.assert_consistent()
        fs.parts.tree.memory.shrink()
        assert not kept & set(fs.parts.tree.nodes)


async def test_nodes_the_kernel_forgot_go_before_others(place: Path) -> None:
    async with filesystem(place, catalogue={"cached_inodes": 30}) as fs:
        for n in range(40):
            await fs.write(f"{REC}/file{n}", b"")
        await fs.drain()
        fs.parts.tree.memory.shrink()
        nodes = fs.parts.tree.nodes
        inos = [(await fs.node(f"{REC}/file{n}")).ino for n in range(40)]
        for ino in inos[:10]:
            nodes[ino].kernel_refs = 1
        fs.parts.tree.memory.shrink()
        assert set(inos[:10]) <= set(nodes)
        assert not set(inos[10:]) <= set(nodes)
        for ino in inos[:10]:
            fs.parts.tree.memory.forget(ino, 1)
        assert not set(inos[:5]) & set(nodes)


async def test_a_forgotten_node_stays_while_there_is_room(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", b"")
    await fs.drain()
    node = await fs.node(f"{REC}/file")
    node.kernel_refs = 2
    fs.parts.tree.memory.forget(node.ino, 1)
    assert node.kernel_refs == 1
    fs.parts.tree.memory.forget(node.ino, 5)
    assert node.kernel_refs == 0
    assert node.ino in fs.parts.tree.nodes


async def test_an_open_directory_unloaded_meanwhile_lists_what_came_since(place: Path) -> None:
    async with filesystem(place, catalogue={"cached_inodes": 1}) as fs:
        folder = (await fs.mkdirs(f"{REC}/dir")).ino
        await fs.drain()
        number = await fs.vfs.listings.open(folder)
        assert await fs.vfs.listings.read(number, 0) == []
        fs.parts.tree.memory.shrink()
        await fs.write(f"{REC}/dir/file", b"")
        assert [entry.name for entry in await fs.vfs.listings.read(number, 0)] == [b"file"]
        fs.vfs.listings.release(number)


# --- listings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_listing_neither_repeats_nor_skips_while_names_come_and_go(fs: Filesystem, loaded: bool) -> None:
    for n in range(60):
        await fs.write(f"{REC}/file{n:02}", b"")
    if not loaded:
        await fs.drain()
        await fs.stop()
        await fs.reopen()
    number = await fs.vfs.listings.open((await fs.node(REC)).ino)
    seen: list[bytes] = []
    after = 0
    removed = {10, 20, 30, 40, 50}
    while entries := await fs.vfs.listings.read(number, after):
        taken = entries[:7]  # as much as fits the kernel's buffer
        seen += [entry.name for entry in taken]
        after = taken[-1].ino
        if len(seen) == 14:
            for n in removed:
                await fs.unlink(f"{REC}/file{n}")
            await fs.write(f"{REC}/new", b"")
    fs.vfs.listings.release(number)
    assert len(seen) == len(set(seen))
    assert {b"file%02d" % n for n in range(60) if n not in removed} <= set(seen)
    assert b"file50" not in seen


async def test_a_removed_directory_lists_nothing(fs: Filesystem) -> None:
    folder = await fs.mkdirs(f"{REC}/dir")
    number = await fs.vfs.listings.open(folder.ino)
    await fs.rmdir(f"{REC}/dir")
    assert await fs.vfs.listings.read(number, 0) == []
    with pytest.raises(NotFound):
        await fs.vfs.files.create(folder, b"file", 0o644, OPERATOR)
    fs.vfs.listings.release(number)


async def test_views_are_listed_after_own_entries_and_once(fs: Filesystem) -> None:
    for name in ("a.png", "b.png", "c.png"):
        await fs.write(f"shared/thumbnails/{name}", b"shared")
    await fs.mkdirs("shared/thumbnails/dir")
    await fs.write("users/5/thumbnails/b.png", b"own")
    await fs.write("users/5/thumbnails/z.png", b"own")
    assert await fs.names("users/5/thumbnails") == ["a.png", "b.png", "c.png", "z.png"]
    assert await fs.read("users/5/thumbnails/b.png") == b"own"
    assert (await fs.node("users/5/thumbnails/a.png")).ino == (await fs.node("users/5/thumbnails/a.png")).ino
    await fs.unlink("users/5/thumbnails/a.png")
    await fs.unlink("users/5/thumbnails/b.png")
    assert await fs.names("users/5/thumbnails") == ["b.png", "c.png", "z.png"]
    assert await fs.read("users/5/thumbnails/b.png") == b"shared"
    await fs.write("shared/thumbnails/a.png", b"replaced")
    assert not await fs.exists("users/5/thumbnails/a.png")


async def test_numbers_of_views_are_the_same_after_a_restart(fs: Filesystem) -> None:
    for name in ("a.png", "b.png"):
        await fs.write(f"shared/thumbnails/{name}", b"shared")
    await fs.mkdirs("users/5")
    before = {name: (await fs.node(f"users/5/thumbnails/{name}")).ino for name in ("b.png", "a.png")}
    await fs.drain()
    await fs.crash()
    await fs.reopen()
    assert {name: (await fs.node(f"users/5/thumbnails/{name}")).ino for name in ("a.png", "b.png")} == before
    await fs.unlink("users/5/thumbnails/a.png")
    await fs.drain()
    await fs.stop()
    await fs.reopen()
    assert await fs.names("users/5/thumbnails") == ["b.png"]


# --- renames ------------------------------------------------------------------------------------------------------


async def test_what_a_rename_refuses(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", b"")
    await fs.write(f"{REC}/full/file", b"")
    await fs.mkdirs(f"{REC}/empty/sub")
    refused = [
        (f"{REC}/none", f"{REC}/x", {}, NotFound),
        (f"{REC}/file", f"{REC}/empty", {}, IsADirectory),
        (f"{REC}/empty", f"{REC}/file", {}, NotADirectory),
        (f"{REC}/empty", f"{REC}/full", {}, NotEmpty),
        (f"{REC}/empty", f"{REC}/empty/sub/x", {}, InvalidArgument),
        (f"{REC}/file", f"{REC}/full/file", {"noreplace": True}, Exists),
        (f"{REC}/file", f"{REC}/none", {"exchange": True}, NotFound),
        (f"{REC}/empty", f"{REC}/empty/sub", {"exchange": True}, InvalidArgument),
        (f"{REC}/file", f"{REC}/full/file", {"exchange": True, "noreplace": True}, InvalidArgument),
        (f"{REC}/file", "users/5/file", {}, InvalidPath),
        (f"{REC}/empty", "users/5/recordings/name", {}, InvalidPath),
        ("users/5", "users/5/recordings/1", {}, InvalidPath),
        ("users/5/thumbnails", "users/6/thumbnails", {}, (InvalidPath, NotFound)),
        ("users", "shared/users", {}, (InvalidPath, Busy)),
        ("shared", "users/9", {}, (InvalidPath, Busy)),
    ]
    before = await fs.tree()
    counted = fs.account()
    for old, new, flags, error in refused:
        with pytest.raises(error):
            await fs.rename(old, new, **flags)
    assert await fs.tree() == before
    assert fs.account() == counted


async def test_a_user_is_renamed_with_all_charges(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", bytes(100))
    await fs.write("temp/5/1/file", bytes(11))
    await fs.drain()
    await fs.rename("users/5", "users/55")
    assert (fs.account("5"), fs.account("55")) == ((11, 1), (100, 1))
    await fs.write("users/55/recordings/142/more", bytes(5))
    assert fs.account("55") == (105, 2)
    await fs.mkdirs("users/7")
    await fs.rename("users/7", "users/55", exchange=True)
    assert (fs.account("7"), fs.account("55")) == ((105, 2), (0, 0))


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_directory_moved_unloaded_takes_its_charge_along(fs: Filesystem, loaded: bool) -> None:
    await fs.write(f"{REC}/sub/file", bytes(100))
    await fs.mkdirs("users/6/recordings")
    await fs.drain()
    if not loaded:
        await fs.stop()
        await fs.reopen()
    await fs.rename(REC, OTHER)
    await fs.mkdirs("users/5")
    assert (fs.account("5"), fs.account("6")) == ((0, 0), (100, 1))
    await fs.write(f"{OTHER}/sub/file", bytes(50))
    assert fs.account("6") == (50, 1)


async def test_a_file_moved_while_it_is_written_charges_its_new_owner(fs: Filesystem) -> None:
    await fs.mkdirs(OTHER)
    await fs.mkdirs(REC)
    number = await fs.open(f"{REC}/file", os.O_CREAT | os.O_WRONLY)
    await fs.vfs.files.write(number, 0, bytes(100))
    await fs.rename(f"{REC}/file", f"{OTHER}/file")
    await fs.vfs.files.write(number, 100, bytes(50))
    assert (fs.account("5"), fs.account("6")) == ((0, 0), (150, 1))
    await fs.close(number)


async def test_a_job_keeps_its_clock_through_renames(fs: Filesystem) -> None:
    await fs.write("temp/5/1/file", b"bytes")
    await fs.drain()
    fs.clock.advance(100)
    await fs.write(f"{REC}/file", b"bytes")
    await fs.rename(REC, "temp/5/2")
    await fs.rename("temp/5/1", f"{REC}")
    await fs.drain()
    assert [row.name for row in await fs.parts.catalogue.jobs(1 << 62)] == [b"2"]
    job = await fs.node("temp/5/2")
    assert isinstance(job, DirNode)
    assert job.activity_ns == fs.clock.ns
    file = await fs.node("temp/5/2/file")
    assert isinstance(file, FileNode)
    assert file.parent.job is job


async def test_concurrent_work_on_one_name_ends_in_one_of_the_orders(fs: Filesystem) -> None:
    await fs.write(f"{REC}/a", b"a")
    await fs.write(f"{REC}/b", b"b")
    await fs.drain()

    async def quietly(work: object) -> None:
        try:
            await work  # type: ignore[misc]
        except RecfsError:
            pass

    for _ in range(10):
        async with trio.open_nursery() as nursery:
            for work in (
                fs.write(f"{REC}/a", b"aa"),
                fs.rename(f"{REC}/b", f"{REC}/a"),
                fs.rename(f"{REC}/a", f"{REC}/b"),
                fs.unlink(f"{REC}/a"),
                fs.write(f"{REC}/b", b"bb", append=True),
                fs.rename(f"{REC}/a", f"{REC}/b", exchange=True),
                fs.drain(),
            ):
                nursery.start_soon(quietly, work)
        fs.parts.tree.check_invariants()
        await fs.assert_consistent()


# --- rows that are outdated when they arrive ------------------------------------------------------------------------


class _LateRows:
    """Holds back what the catalogue's *method* read, so that something can happen between."""

    def __init__(self, fs: Filesystem, method: str) -> None:
        self.read, self.go_on = trio.Event(), trio.Event()
        self._inner = getattr(fs.parts.catalogue, method)
        setattr(fs.parts.catalogue, method, self)

    async def __call__(self, *args: Any, **options: Any) -> Any:
        rows = await self._inner(*args, **options)
        self.read.set()
        await self.go_on.wait()
        return rows


@pytest.mark.parametrize("flushed", [False, True], ids=["removal pending", "removal written"])
@pytest.mark.parametrize("by", ["child", "node", "children"])
@pytest.mark.table(2)
async def test_a_row_read_before_the_removal_does_not_bring_the_file_back(place: Path, by: str, flushed: bool) -> None:
    async with filesystem(place) as fs:
        await fs.write(f"{REC}/file", b"bytes")
        await fs.write(f"{REC}/other", b"bytes")
        await fs.drain()
        await fs.reopen()
        folder = await fs.mkdirs(REC)
        ino = fs.rows("SELECT ino FROM node WHERE name = ?", b"file")[0]
        late = _LateRows(fs, by)
        found: list[object] = []

        async def look() -> None:
            if by == "child":
                found.append(await fs.vfs.tree.child(folder, b"file"))
            elif by == "node":
                with pytest.raises(Stale):
                    await fs.vfs.tree.get(ino)
            else:
                found.extend(entry.name for entry in await fs.vfs.tree.page(folder, 0, 100))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await late.read.wait()
            setattr(fs.parts.catalogue, by, late._inner)
            await fs.unlink(f"{REC}/file")
            if flushed:
                await fs.vfs.behind.flush()
            late.go_on.set()
        assert found == {"child": [None], "node": [], "children": [b"other"]}[by]
        assert not await fs.exists(f"{REC}/file")
        await fs.assert_consistent()


async def test_a_page_read_before_a_move_does_not_name_the_file_twice(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.write(f"{REC}/file", b"bytes")
        await fs.mkdirs(OTHER)
        await fs.drain()
        await fs.reopen()
        folder = await fs.mkdirs(REC)
        late = _LateRows(fs, "children")
        found: list[bytes] = []

        async def look() -> None:
            found.extend(entry.name for entry in await fs.vfs.tree.page(folder, 0, 100))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await late.read.wait()
            fs.parts.catalogue.children = late._inner
            await fs.rename(f"{REC}/file", f"{OTHER}/file")
            late.go_on.set()
        assert found == []


async def test_open_directories_keep_a_bounded_number_of_entries(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each handle sees its directory in order, once and whole, though others made it forget what it had read."""
    monkeypatch.setattr(listing, "KEPT_ENTRIES", 50)
    monkeypatch.setattr(listing, "PAGE_ROWS", 4)
    names = [f"file{number}" for number in range(20)]
    for name in names:
        await fs.write(f"{REC}/{name}", b"x")
    listings, ino = fs.vfs.listings, (await fs.vfs.at(REC)).ino
    seen: dict[int, list[bytes]] = {await listings.open(ino): [] for _ in range(10)}
    last = dict.fromkeys(seen, 0)
    while last:
        for number in list(last):
            entries = await listings.read(number, last[number])
            seen[number] += [entry.name for entry in entries]
            if entries:
                last[number] = entries[-1].ino
            else:
                del last[number]
            assert sum(each.weight for each in listings.open_dirs.values()) <= 50 + 20
    assert all(found == [name.encode() for name in names] for found in seen.values())
    for number in seen:
        listings.release(number)
    assert listings._kept == 0
