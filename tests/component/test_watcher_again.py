"""What the watcher could tell nothing of is looked at again, and nothing waits for that."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING
from unittest import mock

import trio

from recfs.disk.watching import looks
from recfs.fs.foreign import again
from recfs.fs.foreign.again import Again

from .build import REC, until
from .watching import OTHER, QUIET_S, Watched

if TYPE_CHECKING:
    import pytest

ExpectLog = Callable[[str], None]
SUB = f"{REC}/sub"


async def test_a_directory_that_is_made_again_is_watched_where_it_is_now(
    watched: Watched, expect_log: ExpectLog
) -> None:
    """The one that it was still exists, outside of the tree, and what is done there is nobody's concern."""
    expect_log("set aside, tried again later")
    fs, home, scans = watched.fs, watched.home, watched.watcher.scans
    away = home.parent / "away"
    (home / SUB).rename(away)
    await fs.write(f"{SUB}/mine", b"mine")
    await until((home / SUB / "mine").exists)
    await watched.seen(lambda: watched.count("removed") == 1)
    (away / "stray").write_bytes(b"stray")
    (home / SUB / "late").write_bytes(b"late")
    await watched.seen(lambda: watched.count("adopted") == 1)
    await fs.drain()
    assert await fs.tree(SUB) == {f"{SUB}/late": b"late", f"{SUB}/mine": b"mine"}
    assert (watched.watcher.scans, watched.waiting) == (scans, 0)
    shutil.rmtree(away)
    await fs.assert_consistent()


async def test_a_directory_that_cannot_be_read_holds_nobody_up(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog
) -> None:
    """It is looked at ever more rarely, told meanwhile, and what has come into it is found once it can be read."""
    expect_log("set aside, tried again later")
    look, failed = looks.look, [0.0]
    sub = await watched.fs.node(SUB)

    def look_or_fail(store: object, watches: object, ino: int, *rest: object) -> object:
        if ino == sub.ino and failed:
            failed.append(trio.from_thread.run_sync(trio.current_time))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return look(store, watches, ino, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(looks, "look", look_or_fail)
    (watched.home / SUB / "found").write_bytes(b"found")
    await watched.seen(lambda: len(failed) > 1)
    (watched.home / REC / "beside").write_bytes(b"beside")
    await watched.seen(lambda: watched.count("adopted") == 1)
    await trio.sleep(100.0)
    assert 5 < len(failed) < 14, failed
    assert failed[-1] - failed[-2] > 15 * again.FIRST_S
    assert await watched.fs.names(SUB) == ["other"]
    assert [reason for path, reason in watched.problems().items() if "directory" in path] != []
    failed.clear()
    await until(lambda: watched.count("adopted") == 2)
    assert await watched.fs.read(f"{SUB}/found") == b"found"
    assert watched.problems() == {}


async def test_what_waited_in_a_directory_that_goes_waits_no_more(watched: Watched, expect_log: ExpectLog) -> None:
    expect_log("held files recfs does not know")
    fs = watched.fs
    (watched.home / SUB / "new").write_bytes(b"new")
    await watched.seen(lambda: watched.waiting == 1)
    await fs.unlink(OTHER)
    await fs.rmdir(SUB)
    await fs.drain()
    with trio.fail_after(20 * QUIET_S):
        await until(lambda: watched.waiting == 0)
    assert [path.read_bytes() for path in (watched.home / ".recfs/lost+found").rglob("new")] == [b"new"]


async def test_what_cannot_be_taken_over_is_tried_again(watched: Watched, expect_log: ExpectLog) -> None:
    expect_log("set aside, tried again later")
    rows = watched.watcher._acts._rows
    with mock.patch.object(rows, "file", side_effect=OSError(errno.EIO, os.strerror(errno.EIO))):
        (watched.home / REC / "new").write_bytes(b"new")
        await watched.seen(lambda: f"{REC}/new" in watched.problems())
    await until(lambda: watched.count("adopted") == 1)
    assert watched.problems() == {}


async def test_too_many_to_remember_are_found_by_a_look_at_everything(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "MOST", 2)
    kept = Again(watched.fs.parts.tree, watched.watcher._marks)
    for ino in (101, 102, 103):
        kept.want(ino)
    assert (len(kept), 103 in kept, kept.take_crowded()) == (2, False, False)
    await trio.sleep(again.FIRST_S)
    assert kept.take_due() == [101, 102]
    kept.want(101)
    assert kept.next_s == trio.current_time() + 2 * again.FIRST_S
    for ino in (101, 102):
        kept.looked(ino)
    assert (kept.take_crowded(), kept.take_crowded()) == (True, False)
