"""What one user may leave in the trash beside bytes, and what it takes of memory and of the catalogue."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recfs.config import Config
from recfs.core.layout import PATH_MAX_BYTES, is_cut, kept_path
from recfs.core.upkeep.in_trash import ENTRY_BYTES
from recfs.disk.packing import packed
from recfs.errors import Stale
from recfs.fs.attributes import Changes
from recfs.fs.trash import trash as trash_module
from recfs.state.nodes import DirNode, Garbage

from .build import OPERATOR, REC, Filesystem, filesystem
from .test_trash import KEEPS, ask, kept, listed
from .test_trash_names import attribute

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
SMALL = {"trash": {**KEEPS["trash"], "max_metadata": MIB}}
VALUE = os.urandom(60_000)


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """One whose trash keeps 1 MiB beside bytes for each user."""
    async with filesystem(place / "root", **SMALL) as made:
        yield made


async def left(fs: Filesystem, path: str, value: bytes = VALUE, data: bytes = b"") -> None:
    """A file with an attribute that is made, and removed."""
    await fs.write(path, data)
    await attribute(fs, path, b"user.large", value)
    await fs.unlink(path)


def remembered(fs: Filesystem) -> int:
    """Bytes that the index of the trash holds in memory for its rows."""
    rows = fs.parts.work.upkeep.trash._index.rows.values()
    return sum(len(each) for row in rows for each in row if isinstance(each, bytes))


def in_catalogue(fs: Filesystem) -> int:
    return int(fs.rows("select coalesce(sum(length(xattrs)), 0) from trash_entry")[0])


@pytest.mark.parametrize("data", [b"", b"bytes"], ids=["row", "beside-bytes"])
@pytest.mark.parametrize("restart", [False, True])
async def test_attributes_of_removed_files_are_in_the_catalogue_alone(
    fs: Filesystem, data: bytes, restart: bool
) -> None:
    await fs.mkdirs(REC)
    for number in range(8):
        await left(fs, f"{REC}/{number}", VALUE + b"%d" % number, data)
    await fs.drain()
    if restart:
        await fs.stop()
        await fs.reopen()
    assert in_catalogue(fs) > 8 * len(VALUE)
    assert remembered(fs) < len(VALUE)
    held = [each for each in fs.parts.tree.garbage.values() if isinstance(each, Garbage)]
    assert all(not isinstance(getattr(each, slot), (tuple, dict)) for each in held for slot in ("beside", "path"))
    assert await kept(fs, ids=[each["number"] for each in await listed(fs)]) == {}
    for number in range(8):
        assert await attribute(fs, f"{REC}/{number}", b"user.large") == VALUE + b"%d" % number
    await fs.drain()
    assert fs.rows("select count(*) from trash_entry") == [0]


@pytest.mark.parametrize("data", [b"", b"bytes"], ids=["row", "beside-bytes"])
async def test_what_was_deleted_first_makes_room(fs: Filesystem, data: bytes) -> None:
    await fs.mkdirs(REC)
    for number in range(40):
        await left(fs, f"{REC}/{number}", data=data)
    await fs.drain()
    paths = [each["path"] for each in await listed(fs)]
    assert paths == [f"{REC}/{number}" for number in range(40 - len(paths), 40)]
    assert len(paths) == MIB // (ENTRY_BYTES + len(VALUE) + len(f"{REC}/10") + len(packed({b"user.large": b""})))
    assert in_catalogue(fs) <= MIB
    assert len(os.listdir(fs.root / ".recfs/trash")) == (len(paths) if data else 0)
    assert fs.account() == (0, 0)


async def test_each_user_has_a_share_of_their_own(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    await fs.mkdirs("users/6/recordings/1")
    await left(fs, "users/6/recordings/1/first")
    for number in range(40):
        await left(fs, f"{REC}/{number}")
    assert [each["path"] for each in await listed(fs, user="6")] == ["users/6/recordings/1/first"]


async def test_directories_and_links_have_their_bound_too(fs: Filesystem) -> None:
    folder = await fs.mkdirs(REC)
    for number in range(600):
        await fs.vfs.symlink(folder.ino, b"link", b"x" * 4000, OPERATOR)
        await fs.unlink(f"{REC}/link")
        if number % 2:
            await attribute(fs, (await fs.mkdirs(f"{REC}/sub")).path, b"user.of", b"x" * 3000)
            await fs.rmdir(f"{REC}/sub")
    entries = await listed(fs)
    assert 200 < len(entries) < 240
    assert {each["kind"] for each in entries} == {"dir", "symlink"}
    assert remembered(fs) < MIB
    await fs.drain()
    (targets,) = fs.rows("select sum(length(xattrs) + coalesce(length(target), 0)) from trash_entry")
    assert targets < MIB


async def test_a_smaller_share_is_made_room_for_at_the_next_start(place: Path) -> None:
    async with filesystem(place / "root", **KEEPS) as fs:
        await fs.mkdirs(REC)
        for number in range(40):
            await left(fs, f"{REC}/{number}", data=b"bytes" if number % 2 else b"")
        assert len(await listed(fs)) == 40
        await fs.drain()
        await fs.stop()
        fs.config = Config.model_validate({"root": fs.root, "min_free": 0, **SMALL})
        await fs.reopen()
        entries = await listed(fs)
        assert [each["path"] for each in entries] == [f"{REC}/{number}" for number in range(40 - len(entries), 40)]
        assert len(entries) == 17
        await fs.drain()
        assert in_catalogue(fs) < MIB


async def test_a_version_that_is_being_brought_back_makes_no_room(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    await left(fs, f"{REC}/old", data=b"bytes")
    (entry,) = await listed(fs)
    trash = fs.parts.work.upkeep.trash
    trash._returning.taken.add(entry["number"])
    for number in range(40):
        await left(fs, f"{REC}/{number}")
    trash._returning.taken.discard(entry["number"])
    assert await kept(fs, ids=[entry["number"]]) == {}
    assert await attribute(fs, f"{REC}/old", b"user.large") == VALUE
    assert await fs.read(f"{REC}/old") == b"bytes"


async def test_what_is_written_after_the_removal_takes_no_room_away_from_the_bound(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    for _ in range(40):
        await written_on(fs, f"{REC}/file", b"more")
    await fs.drain()
    assert len(await listed(fs)) == 17
    assert MIB - len(VALUE) - 2 * ENTRY_BYTES < in_catalogue(fs) <= MIB
    assert len(os.listdir(fs.root / ".recfs/trash")) == 17


@pytest.mark.parametrize("data", [b"more", b""], ids=["longer", "emptied"])
async def test_what_is_written_after_the_removal_leaves_the_charge_for_attributes(place: Path, data: bytes) -> None:
    async with filesystem(place / "root", trash={**KEEPS["trash"], "charged": True}) as fs:
        await fs.mkdirs(REC)
        await written_on(fs, f"{REC}/file", data)
        account = await fs.parts.tree.accounts.load("5")
        assert account.charged_bytes == len(data) + len(packed({b"user.large": VALUE}))


async def test_attributes_make_room_though_their_files_are_still_open(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    opened = []
    for number in range(40):
        opened.append(await fs.open(f"{REC}/{number}", os.O_RDWR | os.O_CREAT))
        await fs.vfs.files.write(opened[-1], 0, b"x")
        await attribute(fs, f"{REC}/{number}", b"user.large", VALUE)
        await fs.unlink(f"{REC}/{number}")
    await fs.parts.behind.flush()
    assert len(VALUE) < in_catalogue(fs) <= MIB
    for number in opened:
        assert await fs.read_handle(number) == b"x"
        await fs.vfs.files.write(number, 1, b"y")
        await fs.close(number)
    await fs.drain()
    assert [each["path"] for each in await listed(fs)] == [f"{REC}/{number}" for number in range(23, 40)]
    assert fs.rows("select count(*) from garbage") == fs.rows("select count(*) from trash_entry") == [17]
    assert len(os.listdir(fs.root / ".recfs/trash")) == 17


async def written_on(fs: Filesystem, path: str, data: bytes) -> None:
    """A file with an attribute that is removed while it is open, and has other bytes when it is closed."""
    number = await fs.open(path, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"x")
    await attribute(fs, path, b"user.large", VALUE)
    await fs.unlink(path)
    if data:
        await fs.vfs.files.write(number, 0, data)
    else:
        await fs.vfs.setattr(fs.vfs.files.handles[number].node.ino, Changes(size=0), OPERATOR)
    await fs.close(number)


async def replaced(fs: Filesystem, count: int) -> list[int]:
    """So many files with an attribute, each replaced by one that is open for writing: those that are open."""
    opened = []
    for number in range(count):
        path = f"{REC}/{number}"
        await fs.write(path, b"first")
        await attribute(fs, path, b"user.large", VALUE)
        opened.append(await fs.open(f"{REC}/new", os.O_WRONLY | os.O_CREAT))
        await fs.vfs.files.write(opened[-1], 0, b"second")
        await fs.rename(f"{REC}/new", path)
    return opened


@pytest.mark.parametrize("removed", [True, False], ids=["removed", "closed"])
async def test_what_an_unfinished_file_holds_counts_and_makes_room_when_it_is_released(
    fs: Filesystem, removed: bool
) -> None:
    await fs.mkdirs(REC)
    opened = await replaced(fs, 40)
    await fs.parts.behind.flush()
    assert in_catalogue(fs) > 40 * len(VALUE)
    await left(fs, f"{REC}/first")
    await left(fs, f"{REC}/second")
    assert [each["path"] for each in await listed(fs)] == [f"{REC}/second"]  # all that could make room
    for number in range(40):
        if removed:
            await fs.unlink(f"{REC}/{number}")
        await fs.close(opened[number])
    await fs.drain()
    assert in_catalogue(fs) <= MIB
    assert fs.rows("select count(*) from garbage") == [len(os.listdir(fs.root / ".recfs/trash"))]
    (count,) = fs.rows("select count(*) from trash_entry")
    assert 10 < count <= 17


async def test_the_bound_holds_whatever_the_sizes_are(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    for number in range(950):
        await fs.write(f"{REC}/small{number}", b"")
        await fs.unlink(f"{REC}/small{number}")
    for number in range(30):
        await fs.write(f"{REC}/{number}", b"")
        await attribute(fs, f"{REC}/{number}", b"user.other", VALUE)
        await left(fs, f"{REC}/{number}")
        metadata = sum(ENTRY_BYTES + len(row.path) for row in fs.parts.work.upkeep.trash._index.rows.values())
        await fs.parts.behind.flush()
        assert in_catalogue(fs) + metadata <= MIB
    await fs.drain()
    assert [each["path"] for each in await listed(fs)] == [f"{REC}/{number}" for number in range(22, 30)]


async def test_a_version_that_could_not_be_brought_back_makes_room_then(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fs.mkdirs(REC)
    await left(fs, f"{REC}/old", data=b"bytes")
    await fs.drain()
    (entry,) = await listed(fs)
    returning = fs.parts.work.upkeep.trash._returning

    async def overtaken(*args: Any, **options: Any) -> None:
        for number in range(40):
            await left(fs, f"{REC}/{number}")
        raise Stale("its bytes are gone")

    monkeypatch.setattr(returning, "_enter_as", overtaken)
    assert await kept(fs, ids=[entry["number"]]) == {f"{REC}/old": "its bytes are gone"}
    assert [each["path"] for each in await listed(fs)] == [f"{REC}/old", *(f"{REC}/{n}" for n in range(24, 40))]
    await left(fs, f"{REC}/40")
    await fs.drain()
    assert [each["path"] for each in await listed(fs)] == [f"{REC}/{number}" for number in range(24, 41)]
    assert fs.rows("select count(*) from garbage") == [0]
    assert in_catalogue(fs) <= MIB


async def test_attributes_and_targets_are_charged_where_the_trash_is(place: Path) -> None:
    settings = {"trash": {**KEEPS["trash"], "charged": True}}
    async with filesystem(place / "root", **settings) as fs:
        folder = await fs.mkdirs(REC)
        await left(fs, f"{REC}/file", data=b"bytes")
        await fs.vfs.symlink(folder.ino, b"link", b"../target", OPERATOR)
        await fs.unlink(f"{REC}/link")
        size = 5 + len(packed({b"user.large": VALUE})) + len(b"../target")
        for _ in range(2):
            await fs.drain()
            account = await fs.parts.tree.accounts.load("5")
            assert account.charged_bytes == size
            await fs.stop()
            await fs.reopen()
        await ask(fs, "trash_purge", all=True)
        await fs.drain()
        assert (await fs.parts.tree.accounts.load("5")).charged_bytes == 0


# --- deep trees ------------------------------------------------------------------------------------------------------


def test_a_path_is_kept_in_4095_bytes_or_cut() -> None:
    assert kept_path([b"a", b"b"]) == b"a/b"
    assert kept_path([]) == b""
    exact = [b"x" * 255] * 15 + [b"y" * 255]
    assert kept_path(exact) == b"/".join(exact)
    assert len(kept_path(exact)) == PATH_MAX_BYTES
    assert not is_cut(kept_path(exact))
    for more in ([b"z"], [b"z" * 255] * 1000):
        cut = kept_path(exact + more)
        assert is_cut(cut)
        assert len(cut) <= PATH_MAX_BYTES
        assert b"/".join(exact + more).startswith(cut)
    assert kept_path([b"x" * 254] * 17) == b"/".join([b"x" * 254] * 16) + b"/"


async def deep(fs: Filesystem, depth: int) -> list[DirNode]:
    """A tree of one directory in another, deeper than a path may say."""
    folders = [await fs.mkdirs(REC)]
    for _ in range(depth):
        folders.append(await fs.vfs.mkdir(folders[-1].ino, b"d" * 250, 0o755, OPERATOR))
    return folders


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_deep_tree_takes_room_by_what_it_holds(place: Path, keeps: bool) -> None:
    """Each row of what is removed has a path of 4 KiB at most, however deep it was."""
    async with filesystem(place / "root", **(KEEPS if keeps else {})) as fs:
        folders = await deep(fs, 60)
        await fs.vfs.symlink(folders[-1].ino, b"link", b"target", OPERATOR)
        await fs.drain()
        await fs.vfs.unlink(folders[-1].ino, b"link", OPERATOR)
        for folder in reversed(folders[:-1]):
            await fs.vfs.rmdir(folder.ino, b"d" * 250, OPERATOR)
        paths = [each.path for each in fs.parts.tree.garbage.values()]
        assert len(paths) == 61
        assert max(map(len, paths)) <= PATH_MAX_BYTES
        entries = await listed(fs)
        assert [len(each["path"]) for each in entries] == [
            len(REC) + 251 * depth for depth in range(16, 0, -1) if keeps
        ]
        await fs.drain()
        assert not list((fs.root / REC).iterdir())
        for table in ("event", "garbage", "trash_entry"):
            (longest,) = fs.rows(f"select coalesce(max(length(path)), 0) from {table}")
            assert longest <= PATH_MAX_BYTES, table
        assert fs.rows("select count(*) from event where length(path) > 4000 and substr(path, -1) = x'2f'") != [0]
        if keeps:
            assert await kept(fs, path=REC) == {}
            assert len(await deep_names(fs)) == 16
        await fs.assert_consistent(trash=0)


async def deep_names(fs: Filesystem) -> list[bytes]:
    names, folder = [], await fs.node(REC)
    while isinstance(folder, DirNode) and folder.children:
        (name,) = folder.children
        names.append(name)
        below = await fs.parts.tree.child(folder, name)
        assert below is not None
        folder = below
    return names


async def test_a_file_too_deep_for_a_path_comes_back_to_another(fs: Filesystem) -> None:
    folders = await deep(fs, 20)
    for name in (b"one", b"two"):
        number, _ = await fs.vfs.create(folders[-1].ino, name, 0o644, os.O_WRONLY, OPERATOR)
        await fs.vfs.files.write(number, 0, name)
        await fs.close(number)
        await fs.drain()
        await fs.vfs.unlink(folders[-1].ino, name, OPERATOR)
    one, two = await listed(fs)
    assert one["path"].endswith("/")
    assert one["path"] == two["path"]
    reason = "it lay deeper than a path may tell; `recfs trash restore NUMBER --to PATH` has it back"
    assert await kept(fs, path=REC) == {one["path"]: reason}
    assert (await ask(fs, "trash_restore", path=REC))["kept_files"] == 2
    assert await kept(fs, ids=[two["number"]], to=f"{REC}/back") == {}
    assert await fs.read(f"{REC}/back") == b"two"


# --- pages -----------------------------------------------------------------------------------------------------------


@contextmanager
def small_pages(monkeypatch: pytest.MonkeyPatch, entries: int, path_bytes: int) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(trash_module.Trash.page, "__defaults__", (0, entries))
        patched.setattr(trash_module, "PAGE_BYTES", path_bytes)
        yield


async def in_pages(fs: Filesystem, **params: Any) -> list[list[dict[str, Any]]]:
    pages, after = [], 0
    while after is not None:
        told = await ask(fs, "trash_list", after=after, **params)
        pages.append(told["entries"])
        after = told.get("next")
    return pages


@pytest.mark.parametrize(("entries", "path_bytes"), [(7, 1 << 20), (500, 100)])
async def test_a_list_comes_in_pages(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, entries: int, path_bytes: int
) -> None:
    await fs.mkdirs(REC)
    for number in range(30):
        await fs.write(f"{REC}/{number}", b"x" if number % 3 else b"")
        await fs.unlink(f"{REC}/{number}")
    (all_of_them,) = await in_pages(fs)
    assert [each["path"] for each in all_of_them] == [f"{REC}/{number}" for number in range(30)]
    with small_pages(monkeypatch, entries, path_bytes):
        pages = await in_pages(fs)
        assert len(pages) > 3
        assert max(map(len, pages)) <= 7
        found = [each["number"] for page in pages for each in page]
        assert found == [each["number"] for each in all_of_them]
        assert [each["path"] for page in await in_pages(fs, path=f"{REC}/17") for each in page] == [f"{REC}/17"]
        result = await ask(fs, "trash_purge", all=True)
        assert result["files"] == 30
    assert await in_pages(fs) == [[]]
