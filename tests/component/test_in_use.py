"""Files that the kernel has open by itself: nothing is done that would wait for whoever has them locked.

rename(2), unlink(2), chmod(2), chown(2), utimensat(2) and setxattr(2) take the lock of the file, and leave a trace: its
ctime. So the tests look whether that stays.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from recfs.core.model import State
from recfs.disk.commit import digests
from recfs.fs.attributes import Changes
from recfs.fs.handles import Mode
from recfs.stores import many
from recfs.stores.local import LocalStore
from tests.fakes import FakeKernelFiles

from .build import OPERATOR, REC, Filesystem, filesystem, pattern, until

FILE = f"{REC}/sub/file"
OTHER = "users/6/recordings/7"
Act = Callable[[Filesystem], Awaitable[Any]]
ExpectLog = Callable[[str], None]


@pytest.fixture(params=[0, "1h"], ids=["removed at once", "with a trash"])
async def fs(nursery: trio.Nursery, place: Path, request: pytest.FixtureRequest) -> AsyncIterator[Filesystem]:
    """A file system with a committed file, as the kernel may read and write it."""
    made = Filesystem(nursery, place, trash={"retention": request.param})
    made.files = FakeKernelFiles()
    await made.start()
    await made.write(FILE, pattern(5000))
    await made.write(f"{REC}/sub/beside", b"beside")
    await made.drain()
    yield made
    await made.stop()


async def change_attributes(fs: Filesystem) -> None:
    await fs.vfs.setattr((await fs.node(FILE)).ino, Changes(mode=0o600, mtime_ns=7), OPERATOR)


async def open_to_write(fs: Filesystem) -> None:
    number, mode = await fs.pass_open(FILE, os.O_RDWR)
    assert mode is Mode.PASS
    await fs.close(number)


async def move(fs: Filesystem) -> None:
    await fs.rename(FILE, f"{REC}/moved")
    await fs.write(FILE, b"in its place")


async def move_its_directory(fs: Filesystem) -> None:
    await fs.rename(f"{REC}/sub", f"{REC}/elsewhere")
    await fs.write(FILE, b"in its place")


async def exchange(fs: Filesystem) -> None:
    await fs.rename(FILE, f"{REC}/sub/beside", exchange=True)


async def exchange_with_its_directory(fs: Filesystem) -> None:
    await fs.rename(FILE, f"{REC}/file")
    await fs.rename(f"{REC}/file", f"{REC}/sub", exchange=True)


async def remove(fs: Filesystem) -> None:
    await fs.unlink(FILE)


async def make_again(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    await fs.write(FILE, b"in its place")


async def replace(fs: Filesystem) -> None:
    await fs.rename(f"{REC}/sub/beside", FILE)


async def remove_all(fs: Filesystem) -> None:
    await fs.vfs.trees.remove(await fs.node(REC))


async def remove_all_and_make_again(fs: Filesystem) -> None:
    await fs.vfs.trees.remove(await fs.node(REC))
    await fs.write(FILE, b"in its place")


async def move_and_remove_its_directory(fs: Filesystem) -> None:
    await fs.rename(FILE, f"{REC}/moved")
    await fs.vfs.trees.remove(await fs.node(f"{REC}/sub"))


ACTS: list[Act] = [
    change_attributes, open_to_write, move, move_its_directory, exchange, exchange_with_its_directory, remove,
    make_again, replace, remove_all, remove_all_and_make_again, move_and_remove_its_directory,
]  # fmt: skip

NOTHING_TO_DO = (move_its_directory, open_to_write)
"""It lies where it did in its directory, and was not written to: attributes and bytes are what they were."""


async def all_is_right(fs: Filesystem) -> None:
    """Rows, counters and disk agree."""
    await fs.drain()
    await fs.assert_consistent(trash=len(fs.leftovers("trash")))


async def everybody_else_goes_on(fs: Filesystem) -> None:
    """Other people's files come home, change and go; the drain has nothing to wait for."""
    await fs.write(f"{OTHER}/one", b"one")
    await fs.write(f"{OTHER}/two", b"two")
    await fs.drain()
    await fs.rename(f"{OTHER}/one", f"{OTHER}/renamed")
    await fs.unlink(f"{OTHER}/two")
    await fs.drain()
    assert os.listdir(fs.root / OTHER) == ["renamed"]
    assert fs.parts.publisher.depth == fs.parts.publisher.aside == 0
    assert fs.parts.publisher.problem is None
    assert (await fs.answers()["status"]({}))["problems"] == []


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.table(3)
async def test_nothing_is_done_to_a_file_the_kernel_has_open(fs: Filesystem, act: Act) -> None:
    """What is to happen to it, and what needs its place, waits for its readers; then all is as it would have been."""
    reader, mode = await fs.pass_open(FILE)
    assert mode is Mode.PASS
    below = fs.vfs.files.handles[reader].body.fd
    before = os.fstat(below)
    await act(fs)
    await everybody_else_goes_on(fs)
    assert os.fstat(below).st_ctime_ns == before.st_ctime_ns
    assert os.fstat(below).st_nlink == 1
    assert bool(fs.parts.publisher.in_use) == (act not in NOTHING_TO_DO)
    assert (await fs.answers()["status"]({}))["pipeline"]["in_use"] == fs.parts.publisher.in_use
    seen = await fs.tree(REC) if await fs.exists(REC) else {}
    await fs.close(reader)
    await fs.drain()
    assert fs.parts.publisher.in_use == 0
    assert (await fs.tree(REC) if await fs.exists(REC) else {}) == seen
    await all_is_right(fs)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.table(2)
async def test_a_death_while_it_waits(fs: Filesystem, act: Act) -> None:
    """The next start carries it out: no reader of the last one is known to it."""
    await fs.pass_open(FILE)
    await act(fs)
    await everybody_else_goes_on(fs)
    seen = await fs.tree(REC) if await fs.exists(REC) else {}
    await fs.crash()
    fs.files = FakeKernelFiles()
    await fs.reopen()
    await fs.drain()
    assert (await fs.tree(REC) if await fs.exists(REC) else {}) == seen
    await all_is_right(fs)


async def test_two_readers_of_two_files_in_a_removed_directory(fs: Filesystem) -> None:
    """It goes with the last of them."""
    one, _ = await fs.pass_open(FILE)
    two, _ = await fs.pass_open(f"{REC}/sub/beside")
    await fs.vfs.trees.remove(await fs.node(REC))
    await everybody_else_goes_on(fs)
    await fs.close(two)
    await everybody_else_goes_on(fs)
    assert os.listdir(fs.root / REC / "sub") == ["file"]
    await fs.close(one)
    await fs.drain()
    assert not (fs.root / REC).exists()
    await all_is_right(fs)


async def test_a_file_committed_while_it_is_read_comes_home_later(fs: Filesystem) -> None:
    writer, _ = await fs.pass_open(f"{REC}/new", os.O_RDWR | os.O_CREAT)
    reader, _ = await fs.pass_open(f"{REC}/new")
    fs.pass_write(writer, b"new")
    await fs.close(writer)
    await everybody_else_goes_on(fs)
    assert await fs.state(f"{REC}/new") == "committed"
    assert not (fs.root / REC / "new").exists()
    await fs.close(reader)
    await fs.drain()
    assert (fs.root / REC / "new").read_bytes() == b"new"
    await all_is_right(fs)


async def test_beside_a_reader_a_file_is_changed_where_it_lies(fs: Filesystem) -> None:
    """Its row says so, durably, before the first byte changes; with the next commit it is whole, and still there."""
    reader, _ = await fs.pass_open(FILE)
    writer, mode = await fs.pass_open(FILE, os.O_RDWR)
    assert mode is Mode.PASS
    assert (fs.root / FILE).read_bytes() == pattern(5000)
    assert fs.rows(
        "select state, sha256, pending, staging from node join placement using (ino) where name = ?", b"file"
    ) == [("writing", None, 8, None)]
    fs.pass_write(writer, b"changed")
    await fs.vfs.files.truncate(await fs.node(FILE), 100)
    assert await fs.read_handle(reader) == b"changed" + pattern(5000)[7:100]
    await fs.close(writer)
    await everybody_else_goes_on(fs)
    assert await fs.state(FILE) == "committed"
    await fs.close(reader)
    await all_is_right(fs)


async def test_alone_again_it_is_taken_to_staging(fs: Filesystem) -> None:
    """Only a file that somebody else reads is changed where it lies."""
    reader, _ = await fs.pass_open(FILE)
    writer, _ = await fs.pass_open(FILE, os.O_RDWR)
    fs.pass_write(writer, b"changed")
    await fs.close(writer)
    await fs.close(reader)
    writer, mode = await fs.pass_open(FILE, os.O_RDWR)
    assert mode is Mode.PASS
    assert not (fs.root / FILE).exists()
    await fs.close(writer)
    await fs.drain()
    assert (fs.root / FILE).read_bytes() == b"changed" + pattern(5000)[7:]
    await all_is_right(fs)


@pytest.mark.parametrize("again", [False, True], ids=["still written", "closed, and written again"])
async def test_half_of_a_change_is_not_taken_for_whole(fs: Filesystem, again: bool) -> None:
    """After a death, whether it lies at home or in staging, and whatever its label says of the time before."""
    await fs.pass_open(FILE)
    new, _ = await fs.pass_open(f"{REC}/new", os.O_RDWR | os.O_CREAT)
    await fs.pass_open(f"{REC}/new")
    fs.pass_write(new, b"whole")
    if again:
        await fs.close(new)
        new, _ = await fs.pass_open(f"{REC}/new", os.O_RDWR)
    number, _ = await fs.pass_open(FILE, os.O_RDWR)
    for each in (number, new):
        fs.pass_write(each, b"half-")
    await fs.crash()
    fs.files = FakeKernelFiles()
    await fs.reopen()
    await fs.drain()
    for path, content in ((FILE, b"half-" + pattern(5000)[5:]), (f"{REC}/new", b"half-")):
        assert await fs.state(path) == "incomplete"
        assert await fs.read(path) == content
        assert not (fs.root / path).exists()
    await all_is_right(fs)


async def test_an_incomplete_file_leaves_the_home_tree_with_its_last_reader(
    fs: Filesystem, expect_log: ExpectLog
) -> None:
    """Stopped at a limit while it was changed where it lies. It is let go in a thread: a reader may have it locked."""
    expect_log("is passed")
    threads: list[threading.Thread] = []

    def freeze(fd: int, *, frozen: bool) -> bool:
        threads.append(threading.current_thread())
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recfs.disk.stops.freeze", freeze)
        fs.vfs.files.modes._can_freeze = True
        reader, _ = await fs.pass_open(FILE)
        writer, mode = await fs.pass_open(FILE, os.O_RDWR)
        assert mode is Mode.PASS
        await fs.answers()["quota_set"]({"user": "5", "max_bytes": 6000})
        fs.pass_write(writer, bytes(3000), 5000)
        await until(lambda: threads)
        await fs.close(writer)
        assert await fs.state(FILE) == "incomplete"
        assert (fs.root / FILE).exists()
        await until(lambda: len(threads) >= 2)
        await fs.close(reader)
        await until(lambda: not (fs.root / FILE).exists())
    assert threading.main_thread() not in threads
    await all_is_right(fs)


async def test_what_the_publisher_works_on_is_not_handed_to_the_kernel(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would wait for whoever reads it then."""
    node = await fs.node(FILE)
    begun, go_on = threading.Event(), threading.Event()
    chmod = os.chmod

    def slow(*args: Any, **more: Any) -> None:
        begun.set()
        go_on.wait()
        chmod(*args, **more)

    monkeypatch.setattr(os, "chmod", slow)
    await fs.vfs.setattr(node.ino, Changes(mode=0o600), OPERATOR)
    await until(begun.is_set)
    modes: list[Mode] = []

    async def open_it() -> None:
        modes.append((await fs.pass_open(FILE))[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_it)
        await trio.testing.wait_all_tasks_blocked()
        assert fs.files is not None
        assert (modes, fs.files.backing) == ([], {})
        go_on.set()
    assert modes == [Mode.PASS]


async def test_a_file_that_a_thread_may_wait_for_is_left_alone(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeing a file in a million pieces holds its lock, too."""
    begun, go_on = threading.Event(), threading.Event()
    cut = os.ftruncate

    def slow(fd: int, size: int) -> None:
        begun.set()
        go_on.wait()
        cut(fd, size)

    monkeypatch.setattr(os, "ftruncate", slow)
    number = await fs.open(f"{REC}/new", os.O_RDWR | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"data")
    node = fs.vfs.files.handles[number].node
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.vfs.files.truncate, node, 2)
        await until(begun.is_set)
        await fs.unlink(f"{REC}/new")
        await everybody_else_goes_on(fs)
        assert os.fstat(fs.vfs.files.handles[number].body.fd).st_nlink == 1
        go_on.set()
    await fs.close(number)
    assert node.state is State.WRITING
    await all_is_right(fs)


async def test_where_nobody_reads_through_the_kernel_nothing_waits(tmp_path: Path) -> None:
    async with filesystem(tmp_path / "root") as fs:
        await fs.write(FILE, b"data")
        await fs.drain()
        number = await fs.open(FILE)
        await fs.unlink(FILE)
        await fs.drain()
        assert not (fs.root / FILE).exists()
        await fs.close(number)
        await all_is_right(fs)


@pytest.mark.parametrize("size", [5000, 2 << 20], ids=["small", "a pass of its own"])
@pytest.mark.parametrize("moves", ["before it is opened", "as its turn comes"])
@pytest.mark.table(2)
async def test_what_is_hashed_where_it_lies_is_the_file_itself(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, size: int, moves: str
) -> None:
    """Its directory changes places with another meanwhile, in which another file has the same name."""
    await fs.write(FILE, pattern(size))
    await fs.write(f"{REC}/twin/file", pattern(size + 7, seed=1))
    await fs.drain()
    reader, _ = await fs.pass_open(FILE)
    writer, mode = await fs.pass_open(FILE, os.O_RDWR)
    assert mode is Mode.PASS
    fs.pass_write(writer, b"changed")
    node = await fs.node(FILE)
    opened, applying, go_on = threading.Event(), threading.Event(), threading.Event()
    open_it, apply = digests._open, LocalStore.apply

    def slow_open(*args: Any) -> int:
        opened.set()
        if moves == "before it is opened":
            go_on.wait()
        return open_it(*args)

    def slow_apply(*args: Any) -> Any:
        applying.set()
        if moves == "as its turn comes":
            go_on.wait()
        return apply(*args)

    monkeypatch.setattr(many, "extension", None)
    monkeypatch.setattr(digests, "_open", slow_open)
    monkeypatch.setattr(LocalStore, "apply", slow_apply)
    if moves == "as its turn comes":
        await fs.rename(f"{REC}/sub", f"{REC}/twin", exchange=True)
        await until(applying.is_set)
        await fs.close(writer)
        await until(opened.is_set)
    else:
        await fs.close(writer)
        await until(opened.is_set)
        await fs.rename(f"{REC}/sub", f"{REC}/twin", exchange=True)
        await until(lambda: (fs.root / FILE).exists() and (fs.root / FILE).stat().st_size == size + 7)
    go_on.set()
    await fs.drain()
    assert node.sha256 == hashlib.sha256(b"changed" + pattern(size)[7:]).digest()
    await fs.close(reader)
    await all_is_right(fs)
