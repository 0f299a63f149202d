"""`recfs backup drill`: a backup is proved in a scratch place, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pyrage
import pytest
import trio
import trio.from_thread
import trio.lowlevel

from recfs.core.upkeep.backups import Kept, header_of
from recfs.errors import BackupDamaged, InvalidArgument, NotAllowed, NotFound, StoreError
from recfs.ports.object_errors import Unreachable
from recfs.rescue.backups import Backups
from recfs.rescue.drill import Drill
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, filesystem, pattern
from .test_generations import S3, evict


async def backed_up(fs: Filesystem) -> Kept:
    """A backup that is younger than all files, by the clock that they have."""
    await fs.drain()
    fs.clock.advance((time.time_ns() - fs.clock.now_ns()) / 10**9 + 2)
    return await fs.parts.work.upkeep.backups.make()


def drilled(fs: Filesystem, scratch: Path, name: str | None = None, **options: Any) -> dict[str, Any]:
    """What the drill says; it leaves nothing."""
    scratch.mkdir(exist_ok=True)
    backups = Backups(fs.config)
    identity, files = options.get("identity"), options.get("files", 100)
    try:
        return Drill(fs.config, backups, fs.objects).run(name, identity, files=files, scratch=scratch)
    finally:
        assert os.listdir(scratch) == []


async def test_files_are_held_against_it(fs: Filesystem, tmp_path: Path) -> None:
    for number in range(20):
        await fs.write(f"{REC}/sub-{number % 3}/{number}", pattern(5000, seed=number))
    made = await backed_up(fs)
    found = drilled(fs, tmp_path / "scratch")
    assert found["good"]
    assert found["backup"]["name"] == made.header.name
    assert found["checked_files"] == 20
    assert found["differences"] == found["wrong"] == []
    assert found["sample"] == {"proved": 20, "since": 0, "wrong": 0, "unknown": 0}
    assert sum(drilled(fs, tmp_path / "scratch", files=3)["sample"].values()) == 3
    assert drilled(fs, tmp_path / "scratch", files=0)["good"]


async def test_few_files_among_many_directories_are_found_all_the_same(fs: Filesystem, tmp_path: Path) -> None:
    for number in range(3):
        await fs.write(f"{REC}/{number}", pattern(500, seed=number))
    for number in range(200):
        await fs.mkdirs(f"{REC}/folders/{number}")
    await fs.write("users/9/recordings/1/last", pattern(500))
    await backed_up(fs)
    assert drilled(fs, tmp_path / "scratch")["sample"]["proved"] == 4


async def test_what_changed_since_proves_nothing_and_is_no_fault(fs: Filesystem, tmp_path: Path) -> None:
    for name in ("same", "gone", "changed", "renamed"):
        await fs.write(f"{REC}/{name}", pattern(5000))
    await backed_up(fs)
    await fs.unlink(f"{REC}/gone")
    await fs.write(f"{REC}/changed", b"other")
    await fs.rename(f"{REC}/renamed", f"{REC}/other-name")
    await fs.drain()
    later = time.time() + 5  # as if some time had passed: a change has a later ctime than the backup
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recfs.rescue.drill.os.fstat", lambda fd: _as_of(os.stat(fd), later, {5}))
        found = drilled(fs, tmp_path / "scratch")
    assert found["good"]
    assert found["sample"] == {"proved": 1, "since": 3, "wrong": 0, "unknown": 0}


def _as_of(info: os.stat_result, ctime_s: float, sizes: set[int]) -> Any:
    """What fstat(2) says, with a later ctime for files of some sizes."""

    class Changed:
        def __getattr__(self, name: str) -> Any:
            is_later = name == "st_ctime_ns" and info.st_size in sizes
            return round(ctime_s * 10**9) if is_later else getattr(info, name)

    return Changed()


@pytest.mark.parametrize("harm", ["bytes", "size"])
async def test_bytes_that_were_changed_behind_everybodys_back_are_found(
    fs: Filesystem, tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk does that forgets: no time tells."""
    fs.checked_at_end = False
    await fs.write(f"{REC}/file", pattern(5000))
    await fs.write(f"{REC}/other", pattern(5000))
    await fs.drain()
    with open(fs.root / REC / "file", "r+b") as file:
        file.write(b"harm")
        file.truncate(5000 if harm == "bytes" else 4000)
    fs.clock.advance((time.time_ns() - fs.clock.now_ns()) / 10**9 + 2)
    await fs.parts.work.upkeep.backups.make()
    found = drilled(fs, tmp_path / "scratch")
    assert not found["good"]
    assert [each["path"] for each in found["wrong"]] == [f"{REC}/file"]
    assert found["sample"]["proved"] == 1


async def test_counters_that_do_not_add_up_are_told(fs: Filesystem, tmp_path: Path) -> None:
    fs.checked_at_end = False
    await fs.write(f"{REC}/file", pattern(5000))
    await fs.drain()
    await fs.stop()
    with closing(sqlite3.connect(fs.root / ".recfs/catalogue.db")) as db, db:
        db.execute("update account set used_bytes = used_bytes + 7")
    await fs.reopen()
    await backed_up(fs)
    found = drilled(fs, tmp_path / "scratch")
    assert not found["good"]
    assert found["differences"] == ["user 5"]


async def test_an_encrypted_one_takes_its_key_and_a_damaged_one_fails(place: Path, tmp_path: Path) -> None:
    key = pyrage.x25519.Identity.generate()
    (tmp_path / "key.txt").write_text(str(key))
    async with filesystem(place, backup={"recipients": [str(key.to_public())]}) as fs:
        with pytest.raises(NotFound):
            drilled(fs, tmp_path / "scratch")
        await fs.write(f"{REC}/file", pattern(5000))
        made = await backed_up(fs)
        with pytest.raises(InvalidArgument, match="give --identity"):
            drilled(fs, tmp_path / "scratch")
        assert drilled(fs, tmp_path / "scratch", identity=tmp_path / "key.txt")["good"]
        file = Path(made.place) / made.header.name
        data = bytearray(file.read_bytes())
        data[-50] ^= 1
        file.write_bytes(data)
        with pytest.raises(BackupDamaged):
            drilled(fs, tmp_path / "scratch", made.header.name, identity=tmp_path / "key.txt")


@pytest.mark.usefixtures("any_log")
async def test_of_what_is_in_s3_alone_the_object_is_asked_for(place: Path, tmp_path: Path) -> None:
    from tests.fake_object_store import FakeObjectStore

    async with filesystem(place, start=False, **S3) as fs:
        fs.objects = FakeObjectStore()
        await fs.start()
        for name in ("here", "away", "lost", "replaced"):
            await fs.write(f"{REC}/{name}", pattern(5000))
        await fs.drain()
        for name in ("away", "lost", "replaced"):
            await evict(fs, f"{REC}/{name}")
        await backed_up(fs)
        assert drilled(fs, tmp_path / "scratch")["sample"]["proved"] == 4
        fs.objects.vanish(f"{REC}/lost")
        fs.objects.tamper(f"{REC}/replaced", b"other")
        assert drilled(fs, tmp_path / "scratch")["sample"] == {"proved": 2, "since": 2, "wrong": 0, "unknown": 0}
        fs.objects.fail("head", Unreachable("no route"), times=99)
        found = drilled(fs, tmp_path / "scratch")
        assert found["sample"] == {"proved": 1, "since": 0, "wrong": 0, "unknown": 3}
        assert found["good"], "what cannot be asked is told, and proves nothing"
        assert "no route" in found["wrong"][0]["reason"]
        fs.objects.heal()
        fs.checked_at_end = False


async def test_one_that_goes_while_it_is_looked_at_is_not_damaged(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer one is made meanwhile, and the older is one too many."""
    async with filesystem(place / "root", backup={"keep": 1}) as fs:
        made, token = [await backed_up(fs)], trio.lowlevel.current_trio_token()

        async def make() -> None:
            made.append(await backed_up(fs))

        def looked(self: Backups, *args: Any, **more: Any) -> str | None:
            monkeypatch.undo()
            trio.from_thread.run(make, trio_token=token)
            return self._damage(*args, **more)

        def backups() -> Backups:
            monkeypatch.setattr(Backups, "_damage", looked)
            return Backups(fs.config)

        assert await trio.to_thread.run_sync(lambda: backups().verify([], None)) == []
        with pytest.raises(NotFound, match="no backup called"):
            await trio.to_thread.run_sync(lambda: backups().verify([made[-1].header.name], None))
        found = backups()
        assert await trio.to_thread.run_sync(lambda: found.chosen(None)) == made[-1]
        assert found.skipped == []


async def test_keys_that_come_through_a_pipe_open_all_of_them(place: Path, tmp_path: Path) -> None:
    """`--identity <(pass show backups)`: they can be read once."""
    key = pyrage.x25519.Identity.generate()
    async with filesystem(place, backup={"recipients": [str(key.to_public())]}) as fs:
        for _ in range(2):
            await backed_up(fs)
        reader, writer = os.pipe()
        try:
            os.write(writer, str(key).encode())
            os.close(writer)
            found = Backups(fs.config).verify([], Path(f"/dev/fd/{reader}"))
        finally:
            os.close(reader)
        assert [(each["damage"], each["opened"]) for each in found] == [(None, True)] * 2


async def test_what_else_lies_beside_backups_holds_nobody_up(place: Path, tmp_path: Path) -> None:
    """Somebody else's FIFO, directory and link in a directory that several share."""
    async with filesystem(place / "root", backup={"directory": tmp_path}) as fs:
        made = await backed_up(fs)
        os.mkfifo(tmp_path / "catalogue-fifo.json")
        os.mkdir(tmp_path / "catalogue-directory.json")
        os.symlink("catalogue-link.json", tmp_path / "catalogue-link.json")
        with trio.fail_after(GUARD_S):
            assert await trio.to_thread.run_sync(Backups(fs.config).kept, abandon_on_cancel=True) == [made]


@pytest.mark.parametrize("what", ["directory", "header"])
async def test_who_may_not_read_backups_is_told_so(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """And not that there is none."""
    async with filesystem(place / "root", backup={"directory": tmp_path}) as fs:
        made = await backed_up(fs)
        refused = tmp_path if what == "directory" else tmp_path / header_of(made.header.name)
        for name in ("open", "listdir"):
            monkeypatch.setattr(os, name, partial(_refusing, getattr(os, name), refused))
        with pytest.raises(NotAllowed, match=f"{re.escape(str(refused))} cannot be read"):
            Backups(fs.config).kept()
        monkeypatch.undo()


@pytest.mark.parametrize("what", ["file", "loop"])
async def test_what_is_no_directory_is_told(place: Path, tmp_path: Path, what: str) -> None:
    """Somebody's file, or a link to itself, is where backups are to lie."""
    where = tmp_path / "backups"
    where.mkdir()
    async with filesystem(place / "root", backup={"directory": where}) as fs:
        await backed_up(fs)
        where.rename(tmp_path / "elsewhere")
        if what == "file":
            where.touch()
        else:
            where.symlink_to(where)
        for call in (Backups(fs.config).kept, partial(Backups(fs.config).verify, [], None)):
            with pytest.raises(
                StoreError, match=f"backups lie in {re.escape(str(where))}, which cannot be looked into"
            ):
                call()


def _refusing(call: Callable[..., Any], refused: Path, path: Any, *args: Any, **more: Any) -> Any:
    if isinstance(path, (str, Path)) and str(path) == str(refused):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return call(path, *args, **more)
