"""The end of a mount: what the kernel had not yet told when it was taken away."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recfs import ending
from recfs.fuse.mounting import Detached

from .build import REC, Filesystem
from .ending import ending_of

if TYPE_CHECKING:
    import trio

FILE = f"{REC}/file"


@pytest.fixture
async def fs(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Filesystem]:
    """A running file system."""
    made = Filesystem(nursery, tmp_path / "root")
    await made.start()
    await made.mkdirs(REC)
    yield made
    await made.stop()


@pytest.mark.parametrize(("how", "state"), [(Detached.IDLE, "committed"), (Detached.BUSY, "writing")])
async def test_a_close_the_kernel_never_reported(
    fs: Filesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Detached, state: str
) -> None:
    """An ordinary unmount succeeds only when nothing is open: then everything was closed. A lazy one proves nothing."""
    monkeypatch.setattr(ending, "LAST_RELEASES_S", 0.01)
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"data")
    await ending_of(fs, tmp_path)._last_releases(how)
    await fs.drain()
    assert await fs.state(FILE) == state
    if how is Detached.BUSY:
        await fs.close(number)
