"""Backups of the catalogue: consistent, rotated, encrypted; and what becomes of one that is not made to its end."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyrage
import pytest
import trio
import trio.lowlevel

from recfs.catalogue import copying
from recfs.core.upkeep.backups import Kept
from recfs.disk.leisure import LEISURE
from recfs.errors import BackupDamaged, Interrupted, InvalidArgument, NotFound, OutOfSpace, StoreError
from recfs.rescue.backups import Backups
from recfs.services import backups as service
from recfs.stores.backups import BackupFolder

from .build import REC, Filesystem, filesystem, pattern
from .test_migrations import STORED, VERSIONS

ExpectLog = Callable[[str], None]
HOUR_NS = 3600 * 10**9


async def make(fs: Filesystem) -> Kept:
    """One more."""
    fs.clock.advance(1)
    return await fs.parts.work.upkeep.backups.make()


def folder(fs: Filesystem) -> Path:
    """Where they lie."""
    return fs.config.backup.directory or fs.root / ".recfs/backups"


def rows(file: Path, query: str) -> list[Any]:
    """What a plain backup says."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as db:
        return [row[0] if len(row) == 1 else row for row in db.execute(query)]


def left(fs: Filesystem) -> list[str]:
    """What lies there, and what of one that is being made lies in the store."""
    return sorted([*os.listdir(folder(fs)), *(each.name for each in (fs.root / ".recfs").glob(".making*"))])


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, Path]:
    """A public key, and the file with its secret half."""
    pair = pyrage.x25519.Identity.generate()
    file = tmp_path / "key.txt"
    file.write_text(f"# created: today\n# public key: {pair.to_public()}\n{pair}\n")
    return str(pair.to_public()), file


@pytest.fixture
async def sealed(place: Path, tmp_path: Path, key: tuple[str, Path]) -> AsyncIterator[Filesystem]:
    """A store whose backups are encrypted, on another disk."""
    (tmp_path / "elsewhere").mkdir()
    async with filesystem(place, backup={"directory": tmp_path / "elsewhere", "recipients": [key[0]]}) as fs:
        yield fs


async def test_it_has_what_the_mount_shows_and_is_a_catalogue(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file", b"bytes")
    await fs.drain()
    await fs.mkdirs(f"{REC}/not-flushed")
    made = await make(fs)
    file = folder(fs) / made.header.name
    assert rows(file, "select name from node where name = cast('not-flushed' as blob)")
    assert rows(file, "pragma integrity_check") == ["ok"]
    assert rows(file, "select count(*) from node") == [made.header.contents.rows["node"]]
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder(fs).stat().st_mode & 0o777 == 0o700
    found = Backups(fs.config)
    assert found.kept() == [made]
    assert found.verify([], None) == [
        {"name": made.header.name, "place": str(folder(fs)), "damage": None, "opened": True}
    ]
    assert len(left(fs)) == 2, "verifying leaves nothing"


async def test_it_is_of_one_instant_while_writers_work(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file that is there has its directory, and the counters are those of the rows."""
    monkeypatch.setattr(copying, "PAGES", 1)
    taken = 0
    for number in range(200):
        await fs.write(f"{REC}/before-{number}", b"%d" % number)
    await fs.drain()
    async with trio.open_nursery() as nursery:

        async def writes() -> None:
            nonlocal taken
            while True:
                taken += 1
                await fs.write(f"users/{taken}/recordings/1/f", b"bytes")
                await fs.parts.behind.flush()
                await trio.lowlevel.checkpoint()

        nursery.start_soon(writes)
        made = [await make(fs) for _ in range(3)]
        nursery.cancel_scope.cancel()
    assert taken > 3
    for each in made:
        file = folder(fs) / each.header.name
        assert rows(file, "select count(*) from node where parent not in (select ino from node)") == [0]
        totals = rows(file, "select rfiles from node where ino = 1")
        assert totals == rows(file, "select count(*) from node where kind <> 'dir'")
        assert rows(file, "pragma integrity_check") == ["ok"]


async def test_it_is_made_by_a_thread_that_yields_to_all_others(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the threads that requests need are as urgent as ever, those that call for it included."""
    nice = dict[int, int]()
    copy = copying.CatalogueCopies.copy

    def copied(self: copying.CatalogueCopies, *args: Any) -> Any:
        nice.update({int(each): os.getpriority(os.PRIO_PROCESS, int(each)) for each in os.listdir("/proc/self/task")})
        assert nice.pop(threading.get_native_id()) == LEISURE
        return copy(self, *args)

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    monkeypatch.setattr(copying.CatalogueCopies, "copy", copied)
    await make(fs)
    assert len(nice) > 1
    assert set(nice.values()) == {before}
    assert await trio.to_thread.run_sync(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == before


async def test_old_ones_go_and_the_newest_stays(place: Path) -> None:
    async with filesystem(place, backup={"keep": 2}) as fs:
        made = []
        for number in range(4):
            await fs.write(f"{REC}/{number}", b"bytes")
            made.append(await make(fs))
        assert Backups(fs.config).kept() == made[2:]
        assert len(left(fs)) == 4
        os.truncate(folder(fs) / made[3].header.name, 100)
        os.truncate(folder(fs) / made[2].header.name, 100)
        last = await make(fs)
        assert [each.damage is None for each in Backups(fs.config).kept()] == [False, False, True]
        assert Backups(fs.config).chosen(None) == last


async def test_several_within_a_second_have_names_of_their_own(fs: Filesystem) -> None:
    made = [await fs.parts.work.upkeep.backups.make() for _ in range(3)]
    assert len({each.header.name for each in made}) == 3
    assert len(Backups(fs.config).kept()) == 3


async def test_an_encrypted_one_is_opened_by_its_key_alone(
    sealed: Filesystem, key: tuple[str, Path], tmp_path: Path
) -> None:
    await sealed.write(f"{REC}/a-name-to-be-hidden", b"bytes")
    made = await make(sealed)
    file = folder(sealed) / made.header.name
    assert b"a-name-to-be-hidden" not in file.read_bytes()
    assert left(sealed) == sorted([made.header.name, made.header.name.replace(".db.age", ".json")])
    found = Backups(sealed.config)
    with found.opened(made, key[1]) as opened:
        assert rows(opened.file, "select name from node where cast(name as text) like 'a-name%'") == [
            b"a-name-to-be-hidden"
        ]
        assert pyrage.decrypt(file.read_bytes(), [pyrage.x25519.Identity.from_str(key[1].read_text().split()[-1])]) == (
            opened.file.read_bytes()
        )
    assert not opened.file.exists()
    assert found.verify([], None)[0] == {
        "name": made.header.name, "place": str(tmp_path / "elsewhere"), "damage": None, "opened": False,
    }  # fmt: skip
    assert found.verify([made.header.name], key[1])[0]["opened"]


async def test_the_wrong_key_or_none_opens_nothing(sealed: Filesystem, tmp_path: Path) -> None:
    made = await make(sealed)
    found, other = Backups(sealed.config), tmp_path / "other.txt"
    other.write_text(str(pyrage.x25519.Identity.generate()))
    with pytest.raises(InvalidArgument, match="give --identity"), found.opened(made, None):
        pass
    with pytest.raises(InvalidArgument, match="encrypted for other keys"), found.opened(made, other):
        pass
    with pytest.raises(InvalidArgument, match="encrypted for other keys"):
        found.verify([], other)
    for content, told in (
        (b"AGE-SECRET-KEY-1NONSENSE", "not every line is a secret key"),
        (b"# nothing\n", "there is no secret key in it"),
        (b"\xff\xfe", "no file of secret keys"),
    ):
        other.write_bytes(content)
        with pytest.raises(InvalidArgument, match=told) as caught, Backups(sealed.config).opened(made, other):
            pass
        assert "NONSENSE" not in str(caught.value)
    with pytest.raises(InvalidArgument, match="No such file"), found.opened(made, tmp_path / "missing"):
        pass


def _truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 100)


def _flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _gone(file: Path) -> None:
    file.unlink()


def _foreign(file: Path) -> None:
    file.write_bytes(os.urandom(file.stat().st_size))


@pytest.mark.parametrize("harm", [_truncated, _flipped, _gone, _foreign])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
async def test_a_damaged_one_is_found_and_not_used(
    place: Path, tmp_path: Path, key: tuple[str, Path], harm: Callable[[Path], None], encrypted: bool
) -> None:
    async with filesystem(place, backup={"recipients": [key[0]] if encrypted else []}) as fs:
        good = await make(fs)
        await fs.write(f"{REC}/file", b"bytes")
        bad = await make(fs)
        harm(folder(fs) / bad.header.name)
        found = Backups(fs.config)
        told = {each["name"]: each["damage"] for each in found.verify([], key[1])}
        assert told[good.header.name] is None
        assert told[bad.header.name]
        assert found.verify([bad.header.name], None)[0]["damage"], "also without the key"
        if harm is not _gone:
            with pytest.raises(BackupDamaged), found.opened(bad, key[1]):
                pass
            lonely = tmp_path / bad.header.name
            shutil.copy(folder(fs) / bad.header.name, lonely)
            if encrypted or harm is _foreign:  # else nothing tells of a file that comes alone
                with pytest.raises(BackupDamaged), found.opened(lonely, key[1]):
                    pass
        if harm in (_truncated, _gone):
            assert found.chosen(None) == good


@pytest.mark.parametrize("version", VERSIONS[-3:])
def test_one_of_an_earlier_version_is_good_and_one_of_a_later_is_not_taken(tmp_path: Path, version: str) -> None:
    file = tmp_path / "catalogue.db"
    with closing(sqlite3.connect(file)) as db:
        db.executescript((STORED / f"{version}.sql").read_text())
    assert copying.CatalogueCopies().check(file, lambda: False).schema[:4] == version
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("update _sqlite_migrations set name = '9999_later' where name like ?", (f"{version}%",))
    with pytest.raises(BackupDamaged, match="of a newer recfs"):
        copying.CatalogueCopies().check(file, lambda: False)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("drop table meta")
    with pytest.raises(BackupDamaged, match="no catalogue of recfs"):
        copying.CatalogueCopies().check(file, lambda: False)


async def test_one_by_name_or_none(fs: Filesystem) -> None:
    found = Backups(fs.config)
    with pytest.raises(NotFound, match="there is no backup of the catalogue"):
        found.chosen(None)
    assert found.verify([], None) == []
    made = await make(fs)
    assert found.chosen(made.header.name) == made
    with pytest.raises(NotFound, match="no backup called other"):
        found.chosen("other")


async def test_those_of_another_store_in_the_same_directory_are_left_alone(place: Path, tmp_path: Path) -> None:
    shared: dict[str, Any] = {"backup": {"directory": tmp_path, "keep": 1}}
    async with filesystem(place / "one", **shared) as one, filesystem(place / "two", **shared) as two:
        first = await make(one)
        (tmp_path / f".making-{first.header.contents.store[:8]}-0").touch()
        for _ in range(3):
            second = await make(two)
        assert Backups(one.config).kept() == [first]
        assert Backups(two.config).kept() == [second]
        assert (tmp_path / f".making-{first.header.contents.store[:8]}-0").exists()
        await make(one)
        assert not (tmp_path / f".making-{first.header.contents.store[:8]}-0").exists()


async def test_bytes_that_somebody_keeps_there_without_a_header_are_no_backup_and_stay(place: Path) -> None:
    """A copy made by hand, say, under a name that begins like those of backups, or is the one of a backup."""
    async with filesystem(place, backup={"keep": 1}) as fs:
        made = await make(fs)
        header = folder(fs) / made.header.name.replace(".db", ".json")
        by_hand = folder(fs) / f"catalogue-{made.header.contents.store[:8]}-before-the-upgrade.db"
        by_hand.write_bytes(b"dear")
        header.rename(folder(fs) / "put-away")
        assert Backups(fs.config).kept() == []
        again = await make(fs)
        assert Backups(fs.config).kept() == [again]
        theirs = [made.header.name, by_hand.name, "put-away"]
        assert left(fs) == sorted([again.header.name, again.header.name.replace(".db", ".json"), *theirs])


# --- no room, no disk ----------------------------------------------------------------------------------------------


async def test_the_reserve_is_left_alone(place: Path, expect_log: ExpectLog) -> None:
    """It is refused, told in status, and made as soon as there is room."""
    async with filesystem(place) as fs:
        settings = fs.parts.work.upkeep.backups.settings
        object.__setattr__(settings, "min_free", 1 << 60)
        with pytest.raises(OutOfSpace, match="no room for a backup"):
            await make(fs)
        assert left(fs) == []
        expect_log("no room for a backup of the catalogue")
        await scheduled(fs)
        told = (await fs.answers()["status"]({}))["set_aside"]
        assert ["no room for a backup" in each["reason"] for each in told if each["part"] == "backup"] == [True]
        object.__setattr__(settings, "min_free", 0)
        await scheduled(fs)
        assert [each for each in (await fs.answers()["status"]({}))["set_aside"] if each["part"] == "backup"] == []
        assert len(Backups(fs.config).kept()) == 1


async def scheduled(fs: Filesystem) -> str | None:
    """One run of the sweep, as the registry makes it; what came of it."""
    (sweep,) = fs.parts.work.upkeep.backups.sweeps()
    async with trio.open_nursery() as nursery:
        record = fs.parts.sweeps._records[sweep.name]
        await fs.parts.sweeps._run(record, nursery)
        nursery.cancel_scope.cancel()
    return record.result


async def test_the_schedule_goes_by_the_newest_good_one_across_starts(fs: Filesystem) -> None:
    assert "catalogue-" in str(await scheduled(fs))
    assert await scheduled(fs) == "nothing to do"
    await fs.reopen()
    assert await scheduled(fs) == "nothing to do"
    fs.clock.advance(86_400)
    assert "catalogue-" in str(await scheduled(fs))
    newest = Backups(fs.config).kept()[-1]
    os.truncate(folder(fs) / newest.header.name, 10)
    fs.clock.advance(1)
    assert "catalogue-" in str(await scheduled(fs)), "the newest good one is a day old"


async def test_with_a_period_of_nothing_none_is_made_by_itself(place: Path) -> None:
    async with filesystem(place, backup={"every": 0}) as fs:
        assert fs.parts.work.upkeep.backups.sweeps() == []
        assert (await fs.answers()["status"]({}))["backup"]["newest"] is None
        made = await fs.answers()["backup_now"]({})
        assert (await fs.answers()["status"]({}))["backup"]["newest"]["name"] == made["name"]


async def test_a_directory_that_is_gone_is_not_made(place: Path, tmp_path: Path, expect_log: ExpectLog) -> None:
    """Its disk did not come up: the backups would land on the one below."""
    away = tmp_path / "disk"
    away.mkdir()
    async with filesystem(place, backup={"directory": away}) as fs:
        await make(fs)
        shutil.rmtree(away)
        expect_log("is its disk mounted")
        assert "failed: " in str(await scheduled(fs))
        assert not away.exists()
        assert Backups(fs.config).kept() == []
        away.touch()
        with pytest.raises(StoreError, match="is no directory"):
            await make(fs)
        away.unlink()
        away.mkdir()
        assert "catalogue-" in str(await scheduled(fs))


@pytest.mark.parametrize("every", [0, 86_400])
async def test_what_would_keep_a_backup_from_being_made_is_a_problem_before_one_is_due(
    place: Path, tmp_path: Path, every: int
) -> None:
    away = tmp_path / "disk"
    away.mkdir()
    async with filesystem(place, backup={"directory": away, "every": every}) as fs:

        async def problems() -> list[str]:
            told = await fs.answers()["status"]({})
            assert told["backup"]["problem"] in [*told["problems"], None]
            # Its age is told by the wall clock, which is not the one of the test.
            return [each for each in told["problems"] if "backup" in each and "is to be made every" not in each]

        await make(fs)
        assert await problems() == []
        shutil.rmtree(away)
        [told] = await problems()
        assert f"backups go to {away}, which cannot be used (No such file or directory): is its disk mounted?" in told
        away.touch()
        [told] = await problems()
        assert "is no directory" in told
        away.unlink()
        away.mkdir()
        assert await problems() == []
        object.__setattr__(fs.config, "min_free", 1 << 60)
        [told] = await problems()
        assert "no room for a backup of the catalogue" in told


@pytest.mark.parametrize("name", ["fsync", "rename"])
@pytest.mark.parametrize("skip", range(4))
async def test_a_disk_that_refuses_leaves_no_half_of_one(fs: Filesystem, name: str, skip: int) -> None:
    first = await make(fs)
    await fs.write(f"{REC}/file", b"bytes")
    await fs.drain()
    plan = fs.faults.fail(name, errno.ENOSPC, "backups", skip=skip)
    failed = False
    try:
        await make(fs)
    except OSError:
        failed = True
    assert failed == (plan.hits > skip)
    fs.faults.heal()
    assert first in Backups(fs.config).kept()
    assert all(each["damage"] is None for each in Backups(fs.config).verify([], None))
    await make(fs)
    assert all(each.split(".")[0].startswith("catalogue-") for each in left(fs)), "what was left is cleared"
    assert len(left(fs)) == 2 * len(Backups(fs.config).kept())


async def test_a_disk_that_fills_up_meanwhile(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, catalogue: Path, to: Path, stopped: Any) -> Any:
        to.write_bytes(b"half")
        raise OutOfSpace("no room")

    with monkeypatch.context() as patch:
        patch.setattr(copying.CatalogueCopies, "copy", full)
        with pytest.raises(OutOfSpace):
            await make(fs)
    assert left(fs) == []
    await make(fs)


async def test_a_stop_ends_one_that_is_under_way(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = trio.Event()
    monkeypatch.setattr(copying, "PAGES", 1)
    real, token = copying.CatalogueCopies.copy, trio.lowlevel.current_trio_token()
    ended: list[str] = []

    def slow(self: Any, catalogue: Path, to: Path, stopped: Callable[[], bool]) -> Any:
        trio.from_thread.run_sync(begun.set, trio_token=token)
        while not stopped():
            pass
        try:
            return real(self, catalogue, to, stopped)
        except Interrupted:
            ended.append("interrupted")
            raise

    monkeypatch.setattr(copying.CatalogueCopies, "copy", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.parts.work.upkeep.backups.make)
        await begun.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(120):
        while not ended or left(fs):  # noqa: ASYNC110  # of a thread that nobody waits for, and that runs at leisure
            await trio.sleep(0.01)
    assert Backups(fs.config).kept() == []


@pytest.mark.slow
async def test_a_death_before_any_step_leaves_whole_backups_alone(place: Path) -> None:
    step, done = 0, False
    while not done:
        step += 1
        async with filesystem(place / str(step), start=False, backup={"keep": 1}) as fs:
            await fs.start()
            await fs.write(f"{REC}/file", pattern(5000))
            await fs.drain()
            await make(fs)
            await fs.write(f"{REC}/other", pattern(5000))
            await fs.drain()
            done = await fs.until_stopped(_make, step)
            await fs.crash()
            assert Backups(fs.config).kept(), step
            assert all(each["damage"] is None for each in Backups(fs.config).verify([], None)), step
            await fs.reopen()
            await make(fs)
            (last,) = Backups(fs.config).kept()
            assert left(fs) == sorted([last.header.name, last.header.name.replace(".db", ".json")])
            await fs.assert_consistent()
    assert step > 6


async def _make(fs: Filesystem) -> None:
    await make(fs)


def test_a_folder_has_the_room_it_needs(tmp_path: Path) -> None:
    there = BackupFolder(tmp_path, is_own=False)
    there.admit(1, 0)
    with pytest.raises(OutOfSpace, match="above min_free"):
        there.admit(1 << 60, 0)
    assert service.SPARE_BYTES > 0
