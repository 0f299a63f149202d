"""Names that others depend on: what is shown again, what leaves the home tree, and who has a turn meanwhile."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import pytest
import trio

from recfs.errors import Busy
from recfs.ports.batch import Batch
from recfs.state.nodes import DirNode

from .build import OPERATOR, REC, USER, Filesystem, pattern

SHOWN = "users/5/thumbnails/a.png"


async def by_create(fs: Filesystem) -> None:
    await fs.write(SHOWN, b"own")
    await fs.unlink(SHOWN)


async def by_mkdir(fs: Filesystem) -> None:
    await fs.mkdirs(SHOWN)
    await fs.rmdir(SHOWN)


async def by_symlink(fs: Filesystem) -> None:
    parent, name = await fs.folder(SHOWN)
    await fs.vfs.symlink(parent, name, b"target", OPERATOR)
    await fs.unlink(SHOWN)


async def by_rename(fs: Filesystem) -> None:
    await fs.write(f"{REC}/other.png", b"own")
    await fs.rename(f"{REC}/other.png", SHOWN)
    await fs.unlink(SHOWN)


@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "after a restart"])
@pytest.mark.parametrize("own", [by_create, by_mkdir, by_symlink, by_rename])
async def test_what_was_hidden_shows_again_when_an_own_entry_has_come_and_gone(
    fs: Filesystem, own: Callable[[Filesystem], Awaitable[None]], *, restarted: bool
) -> None:
    await fs.write("shared/thumbnails/a.png", b"shared")
    await fs.mkdirs("users/5")
    await fs.mkdirs(REC)
    await fs.unlink(SHOWN, USER)
    assert await fs.names("users/5/thumbnails") == []
    if restarted:
        await fs.drain()
        await fs.stop()
        await fs.reopen()
    await own(fs)
    assert await fs.names("users/5/thumbnails") == ["a.png"]
    await fs.drain()
    assert fs.rows("select count(*) from whiteout") == [0]


@pytest.mark.parametrize("state", ["incomplete", "corrupt"])
@pytest.mark.usefixtures("any_log")
async def test_a_file_that_stays_as_it_is_takes_over_a_name_at_once(fs: Filesystem, state: str) -> None:
    """The committed bytes that had it leave the home tree: nothing will be promised of their successor any more."""
    fs.checked_at_end = False
    old = pattern(9000, seed=1)
    await fs.write(f"{REC}/old", old)
    await fs.write(f"{REC}/new", b"committed")
    await fs.drain()
    if state == "incomplete":
        number = await fs.open(f"{REC}/new", os.O_RDWR)
        await fs.vfs.files.write(number, 0, b"half")
        await fs.parts.behind.flush()
        await fs.crash()
        await fs.reopen()
    else:
        (fs.root / REC / "new").write_bytes(b"changed out of band")
        with pytest.raises(Exception, match="is corrupt"):
            await fs.open(f"{REC}/new")
    assert await fs.state(f"{REC}/new") == state
    await fs.rename(f"{REC}/new", f"{REC}/old")
    await fs.drain()
    assert fs.rows("select count(*) from garbage") == [0]
    at_home = fs.root / REC / "old"
    assert not at_home.exists() if state == "incomplete" else at_home.read_bytes() == b"changed out of band"
    assert await fs.state(f"{REC}/old") == state


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_large_removal_lets_others_have_their_turn(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, loaded: bool
) -> None:
    """A sweep of thousands of files: requests come in between, and never wait for longer than a turn or a file."""
    monkeypatch.setattr("recfs.state.work.turns.TURN_S", 0.0)
    await fs.mkdirs("temp/5/1")
    folder = await fs.node("temp/5/1")
    for count in range(600):
        await fs.vfs.symlink(folder.ino, b"%d" % count, b"target", OPERATOR)
    if not loaded:
        await fs.drain()
        for ino in [child.ino for child in folder.children.values()]:
            fs.vfs.tree.nodes[ino].kernel_refs = 0
            fs.vfs.tree.memory.let_go(ino)
        assert not folder.children
    removed_between: list[int] = []
    stop = trio.Event()

    async def others() -> None:
        before = folder.rfiles
        while not stop.is_set():
            await trio.lowlevel.checkpoint()
            removed_between.append(before - folder.rfiles)
            before = folder.rfiles

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        assert await fs.vfs.trees.remove(folder) == 600
        stop.set()
    assert 0 < max(removed_between) <= 2  # trio has those that can run do so in any order


async def test_a_removal_asks_after_each_turn_whether_it_may_go_on(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what is loaded a page at a time: nothing goes after somebody has come back."""
    monkeypatch.setattr("recfs.state.work.turns.TURN_S", 0.0)
    folder = await fs.mkdirs("temp/5/1")
    for count in range(100):
        await fs.vfs.symlink(folder.ino, b"%d" % count, b"target", OPERATOR)
    await fs.drain()
    for ino in [child.ino for child in folder.children.values()]:
        fs.vfs.tree.memory.let_go(ino)
    assert not folder.children
    asked: list[int] = []

    def is_used(top: DirNode) -> bool:
        asked.append(top.rfiles)
        return len(asked) > 10

    with pytest.raises(Busy):
        await fs.vfs.trees.remove(folder, keep=is_used)
    assert asked == [*range(100, 89, -1)]
    assert folder.rfiles == 90
    await fs.drain()
    assert len(await fs.names("temp/5/1")) == 90
    await fs.assert_consistent()


@pytest.mark.slow
async def test_a_large_removal_is_written_in_pieces(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while others write their rows at once, as every rename does: each transaction keeps requests waiting."""
    monkeypatch.setattr("recfs.fs.names.removal.REMOVED_IN_BATCH", 100)
    folder = await fs.mkdirs("temp/5/1")
    for count in range(600):
        await fs.vfs.symlink(folder.ino, b"%d" % count, b"target", OPERATOR)
    await fs.drain()
    written: list[int] = []
    apply = fs.parts.catalogue.apply

    async def applied(batch: Batch, *, trial: bool = False) -> None:
        written.append(len(batch.removed))
        await apply(batch, trial=trial)

    monkeypatch.setattr(fs.parts.catalogue, "apply", applied)
    assert await fs.vfs.trees.remove(folder) == 600
    await fs.drain()
    assert sum(written) == 601
    assert max(written) <= 100
