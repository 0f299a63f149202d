"""What a request looked at is something else by the time it acts: it looks again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs.errors import NotFound
from recfs.fs.fallback_entries import FallbackEntries
from recfs.state.nodes import FileNode
from recfs.state.tree import Tree

from .build import REC, Filesystem, filesystem

pytestmark = pytest.mark.late_catalogue

Act = Callable[[Filesystem], Awaitable[Any]]
SHARED, SHOWN = "shared/thumbnails/a.png", "users/5/thumbnails/a.png"


async def during(fs: Filesystem, what: tuple[type, str], act: Act, other: Act) -> None:
    """Do *act*, and *other* while its first call of that method is under way."""
    original, begun = getattr(*what), False

    async def then_something_else(self: Any, *args: Any) -> Any:
        nonlocal begun
        first, begun = not begun, True
        found = await original(self, *args)
        if first:
            await other(fs)
        return found

    with mock.patch.object(*what, then_something_else):
        await act(fs)
    assert begun


@pytest.mark.parametrize(
    "act",
    [
        lambda fs: fs.rmdir(f"{REC}/d"),
        lambda fs: fs.rename(f"{REC}/e", f"{REC}/d"),
    ],
    ids=["rmdir", "rename over it"],
)
async def test_a_directory_that_moved_away_is_not_removed_where_it_is_now(place: Path, act: Act) -> None:
    async with filesystem(place) as fs:
        for name in "de":
            await fs.mkdirs(f"{REC}/{name}")
        await fs.drain()
        await fs.reopen()
        moved = (await fs.node(f"{REC}/d")).ino

        async def tried(fs: Filesystem) -> None:
            try:
                await act(fs)
            except NotFound:
                assert await fs.exists(f"{REC}/e")

        await during(fs, (Tree, "is_empty"), tried, lambda fs: fs.rename(f"{REC}/d", f"{REC}/f"))
        assert (await fs.node(f"{REC}/f")).ino == moved
        await fs.assert_consistent()


async def test_what_was_exchanged_meanwhile_is_what_stands_there(fs: Filesystem) -> None:
    for user in "678":
        await fs.mkdirs(f"users/{user}")
        await fs.write(f"users/{user}/thumbnails/own", user.encode())

    async def exchange(fs: Filesystem) -> None:
        await fs.rename("users/6", "users/7", exchange=True)

    await during(
        fs, (type(fs.parts.tree.accounts), "load"), exchange, lambda fs: fs.rename("users/7", "users/8", exchange=True)
    )
    for user, content in (("6", b"8"), ("7", b"6"), ("8", b"7")):
        assert await fs.read(f"users/{user}/thumbnails/own") == content


async def test_an_own_file_that_comes_while_the_shown_one_is_removed_is_not_hidden_for_good(fs: Filesystem) -> None:
    await fs.write(SHARED, b"shared")
    await fs.mkdirs("users/5")

    async def own(fs: Filesystem) -> None:
        await fs.write("users/5/thumbnails/other", b"own")
        await fs.rename("users/5/thumbnails/other", SHOWN)

    await during(fs, (FallbackEntries, "find"), lambda fs: fs.unlink(SHOWN), own)
    assert not isinstance(await fs.node(SHOWN), FileNode)
    assert await fs.read(SHOWN) == b"shared"


async def test_a_copy_that_was_removed_before_it_was_whole_leaves_what_was_hidden_after_it(fs: Filesystem) -> None:
    """rm, and rm again, while another program opens the shown file for writing."""
    await fs.write(SHARED, b"shared")
    await fs.mkdirs("users/5")

    async def remove_twice(fs: Filesystem) -> None:
        await fs.unlink(SHOWN)
        await fs.unlink(SHOWN)

    async def open_it(fs: Filesystem) -> None:
        view = await fs.node(SHOWN)
        await fs.vfs.copies_up.own(view, mock.Mock(uid=0, gid=0, operator=True), empty=False)

    await during(fs, (type(fs.vfs.copies_up), "_bytes"), open_it, remove_twice)
    assert not await fs.exists(SHOWN)


# --- what the kernel forgets ------------------------------------------------------------------------------------------


def forgotten(fs: Filesystem, ino: int) -> bool:
    """The kernel drops all it knew of an inode, and memory is full; whether it was unloaded."""
    memory = fs.parts.tree.memory
    kept, memory.cached_inodes = memory.cached_inodes, 0
    memory.forget(ino, 1 << 20)
    memory.cached_inodes = kept
    return ino not in fs.parts.tree.nodes


async def test_a_directory_stays_in_memory_while_a_removed_file_lies_in_it(fs: Filesystem) -> None:
    """Forgotten and loaded again it would be another object, and nobody would tell the first one of a move."""
    await fs.write(f"{REC}/d/file", b"bytes")
    await fs.write("users/6/recordings/1/other", b"other")
    await fs.drain()
    settle = fs.parts.publisher.publish_some
    fs.parts.publisher.publish_some = trio.lowlevel.checkpoint  # type: ignore[method-assign]
    await fs.unlink(f"{REC}/d/file")
    await fs.parts.behind.flush()
    folder = await fs.node(f"{REC}/d")
    ino = folder.ino
    del folder
    assert not forgotten(fs, ino)
    await fs.rename(f"{REC}/d", "users/6/recordings/1/e")
    await fs.parts.behind.flush()
    fs.parts.publisher.publish_some = settle  # type: ignore[method-assign]
    await fs.drain()
    await fs.rmdir("users/6/recordings/1/e")
    await fs.assert_consistent()


async def test_what_a_request_has_in_its_hands_stays_in_memory(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", b"bytes")
    await fs.drain()
    node = await fs.node(f"{REC}/file")
    assert not forgotten(fs, node.ino)
    assert await fs.node(f"{REC}/file") is node
    ino = node.ino
    del node
    assert forgotten(fs, ino)
    assert await fs.read(f"{REC}/file") == b"bytes"
    ino = (await fs.mkdirs(f"{REC}/d")).ino
    await fs.drain()
    assert forgotten(fs, ino)
