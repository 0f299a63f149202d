"""Where inotify has room for some directories only: what leaves one that is watched may be in one that is not."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from unittest import mock

import pytest
import trio
from watchdog.observers.inotify_c import InotifyFD

from .build import OPERATOR, REC, filesystem, until
from .watching import FILE, Watched, watching

UNWATCHED = f"{REC}/unwatched"
RECORDINGS = "users/6/recordings"
pytestmark = pytest.mark.slow


@pytest.fixture
async def crowded(place: Path, autojump_clock: object, any_log: None) -> AsyncIterator[Watched]:
    """A store whose last directories cannot be watched: they came when the kernel had no more room."""
    async with filesystem(place / "root") as fs:
        await fs.write(FILE, b"file")
        await fs.write("users/5/recordings/200/source.mp4", b"source")
        await fs.drain()
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        async with watching(fs, scan_interval_s=60.0) as watched:
            with mock.patch.object(InotifyFD, "add_callback", side_effect=full):
                await fs.write(f"{UNWATCHED}/other", b"other")
                await fs.mkdirs(RECORDINGS)
                await fs.drain()
                await watched.seen(lambda: watched.watcher.as_json()["limit"])
                yield watched


async def test_a_file_that_is_moved_to_where_nobody_looks_is_renamed(crowded: Watched) -> None:
    fs = crowded.fs
    before = await fs.node(FILE)
    await fs.xattrs.set(before.ino, b"user.k", b"1", OPERATOR)
    await fs.drain()
    (crowded.home / FILE).rename(crowded.home / UNWATCHED / "moved")
    await until(crowded.found)
    await crowded.settled()
    after = await fs.node(f"{UNWATCHED}/moved")
    assert (crowded.count("moved"), crowded.count("removed"), crowded.count("adopted")) == (1, 0, 0)
    assert after.ino == before.ino
    assert await fs.xattrs.get(after.ino, b"user.k") == b"1"


async def test_a_recording_that_is_moved_to_where_nobody_looks_keeps_its_dates(crowded: Watched) -> None:
    fs = crowded.fs
    before = await fs.node("users/5/recordings/200")
    await fs.xattrs.set(before.ino, b"user.recfs.expires_at", b"2040-01-01T00:00:00Z", OPERATOR)
    await fs.drain()
    (crowded.home / "users/5/recordings/200").rename(crowded.home / RECORDINGS / "200")
    await until(crowded.found)
    await crowded.settled()
    after = await fs.node(f"{RECORDINGS}/200")
    assert after.ino == before.ino
    assert after.life.expires_ns is not None


async def test_what_is_removed_goes_after_a_look_at_everything(crowded: Watched) -> None:
    fs = crowded.fs
    await until(lambda: crowded.watcher.scans == 2)
    await fs.write(f"{REC}/second", b"second")
    await fs.drain()
    (crowded.home / FILE).unlink()
    (crowded.home / REC / "new").write_bytes(b"new")
    await crowded.seen(lambda: crowded.count("adopted"))  # by an event
    assert (crowded.watcher.scans, crowded.count("removed")) == (2, 0)
    await until(lambda: crowded.count("removed"))
    assert crowded.watcher.scans > 2
    assert await fs.names(REC) == ["new", "second", "unwatched"]
    await fs.assert_consistent()


async def test_what_is_put_where_nobody_looks_is_found(crowded: Watched) -> None:
    """The limit was reached while the daemon ran: it is told at once, and everything is looked at again and again."""
    (reason,) = crowded.problems().values()
    assert "fs.inotify.max_user_watches" in reason
    await until(lambda: crowded.watcher.scans == 2)
    (crowded.home / UNWATCHED / "new").write_bytes(b"new")
    began_s = trio.current_time()
    await until(lambda: crowded.count("adopted"))
    assert trio.current_time() - began_s > 50.0
    assert await crowded.fs.read(f"{UNWATCHED}/new") == b"new"
