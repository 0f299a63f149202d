"""What commands and sweeps remove, bring back and give up is in the audit log: by path, with who asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio
import trio.testing

from recfs.api.asking import acts_for
from recfs.api.control import ControlServer
from recfs.api.observing import acts_of
from recfs.fs.names.wholes import Wholes
from recfs.observing.audit import trail
from recfs.observing.audit.reading import AuditReader, Sought
from recfs.observing.audit.trail import AuditTrail
from recfs.services.sweeps import Sweeps
from recfs.state.events import Events
from tests.fakes import FakeClock
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, filesystem
from .test_audit import settings as audit_settings
from .test_control import call, serving
from .test_recordings_end import RULES, due
from .test_trash import ask
from .watching import watching

HOUR = 3600.0
JOB = "temp/5/1"
SETTINGS: dict[str, Any] = {"audit": {"enabled": True}, "trash": {"retention": HOUR}}


async def lines(fs: Filesystem, *ops: str) -> list[dict[str, Any]]:
    """What the log says of these acts, once all is written."""
    audit = audit_of(fs)
    with trio.fail_after(GUARD_S):
        while audit.as_json()["waiting"]:  # noqa: ASYNC110  # a thread writes them
            await trio.sleep(0.01)
    return list(AuditReader(audit.files.settings.folder).acts(Sought(ops=frozenset(ops))))


def audit_of(fs: Filesystem) -> AuditTrail:
    audit = fs.parts.observing.audit
    assert audit is not None
    return audit


def told(line: dict[str, Any], *keys: str) -> tuple[Any, ...]:
    return tuple(line.get(key) for key in keys)


async def run(fs: Filesystem, nursery: trio.Nursery, name: str) -> Sweeps:
    """Have a sweep run by its schedule, once."""
    (sweep,) = [each for each in (*fs.parts.upkeep.sweeps(),) if each.name == name]
    sweeps = Sweeps([sweep], fs.parts.problems, fs.parts.tree.clock)
    nursery.start_soon(sweeps.repeat, name)
    with trio.fail_after(GUARD_S):
        await sweeps.wait(name, 1, 20)
    return sweeps


async def test_what_a_command_brings_back_and_gives_up_is_told_with_who_asked(place: Path, tmp_path: Path) -> None:
    """A name that has a line in it makes no line."""
    forged = f'{REC}/a\n{{"op":"purged","path":"x"}}'
    socket = tmp_path / "socket"
    async with filesystem(place, **SETTINGS) as fs:
        for path in (f"{REC}/b", forged):
            await fs.write(path, b"x" * 7)
        await fs.drain()
        for path in (f"{REC}/b", forged):
            await fs.unlink(path)
        assert audit_of(fs).as_json()["waiting"] == 0  # requests are told by another
        async with serving(ControlServer(socket, fs._answers().handlers(), observer=acts_of(fs.parts.observing))):
            await call(socket, "trash_restore", path=f"{REC}/b")
            await call(socket, "trash_purge", all=True)
        back, gone = await lines(fs, "removed", "purged", "restored")
        own = {"uid": os.getuid(), "gid": os.getgid(), "pid": os.getpid(), "result": "ok", "via": "control"}
        own["command"] = Path("/proc/self/comm").read_text().strip()
        assert own.items() <= back.items()
        assert own.items() <= gone.items()
        assert told(back, "op", "path", "by", "user") == ("restored", f"{REC}/b", "trash_restore", "5")
        assert told(gone, "op", "path", "by", "size_bytes") == ("purged", forged, "trash_purge", 7)
        text = audit_of(fs).files.path.read_text()
        assert all(json.loads(line)["path"] != "x" for line in text.splitlines() if '"path"' in line)


async def test_what_the_temp_sweep_removes_is_told_with_its_name(place: Path, nursery: trio.Nursery) -> None:
    async with filesystem(place, **SETTINGS) as fs:
        await fs.write(f"{JOB}/deep/file", b"x" * 9)
        await fs.write(f"{JOB}/file", b"x")
        await fs.drain()
        fs.clock.advance(25 * HOUR)
        await run(fs, nursery, "temp")
        assert not await fs.exists(JOB)
        gone = await lines(fs, "removed")
        assert {each["path"] for each in gone} >= {JOB}
        of_file = AuditReader(audit_of(fs).files.settings.folder).acts(Sought(path=f"{JOB}/deep/file"))
        assert {each["by"] for each in of_file} == {"sweep temp"}, "it went with its directory"
        assert not list(AuditReader(audit_of(fs).files.settings.folder).acts(Sought(path="temp/5/11/file")))
        assert {told(each, "by", "via", "uid", "pid", "command") for each in gone} == {
            ("sweep temp", "daemon", os.geteuid(), os.getpid(), "recfs")
        }


async def test_a_sweep_that_somebody_asked_for_is_theirs_and_the_next_is_not(
    place: Path, nursery: trio.Nursery
) -> None:
    async with filesystem(place, **SETTINGS) as fs:
        sweeps = await run(fs, nursery, "temp")
        for asked, job in ((True, "temp/5/1"), (False, "temp/5/2")):
            await fs.write(f"{job}/file", b"x")
            await fs.drain()
            fs.clock.advance(25 * HOUR)
            if asked:
                with acts_for("sweep_run", 4711, 100, 0, "control"):
                    number = sweeps.ask("temp")
            else:
                number = sweeps.ask("temp")
            assert (await sweeps.wait("temp", number, 20))["ended"]
        of_jobs = [each for each in await lines(fs, "removed") if "/file" not in each["path"]]
        assert {told(each, "path", "uid", "by") for each in of_jobs} == {
            ("temp/5/1", 4711, "sweep_run"),
            ("temp/5/2", os.geteuid(), "sweep temp"),
        }


async def test_a_recording_that_is_removed_is_told_with_who_asked(place: Path) -> None:
    async with filesystem(place, **RULES, **SETTINGS) as fs:
        await due(fs)
        with acts_for("sweep_expired", 4711, 100, 0, "control"):
            await ask(fs, "sweep_expired")
        [line] = await lines(fs, "expired-removed")
        assert told(line, "path", "uid", "by") == (REC, 4711, "sweep_expired")
        assert {told(each, "uid", "by") for each in await lines(fs, "removed")} <= {(4711, "sweep_expired")}


async def test_what_the_trash_does_not_keep_any_longer_is_told_once(place: Path, nursery: trio.Nursery) -> None:
    async with filesystem(place, **SETTINGS) as fs:
        await fs.write(f"{REC}/a", b"x" * 5)
        await fs.drain()
        await fs.unlink(f"{REC}/a")
        await fs.drain()
        fs.clock.advance(2 * HOUR)
        fs.parts.work.upkeep.trash.purge(next(iter(fs.parts.tree.garbage.values())))
        await run(fs, nursery, "trash")
        [line] = await lines(fs, "purged")
        assert told(line, "path", "size_bytes", "via", "by") == (f"{REC}/a", 5, "daemon", None)


async def test_an_overwrite_that_a_start_takes_back_is_told(nursery: trio.Nursery, place: Path) -> None:
    fs = Filesystem(nursery, place, **SETTINGS)
    await fs.start()
    await fs.write(f"{REC}/a", b"old")
    await fs.drain()
    number = await fs.open(f"{REC}/a", os.O_WRONLY | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, b"new")
    await fs.parts.behind.durable()
    await fs.crash()
    await fs.reopen()
    assert await fs.read(f"{REC}/a") == b"old"
    [line] = await lines(fs, "rolled-back")
    assert told(line, "path", "by", "via") == (f"{REC}/a", "recovery", "daemon")
    await fs.stop()


async def test_who_tells_of_many_things_waits_for_the_log_while_it_gets_on(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "MOST_WAITING", 100)
    monkeypatch.setattr(trail, "STUCK_S", 1e6)
    audit, events = AuditTrail(audit_settings(tmp_path / "audit"), FakeClock(), reads=False), Events()
    events.subscribe(audit)
    for number in range(51):
        assert not events.is_behind()
        events.purged(b"users/5/%d" % number, 1)
    assert events.is_behind()
    nursery.start_soon(audit.run)
    with trio.fail_after(GUARD_S):
        await events.caught_up()
    assert not events.is_behind()
    assert audit.dropped == 0


async def test_no_sweep_is_held_up_by_a_log_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Be it that the disk says so, or says nothing."""
    monkeypatch.setattr(trail, "MOST_WAITING", 100)
    audit, events = AuditTrail(audit_settings(tmp_path / "audit"), FakeClock(), reads=False), Events()
    events.subscribe(audit)
    for number in range(200):
        events.purged(b"users/5/%d" % number, 1)
    assert audit.dropped == 100
    audit.problem = "No space left on device"
    assert not events.is_behind()
    audit.problem = None
    before_s = trio.current_time()
    await events.caught_up()
    assert trio.current_time() - before_s == pytest.approx(trail.STUCK_S, abs=0.1)
    before_s = trio.current_time()
    await events.caught_up()
    assert trio.current_time() == before_s


async def test_a_job_of_very_many_files_drops_no_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of what is removed, nor of what others do meanwhile."""
    monkeypatch.setattr(trail, "MOST_WAITING", 200)
    async with filesystem(place, **SETTINGS) as fs:
        for number in range(250):
            await fs.write(f"{JOB}/{number}", b"")
        await fs.drain()
        fs.clock.advance(25 * HOUR)
        with (
            mock.patch.object(Wholes, "may_be", return_value=False),  # else one line tells of them all
            acts_for("sweep_temp", 4711, 100, 0, "control"),
        ):
            await ask(fs, "sweep_temp")
        assert audit_of(fs).dropped == 0
        assert len(await lines(fs, "removed")) == 251


async def test_what_somebody_removed_past_the_mount_is_told_of_the_watch(place: Path) -> None:
    """Who it was, nobody can say; that it went, and when recfs found out, is told."""
    async with filesystem(place, **SETTINGS) as fs:
        await fs.write(f"{REC}/a", b"x" * 3)
        await fs.drain()
        async with watching(fs) as watched:
            (watched.home / REC / "a").unlink()
            await watched.settled()
            assert not await fs.exists(f"{REC}/a")
        [line] = await lines(fs, "removed")
        assert told(line, "path", "by", "via", "size_bytes") == (f"{REC}/a", "watch", "daemon", 3)
