"""Removing a user's directory, whose own directories go with it, while somebody makes a file in one of them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from recfs.errors import Exists, NotEmpty, NotFound
from recfs.state.tree import Tree

from .build import OPERATOR, Filesystem, filesystem

Act = Callable[[Filesystem], Awaitable[None]]


async def remove(fs: Filesystem) -> None:
    await fs.rmdir("users/7")


async def replace(fs: Filesystem) -> None:
    await fs.rename("users/8", "users/7")


async def make_file(fs: Filesystem) -> None:
    parent = (await fs.node("users/7/thumbnails")).ino
    number, _ = await fs.vfs.create(parent, b"x", 0o644, os.O_WRONLY, OPERATOR)
    await fs.vfs.files.write(number, 0, b"hello")
    await fs.close(number)


async def make_directory(fs: Filesystem) -> None:
    await fs.vfs.mkdir((await fs.node("users/7")).ino, b"recordings", 0o755, OPERATOR)


@pytest.mark.parametrize("look", ["is_empty", "page", "child"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("other", [make_file, make_directory], ids=["a file", "a directory"])
@pytest.mark.parametrize("act", [remove, replace], ids=["rmdir", "rename"])
@pytest.mark.table(4)
async def test_what_comes_into_it_meanwhile_keeps_it(place: Path, act: Act, other: Act, nth: int, look: str) -> None:
    async with filesystem(place) as fs:
        await fs.mkdirs("users/7")
        await fs.mkdirs("users/8")
        await fs.drain()
        await fs.reopen()  # nothing is loaded: the catalogue has to be asked
        looked = 0
        original = getattr(Tree, look)

        async def then_somebody_comes(tree: Tree, folder: Any, *args: Any) -> Any:
            nonlocal looked
            found = await original(tree, folder, *args)
            if b"7" in folder.parts():
                looked += 1
                if looked == nth:
                    await other(fs)
            return found

        made = gone = True
        with mock.patch.object(Tree, look, then_somebody_comes):
            try:
                await act(fs)
            except NotEmpty:
                gone = False
            if looked < nth:
                made = False
        assert gone != made, "either the directory goes, or something comes into it"
        if made and other is make_file:
            assert await fs.read("users/7/thumbnails/x") == b"hello"
        await fs.drain()
        await fs.reopen()
        await fs.assert_consistent()


@pytest.mark.parametrize("act", [remove, replace], ids=["rmdir", "rename"])
async def test_it_goes_with_what_came_with_it(place: Path, act: Act) -> None:
    async with filesystem(place) as fs:
        await fs.mkdirs("users/7")
        await fs.mkdirs("users/8")
        thumbnails = await fs.node("users/7/thumbnails")
        await fs.drain()
        await act(fs)
        with pytest.raises(NotFound):
            await fs.vfs.create(thumbnails.ino, b"x", 0o644, os.O_WRONLY, OPERATOR)
        await fs.drain()
        await fs.reopen()
        assert await fs.exists("users/7") == (act is replace)


async def test_a_refused_rename_leaves_what_came_with_the_target(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.mkdirs("users/7")
        await fs.mkdirs("users/8")
        with pytest.raises(Exists):
            await fs.rename("users/8", "users/7", noreplace=True)
        assert await fs.names("users/7") == ["thumbnails"]
