"""The end of recordings: a death at each step, bytes that only S3 has, the trash, and two sweeps at once."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.life import Status
from recfs.errors import NotFound

from .build import REC, Filesystem, filesystem, pattern
from .test_recordings import DAY, FILE, OTHER, RULES, ask, show, sweep
from .test_tier import evict, stored, tiered
from .watching import watching

MOVED, SAVED = "users/5/recordings/99", f"{OTHER}/saved"
ALL = {FILE: pattern(9000), f"{REC}/deep/er/audio": b"bytes", f"{REC}/deep/notes": b"text"}


async def made(fs: Filesystem) -> None:
    """A recording of some files beside one that stays."""
    for path, data in ALL.items():
        await fs.write(path, data)
    await fs.write(f"{OTHER}/file", b"stays")
    await ask(fs, "recording_keep", path=OTHER)
    await fs.drain()


async def due(fs: Filesystem) -> None:
    """… of which the grace is over."""
    await made(fs)
    fs.clock.advance(31 * DAY)
    assert await sweep(fs) == {REC: "expire"}
    fs.clock.advance(8 * DAY)


async def remove(fs: Filesystem) -> None:
    """The procedure."""
    await ask(fs, "sweep_expired")
    await fs.drain()


@pytest.mark.slow
@pytest.mark.may_log("closed database")
@pytest.mark.parametrize("trash", [False, True])
async def test_a_death_at_any_step_of_the_removal_is_made_up_for_by_the_next_sweep(place: Path, trash: bool) -> None:
    done, step = False, 0
    settings = RULES | ({"trash": {"retention": "30d"}} if trash else {})
    while not done:
        step += 1
        async with filesystem(place / str(step), **settings) as fs:
            await due(fs)
            done = await fs.until_stopped(remove, step)
            await fs.crash()
            await fs.start_and_die(1 + step * 5 % 13)
            await fs.reopen()
            await fs.drain()
            if await fs.exists(REC):
                status = (await fs.node(REC)).life.status
                assert status in (Status.EXPIRED, Status.REMOVING)
                if status is Status.EXPIRED:
                    for path, data in ALL.items():
                        assert await fs.read(path) == data, step
                else:
                    with pytest.raises(NotFound):
                        await fs.read(FILE)
                assert await sweep(fs) == {REC: "remove"}, step
            assert not await fs.exists(REC)
            assert await sweep(fs) == {}
            assert await fs.read(f"{OTHER}/file") == b"stays"
            assert fs.account() == (5, 1)
            await fs.drain()
            assert fs.rows("select keep from recording") == [1]
            await fs.assert_consistent(trash=3 if trash else 0)
    assert step > 8


@pytest.mark.slow
@pytest.mark.may_log("closed database")
async def test_a_death_while_a_recording_expires_leaves_it_as_it_was_or_expired(place: Path) -> None:
    done, step = False, 0
    while not done:
        step += 1
        async with filesystem(place / str(step), **RULES) as fs:
            await made(fs)
            fs.clock.advance(31 * DAY)
            done = await fs.until_stopped(remove, step)
            await fs.crash()
            await fs.reopen()
            assert await fs.read(FILE) == pattern(9000)
            if (await show(fs))["status"] == "active":
                assert not done
                assert await sweep(fs) == {REC: "expire"}
            told = await show(fs)
            assert (told["status"], told["due_s"]) == ("expired", 7 * DAY), step
            await fs.assert_consistent()
    assert step > 1


async def test_what_only_s3_has_goes_from_there(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place, **RULES)
    await fs.start()
    await due_in_s3(fs)
    assert set(stored(fs)) == {*ALL, f"{OTHER}/file"}
    await remove(fs)
    assert not await fs.exists(REC)
    assert set(stored(fs)) == {f"{OTHER}/file"}
    assert fs.account() == (5, 1)
    await fs.assert_consistent()
    await fs.stop()


async def due_in_s3(fs: Filesystem) -> None:
    """A recording of which the grace is over, and one of its files lies in S3 alone."""
    await made(fs)
    assert (await evict(fs, FILE)).state.is_remote
    fs.clock.advance(31 * DAY)
    assert await sweep(fs) == {REC: "expire"}
    assert await fs.read(FILE) == pattern(9000)
    fs.clock.advance(8 * DAY)


async def test_with_a_trash_the_bytes_go_there_and_come_back(place: Path) -> None:
    async with filesystem(place / "root", **RULES, trash={"retention": "30d"}) as fs:
        await due(fs)
        await remove(fs)
        assert not await fs.exists(REC)
        await fs.assert_consistent(trash=3)
        result = await ask(fs, "trash_restore", path=REC)
        assert (result["files"], result["kept"]) == (3, [])
        for path, data in ALL.items():
            assert await fs.read(path) == data
        assert (await show(fs))["status"] == "active", "it begins another life"


async def test_two_sweeps_at_once_do_it_once(place: Path) -> None:
    async with filesystem(place / "root", **RULES) as fs:
        await due(fs)
        for n in range(60):
            await fs.write(f"{OTHER}/{n}", b"x")
        told: list[dict[str, str]] = []

        async def one() -> None:
            told.append(await sweep(fs))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one)
        assert sorted(map(len, told)) == [0, 0, 1]
        assert {REC: "remove"} in told
        assert not await fs.exists(REC)
        await fs.assert_consistent()


@pytest.mark.parametrize(
    ("meanwhile", "told"), [("kept", {REC: "none"}), ("moved", {MOVED: "remove"}), ("saved", {}), ("gone", {})]
)
async def test_what_changed_between_look_and_act_is_judged_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str, told: dict[str, str]
) -> None:
    async with filesystem(place / "root", **RULES) as fs:
        await due(fs)
        expiry = fs.parts.work.upkeep.expiry
        look = expiry.look

        async def then() -> Any:
            seen = await look()
            if meanwhile == "kept":
                await ask(fs, "recording_keep", path=REC)
            elif meanwhile == "gone":
                await fs.vfs.trees.remove(await fs.node(REC))
            elif meanwhile == "moved":
                await fs.rename(REC, MOVED)
            else:  # by the operator, past recfs, which lets nobody make it a directory of another
                os.rename(fs.root / REC, fs.root / SAVED)
                await fs.vfs.names.has_moved(await fs.node(REC), await fs.node(OTHER), b"saved")
            return seen

        monkeypatch.setattr(expiry, "look", then)
        assert await sweep(fs) == told
        for path, there in ((REC, "kept"), (SAVED, "saved")):
            assert await fs.exists(f"{path}/video.mp4") == (meanwhile == there)
        assert not await fs.exists(MOVED)


async def test_the_daemons_sweep_does_the_same_and_counts(place: Path) -> None:
    async with filesystem(place / "root", **RULES) as fs:
        await due(fs)
        (found,) = [each for each in fs.parts.upkeep.sweeps() if each.name == "expired"]
        assert (found.schedule.period_s, found.schedule.first_s()) == (DAY, 0.0)
        decision = found.decide(await found.look())
        assert decision is not None
        async with trio.open_nursery() as nursery:
            assert await found.act(decision, nursery) == "1 removed"
        assert found.decide(await found.look()) is None


async def test_somebody_who_opens_a_file_in_the_last_moment_holds_the_rest_up(place: Path) -> None:
    """It passed the check before the removal began, and got its handle after."""
    async with filesystem(place / "root", **RULES) as fs:
        await due(fs)
        file = await fs.node(FILE)
        body = await fs.vfs.backing_files.acquire(file, write=False)
        folder = await fs.node(REC)
        fs.vfs.lives.carry_out(folder, "")
        number = fs.vfs.files._register(file, body, 0, writes=False)
        assert await sweep(fs) == {REC: "none"}
        assert (await show(fs))["status"] == "removing"
        assert await fs.read_handle(number) == pattern(9000)
        await fs.close(number)
        assert await sweep(fs) == {REC: "remove"}


async def test_a_store_from_before_counts_the_ages_of_its_recordings_from_its_first_start(place: Path) -> None:
    async with filesystem(place / "root", **RULES) as fs:
        await fs.write(FILE, b"bytes")
        await fs.drain()
        await fs.stop()
        with contextlib.closing(sqlite3.connect(fs.root / ".recfs/catalogue.db")) as db:
            db.execute("delete from recording")
            db.execute("delete from meta where key = 'recordings_since'")
            db.commit()
        fs.clock.advance(400 * DAY)
        await fs.reopen()
        assert (await show(fs))["created_ns"] is None
        await fs.stop()
        fs.clock.advance(29 * DAY)
        await fs.reopen()
        assert await sweep(fs) == {}
        fs.clock.advance(2 * DAY)
        assert await sweep(fs) == {REC: "expire"}


async def test_what_is_put_into_an_expired_recording_past_recfs_is_left_alone_and_told(
    place: Path, autojump_clock: object, expect_log: Callable[[str], None]
) -> None:
    expect_log("left alone")
    async with filesystem(place / "root", **RULES) as fs:
        await made(fs)
        await ask(fs, "recording_expire", path=REC)
        async with watching(fs) as watched:
            for name in (REC, OTHER):
                (fs.root / name / "foreign").write_bytes(b"foreign")
            await watched.settled()
            assert list(watched.problems()) == [f"{REC}/foreign"]
            assert "it takes nothing new" in watched.problems()[f"{REC}/foreign"]
        assert await fs.names(REC) == ["deep", "video.mp4"]
        assert await fs.read(f"{OTHER}/foreign") == b"foreign"
        (fs.root / REC / "foreign").unlink()
