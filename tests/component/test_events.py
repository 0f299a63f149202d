"""Events: what is told of files, that it is told exactly if it is so, and what a reader's cursor is worth."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from recfs.core.observing.kinds import EventKind
from recfs.errors import Busy, CursorLost, IoFailure, NotSupported, QuotaExceeded
from recfs.observing.feed import MOST_READERS
from tests.helpers.virtual_time import GUARD_S

from .build import OPERATOR, REC, Filesystem, filesystem
from .test_tier import tiered

FILE = f"{REC}/video.mp4"


async def ask(fs: Filesystem, since: str = "oldest", **params: Any) -> dict[str, Any]:
    """What the daemon answers to `recfs events`."""
    found: dict[str, Any] = await fs.answers()["events"]({"since": since, **params})
    return found


async def told(fs: Filesystem, since: str = "oldest", **params: Any) -> list[str]:
    """Events in short: kind and path."""
    found = []
    for event in (await ask(fs, since, **params))["events"]:
        was = f"{event['was']} -> " if "was" in event else ""
        found.append(f"{event['event']} {was}{event['path']}")
    return found


async def now(fs: Filesystem) -> str:
    """The cursor of the last event."""
    return str((await ask(fs, "now"))["cursor"])


async def test_the_life_of_a_file(fs: Filesystem) -> None:
    await fs.write(FILE, b"one")
    await fs.drain()
    await fs.write(FILE, b"two!", append=True)
    await fs.drain()
    await fs.rename(FILE, f"{REC}/b")
    await fs.write(f"{REC}/aside", b"x")
    await fs.drain()
    await fs.rename(f"{REC}/aside", f"{REC}/b")
    await fs.unlink(f"{REC}/b")
    assert await told(fs) == [
        f"committed {FILE}",
        f"overwritten {FILE}",
        f"committed {FILE}",
        f"renamed {FILE} -> {REC}/b",
        f"committed {REC}/aside",
        f"overwritten {REC}/b",
        f"renamed {REC}/aside -> {REC}/b",
        f"removed {REC}/b",
    ]
    first = (await ask(fs, kinds=["committed"], user="5"))["events"][0]
    assert (first["size_bytes"], first["user"]) == (3, "5")
    assert first["sha256"] == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"


async def test_directories_links_and_exchanges(fs: Filesystem) -> None:
    await fs.mkdirs(f"{REC}/d")
    await fs.write(f"{REC}/d/f", b"x")
    await fs.write(f"{REC}/g", b"y")
    folder, name = await fs.folder(f"{REC}/link")
    await fs.vfs.symlink(folder, name, b"g", OPERATOR)
    await fs.drain()
    start = await now(fs)
    await fs.rename(f"{REC}/d", f"{REC}/e")
    await fs.rename(f"{REC}/e/f", f"{REC}/g", exchange=True)
    await fs.rename(f"{REC}/g", f"{REC}/g")
    await fs.unlink(f"{REC}/link")
    await fs.unlink(f"{REC}/e/f")
    await fs.rmdir(f"{REC}/e")
    assert await told(fs, start) == [
        f"renamed {REC}/d -> {REC}/e",
        f"renamed {REC}/e/f -> {REC}/g",
        f"renamed {REC}/g -> {REC}/e/f",
        f"removed {REC}/link",
        f"removed {REC}/e/f",
        f"removed {REC}/e",
    ]


async def test_names_that_are_not_utf8_are_told_byte_by_byte(fs: Filesystem) -> None:
    name = os.fsdecode(b"a\n\x1b[31m\xff")
    await fs.write(f"{REC}/{name}", b"x")
    await fs.drain()
    (event,) = (await ask(fs))["events"]
    assert event["path"] == f"{REC}/{name}"
    assert bytes.fromhex(event["path_hex"]) == os.fsencode(f"{REC}/{name}")


async def test_only_what_is_wanted_is_told_and_the_cursor_goes_on(fs: Filesystem) -> None:
    await fs.write(FILE, b"one")
    await fs.write("users/6/recordings/1/x", b"other")
    await fs.drain()
    await fs.unlink(FILE)
    assert await told(fs, user="6") == ["committed users/6/recordings/1/x"]
    assert await told(fs, kinds=["removed"]) == [f"removed {FILE}"]
    page = await ask(fs, kinds=["removed"], limit=1)
    assert not page["more"]
    assert (await ask(fs, page["cursor"]))["events"] == []
    one = await ask(fs, limit=1)
    assert one["more"]
    assert len((await ask(fs, one["cursor"]))["events"]) == 2


async def test_a_time_is_a_beginning_too(fs: Filesystem) -> None:
    await fs.write(FILE, b"one")
    await fs.drain()
    fs.clock.ns += 3600 * 10**9
    await fs.unlink(FILE)
    assert await told(fs, "30m") == [f"removed {FILE}"]
    assert len(await told(fs, "2h")) == 2
    fs.clock.ns += 3600 * 10**9
    assert await told(fs, "30m") == []


async def test_the_death_of_the_daemon_loses_no_commit_and_tells_of_none_that_is_not(fs: Filesystem) -> None:
    """Whatever the moment of the death: a file is committed exactly if an event says so."""
    fs.checked_at_end = False
    for effects in range(1, 40, 3):
        path = f"{REC}/f{effects}"
        await fs.until_stopped(partial(_write_and_drain, path=path), effects)
        await fs.crash()
        committed = set(fs.rows("select ino from node where state = 'committed'"))
        events = set(fs.rows("select ino from event where kind = 'committed'"))
        assert committed == events
        await fs.reopen()
        await fs.drain()


async def _write_and_drain(fs: Filesystem, *, path: str) -> None:
    await fs.write(path, b"bytes")
    await fs.drain()


async def test_a_commit_that_does_not_come_about_is_not_told_and_once_when_it_does(
    fs: Filesystem, any_log: None
) -> None:
    fs.faults.fail("sync", IoFailure("the log"), times=2)
    await fs.write(FILE, b"one")
    await fs.drain()
    assert await told(fs) == [f"committed {FILE}"]


async def test_a_batch_that_fails_is_told_once(fs: Filesystem, any_log: None) -> None:
    await fs.write(FILE, b"one")
    fs.faults.fail("apply", IoFailure("the disk"))
    with pytest.raises(IoFailure):
        await fs.parts.behind.flush()
    await fs.drain()
    await fs.unlink(FILE)
    assert await told(fs) == [f"committed {FILE}", f"removed {FILE}"]


async def test_a_row_that_the_catalogue_refuses_is_not_told(fs: Filesystem, any_log: None) -> None:
    fs.checked_at_end = False
    await fs.write(FILE, b"one")
    await fs.drain()
    node = await fs.node(FILE)
    start = await now(fs)
    node.sha256 = b"no checksum"  # against the schema
    fs.parts.behind.node(node)
    fs.parts.tree.events.noted(EventKind.FETCHED, node)
    await fs.write(f"{REC}/other", b"two")
    await fs.parts.behind.flush()
    assert fs.parts.behind.is_refused(node.ino)
    assert f"fetched {FILE}" not in await told(fs, start)
    assert fs.rows("select kind from event") == ["committed"]


async def test_a_reader_is_told_what_survives_a_power_cut(fs: Filesystem) -> None:
    await fs.write(FILE, b"one")
    await fs.drain()
    start = await now(fs)
    await fs.rename(FILE, f"{REC}/b")  # written, and not synced
    catalogue = fs.parts.catalogue
    assert catalogue._synced < catalogue._applied
    assert await told(fs, start) == [f"renamed {FILE} -> {REC}/b"]
    assert catalogue._synced == catalogue._applied


async def test_a_reader_that_waits_is_told_when_something_happens(fs: Filesystem, nursery: trio.Nursery) -> None:
    start = await now(fs)
    found: list[list[str]] = []
    done = trio.Event()

    async def follow() -> None:
        found.append(await told(fs, start, wait_s=30.0))
        done.set()

    nursery.start_soon(follow)
    await trio.testing.wait_all_tasks_blocked(0.2)
    assert fs.parts.observing.feed is not None
    assert fs.parts.observing.feed.readers == 1
    await fs.write(FILE, b"one")
    await fs.drain()
    with trio.fail_after(GUARD_S):
        await done.wait()
    assert found == [[f"committed {FILE}"]]
    assert fs.parts.observing.feed.readers == 0


async def test_nobody_waits_for_ever_and_not_too_many_at_once(fs: Filesystem, nursery: trio.Nursery) -> None:
    start = await now(fs)
    began = trio.current_time()
    assert await told(fs, start, wait_s=5.0) == []
    assert 5.0 <= trio.current_time() - began < 6.0
    for _ in range(MOST_READERS):
        nursery.start_soon(partial(told, fs, start, wait_s=50.0))
    feed = fs.parts.observing.feed
    assert feed is not None
    await trio.testing.wait_all_tasks_blocked(0.2)
    assert feed.readers == MOST_READERS
    with pytest.raises(Busy, match="16 others"):
        await told(fs, start, wait_s=30.0)
    assert await told(fs, start) == []


async def test_old_events_go_and_their_cursors_are_refused(place: Path) -> None:
    async with filesystem(place, events={"most": 1000, "keep": "1h"}) as fs:
        await fs.write(FILE, b"one")
        await fs.drain()
        first = (await ask(fs, limit=1))["cursor"]
        for number in range(1100):
            fs.parts.tree.events.noted(EventKind.FETCHED, await fs.node(FILE), str(number))
        await _swept(fs)
        kept = fs.rows("select id from event order by id")
        assert len(kept) == 1000
        with pytest.raises(CursorLost, match=f"too old.*{kept[0] - 1} "):
            await ask(fs, first)
        epoch = first.split("-")[0]
        assert len((await ask(fs, f"{epoch}-{kept[0] - 1}"))["events"]) == 1000
        fs.clock.ns += 2 * 3600 * 10**9
        await _swept(fs)
        assert fs.rows("select id from event") == [kept[-1]]  # so that no number is given twice
        await fs.reopen()
        await fs.unlink(FILE)
        await fs.parts.behind.flush()
        assert fs.rows("select id from event") == [kept[-1], kept[-1] + 1]


async def _swept(fs: Filesystem) -> None:
    journal = fs.parts.observing.journal
    assert journal is not None
    await fs.parts.behind.flush()
    sweep = journal.sweep()
    decision = sweep.decide(await sweep.look())
    if decision is not None:
        async with trio.open_nursery() as nursery:
            await sweep.act(decision, nursery)
    await fs.parts.behind.flush()


async def test_a_cursor_outlives_the_daemon_but_not_a_restore_nor_a_gap(fs: Filesystem) -> None:
    await fs.write(FILE, b"one")
    await fs.drain()
    start = await now(fs)
    await fs.reopen()
    await fs.unlink(FILE)
    assert await told(fs, start) == [f"removed {FILE}"]
    epoch, number = start.split("-")
    with pytest.raises(CursorLost, match="ahead"):
        await ask(fs, f"{epoch}-{int(number) + 1000}")
    await fs.drain()
    await fs.stop()
    fs.config = fs.config.model_copy(update={"events": fs.config.events.model_copy(update={"enabled": False})})
    await fs.start()
    with pytest.raises(NotSupported, match="enabled is false"):
        await ask(fs, start)
    await fs.drain()
    await fs.stop()
    fs.config = fs.config.model_copy(update={"events": fs.config.events.model_copy(update={"enabled": True})})
    await fs.start()
    with pytest.raises(CursorLost, match="another history"):
        await ask(fs, start)
    assert len(await told(fs)) == 2


async def test_a_limit_that_is_met_again_and_again_is_told_once_a_minute(place: Path) -> None:
    async with filesystem(place, quota={"max_files": 1}) as fs:
        await fs.write(FILE, b"one")
        for wait_s in (0.0, 1.0, 61.0):
            await trio.sleep(wait_s)
            with pytest.raises(QuotaExceeded):
                await fs.write(f"{REC}/more", b"x")
        events = (await ask(fs, kinds=["quota_reached"]))["events"]
        assert [(each["user"], each["detail"], each["path"]) for each in events] == [("5", "max_files", "users/5")] * 2


async def test_what_becomes_of_bytes_in_s3(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place)
    await fs.start()
    await fs.write(FILE, b"x" * 100_000)
    await fs.drain()
    start = await now(fs)
    fs.tier.evictor.evict(await fs.node(FILE))
    await fs.drain()
    assert await fs.read(FILE) == b"x" * 100_000
    await fs.drain()
    assert await told(fs) == [f"committed {FILE}", f"uploaded {FILE}", f"evicted {FILE}", f"fetched {FILE}"]
    assert len(await told(fs, start)) == 2
    await fs.stop()


async def test_what_comes_back_from_the_trash_is_restored(place: Path) -> None:
    async with filesystem(place, trash={"retention": "1d"}) as fs:
        await fs.write(FILE, b"one")
        await fs.drain()
        await fs.unlink(FILE)
        await fs.drain()
        start = await now(fs)
        await fs.answers()["trash_restore"]({"path": FILE})
        assert await told(fs, start) == [f"committed {FILE}", f"restored {FILE}"]


async def test_recordings_that_expire_and_live_again(fs: Filesystem) -> None:
    await fs.write(FILE, b"one")
    await fs.drain()
    start = await now(fs)
    folder = await fs.node(REC)
    fs.vfs.lives.expire(folder, by="uid 0")
    fs.vfs.lives.keep(folder, on=True, by="uid 0")
    assert await told(fs, start) == [f"expired {REC}", f"revived {REC}"]


async def test_what_is_left_open_by_a_dead_daemon_is_incomplete(fs: Filesystem) -> None:
    fs.checked_at_end = False
    await fs.mkdirs(REC)
    number = await fs.open(FILE, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"half")
    await fs.parts.behind.flush()
    await fs.crash()
    await fs.reopen()
    assert await told(fs) == [f"incomplete {FILE}"]
