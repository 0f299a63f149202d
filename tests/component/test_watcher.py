"""What is done to the home tree past recfs, and what the watcher makes of it. Time is virtual, the events are real."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.disk.home.path_resolver import PathResolver
from recfs.services.watcher import Watcher
from recfs.state.problems import forever

from .build import REC, Filesystem, filesystem, pattern, until

QUIET_S = 2.0
FILE, OTHER = f"{REC}/file", f"{REC}/sub/other"


class Watched:
    """A file system with a watcher."""

    def __init__(self, fs: Filesystem, nursery: trio.Nursery) -> None:
        self.fs = fs
        self.home = fs.root
        self._nursery = nursery
        self.watcher: Watcher

    async def begin(self, **settings: Any) -> None:
        """Have it run, and look at everything once."""
        parts = self.fs.parts
        self.watcher = Watcher(
            parts.vfs, PathResolver(parts.store), parts.store, parts.publisher, self.fs.kernel,
            **({"quiet_s": QUIET_S, "scan_interval_s": 600.0} | settings),
        )  # fmt: skip
        self._nursery.start_soon(forever, "watch", self.watcher.run, parts.problems)
        await until(lambda: self.watcher.scans)

    async def seen(self, condition: Callable[[], object]) -> None:
        """Until the events had that effect: they come from another thread, in real time."""
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            await trio.to_thread.run_sync(time.sleep, 0.001)
            await trio.sleep(0.05)

    async def settled(self) -> None:
        """Until all is looked at, whatever became of events, and nothing waits any more."""
        scans = self.watcher.scans
        self.watcher.scan()
        await until(lambda: self.watcher.scans > scans)
        with trio.move_on_after(100 * QUIET_S):
            await until(lambda: not self.waiting)
        await self.fs.drain()

    @property
    def waiting(self) -> int:
        """How many entries are not yet believed."""
        return int(self.watcher.as_json()["waiting"])

    def problems(self) -> dict[str, str]:
        """What it tells, by path."""
        return {each["path"]: each["reason"] for each in self.fs.parts.problems.as_json() if each["part"] == "watch"}


@pytest.fixture
async def watched(place: Path, autojump_clock: object) -> AsyncIterator[Watched]:
    """One with two files, whose watcher has looked at everything."""
    async with filesystem(place / "root") as fs:
        await fs.write(FILE, pattern(70_000))
        await fs.write(OTHER, b"other")
        await fs.drain()
        async with trio.open_nursery() as inner:
            made = Watched(fs, inner)
            await made.begin()
            yield made
            inner.cancel_scope.cancel()


async def test_a_file_that_was_put_there_is_adopted(watched: Watched) -> None:
    fs = watched.fs
    new = watched.home / REC / "new"
    new.write_bytes(b"new")
    new.chmod(0o640)
    os.utime(new, ns=(1, 1_700_000_000_123_456_789))
    await watched.settled()
    node = await fs.node(f"{REC}/new")
    assert (node.mode, node.mtime_ns, node.bytes) == (0o640, 1_700_000_000_123_456_789, 3)
    assert await fs.state(f"{REC}/new") == "committed"
    assert await fs.read(f"{REC}/new") == b"new"
    assert fs.account() == (70_000 + 5 + 3, 3)
    assert new.stat().st_mtime_ns == 1_700_000_000_123_456_789
    await fs.assert_consistent()


async def test_events_alone_are_enough(watched: Watched) -> None:
    fs, scans = watched.fs, watched.watcher.scans
    (watched.home / "users/7/recordings/1/deep/er").mkdir(parents=True)
    (watched.home / "users/7/recordings/1/deep/er/file").write_bytes(b"file")
    (watched.home / "users/7/recordings/1/link").symlink_to("deep")
    await watched.seen(lambda: watched.watcher.as_json()["adopted"] == 7)
    await fs.drain()
    assert await fs.tree("users/7/recordings") == {
        "users/7/recordings/1": None,
        "users/7/recordings/1/deep": None,
        "users/7/recordings/1/deep/er": None,
        "users/7/recordings/1/deep/er/file": b"file",
        "users/7/recordings/1/link": b"-> deep",
    }
    assert fs.account("7") == (4, 2)
    assert watched.watcher.scans == scans
    await fs.assert_consistent()


async def test_a_changed_file_is_a_new_version(watched: Watched) -> None:
    fs = watched.fs
    before = await fs.node(FILE)
    sha256 = before.sha256
    with (watched.home / FILE).open("ab") as stream:
        stream.write(b"more")
    (watched.home / f"{REC}/sub/.new").write_bytes(b"replaced")
    (watched.home / f"{REC}/sub/.new").rename(watched.home / OTHER)
    await watched.settled()
    after = await fs.node(FILE)
    assert after.ino == before.ino
    assert after.sha256 != sha256
    assert await fs.read(FILE) == pattern(70_000) + b"more"
    assert await fs.read(OTHER) == b"replaced"
    assert fs.account() == (70_004 + 8, 2)
    assert {before.ino, (await fs.node(OTHER)).ino} <= set(fs.kernel.inodes)
    await fs.assert_consistent()


async def test_a_removed_file_loses_its_name(watched: Watched) -> None:
    fs = watched.fs
    (watched.home / FILE).unlink()
    await watched.settled()
    assert await fs.names(REC) == ["sub"]
    assert fs.account() == (5, 1)
    await fs.assert_consistent()


async def test_a_removed_directory_goes_with_all_in_it(watched: Watched) -> None:
    fs = watched.fs
    shutil.rmtree(watched.home / "users/5/recordings")
    await watched.settled()
    assert await fs.tree("users/5") == {"users/5/thumbnails": None}
    assert fs.account() == (0, 0)
    await fs.assert_consistent()


async def test_what_is_moved_is_renamed(watched: Watched) -> None:
    fs = watched.fs
    file, sub = await fs.node(FILE), await fs.node(f"{REC}/sub")
    await fs.mkdirs("users/6/recordings/1")
    await fs.drain()
    (watched.home / FILE).rename(watched.home / "users/6/recordings/1/moved")
    (watched.home / f"{REC}/sub").rename(watched.home / f"{REC}/folder")
    await watched.settled()
    assert (await fs.node("users/6/recordings/1/moved")).ino == file.ino
    assert (await fs.node(f"{REC}/folder")).ino == sub.ino
    assert await fs.tree(REC) == {f"{REC}/folder": None, f"{REC}/folder/other": b"other"}
    assert (fs.account("5"), fs.account("6")) == ((5, 1), (70_000, 1))
    assert watched.watcher.as_json()["adopted"] == 0
    await fs.assert_consistent()
