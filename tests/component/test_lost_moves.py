"""Files that were removed past recfs, and are renamed or removed in the mount before anybody has noticed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from recfs.errors import IoFailure

from .build import OPERATOR, REC, Filesystem, filesystem

pytestmark = pytest.mark.expect_log("it was removed out of band before it was moved")
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
