"""What the daemon answers of local copies: evict, fetch, pin."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import trio

from recfs.core.model import State
from recfs.errors import IsADirectory, NotFound
from recfs.state.nodes import DirNode, FileNode
from recfs.state.walk import Found, Walk

from .build import REC, Filesystem, pattern
from .far import OTHER, Hold, ask, bucket, down, failing, fs, no_route, until
from .test_tier import FILE, MIB, evict, node, tiered

__all__ = ["fs"]


async def test_evict_and_fetch_a_directory(fs: Filesystem) -> None:
    """All below it; what cannot go says why."""
    files = {f"{REC}/a/{number}": pattern(1000 + number, number) for number in range(7)}
    for path, data in files.items():
        await fs.write(path, data)
    await fs.drain()
    handle = await fs.open(f"{REC}/a/3")
    answer = await ask(fs, "evict", path=REC, recursive=True)
    assert (answer["files"], answer["bytes"], answer["already"]) == (6, sum(map(len, files.values())) - 1003, 0)
    assert answer["kept"] == [{"path": f"{REC}/a/3", "reason": "it is open; it can leave when it is closed"}]
    await fs.close(handle)
    await fs.drain()
    assert [path.name for path in (fs.root / REC / "a").iterdir()] == ["3"]
    assert (await ask(fs, "evict", path=REC, recursive=True))["already"] == 6
    answer = await ask(fs, "fetch", path="", recursive=True)
    assert (answer["files"], answer["kept"]) == (7, [])
    await fs.drain()
    for path, data in files.items():
        assert (fs.root / path).read_bytes() == data
        assert await fs.state(path) == "stored"
    assert (await ask(fs, "fetch", path=REC, recursive=True))["already"] == 7


async def test_evict_walks_a_large_directory_page_by_page(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is not in memory."""
    monkeypatch.setattr("recfs.state.walk.PAGE", 3)
    names = {f"{REC}/{folder}/{number}": b"data" for folder in ("a", "b") for number in range(5)}
    for path, data in (names | {f"{REC}/file{number}": b"data" for number in range(4)}).items():
        await fs.write(path, data)
    await fs.drain()
    await fs.reopen()
    assert (await ask(fs, "evict", path="users", recursive=True))["files"] == 14
    await fs.drain()


async def test_a_walk_that_is_left_half_way_leaves_nothing_behind(fs: Filesystem) -> None:
    """Whoever fails in the middle of it owes it nothing; trio would warn of a generator."""
    for number in range(3):
        await fs.write(f"{REC}/{number}", b"data")
    top = await fs.vfs.tree.walk([os.fsencode(part) for part in REC.split("/")])
    assert isinstance(top, DirNode)
    async for found in Walk(fs.vfs.tree, top):
        assert found.path == f"{REC}/0"
        break
    gc.collect()


@no_route
async def test_what_is_not_stored_is_never_evicted(fs: Filesystem) -> None:
    """S3 does not have it."""
    down(fs)
    await fs.write(FILE, b"data")
    await failing(fs)
    answer = await ask(fs, "evict", path=FILE)
    assert answer["files"] == 0
    assert "only what is stored in S3 can leave; no route" in answer["kept"][0]["reason"]
    await until((fs.root / FILE).exists)  # the publisher brings it home in its own time
    assert (fs.root / FILE).read_bytes() == b"data"
    bucket(fs).heal()


@pytest.mark.slow
async def test_a_partial_copy_is_evicted(fs: Filesystem) -> None:
    """Once nobody reads it."""
    await fs.write(FILE, pattern(64 * MIB))
    await fs.drain()
    await evict(fs)
    number = await fs.open(FILE)
    await fs.vfs.files.read(number, 0, 10)
    assert (await ask(fs, "evict", path=FILE))["files"] == 0
    await fs.close(number)
    assert (await node(fs)).state is State.FETCHING
    assert (await ask(fs, "evict", path=FILE))["files"] == 1
    assert (await node(fs)).state is State.EVICTED
    await fs.drain()
    assert fs.leftovers("staging") == []


async def test_a_directory_takes_recursive(fs: Filesystem) -> None:
    """Else a slip would fetch a terabyte."""
    for method in ("evict", "fetch", "pin"):
        with pytest.raises(IsADirectory, match="--recursive"):
            await ask(fs, method, path=REC)
        with pytest.raises(NotFound):
            await ask(fs, method, path=f"{REC}/absent")


@pytest.mark.expect_log("archived")
async def test_what_cannot_be_fetched_says_why(fs: Filesystem) -> None:
    """The others come."""
    await fs.write(FILE, b"data")
    await fs.write(OTHER, b"data")
    await fs.drain()
    await evict(fs)
    await evict(fs, OTHER)
    bucket(fs).archive(FILE)
    answer = await ask(fs, "fetch", path=REC, recursive=True)
    assert answer["files"] == 1
    assert [kept["path"] for kept in answer["kept"]] == [FILE]
    assert "archived" in answer["kept"][0]["reason"]
    await fs.drain()


async def test_fetch_stops_at_the_budget(nursery: trio.Nursery, place: Path) -> None:
    """Else each would drive out the one before."""
    fs = tiered(nursery, place, cache={"max_size": 2 * MIB, "fetch_whole_below": MIB, "read_ahead_max": MIB})
    await fs.start()
    for number in range(4):
        await fs.write(f"{REC}/file{number}", pattern(900_000, number))
        await fs.drain()
    await ask(fs, "evict", path="users", recursive=True)
    answer = await ask(fs, "fetch", path="users", recursive=True)
    assert (answer["files"], answer["kept_files"]) == (2, 2)
    assert "[cache] max_size (2 MiB)" in answer["kept"][0]["reason"]
    await fs.drain()
    await fs.stop()


async def test_pinned_files_stay(fs: Filesystem) -> None:
    """Also over a change and a restart; those that are away are fetched first."""
    await fs.write(FILE, b"data")
    await fs.drain()
    await evict(fs)
    answer = await ask(fs, "pin", path=FILE)
    assert (answer["files"], answer["fetched"]["files"]) == (1, 1)
    await fs.drain()
    assert (await node(fs)).state is State.STORED
    assert (await ask(fs, "evict", path=FILE))["kept"] == [
        {"path": FILE, "reason": "it is pinned; `recfs unpin` lets it go"}
    ]
    assert (await ask(fs, "pin", path=FILE))["already"] == 1
    await fs.write(FILE, b"changed")
    await fs.drain()
    await fs.reopen()
    assert (await ask(fs, "info", path=FILE))["s3"]["pinned"] is True
    assert (await ask(fs, "evict", path=FILE))["files"] == 0
    assert (await ask(fs, "pin", path=FILE, pinned=False))["files"] == 1
    assert (await ask(fs, "evict", path=FILE))["files"] == 1
    await fs.drain()


@no_route
@pytest.mark.slow
async def test_what_cannot_be_pinned_says_why(nursery: trio.Nursery, place: Path) -> None:
    """What stays here anyway, what S3 does not have, and more than the budget."""
    fs = tiered(nursery, place, cache={"max_size": 2 * MIB, "fetch_whole_below": MIB, "read_ahead_max": MIB})
    await fs.start()
    await fs.write("shared/thumbnails/one.png", b"png")
    await fs.write(FILE, pattern(1_500_000))
    await fs.write(OTHER, pattern(1_500_000))
    await fs.drain()
    down(fs)
    await fs.write(f"{REC}/new", b"new")
    await failing(fs)
    for path, reason in (("shared/thumbnails/one.png", "stays here anyway"), (f"{REC}/new", "not in S3 yet")):
        answer = await ask(fs, "pin", path=path)
        assert answer["files"] == 0
        assert reason in answer["kept"][0]["reason"]
    bucket(fs).heal()
    await ask(fs, "queue_retry", all=True)
    assert (await ask(fs, "pin", path=FILE))["files"] == 1
    assert "max_size" in (await ask(fs, "pin", path=OTHER))["kept"][0]["reason"]
    await fs.drain()
    await fs.stop()


async def test_what_somebody_waits_for_is_not_evicted(fs: Filesystem) -> None:
    """A small file is fetched whole at its open: the open succeeds, however often others want it to leave."""
    await fs.write(FILE, b"data")
    await fs.drain()
    await evict(fs)
    held = Hold(fs, "get_range")
    read: list[bytes] = []

    async def reader() -> None:
        read.append(await fs.read(FILE))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await held.entered()
        answer = await ask(fs, "evict", path=FILE)
        assert answer["files"] == 0
        assert "somebody waits for its bytes" in answer["kept"][0]["reason"]
        held.let_go()
    assert read == [b"data"]
    await fs.drain()
    assert (await ask(fs, "evict", path=FILE))["files"] == 1


@pytest.mark.parametrize("command", ["evict", "pin"])
@pytest.mark.parametrize("again", [False, True], ids=["removed", "made anew"])
async def test_a_file_that_goes_while_a_command_comes_to_it(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, command: str, again: bool
) -> None:
    """No row of its object is left, and nothing happens to a file that has its name by then."""
    await fs.write(FILE, b"data")
    await fs.drain()
    found = Found.node

    async def overtaken(self: Found) -> FileNode | None:
        node = await found(self)
        await fs.unlink(FILE)
        if again:
            await fs.write(FILE, b"anew")
        await fs.parts.behind.flush()
        return node

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Found, "node", overtaken)
        await ask(fs, command, path=FILE)
    await fs.drain()
    assert fs.rows("select ino from object where ino not in (select ino from node)") == []
    if again:
        assert (fs.root / FILE).read_bytes() == b"anew"
        assert await fs.state(FILE) == State.STORED
