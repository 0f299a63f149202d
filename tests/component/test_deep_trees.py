"""Trees deeper, and paths longer, than a system call or nested calls take; and what else may stand in a store."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from recfs.disk.staging import ELSEWHERE, Label
from recfs.errors import StoreError
from recfs.fs.attributes import Changes
from recfs.state.nodes import DirNode
from recfs.stores.local import LocalStore
from recfs.stores.steps import Attrs, Step, StepKind

from .build import OPERATOR, REC, Filesystem, filesystem

LONG = "d" * 200
DEEP = "/".join([REC, *[LONG] * 30])
"""A path of 6,000 bytes."""


async def dig(fs: Filesystem, top: str, depth: int, name: bytes = b"d") -> DirNode:
    """mkdir, chdir, mkdir, …: a chain of directories below *top*; the lowest."""
    here = await fs.mkdirs(top)
    for _ in range(depth):
        here = await fs.vfs.mkdir(here.ino, name, 0o755, OPERATOR)
    return here


# --- long paths ---------------------------------------------------------------------------------------------------


async def test_a_path_longer_than_path_max_is_settled_read_renamed_and_removed(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.write(f"{DEEP}/file", b"hello")
        deep = await fs.node(DEEP)
        await fs.vfs.symlink(deep.ino, b"link", b"file", OPERATOR)
        await fs.drain()
        assert fs.parts.publisher.problem is None
        file = await fs.node(f"{DEEP}/file")
        assert (await fs.state(f"{DEEP}/file"), file.staging, file.pending) == ("committed", None, 0)
        assert fs.parts.store.stat(fs.parts.store.home(os.fsencode(f"{DEEP}/file").split(b"/"))) is not None
        assert await fs.read(f"{DEEP}/file") == b"hello"
        await fs.write(f"{DEEP}/file", b" world", append=True)
        await fs.drain()
        await fs.reopen()
        assert await fs.read(f"{DEEP}/file") == b"hello world"
        other = "/".join([REC, "other", *["e" * 250] * 10])
        await fs.mkdirs(other)
        await fs.rename(f"{REC}/{LONG}", f"{other}/moved")
        await fs.drain()
        moved = "/".join([other, "moved", *[LONG] * 29])
        assert await fs.read(f"{moved}/file") == b"hello world"
        assert await fs.vfs.trees.remove(await fs.node(f"{REC}/other")) == 2
        await fs.drain()
        assert os.listdir(fs.root / REC) == []
        await fs.assert_consistent()


@pytest.mark.parametrize("killed", [False, True])
async def test_a_store_with_long_paths_can_be_taken_into_use_again(place: Path, killed: bool) -> None:
    async with filesystem(place, services=False) as fs:
        await fs.write(f"{DEEP}/file", b"hello")
        await fs.parts.behind.flush()
        await (fs.crash() if killed else fs.stop())
        await fs.reopen()
        await fs.drain()
        assert await fs.read(f"{DEEP}/file") == b"hello"
        await fs.assert_consistent()


async def test_a_file_with_a_long_path_is_adopted_by_its_directory(place: Path) -> None:
    async with filesystem(place) as fs:
        deep = await fs.mkdirs(DEEP)
        await fs.drain()
        number, node = await fs.vfs.create(deep.ino, b"file", 0o644, os.O_WRONLY, OPERATOR)
        await fs.vfs.files.write(number, 0, b"hello")
        label = Label.decode(os.getxattr(node.body.fd, "user.recfs.label"))
        assert (label.parent, label.path) == (deep.ino, ELSEWHERE + b"file")
        await fs.close(number)
        await fs.crash()  # before the row was written
        await fs.reopen()
        await fs.drain()
        assert await fs.read(f"{DEEP}/file") == b"hello"
        await fs.assert_consistent()


async def test_a_label_that_the_file_system_finds_too_long_is_cut(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setxattr = os.setxattr

    def small(fd: int, name: str, value: bytes) -> None:
        if len(value) > 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        setxattr(fd, name, value)

    async with filesystem(place) as fs:
        folder = await fs.mkdirs(f"{REC}/{LONG}")
        monkeypatch.setattr(os, "setxattr", small)
        number, node = await fs.vfs.create(folder.ino, b"file", 0o644, os.O_WRONLY, OPERATOR)
        assert Label.decode(os.getxattr(node.body.fd, "user.recfs.label")).path == ELSEWHERE + b"file"
        await fs.close(number)
        await fs.assert_consistent()


@pytest.mark.expect_log("cannot be adopted")
async def test_a_long_path_whose_directory_is_lost_goes_to_lost_and_found(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.stop()
        stray = fs.root / ".recfs/staging/stray-1"
        stray.write_bytes(b"bytes")
        os.setxattr(stray, "user.recfs.label", Label(99, 98, 0o644, 0, 0, 5, ELSEWHERE + b"file").encode())
        await fs.reopen()
        assert fs.leftovers("lost+found") == ["staging-stray-1"]


# --- deep trees ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_tree_deeper_than_calls_nest(place: Path) -> None:
    depth = 1500
    async with filesystem(place) as fs:
        lowest = await dig(fs, "temp/5/1", depth)
        number, _ = await fs.vfs.create(lowest.ino, b"f", 0o644, os.O_WRONLY, OPERATOR)
        await fs.close(number)
        await fs.drain()
        await fs.crash()
        await fs.reopen()
        found = await fs.parts.tree.get(lowest.ino)  # nothing above it is loaded
        assert len(found.parts()) == depth + 3
        other = await dig(fs, "temp/5/2", 500, b"e")
        await fs.vfs.rename((await fs.node("temp/5/1")).ino, b"d", other.ino, b"d", OPERATOR)
        await fs.drain()
        assert len(found.parts()) == depth + 503
        await fs.vfs.setattr(lowest.ino, Changes(mode=0o700), OPERATOR)
        await fs.crash()
        await fs.reopen()
        fs.clock.advance(30 * 86_400)
        swept = await fs.parts.work.upkeep.sweeper.sweep_temp(dry_run=False)
        assert sorted(job["action"] for job in swept) == ["expired", "expired"]
        await fs.drain()
        assert os.listdir(fs.root / "temp/5") == []
        await fs.assert_consistent()


@pytest.mark.slow
async def test_a_deep_tree_makes_room_for_a_new_one_at_once(place: Path) -> None:
    async with filesystem(place, services=False) as fs:
        await dig(fs, f"{REC}/x", 1200)
        async with settling(fs):
            await fs.drain()
        await fs.vfs.trees.remove(await fs.node(f"{REC}/x"))
        await fs.mkdirs(f"{REC}/x")  # nothing of the old one is gone from disk yet, and all of it stands in the way
        async with settling(fs):
            await fs.assert_consistent()


@pytest.mark.slow
async def test_names_that_move_on_one_by_one_are_settled_in_any_order(place: Path) -> None:
    """Each waits for the next to make room: planning goes as deep as there are names."""
    count = 1200
    async with filesystem(place, services=False) as fs:
        folder = await fs.mkdirs(REC)
        for n in range(count):
            await fs.vfs.symlink(folder.ino, b"%d" % n, b"%d" % n, OPERATOR)
        async with settling(fs):
            await fs.drain()
        for n in reversed(range(count)):
            await fs.parts.vfs.names.rename(folder, b"%d" % n, folder, b"%d" % (n + 1), OPERATOR, noreplace=True)
        await fs.parts.behind.flush()
        await fs.crash()
        await fs.reopen()  # which looks at what is unsettled in order of inode number
        await fs.drain()
        assert os.readlink(fs.root / REC / f"{count}") == f"{count - 1}"
        await fs.assert_consistent()


@contextlib.asynccontextmanager
async def settling(fs: Filesystem) -> AsyncIterator[None]:
    """The services, for the length of a block."""
    async with trio.open_nursery() as nursery:
        await fs.parts.serve(nursery)
        yield
        nursery.cancel_scope.cancel()


# --- what else may stand in a store -------------------------------------------------------------------------------


def oddities(folder: Path) -> None:
    """One of everything that a directory can hold, under names that are and are not UTF-8."""
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "fifo")
    os.symlink("loop", folder / "loop")
    os.symlink("/nowhere", folder / "dangling")
    os.symlink(folder, folder / "up")
    (folder / os.fsdecode(b"\xff\xfe name")).write_bytes(b"x")
    (folder / "unreadable").mkdir(mode=0)
    (folder / ("n" * 200)).write_bytes(b"")
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.open(folder, os.O_PATH)
        sock.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):
            os.mknod(folder / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))


@pytest.mark.expect_log("left alone")
async def test_a_store_that_holds_anything_at_all_is_taken_into_use(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.write(f"{REC}/file", b"hello")
        await fs.drain()
        await fs.stop()
        oddities(fs.root / "users/5/recordings/odd")
        oddities(fs.root / "shared/odd")
        oddities(fs.root / ".recfs/staging")
        oddities(fs.root / ".recfs/trash")
        oddities(fs.root / ".recfs/limbo")
        oddities(fs.root / ".recfs/lost+found")
        (fs.root / ".recfs/staging/0-1").mkdir()
        before = sorted(os.listdir(fs.root / ".recfs/trash"))
        await fs.reopen()
        assert await fs.read(f"{REC}/file") == b"hello"
        await fs.write(f"{REC}/other", b"world")
        await fs.drain()
        assert sorted(os.listdir(fs.root / ".recfs/trash")) == before
        assert {"0-1", "fifo", "loop", "socket"} <= set(os.listdir(fs.root / ".recfs/staging"))
        problems = (await fs.answers()["status"]({}))["problems"]
        assert any("staging/0-1" in problem for problem in problems)
        fs.checked_at_end = False


@pytest.mark.expect_log("was no directory")
@pytest.mark.parametrize("where", [".recfs/trash", ".recfs/staging", ".recfs/limbo", ".recfs/lost+found", "temp"])
async def test_a_file_in_the_place_of_a_directory_of_the_store_is_kept_aside(place: Path, where: str) -> None:
    async with filesystem(place) as fs:
        await fs.write(f"{REC}/file", b"hello")
        await fs.drain()
        await fs.stop()
        os.rename(fs.root / where, place / "away")
        (fs.root / where).write_bytes(b"somebody's")
        await fs.reopen()
        assert (fs.root / where).is_dir()
        kept = [path for path in (fs.root / ".recfs").iterdir() if path.name.startswith("foreign-")]
        assert [path.read_bytes() for path in kept] == [b"somebody's"]
        assert any("foreign-" in problem for problem in (await fs.answers()["status"]({}))["problems"])
        assert await fs.read(f"{REC}/file") == b"hello"


def test_a_link_in_the_place_of_a_directory_of_the_store_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "root")
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root/users").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        store.open()
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("what", ["file", "fifo", "link", "loop"])
@pytest.mark.expect_log("kept as lost")
async def test_what_stands_in_the_place_of_a_directory_gives_way(place: Path, what: str) -> None:
    async with filesystem(place) as fs:
        await fs.mkdirs(f"{REC}")
        await fs.drain()
        below = fs.root / REC / "sub"
        make = {
            "file": lambda: below.write_bytes(b"x"), "fifo": lambda: os.mkfifo(below),
            "link": lambda: below.symlink_to(place), "loop": lambda: below.symlink_to("sub"),
        }  # fmt: skip
        make[what]()
        await fs.write(f"{REC}/sub/file", b"hello")
        await fs.drain()
        assert below.is_dir()
        assert not below.is_symlink()
        assert await fs.read(f"{REC}/sub/file") == b"hello"
        assert len(fs.leftovers("lost+found")) == 1
        await fs.assert_consistent(lost=1)


@pytest.mark.expect_log(r"home tree: .*(Not a directory|symbolic links)")
@pytest.mark.expect_log("kept as lost")
@pytest.mark.parametrize("what", ["file", "link"])
async def test_a_directory_replaced_past_recfs_is_made_again(place: Path, what: str) -> None:
    async with filesystem(place) as fs:
        await fs.mkdirs(f"{REC}/sub")
        await fs.drain()
        below = fs.root / REC / "sub"
        below.rmdir()
        if what == "file":
            below.write_bytes(b"x")
        else:
            (place / "trap").mkdir()
            below.symlink_to(place / "trap")
        await fs.write(f"{REC}/sub/file", b"hello")
        await fs.drain()
        assert await fs.read(f"{REC}/sub/file") == b"hello"
        if what == "link":
            assert os.listdir(place / "trap") == [], "nothing follows a link that a user planted"
            (place / "trap").rmdir()
        await fs.assert_consistent(lost=1)


async def test_a_fifo_in_the_place_of_a_file_keeps_nobody(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.write(f"{REC}/file", b"hello")
        await fs.drain()
        below = fs.root / REC / "file"
        below.unlink()
        os.mkfifo(below)
        fd = fs.parts.store.open_file(os.fsencode(below), os.O_RDONLY)
        assert fd is not None
        os.close(fd)
        fs.checked_at_end = False


def steps(store: LocalStore, kind: StepKind, name: bytes, **more: object) -> list[Step]:
    """One step at a name in users/."""
    return [Step(kind, store.home([b"users", name]), attrs=Attrs(0o700, os.geteuid(), os.getegid(), 0, 0), **more)]  # type: ignore[arg-type]


def test_steps_never_remove_what_they_do_not_know(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "root")
    store.open()
    users, lost = store.root / "users", store.root / ".recfs/lost+found"
    (users / "a").write_bytes(b"somebody's")
    (outcome,) = store.apply(steps(store, StepKind.SYMLINK, b"a", symlink_target=b"t"))
    assert (outcome.error, os.readlink(users / "a")) == (0, "t")
    assert [path.read_bytes() for path in lost.iterdir()] == [b"somebody's"]
    (users / "b").mkdir()
    (outcome,) = store.apply([Step(StepKind.REMOVE, store.home([b"users", b"b"]))])
    assert (outcome.error, (users / "b").is_dir()) == (0, True)
    assert "left alone" in outcome.warning
    name = "ä" * 120
    for n in range(2):
        (users / name).write_bytes(b"%d" % n)
        (outcome,) = store.apply(steps(store, StepKind.MKDIR, os.fsencode(name)))
        assert outcome.error == 0
        (users / name).rmdir()
    assert sorted(path.read_bytes() for path in lost.iterdir()) == [b"0", b"1", b"somebody's"]
    (outcome,) = store.apply([Step(StepKind.MKDIR, store.home([b"users", b"c"]), attrs=Attrs(0, 1 << 70, 0, 0, 0))])
    assert outcome.error, "an impossible owner is an error of its step"
    store.close()


# --- what a rename looks at ---------------------------------------------------------------------------------------


async def test_a_rename_does_not_go_through_every_path_below(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a directory that is too deep for any rule is not put together: that would cost depth squared."""
    async with filesystem(place) as fs:
        lowest = await dig(fs, f"{REC}/top", 200)
        asked: list[int] = []
        parts = DirNode.parts

        def counted(node: DirNode) -> list[bytes]:
            found = parts(node)
            asked.append(len(found))
            return found

        monkeypatch.setattr(DirNode, "parts", counted)
        await fs.rename(f"{REC}/top", f"{REC}/other")
        assert len(lowest.parts()) == 205
        assert [depth for depth in asked if depth > 20] == [205], "but for the one asked for here"
        assert sum(asked) < 300
