"""Files that were removed past recfs, and are renamed or removed in the mount before anybody has noticed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from recfs.errors import IoFailure

from .build import OPERATOR, REC, Filesystem, filesystem

MOVED = pytest.mark.expect_log("it was removed out of band before it was moved")
ONE, TWO, THREE = f"{REC}/one", f"{REC}/two", f"{REC}/three"
UNWATCHED: dict[str, Any] = {"watch": {"enabled": False}}


@pytest.fixture(params=[0.0, 3600.0], ids=["no-trash", "trash"])
async def fs(place: Path, request: pytest.FixtureRequest) -> AsyncIterator[Filesystem]:
    """With two files whose bytes are gone."""
    async with filesystem(place / "root", trash={"retention": request.param}, **UNWATCHED) as made:
        for path in (ONE, TWO):
            await made.write(path, b"bytes")
        await made.drain()
        for path in (ONE, TWO):
            (made.root / path).unlink()
        yield made


@MOVED
async def test_nothing_is_tried_for_ever(fs: Filesystem) -> None:
    await fs.rename(TWO, THREE)
    if fs.config.trash.retention:
        await fs.unlink(ONE)
    await fs.drain()
    assert fs.parts.problems.as_json() == []
    assert (await fs.answers()["trash_list"]({}))["entries"] == []
    with pytest.raises(IoFailure, match="bytes are missing"):
        await fs.read(THREE)
    await fs.write(TWO, b"new")
    await fs.drain()
    assert (fs.root / TWO).read_bytes() == b"new"
    await fs.unlink(THREE)
    await fs.drain()
    assert await fs.read(TWO) == b"new"


@MOVED
async def test_directories_and_links_are_made_again(fs: Filesystem) -> None:
    await fs.mkdirs(f"{REC}/folder")
    await fs.vfs.symlink((await fs.node(REC)).ino, b"link", b"one", OPERATOR)
    await fs.drain()
    (fs.root / REC / "folder").rmdir()
    (fs.root / REC / "link").unlink()
    await fs.rename(f"{REC}/folder", f"{REC}/folder2")
    await fs.rename(f"{REC}/link", f"{REC}/link2")
    await fs.write(f"{REC}/folder2/file", b"inside")
    await fs.drain()
    assert (fs.root / REC / "folder2/file").read_bytes() == b"inside"
    assert (fs.root / REC / "link2").is_symlink()
    assert fs.parts.problems.as_json() == []


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("directory", marks=pytest.mark.expect_log("is corrupt: .* was changed out of band")),
        "link",
        "link above",
    ],
)
async def test_what_stands_in_the_place_of_a_file_is_not_opened(fs: Filesystem, kind: str) -> None:
    """That is the file's error, told in one line, and no unexpected one."""
    await fs.write(f"{REC}/sub/file", b"bytes")
    await fs.drain()
    home, outside = fs.root / REC / "sub/file", fs.root.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"elsewhere")
    home.unlink()
    if kind == "directory":
        home.mkdir()
    elif kind == "link":
        home.symlink_to(outside / "file")
    else:
        home.parent.rmdir()
        home.parent.symlink_to(outside)
    for flags in (os.O_RDONLY, os.O_RDWR):
        with pytest.raises(IoFailure):
            await fs.open(f"{REC}/sub/file", flags)
    assert (outside / "file").read_bytes() == b"elsewhere"
