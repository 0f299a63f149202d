"""What of the home tree is gone, or was only renamed: when rows go, and when they are kept for the operator."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import trio

from recfs.core.model import State

from .build import REC, filesystem, until
from .watching import FILE, OTHER, QUIET_S, Watched, watching

ExpectLog = Callable[[str], None]


async def many(watched: Watched, count: int = 60) -> None:
    """Files in one directory."""
    for number in range(count):
        await watched.fs.write(f"{REC}/many/{number}", b"%d" % number)
    await watched.fs.drain()
    await watched.settled()


async def held(watched: Watched) -> None:
    """Until the watcher has noticed, and long enough for it to do something."""
    watched.watcher.scan()
    await until(lambda: watched.watcher.as_json()["held"])
    await trio.sleep(10 * QUIET_S)


async def test_a_directory_that_is_gone_with_many_files_is_held(watched: Watched, expect_log: ExpectLog) -> None:
    expect_log("60 of 62 files are gone")
    fs = watched.fs
    await many(watched)
    (watched.home / REC / "many").rename(watched.home / "elsewhere")
    await held(watched)
    assert len(await fs.names(f"{REC}/many")) == 60
    (watched.home / "elsewhere").rename(watched.home / REC / "many")
    await until(lambda: not watched.watcher.as_json()["held"])
    await watched.settled()
    assert await fs.read(f"{REC}/many/59") == b"59"
    assert watched.problems() == {}
    assert watched.found() == 0
    await fs.assert_consistent()


@pytest.mark.may_log("are gone from the disk at once")  # until both directories were looked at
async def test_what_is_renamed_holds_nothing_up(watched: Watched) -> None:
    """Many files by themselves, many in a directory, and one that is really gone: it is forgotten as usual."""
    fs = watched.fs
    await many(watched)
    for number in range(60):
        await fs.write(f"{REC}/more/{number}", b"%d" % number)
    await fs.drain()
    await watched.settled()
    numbers = {(await fs.node(f"{REC}/{name}/59")).ino for name in ("many", "more")}
    began_s = trio.current_time()
    for number in range(60):
        (watched.home / f"{REC}/many/{number}").rename(watched.home / f"{REC}/sub/{number}")
    (watched.home / REC / "more").rename(watched.home / REC / "renamed")
    (watched.home / FILE).unlink()
    await watched.seen(lambda: watched.found() == 62)
    assert trio.current_time() - began_s < 20 * QUIET_S
    assert (watched.count("moved"), watched.count("removed")) == (61, 1)
    assert watched.watcher.as_json()["held"] is None
    assert await fs.names(REC) == ["many", "renamed", "sub"]
    assert {(await fs.node(f"{REC}/{name}/59")).ino for name in ("sub", "renamed")} == numbers
    await watched.settled()
    await fs.assert_consistent()


@pytest.mark.may_log("are gone from the disk at once")  # until both directories were looked at
async def test_what_is_moved_over_others_holds_nothing_up(watched: Watched) -> None:
    """The bytes of each name that goes are those of another name now."""
    fs = watched.fs
    await many(watched)
    for number in range(60):
        await fs.write(f"{REC}/over/{number}", b"over")
    await fs.drain()
    await watched.settled()
    for number in range(60):
        (watched.home / f"{REC}/many/{number}").rename(watched.home / f"{REC}/over/{number}")
    await watched.seen(lambda: watched.found() == 120)
    assert (watched.count("changed"), watched.count("removed")) == (60, 60)
    await watched.settled()
    assert await fs.names(f"{REC}/many") == []
    assert await fs.read(f"{REC}/over/59") == b"59"
    (watched.home / FILE).unlink()  # nor does the guard remember them as losses
    for number in range(19):
        (watched.home / f"{REC}/over/{number}").unlink()
    await watched.seen(lambda: watched.count("removed") == 80)
    assert watched.watcher.as_json()["held"] is None
    await fs.assert_consistent()


@pytest.mark.slow
async def test_files_that_go_one_by_one_are_held_all_the_same(watched: Watched, expect_log: ExpectLog) -> None:
    expect_log("gone from the disk at once")
    fs = watched.fs
    await many(watched)
    for number in range(0, 60, 5):
        for each in range(number, number + 5):
            (watched.home / f"{REC}/many/{each}").unlink()
        watched.watcher.scan()
        await trio.sleep(2 * QUIET_S)
    await held(watched)
    assert watched.count("removed") <= 20
    assert len(await fs.names(f"{REC}/many")) >= 40
    assert watched.watcher.accept() >= 40
    await watched.settled()
    assert not await fs.names(f"{REC}/many")
    assert watched.problems() == {}
    await fs.assert_consistent()


async def test_a_start_finds_an_empty_disk_and_forgets_nothing(watched: Watched, expect_log: ExpectLog) -> None:
    expect_log("gone from the disk at once")
    fs = watched.fs
    await many(watched)
    async with filesystem(watched.home.parent / "other") as other:
        await other.stop()
    shutil.rmtree(watched.home / "users/5")
    async with watching(fs) as second:
        await held(second)
        assert len(await fs.names(f"{REC}/many")) == 60
        fs.checked_at_end = False


async def test_the_stores_own_directories_have_to_be_there(watched: Watched, expect_log: ExpectLog) -> None:
    expect_log("is its disk mounted")
    fs, users = watched.fs, watched.home / "users"
    users.rename(watched.home / "users.old")
    await held(watched)
    assert await fs.names(REC) == ["file", "sub"]
    assert watched.watcher.accept() >= 0
    await trio.sleep(10 * QUIET_S)
    assert await fs.names(REC) == ["file", "sub"], "that is not for anybody to accept"
    (watched.home / "users.old").rename(users)
    watched.watcher.scan()
    await until(lambda: not watched.watcher.as_json()["held"])
    assert await fs.read(OTHER) == b"other"


@pytest.mark.parametrize("away", ["removed", "renamed", "a directory"])
async def test_what_goes_before_it_is_hashed_comes_to_an_end(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, expect_log: ExpectLog, away: str
) -> None:
    """It was taken over, and waited for its turn to be read."""
    expect_log("set aside, tried again later")
    fs, path, other = watched.fs, watched.home / REC / "new", watched.home / REC / "renamed"
    pipeline = fs.parts.vfs.pipeline
    submit = pipeline.submit

    def late(ino: int) -> None:
        monkeypatch.undo()
        if away == "renamed":
            path.rename(other)
        else:
            path.unlink()
        if away == "a directory":
            path.mkdir()
        submit(ino)

    before = fs.account()
    monkeypatch.setattr(pipeline, "submit", late)
    path.write_bytes(b"new")
    await watched.seen(lambda: watched.count("moved" if away == "renamed" else "removed") == 1)
    await watched.settled()
    assert fs.parts.problems.as_json() == []
    if away == "renamed":
        assert await fs.read(f"{REC}/renamed") == b"new"
        assert (await fs.node(f"{REC}/renamed")).state is State.COMMITTED
    else:
        assert fs.account() == before
    assert await fs.exists(f"{REC}/new") == (away == "a directory")
    await fs.assert_consistent()
