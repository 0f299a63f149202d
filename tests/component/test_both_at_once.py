"""Somebody replaces, moves or removes things in the home tree, and before anybody has noticed users work on the same
names in the mount. All of it comes to an end, with a restart or without: the mount is what the home tree is, nothing
waits, and whatever either side has written lies in its place, or was put aside.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import time
from pathlib import Path

import pytest
import trio

from recfs.errors import FsError, IoFailure, Stale
from recfs.fs.attributes import Changes
from recfs.state.nodes import FileNode

from .build import OPERATOR, REC, Filesystem, filesystem, until
from .watching import Watched, watching

pytestmark = pytest.mark.usefixtures("autojump_clock", "any_log")

OURS, BESIDE = b"ours", b"beside it"


class Operator:
    """What is done past recfs to the directory `d`, the file `d/f` in it, or the directory `top` that both are in."""

    def __init__(self, top: Path) -> None:
        self.top, self.folder, self.file = top, top / "d", top / "d/f"
        self.bytes = f"foreign in {top.name}".encode()

    def _replaced(self, path: Path) -> Path:
        """Out of the way, for good."""
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        return path

    def nothing(self) -> None:
        """All is left as it is."""

    def a_file_for_the_directory(self) -> None:
        self._replaced(self.folder).write_bytes(self.bytes)

    def a_file_that_is_moved_over_the_directory(self) -> None:
        (self.top / "new").write_bytes(self.bytes)
        (self.top / "new").rename(self._replaced(self.folder))

    def a_link_for_the_directory(self) -> None:
        self._replaced(self.folder).symlink_to("nowhere")

    def a_link_to_a_directory(self) -> None:
        self._replaced(self.folder).symlink_to("e")

    def a_loop_for_the_directory(self) -> None:
        self._replaced(self.folder).symlink_to("d")

    def a_fifo_for_the_directory(self) -> None:
        os.mkfifo(self._replaced(self.folder))

    def no_directory(self) -> None:
        self._replaced(self.folder)

    def another_directory(self) -> None:
        self._replaced(self.folder).mkdir()

    def a_restored_directory(self) -> None:
        self._replaced(self.folder).mkdir()
        self.file.write_bytes(self.bytes)

    def a_renamed_directory(self) -> None:
        self.folder.rename(self.top / "z")

    def a_renamed_directory_and_a_file(self) -> None:
        self.folder.rename(self.top / "z")
        self.folder.write_bytes(self.bytes)

    def a_file_in_the_directory(self) -> None:
        (self.folder / "more").write_bytes(self.bytes)

    def a_directory_for_the_file(self) -> None:
        self._replaced(self.file).mkdir()
        (self.file / "inside").write_bytes(self.bytes)

    def a_link_for_the_file(self) -> None:
        self._replaced(self.file).symlink_to("nowhere")

    def a_fifo_for_the_file(self) -> None:
        os.mkfifo(self._replaced(self.file))

    def another_file(self) -> None:
        (self.top / "new").write_bytes(self.bytes)
        (self.top / "new").rename(self.file)

    def other_bytes_in_the_file(self) -> None:
        """As when a new file is given the inode number of the one that was removed."""
        self.file.write_bytes(self.bytes)

    def no_file(self) -> None:
        self._replaced(self.file)

    def a_renamed_file(self) -> None:
        self.file.rename(self.folder / "h")

    def a_file_for_all(self) -> None:
        self._replaced(self.top).write_bytes(self.bytes)

    def nothing_at_all(self) -> None:
        self._replaced(self.top)

    def all_renamed(self) -> None:
        self.top.rename(self.top.with_name(f"{self.top.name}-renamed"))


class User:
    """What is done in the mount to the same."""

    def __init__(self, fs: Filesystem, top: str) -> None:
        self.fs = fs
        self.top, self.folder, self.file = top, f"{top}/d", f"{top}/d/f"
        self.bytes = f"written in {os.path.basename(top)}".encode()

    async def nothing(self) -> None:
        await trio.lowlevel.checkpoint()

    async def remove(self) -> None:
        await self.fs.unlink(self.file)

    async def remove_all(self) -> None:
        await self.fs.unlink(self.file)
        await self.fs.rmdir(self.folder)

    async def move_out(self) -> None:
        await self.fs.rename(self.file, f"{self.top}/g")

    async def move_in(self) -> None:
        await self.fs.rename(f"{self.top}/e/beside", f"{self.folder}/beside")

    async def move_over(self) -> None:
        await self.fs.rename(f"{self.top}/e/beside", self.file)

    async def rename_directory(self) -> None:
        await self.fs.rename(self.folder, f"{self.top}/d2")

    async def move_directory_in(self) -> None:
        await self.fs.rename(self.folder, f"{self.top}/e/d")

    async def rename_above(self) -> None:
        await self.fs.rename(self.top, f"{self.top}-moved")

    async def file_for_its_directory(self) -> None:
        await self.fs.rename(self.file, f"{self.top}/x")
        await self.fs.rmdir(self.folder)
        await self.fs.rename(f"{self.top}/x", self.folder)

    async def exchange(self) -> None:
        await self.fs.rename(self.folder, f"{self.top}/e", exchange=True)

    async def new_file_for_directory(self) -> None:
        await self.fs.rename(self.folder, f"{self.top}/d3")
        await self.fs.write(self.folder, self.bytes)

    async def new_file_in_directory(self) -> None:
        await self.fs.write(f"{self.folder}/new", self.bytes)

    async def overwrite(self) -> None:
        await self.fs.write(self.file, self.bytes)

    async def append(self) -> None:
        await self.fs.write(self.file, self.bytes, append=True)

    async def make_again(self) -> None:
        await self.remove_all()
        await self.fs.write(self.file, self.bytes)

    async def link_for_file(self) -> None:
        await self.fs.unlink(self.file)
        await self.fs.vfs.symlink((await self.fs.node(self.folder)).ino, b"f", b"elsewhere", OPERATOR)

    async def describe(self) -> None:
        for path in (self.folder, self.file):
            await self.fs.vfs.setattr((await self.fs.node(path)).ino, Changes(mode=0o700), OPERATOR)


OPERATORS = [name for name in vars(Operator) if not name.startswith("_")]
USERS = [name for name in vars(User) if not name.startswith("_")]
KEEPING = ("nothing", "renamed", "in_the_directory")
"""Parts of the names of what leaves all bytes of recfs's where they are, or somewhere."""


async def act(fs: Filesystem, operator: str, user: str, top: str) -> bytes:
    """Both of them; returns what the user has written, if that was possible."""
    getattr(Operator(fs.root / top), operator)()
    acting = User(fs, top)
    wrote = user in ("new_file_for_directory", "new_file_in_directory", "overwrite", "append", "make_again")
    try:
        await getattr(acting, user)()
    except IoFailure:
        return b""  # its bytes are missing, or others
    return acting.bytes if wrote else b""


def disk(top: Path, base: Path) -> dict[str, bytes | None]:
    """Everything below, as `Filesystem.tree` shows it. What recfs has no kind for is left out."""
    found: dict[str, bytes | None] = {}
    for path in sorted(top.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            found[str(path.relative_to(base))] = b"-> " + os.fsencode(path.readlink())
        elif stat.S_ISDIR(mode):
            found[str(path.relative_to(base))] = None
        elif stat.S_ISREG(mode):
            found[str(path.relative_to(base))] = path.read_bytes()
    return found


async def ended(fs: Filesystem) -> dict[str, bytes | None]:
    """It has all come to an end: what is there now."""
    async with watching(fs) as watched:
        watched.watcher.accept()
        with trio.move_on_after(600):
            await watched.settled()
            await watched.settled()  # what the publisher has given up since is looked at
        assert watched.waits() == {}
        told = fs.parts.problems.as_json()
        assert [each for each in told if "left alone: it is a FIFO" not in each["reason"]] == []
    assert (fs.parts.publisher.depth, fs.parts.publisher.aside) == (0, 0)
    shown = await fs.tree(REC)
    assert shown == disk(fs.root / REC, fs.root)
    return shown


def put_aside(fs: Filesystem) -> list[bytes]:
    """Bytes of all files in lost+found."""
    return contents(fs.root / ".recfs/lost+found")


def contents(top: Path) -> list[bytes]:
    """Bytes of all files below a directory."""
    return [path.read_bytes() for path in top.rglob("*") if path.is_file() and not path.is_symlink()]


async def same(fs: Filesystem) -> bool:
    """Whether the mount shows what the home tree is."""
    try:
        return await fs.tree(REC) == disk(fs.root / REC, fs.root)
    except (FsError, Stale, OSError):
        return False


async def told(watched: Watched) -> str:
    """What has not come to an end."""
    fs = watched.fs
    on_disk = disk(fs.root / REC, fs.root)
    try:
        shown = await fs.tree(REC)
    except (FsError, Stale, OSError) as error:
        return f"{error}; waits: {watched.waits()}; told: {fs.parts.problems.as_json()}"
    differs = {
        path: (shown.get(path, "no such row"), on_disk.get(path, "no such entry"))
        for path in sorted(shown.keys() | on_disk.keys())
        if shown.get(path, "") != on_disk.get(path, "")
    }
    publisher = fs.parts.publisher
    return (
        f"differs (row, disk): {differs}; waits: {watched.waits()}; told: {fs.parts.problems.as_json()};"
        f" publisher: {publisher.depth}, {publisher.aside}"
    )


async def seen_to(watched: Watched) -> None:
    """Events alone have all of it come to an end."""
    end = time.monotonic() + 20
    while watched.waits() or watched.fs.parts.publisher.depth or not await same(watched.fs):
        assert time.monotonic() < end, await told(watched)
        await trio.to_thread.run_sync(time.sleep, 0.002)
        await trio.sleep(0.5)


@pytest.mark.parametrize("restart", ["running", "restarted", "killed"])
@pytest.mark.parametrize("operator", OPERATORS)
async def test_it_comes_to_an_end(place: Path, operator: str, restart: str) -> None:
    async with filesystem(place / "root") as fs:
        fs.checked_at_end = False
        tops = {user: f"{REC}/{user}" for user in USERS}
        for top in tops.values():
            await fs.write(f"{top}/d/f", OURS)
            await fs.write(f"{top}/e/beside", BESIDE)
        await fs.drain()
        written: dict[str, bytes] = {}
        async with contextlib.AsyncExitStack() as stack:
            if restart == "running":
                watched = await stack.enter_async_context(watching(fs))
                watched.watcher.accept()
            for user, top in tops.items():
                written[user] = await act(fs, operator, user, top)
            await fs.write(f"{REC}/later", b"later")
            with trio.fail_after(60):
                await until(lambda: (fs.root / REC / "later").exists())
            if restart == "running":
                await seen_to(watched)
        if restart == "restarted":
            await fs.stop()
        elif restart == "killed":
            await fs.crash()
        if restart != "running":
            await fs.reopen()
        shown = await ended(fs)
        everywhere = [each for each in shown.values() if each is not None] + put_aside(fs)
        for user, top in tops.items():
            foreign = Operator(fs.root / top).bytes
            if "bytes" in getattr(Operator, operator).__code__.co_names:
                assert any(foreign in each for each in everywhere), f"{user}: {foreign!r} is destroyed"
            assert any(written[user] in each for each in everywhere), f"{user}: {written[user]!r} is lost"
        if any(part in operator for part in KEEPING) and operator != "nothing_at_all":
            gone = {"remove", "remove_all", "move_over", "overwrite", "make_again", "link_for_file"}
            assert sum(OURS in each for each in everywhere) >= len(USERS) - len(gone), "ours are lost"
        if operator == "nothing":
            assert put_aside(fs) == []
        for path in (fs.root / REC).rglob("*"):
            if path.is_fifo():
                path.unlink()
        await fs.drain()
        await fs.assert_consistent(lost=len(fs.leftovers("lost+found")))


@pytest.mark.parametrize("depth", [1, 3])
async def test_a_file_takes_the_place_of_a_directory_that_it_lay_in(place: Path, depth: int) -> None:
    """While it has yet to leave that in the home tree."""
    async with filesystem(place / "root") as fs:
        folders = [f"{REC}/d" + "/s" * number for number in range(depth)]
        for what in ("file", "folder"):
            await fs.write(f"{folders[-1]}/f", OURS)
            await fs.mkdirs(f"{folders[-1]}/folder")
            await fs.drain()
            await fs.rename(f"{folders[-1]}/f", f"{REC}/x")
            await fs.rename(f"{folders[-1]}/folder", f"{REC}/y")
            for folder in reversed(folders):
                await fs.rmdir(folder)
            await fs.rename(f"{REC}/x" if what == "file" else f"{REC}/y", f"{REC}/d")
            await fs.drain()
            shown = await fs.tree(REC)
            assert shown == disk(fs.root / REC, fs.root)
            assert shown[f"{REC}/d"] == (OURS if what == "file" else None)
            await fs.assert_consistent()
            await (fs.unlink if what == "file" else fs.rmdir)(f"{REC}/d")
            if what == "file":
                await fs.rmdir(f"{REC}/y")


# --- at random -----------------------------------------------------------------------------------------------------

SEEDS = range(int(os.environ.get("RECFS_TEST_SEEDS", "6")))
"""How many rounds there are; by hand: RECFS_TEST_SEEDS=300."""
NAMES = ("a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/b/a")


class Random:
    """Both sides, on the same few names. Neither destroys anything: what the operator takes away goes to an attic, and
    what users remove or overwrite to the trash.
    """

    def __init__(self, fs: Filesystem, seed: int, attic: Path) -> None:
        self.fs, self.attic, self.random = fs, attic, random.Random(seed)
        self.written: list[bytes] = []
        self.done: list[str] = []

    def _bytes(self, who: str) -> bytes:
        return f"<{who} {len(self.done)}>".encode()

    def operate(self) -> None:
        """Do something past recfs, if that is possible."""
        path = self.fs.root / REC / self.random.choice(NAMES)
        other = self.fs.root / REC / self.random.choice(NAMES)
        what = self.random.choice(("file", "file", "directory", "link", "away", "rename", "replace"))
        self.done.append(f"operator: {what} {path} {other}")
        with contextlib.suppress(OSError):
            if what in ("away", "file", "replace") and os.path.lexists(path):
                path.rename(self.attic / str(len(self.done)))
            if what in ("file", "replace"):
                path.write_bytes(self._bytes("operator"))
                self.written.append(self._bytes("operator"))
            elif what == "directory":
                path.mkdir()
            elif what == "link":
                path.symlink_to("nowhere")
            elif what == "rename" and not os.path.lexists(other):
                path.rename(other)

    async def _write(self, path: str) -> None:
        parent, name = await self.fs.folder(path)
        if not isinstance(await self.fs.vfs.lookup(parent, name), FileNode | None):
            return
        number = await self.fs.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        await self.fs.vfs.files.write(number, 0, self._bytes("user"))
        await self.fs.close(number)
        self.written.append(self._bytes("user"))

    async def use(self) -> None:
        """Do something in the mount, if that is possible."""
        path, other = (f"{REC}/{self.random.choice(NAMES)}" for _ in range(2))
        what = self.random.choice(("write", "write", "mkdir", "unlink", "rmdir", "rename", "rename", "exchange"))
        self.done.append(f"user: {what} {path} {other}")
        try:
            if what == "write":
                await self._write(path)
            elif what == "mkdir":
                await self.fs.vfs.mkdir(*await self.fs.folder(path), 0o755, OPERATOR)
            elif what == "unlink":
                await self.fs.unlink(path)
            elif what == "rmdir":
                await self.fs.rmdir(path)
            else:
                await self.fs.rename(path, other, **({"exchange": True} if what == "exchange" else {}))
        except (FsError, Stale) as error:
            self.done[-1] += f": {type(error).__name__}"


@pytest.mark.parametrize("seed", SEEDS)
async def test_at_random_nothing_is_stuck_and_no_byte_is_lost(place: Path, seed: int) -> None:
    attic = place / "attic"
    attic.mkdir()
    async with filesystem(place / "root", trash={"retention": 3600.0}) as fs:
        fs.checked_at_end = False
        await fs.mkdirs(REC)
        await fs.drain()
        both = Random(fs, seed, attic)
        for _ in range(3):
            async with watching(fs) as watched:
                watched.watcher.accept()
                for _ in range(40):
                    if both.random.random() < 0.5:
                        both.operate()
                    else:
                        await both.use()
                    if both.random.random() < 0.5:
                        await trio.sleep(both.random.choice((0.05, 0.5, 3.0)))
                        await trio.to_thread.run_sync(time.sleep, 0.002)
            if both.random.random() < 0.5:
                await (fs.stop if both.random.random() < 0.5 else fs.crash)()
                await fs.reopen()
        await ended(fs)
        everywhere = b"".join(contents(place))
        lost = [each for each in both.written if each not in everywhere]
        assert lost == [], "\n".join(both.done)
