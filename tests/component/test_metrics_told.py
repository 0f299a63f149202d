"""What a scrape tells of what became of files, of backups, of the pipeline, and of what could not be told."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import pytest
import trio

from recfs.core.observing.kinds import EventKind
from recfs.disk.staging import inode_reserve
from recfs.errors import QuotaExceeded
from recfs.metrics.families import Metrics
from recfs.metrics.happened import Happened
from recfs.metrics.looking import Looking, Seen
from recfs.observing.audit import trail
from recfs.services.sweeps import Sweeps
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, filesystem
from .test_metrics import samples, value
from .test_tier import evict, tiered

if TYPE_CHECKING:
    from pathlib import Path

    from .test_metrics import Samples

DAY_S = 86_400


def told(fs: Filesystem, happened: Happened | None = None) -> Looking:
    """What looks at all that is told."""
    parts = fs.parts
    sweeps = Sweeps([], parts.problems, parts.vfs.tree.clock)
    return Looking(
        fs.config, parts.store, parts.vfs, parts.tier, parts.committer, parts.publisher, parts.reports, sweeps, None,
        parts.work.probing, parts.work.upkeep.backups, parts.observing, happened or Happened(),
    )  # fmt: skip


def scraped(seen: Seen) -> Samples:
    return samples(Metrics(seen, {}, {}, 0.0).text())


def happens(fs: Filesystem) -> Happened:
    """Counts from now on."""
    happened = Happened()
    fs.parts.tree.events.subscribe(happened)
    return happened


async def test_what_became_of_files_is_counted_by_kind(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place, quota={"max_bytes": 9000}, events={"enabled": False})
    await fs.start()
    happened = happens(fs)
    for name in ("a", "b", "gone"):
        await fs.write(f"{REC}/{name}", b"x" * 1000)
    await fs.drain()
    await evict(fs, f"{REC}/a")
    assert await fs.read(f"{REC}/a") == b"x" * 1000
    await fs.write(f"{REC}/b", b"y" * 10)
    await fs.rename(f"{REC}/a", f"{REC}/c")
    await fs.unlink(f"{REC}/gone")
    for _ in range(3):
        with pytest.raises(QuotaExceeded):
            await fs.write(f"{REC}/large", b"x" * 9000)
    await fs.drain()
    found = scraped(await told(fs, happened).look())
    counts = {kind: value(found, "events_total", kind=kind.value) for kind in EventKind}
    several = {EventKind.COMMITTED, EventKind.OVERWRITTEN, EventKind.UPLOADED}
    once = dict.fromkeys((EventKind.EVICTED, EventKind.FETCHED, EventKind.RENAMED, EventKind.REMOVED), 1)
    expected = dict.fromkeys(set(EventKind) - several, 0) | once | {EventKind.QUOTA_REACHED: 3}
    assert {kind: count for kind, count in counts.items() if kind not in several} == expected
    assert counts[EventKind.OVERWRITTEN] >= 1
    assert counts[EventKind.COMMITTED] >= 4
    assert value(found, "event_bytes_total", kind="evicted") == 1000
    assert value(found, "event_bytes_total", kind="fetched") == 1000
    assert value(found, "event_bytes_total", kind="uploaded") == 3 * 1000 + 10 + 7990  # what fitted in
    assert ("recfs_events_dropped_total", ()) not in found
    assert ("recfs_notify_given_up_total", ()) not in found
    await fs.stop()


async def test_a_commit_that_is_taken_back_counts_once_and_a_directory_with_its_files(place: Path) -> None:
    async with filesystem(place) as fs:
        await fs.write("temp/5/1/a", b"x" * 7)
        await fs.drain()
        happened, node = Happened(), await fs.node("temp/5/1/a")
        for _ in range(2):
            happened.committed(node)
            happened.uncommitted(node)
        happened.committed(node)
        assert happened.events[EventKind.COMMITTED] == 1
        assert happened.file_bytes[EventKind.COMMITTED] == 7
        happened.committed(node)  # of other bytes, later
        assert happened.events[EventKind.COMMITTED] == 2
        happened.removed_whole(node.parent)
        assert happened.events[EventKind.REMOVED] == 2


async def test_the_age_of_the_newest_backup(place: Path) -> None:
    """Whether it was made before this start or during it; and also when the next one cannot be made."""
    async with filesystem(place, backup={"every": "1d"}) as fs:
        looking, backups = told(fs), fs.parts.work.upkeep.backups
        found = scraped(await looking.look())
        assert value(found, "backup_every_seconds") == DAY_S
        assert value(found, "backup_age_seconds") == math.inf
        await backups.make()
        fs.clock.advance(3 * DAY_S)
        assert value(scraped(await looking.look()), "backup_age_seconds") == pytest.approx(3 * DAY_S)
        await fs.reopen()
        looking, backups = told(fs), fs.parts.work.upkeep.backups
        backups.settings.folder.path.rename(place / "away")
        backups.settings.folder.path.symlink_to(backups.settings.folder.path)  # ELOOP: it cannot be looked at
        assert value(scraped(await looking.look()), "backup_age_seconds") == math.inf
        backups.settings.folder.path.unlink()
        (place / "away").rename(backups.settings.folder.path)
        assert value(scraped(await looking.look()), "backup_age_seconds") == pytest.approx(3 * DAY_S)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(backups, "_made", _fails)
            with pytest.raises(OSError, match="nothing is made"):
                await backups.make()
        fs.clock.advance(DAY_S)
        assert value(scraped(await looking.look()), "backup_age_seconds") == pytest.approx(4 * DAY_S)


def _fails(*_: object) -> None:
    raise OSError(5, "nothing is made")


async def test_a_store_that_makes_no_backups_has_none_that_is_old(place: Path) -> None:
    async with filesystem(place, backup={"every": "0s"}) as fs:
        found = scraped(await told(fs).look())
        assert value(found, "backup_every_seconds") == 0
        assert ("recfs_backup_age_seconds", ()) not in found


async def test_the_reserve_is_told_as_it_is_now(place: Path) -> None:
    async with filesystem(place) as fs:
        fs.vfs.files.space.min_free = 4096  # a reload
        assert value(scraped(await told(fs).look()), "disk_reserve_bytes") == 4096


async def test_the_inodes_of_a_disk_that_has_a_fixed_number_are_told(place: Path) -> None:
    async with filesystem(place) as fs:
        info = os.statvfs_result((4096, 4096, 1000, 500, 500, 64_000, 700, 600, 0, 255))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(fs.parts.store, "space", lambda: info)
            found = scraped(await told(fs).look())
            assert value(found, "disk_inodes") == 64_000
            assert value(found, "disk_free_inodes") == 600
            assert value(found, "disk_reserve_inodes") == inode_reserve(info) > 0
            patched.setattr(
                fs.parts.store, "space", lambda: os.statvfs_result((4096, 4096, 1000, 500, 500, 0, 0, 0, 0, 255))
            )
            assert ("recfs_disk_inodes", ()) not in scraped(await told(fs).look())


async def test_how_long_the_oldest_closed_file_waits(nursery: trio.Nursery, place: Path) -> None:
    fs = Filesystem(nursery, place)
    await fs.start(services=False)  # nothing is sealed
    looking = told(fs)
    found = scraped(await looking.look())
    assert value(found, "sealing_oldest_seconds") == 0
    assert value(found, "hashing_bytes_per_second") == fs.parts.hashing.rate
    before_s = trio.current_time()
    await fs.write(f"{REC}/a", b"x")
    between_s = trio.current_time()
    await fs.write(f"{REC}/b", b"x")
    oldest_s = fs.parts.committer.oldest_s
    now_s = trio.current_time()
    assert now_s - between_s <= oldest_s <= now_s - before_s
    await fs.unlink(f"{REC}/a")
    assert fs.parts.committer.oldest_s <= trio.current_time() - between_s
    await fs.stop()


async def test_what_the_audit_log_and_the_events_lost_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with filesystem(place, audit={"enabled": True}, events={"most": 1000, "keep": "1h"}) as fs:
        audit, journal = fs.parts.observing.audit, fs.parts.observing.journal
        assert audit is not None
        assert journal is not None
        monkeypatch.setattr(trail, "MOST_WAITING", 2)
        for _ in range(5):
            audit.record("unlink", b"users/5/x", 0, 0, os.getpid(), 0)
        with trio.fail_after(GUARD_S):
            while audit.written < 2:  # noqa: ASYNC110  # a thread writes them
                await trio.sleep(0.01)
        await fs.write(f"{REC}/a", b"x")
        await fs.drain()
        node = await fs.node(f"{REC}/a")
        for number in range(1500):
            if number == 200:
                fs.clock.advance(3601)
            journal.noted(EventKind.PROBED, node)
        await fs.parts.behind.durable()
        sweep, last = journal.sweep(), journal.last_id
        superfluous = sweep.decide(await sweep.look())
        assert superfluous is not None
        await sweep.act(superfluous, nursery_of(fs))
        found = scraped(await told(fs).look())
        assert value(found, "audit_lines_total", to="file") == 2
        assert value(found, "audit_dropped_total", to="file") == 3
        assert value(found, "events_dropped_total") == 300
        assert journal.last_id == last


def nursery_of(fs: Filesystem) -> trio.Nursery:
    return fs._nursery
