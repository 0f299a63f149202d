"""[notify]: commands that hang, fail, flood and die; each event is given to one, and nobody waits for it."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.config.observing import NotifySection
from recfs.errors import RecfsError
from recfs.observing import notify

from .build import REC, Filesystem, filesystem

pytestmark = pytest.mark.slow  # they run programs

ExpectLog = Callable[[str], None]
FILE = f"{REC}/f"


@asynccontextmanager
async def notifying(root: Path, command: str, **more: Any) -> AsyncIterator[Filesystem]:
    """A file system whose command is run for each commit."""
    section = {"command": command, "events": ["committed"]} | more
    async with filesystem(root / "store", services=False, start=False, notify=section) as fs:
        fs.checked_at_end = False
        yield fs


async def start(fs: Filesystem) -> None:
    """As mounted: with the command."""
    await fs.start()
    part, run = fs.parts.observing.services(mounted=True)[-1]
    assert part == notify.PART
    fs._nursery.start_soon(_until_end, fs, run)
    with trio.fail_after(120):
        while fs.parts.observing.notify.as_json()["cursor"] == "now":  # type: ignore[union-attr]  # noqa: ASYNC110
            await trio.sleep(0.01)


async def _until_end(fs: Filesystem, run: Callable[[], Any]) -> None:
    end = fs._end

    async def serve() -> None:
        try:
            await run()
        except (RecfsError, sqlite3.ProgrammingError):
            if not end.is_set():  # else it was in the midst of a question when the catalogue was closed
                raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await end.wait()
        nursery.cancel_scope.cancel()


async def commit(fs: Filesystem, *names: str) -> None:
    for name in names:
        await fs.write(f"{REC}/{name}", b"bytes")
    await fs.drain()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what processes do."""
    with trio.fail_after(120):
        while not condition():  # noqa: ASYNC110  # they tell nobody
            await trio.sleep(0.02)


def lines(path: Path) -> list[dict[str, Any]]:
    """What was given to the command, as it has kept it."""
    return [json.loads(each) for each in path.read_text().splitlines()] if path.exists() else []


def paths(path: Path) -> list[str]:
    return [each["path"].rpartition("/")[2] for each in lines(path)]


def state(fs: Filesystem) -> dict[str, Any]:
    made = fs.parts.observing.notify
    assert made is not None
    return made.as_json()


async def test_a_command_gets_each_event_once_in_order(tmp_path: Path) -> None:
    out = tmp_path / "out"
    async with notifying(tmp_path, f"cat >> {out}; env > {tmp_path}/env; pwd > {tmp_path}/cwd") as fs:
        await commit_before_the_start(fs)
        await start(fs)
        await commit(fs, "a", "b")
        await fs.unlink(f"{REC}/a")
        await commit(fs, "c")
        await until(lambda: len(lines(out)) == 3 and not state(fs)["running"])
        assert paths(out) == ["a", "b", "c"]
        assert set(lines(out)[0]) == {
            "cursor", "time", "time_ns", "event", "path", "user", "ino", "size_bytes", "sha256",
        }  # fmt: skip
        assert (state(fs)["runs"], state(fs)["failed"]) == (3, 0)
        assert (tmp_path / "cwd").read_text() == "/\n"
        assert not any(each.startswith(("AWS", "RECFS")) for each in (tmp_path / "env").read_text().splitlines())


async def commit_before_the_start(fs: Filesystem) -> None:
    """What there was before the command is known is nothing new."""
    before = fs.config
    fs.config = before.model_copy(update={"notify": before.notify.model_copy(update={"command": None})})
    await fs.start()
    await commit(fs, "before")
    await fs.stop()
    fs.config = before


async def test_what_happens_while_nobody_runs_is_given_after_the_start_and_again_after_a_death(tmp_path: Path) -> None:
    out = tmp_path / "out"
    gate = tmp_path / "gate"
    async with notifying(tmp_path, f"cat >> {out}; while [ ! -e {gate} ]; do sleep 0.02; done") as fs:
        await start(fs)
        await commit(fs, "a", "b")
        await until(lambda: paths(out) == ["a"])
        await fs.crash()  # while the command runs: it may not have done all it had to
        gate.touch()
        await fs.reopen()
        _, run = fs.parts.observing.services(mounted=True)[-1]
        fs._nursery.start_soon(_until_end, fs, run)
        await until(lambda: paths(out) == ["a", "a", "b"])


async def test_a_command_is_given_and_taken_while_the_daemon_runs(tmp_path: Path) -> None:
    """At once, also while it is waited for events; what happens in between is given to the one that comes back."""
    out = tmp_path / "out"
    async with notifying(tmp_path, f"cat >> {out}") as fs:
        on = fs.config
        off = on.model_copy(update={"notify": NotifySection()})
        await start(fs)
        await commit(fs, "a")
        await until(lambda: paths(out) == ["a"] and not state(fs)["running"])
        cursor = state(fs)["cursor"]
        fs.parts.observing.reconfigure(off)
        assert fs.parts.observing.as_json()["notify"] is None
        await commit(fs, "b")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (paths(out), state(fs)["runs"], state(fs)["cursor"]) == (["a"], 1, cursor)
        fs.parts.observing.reconfigure(on)
        await until(lambda: paths(out) == ["a", "b"] and not state(fs)["running"])
        fs.parts.observing.reconfigure(on.model_copy(update={"notify": NotifySection(command=f"cat >> {out}2")}))
        await commit(fs, "c")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert paths(out) == ["a", "b"]  # the default kinds are others


async def test_a_command_that_is_taken_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "FIRST_PAUSE_S", 3600.0)
    async with notifying(tmp_path, "exit 3") as fs:
        on = fs.config
        await start(fs)
        cursor = state(fs)["cursor"]
        await commit(fs, "a")
        await until(lambda: state(fs)["failed"] == 1 and not state(fs)["running"])
        fs.parts.observing.reconfigure(on.model_copy(update={"notify": NotifySection()}))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert (state(fs)["runs"], state(fs)["given_up"], state(fs)["cursor"]) == (1, 0, cursor)
        fs.parts.observing.reconfigure(on)
        await until(lambda: state(fs)["runs"] == 2)


async def test_a_command_that_hangs_is_killed_with_its_children_and_the_daemon_goes_on(
    tmp_path: Path, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("it took longer than 1 s")
    monkeypatch.setattr(notify, "FIRST_PAUSE_S", 0.01)
    pids = tmp_path / "pids"
    command = f"cat >/dev/null; sleep 1000 & echo $! >> {pids}; echo $$ >> {pids}; wait"
    async with notifying(tmp_path, command, timeout=1) as fs:
        await start(fs)
        await commit(fs, "a")
        await until(lambda: pids.exists())
        began = time.monotonic()
        await commit(fs, "b")
        await fs.rename(f"{REC}/b", f"{REC}/c")
        assert time.monotonic() - began < 1.0
        await until(lambda: state(fs)["given_up"] >= 1)
        assert state(fs)["failed"] == notify.TRIES
        problem = fs.parts.problems.first(notify.PART)
        assert problem is not None
        assert "it took longer than 1 s" in problem
        assert "committed of " in problem
        await fs.stop()
        for pid in pids.read_text().split():
            await until(lambda pid=pid: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid))  # type: ignore[misc]


class Stuck:
    """Commands that do not end when they are killed, as one that waits for an answer of this mount; while it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_set = False
        self._wait, self._poll = trio.Process.wait, trio.Process.poll
        monkeypatch.setattr(trio.Process, "wait", lambda process: self._waited(process))
        monkeypatch.setattr(trio.Process, "poll", lambda process: None if self.is_set else self._poll(process))

    async def _waited(self, process: trio.Process) -> int:
        if self.is_set:
            await trio.sleep(30)  # longer than any test waits
        return await self._wait(process)


async def test_a_stop_does_not_wait_for_a_command_that_cannot_be_killed(
    tmp_path: Path, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("a command was killed and has not ended")
    pid = tmp_path / "pid"
    stuck = Stuck(monkeypatch)
    stuck.is_set = True
    async with notifying(tmp_path, f"echo $$ > {pid}; exec sleep 1000") as fs:
        await fs.start()
        made = fs.parts.observing.notify
        assert made is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
            await until(lambda: state(fs)["cursor"] != "now")
            await commit(fs, "a")
            await until(lambda: pid.exists() and bool(pid.read_text()))
            began = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began < 10
        assert state(fs)["hanging"] == 1
        stuck.is_set = False  # it has ended: it is reaped when somebody looks
        await until(lambda: state(fs)["hanging"] == 0)
        assert not Path(f"/proc/{pid.read_text().strip()}").exists()


async def test_commands_that_cannot_be_killed_are_counted_bounded_and_reaped_later(
    tmp_path: Path, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("a command was killed and has not ended")
    expect_log("it took longer than 1 s")
    for name, value in {"FIRST_PAUSE_S": 0.01, "REAP_S": 0.1, "REAP_AT_END_S": 0.1, "MOST_HANGING": 2}.items():
        monkeypatch.setattr(notify, name, value)
    pids = tmp_path / "pids"
    stuck = Stuck(monkeypatch)
    stuck.is_set = True
    async with notifying(tmp_path, f"echo $$ >> {pids}; exec sleep 1000", timeout=1) as fs:
        await start(fs)
        await commit(fs, "a")
        await until(lambda: state(fs)["hanging"] == 2)
        await trio.sleep(3 * notify.LOOK_S)  # the third is not run: it would hang as well
        assert len(pids.read_text().split()) == 2
        stuck.is_set = False
        await until(lambda: state(fs)["given_up"] == 1)
        assert len(pids.read_text().split()) == 3
        await until(lambda: state(fs)["hanging"] == 0)
        for pid in pids.read_text().split():
            assert not Path(f"/proc/{pid}").exists()


def _is_zombie(pid: str) -> bool:
    return " Z " in Path(f"/proc/{pid}/stat").read_text()


async def test_a_command_that_fails_is_tried_again_and_then_told(
    tmp_path: Path, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect_log("exit code 3: no mail today")
    monkeypatch.setattr(notify, "FIRST_PAUSE_S", 0.01)
    out, works = tmp_path / "out", tmp_path / "works"
    command = f"cat >> {out}; yes | head -c 300000 >&2; [ -e {works} ] || {{ echo no mail today >&2; exit 3; }}"
    async with notifying(tmp_path, command) as fs:
        await start(fs)
        await commit(fs, "a")
        await until(lambda: state(fs)["given_up"] == 1)
        assert paths(out) == ["a"] * notify.TRIES
        assert fs.parts.problems.has(notify.PART, "command")
        works.touch()
        await commit(fs, "b")
        await until(lambda: len(lines(out)) == notify.TRIES + 1)
        await until(lambda: not fs.parts.problems.has(notify.PART, "command"))
        assert state(fs)["failed"] == notify.TRIES


async def test_a_command_that_is_none(tmp_path: Path, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_log("exit code 127")
    monkeypatch.setattr(notify, "FIRST_PAUSE_S", 0.01)
    async with notifying(tmp_path, "/no/such/program") as fs:
        await start(fs)
        await commit(fs, "a")
        await until(lambda: state(fs)["given_up"] == 1)


async def test_a_flood_runs_one_command_at_a_time_and_no_more_than_the_rate_allows(tmp_path: Path) -> None:
    out, busy = tmp_path / "out", tmp_path / "busy"
    command = f'mkdir {busy} || echo \'{{"path":"twice"}}\' >> {out}; cat >> {out}; rmdir {busy}'
    async with notifying(tmp_path, command, per_minute=6, most_events=10) as fs:
        await start(fs)
        await commit(fs, *(f"{number}" for number in range(200)))
        await until(lambda: state(fs)["runs"] == 6 and not state(fs)["running"])
        await trio.sleep(0.5)  # the seventh is due ten seconds after the first
        assert state(fs)["runs"] == 6
        assert 6 <= len(lines(out)) <= 60
        told = [os.fsdecode(each).rpartition("/")[2] for each in fs.rows("select path from event order by id")]
        assert paths(out) == told[: len(lines(out))]


async def test_a_command_that_reads_nothing(tmp_path: Path) -> None:
    done = tmp_path / "done"
    async with notifying(tmp_path, f"exec < /dev/null; touch {done}", most_events=1000) as fs:
        await start(fs)
        await commit(fs, *(f"{'x' * 200}{number}" for number in range(300)))
        await until(lambda: done.exists() and not state(fs)["running"] and state(fs)["cursor"] == _last(fs))
        assert state(fs)["failed"] == 0


def _last(fs: Filesystem) -> str:
    journal = fs.parts.observing.journal
    assert journal is not None
    return f"{journal.epoch}-{journal.written_id}"


async def test_events_that_were_dropped_before_the_command_had_them_are_counted(
    tmp_path: Path, expect_log: ExpectLog
) -> None:
    expect_log("events were dropped")
    out = tmp_path / "out"
    async with notifying(tmp_path, f"cat >> {out}", most_events=1000) as fs:
        await start(fs)
        await commit(fs, "a")
        await until(lambda: paths(out) == ["a"])
        await fs.stop()
        with sqlite3.connect(fs.root / ".recfs/catalogue.db") as db:
            db.execute("update event set id = id + 1000")
        await fs.start()
        _, run = fs.parts.observing.services(mounted=True)[-1]
        fs._nursery.start_soon(_until_end, fs, run)
        await until(lambda: paths(out) == ["a", "a"])
        assert state(fs)["lost"] == 1


async def test_events_of_another_history_are_not_given_and_status_says_so(
    tmp_path: Path, expect_log: ExpectLog
) -> None:
    expect_log("events were dropped")
    out = tmp_path / "out"
    async with notifying(tmp_path, f"cat >> {out}", most_events=1000) as fs:
        await start(fs)
        await commit(fs, "a")
        await until(lambda: paths(out) == ["a"])
        assert "[notify]" not in str((await fs.answers()["status"]({}))["problems"])
        await fs.stop()
        with sqlite3.connect(fs.root / ".recfs/catalogue.db") as db:
            [(cursor,)] = db.execute("select value from meta where key = ?", (notify.CURSOR,))
            another = cursor.translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
            db.execute("update meta set value = ? where key = ?", (another, notify.CURSOR))
        await start(fs)
        await until(lambda: state(fs)["skipped"] is not None)
        [told] = [each for each in (await fs.answers()["status"]({}))["problems"] if "[notify]" in each]
        assert "put back or made anew" in told
        assert "`recfs events`" in told
        await commit(fs, "b")
        await until(lambda: paths(out) == ["a", "b"])
        await fs.stop()
        await start(fs)
        assert "[notify]" not in str((await fs.answers()["status"]({}))["problems"])
