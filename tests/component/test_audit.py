"""The audit log: what is written when the disk is slow, full or gone, its files, and reading them again."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs.api.observing import LOOKS
from recfs.core.observing.acts import CONTROL_OPS
from recfs.observing.audit import files, trail
from recfs.observing.audit.files import AuditFiles, AuditSettings
from recfs.observing.audit.reading import AuditReader, Sought
from recfs.observing.audit.trail import AuditTrail
from tests.fakes import START_NS, FakeClock
from tests.helpers.virtual_time import GUARD_S

from .build import filesystem

ExpectLog = Callable[[str], None]


def settings(folder: Path, **changes: Any) -> AuditSettings:
    """Large enough for anything, unless said."""
    wanted: dict[str, Any] = {"max_bytes": 1 << 30, "rotate_s": 1e9, "keep_s": 1e9, "most_bytes": 1 << 40}
    return AuditSettings(folder, **(wanted | changes))


def told(folder: Path, **sought: Any) -> list[dict[str, Any]]:
    """What a reader finds."""
    return list(AuditReader(folder).acts(Sought(**sought)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
async def audit(folder: Path, nursery: trio.Nursery) -> AuditTrail:
    """One that is running."""
    made = AuditTrail(settings(folder), FakeClock(), reads=False)
    nursery.start_soon(made.run)
    return made


def act(audit: AuditTrail, path: str, result: int = 0, **detail: Any) -> None:
    audit.record("unlink", os.fsencode(path), 1000, 100, os.getpid(), result, detail or None)


async def written(audit: AuditTrail, count: int) -> None:
    """Wait until so many acts are accounted for."""
    with trio.fail_after(GUARD_S):
        while audit.written + audit.dropped < count:  # noqa: ASYNC110  # a thread writes them
            await trio.sleep(0.01)


async def test_acts_are_written_in_order_by_a_thread(audit: AuditTrail, folder: Path) -> None:
    for number in range(1200):
        act(audit, f"users/5/{number}")
    assert audit.written == 0
    await written(audit, 1200)
    lines = told(folder)
    assert [each["path"] for each in lines] == [f"users/5/{number}" for number in range(1200)]
    assert lines[0]["command"] == Path("/proc/self/comm").read_text().strip()
    assert stat.S_IMODE((folder / "audit.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_slow_disk_holds_nobody_up(audit: AuditTrail, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands still: what comes is taken up as long as there is room, then dropped and counted, without a wait."""
    monkeypatch.setattr(trail, "MOST_WAITING", 100)
    stands, entered = threading.Event(), threading.Event()
    write = AuditFiles.write

    def slow(self: AuditFiles, *args: Any) -> None:
        entered.set()
        assert stands.wait(20)
        write(self, *args)

    with mock.patch.object(AuditFiles, "write", slow):
        act(audit, "users/5/first")
        await trio.to_thread.run_sync(entered.wait, 20)
        before = trio.current_time()
        for number in range(250):
            act(audit, f"users/5/{number}")
        assert trio.current_time() - before < 1.0
        assert (audit.as_json()["waiting"], audit.dropped) == (101, 150)
        stands.set()
        await written(audit, 251)
        act(audit, "users/5/last")
        await written(audit, 252)
    lines = told(folder)
    assert [each["path"] for each in lines if "path" in each] == [
        "users/5/first", *(f"users/5/{number}" for number in range(100)), "users/5/last",
    ]  # fmt: skip
    (dropped,) = [each for each in lines if each["op"] == "dropped"]
    assert (dropped["count"], dropped["via"]) == (150, "daemon")


async def test_a_full_disk_drops_and_counts_and_leaves_no_half_line(
    audit: AuditTrail, folder: Path, expect_log: ExpectLog
) -> None:
    expect_log("audit.jsonl cannot be written: .*No space left")
    act(audit, "users/5/before")
    await written(audit, 1)
    real, full = os.write, [True]

    def half(fd: int, data: Any) -> int:
        if full[0] and os.readlink(f"/proc/self/fd/{fd}").endswith("audit.jsonl"):
            if len(data) < 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(fd, bytes(data[: len(data) - 10]))  # some of it fits
        return real(fd, data)

    with mock.patch.object(os, "write", half):
        act(audit, "users/5/lost")
        act(audit, "users/5/lost, too")
        await written(audit, 3)
        assert (audit.written, audit.dropped) == (1, 2)
        assert audit.problem is not None
        assert "No space left" in audit.problem
        assert [each["path"] for each in told(folder)] == ["users/5/before"]
        assert (folder / "audit.jsonl").read_bytes().endswith(b"}\n")
        full[0] = False
        act(audit, "users/5/after")
        await written(audit, 4)
    assert [each.get("path", each.get("count")) for each in told(folder)] == ["users/5/before", 2, "users/5/after"]
    assert audit.problem is None
    assert AuditReader(folder).damaged == 0


async def test_what_is_left_at_the_end_is_written(folder: Path) -> None:
    audit = AuditTrail(settings(folder), FakeClock(), reads=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        await trio.testing.wait_all_tasks_blocked()
        act(audit, "users/5/last")
        nursery.cancel_scope.cancel()
    assert [each["path"] for each in told(folder)] == ["users/5/last"]


async def test_an_end_does_not_wait_for_a_disk_that_stands_still(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "END_S", 0.2)
    audit = AuditTrail(settings(folder), FakeClock(), reads=False)
    stands, entered = threading.Event(), threading.Event()

    def slow(self: AuditFiles, *args: Any) -> None:
        entered.set()
        stands.wait(20)

    try:
        with mock.patch.object(AuditFiles, "write", slow), trio.fail_after(GUARD_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(audit.run)
                act(audit, "users/5/x")
                await trio.to_thread.run_sync(entered.wait, 20)
                act(audit, "users/5/y")
                nursery.cancel_scope.cancel()
    finally:
        stands.set()


# --- files --------------------------------------------------------------------------------------------------------

START_S = START_NS / 1e9


@pytest.fixture
def many(folder: Path) -> Iterator[Callable[..., AuditFiles]]:
    made: list[AuditFiles] = []

    def make(**changes: Any) -> AuditFiles:
        made.append(AuditFiles(settings(folder, **changes)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def line(number: int, at_s: float = START_S) -> bytes:
    return b'{"time":"x","time_ns":%d,"number":%d,"op":"unlink","result":"ok"}\n' % (round(at_s * 1e9), number)


def numbers(folder: Path) -> list[int]:
    return [each["number"] for each in told(folder)]


def test_a_large_file_is_put_aside(folder: Path, many: Callable[..., AuditFiles]) -> None:
    log = many(max_bytes=200)
    for number in range(12):
        log.write(line(number), START_S, number)
    assert len(files.rotated(folder)) == 3
    assert [path.name for path in files.rotated(folder)] == [
        "audit-20261105T120000Z.jsonl", "audit-20261105T120000Z-1.jsonl", "audit-20261105T120000Z-2.jsonl",
    ]  # fmt: skip
    assert numbers(folder) == list(range(12))


def test_an_old_file_is_put_aside_also_after_a_restart(folder: Path, many: Callable[..., AuditFiles]) -> None:
    log = many(rotate_s=3600)
    log.write(line(0), START_S, 0)
    log.write(line(1, START_S + 3500), START_S + 3500, 1)
    assert files.rotated(folder) == []
    log.close()
    log = many(rotate_s=3600)
    log.write(line(2, START_S + 3601), START_S + 3601, 2)
    assert len(files.rotated(folder)) == 1
    assert numbers(folder) == [0, 1, 2]


def test_what_is_not_kept_goes_oldest_first(folder: Path, many: Callable[..., AuditFiles]) -> None:
    log = many(max_bytes=60, most_bytes=200)
    for number in range(10):
        log.write(line(number), START_S, number)
    assert numbers(folder) == [7, 8, 9]
    oldest = files.rotated(folder)[0]
    os.utime(oldest, (1, 1))
    log = many(max_bytes=60, keep_s=3600 * 24 * 365 * 10)
    log.write(line(10), START_S, 0)
    log.write(line(11), START_S, 0)
    assert oldest not in files.rotated(folder)


def test_a_file_that_was_moved_away_is_made_anew(folder: Path, many: Callable[..., AuditFiles]) -> None:
    """As logrotate(8) does it."""
    log = many()
    log.write(line(0), START_S, 0)
    (folder / "audit.jsonl").rename(folder / "elsewhere")
    log.write(line(1), START_S, files.LOOK_S + 1)
    assert numbers(folder) == [1]


def test_half_a_line_of_a_machine_that_died_spoils_no_other(folder: Path, many: Callable[..., AuditFiles]) -> None:
    log = many()
    log.write(line(0), START_S, 0)
    log.close()
    with (folder / "audit.jsonl").open("ab") as file:
        file.write(b'{"time_ns":5,"op":"unl')
    log.write(line(1), START_S, 1)
    reader = AuditReader(folder)
    assert [each["number"] for each in reader.acts(Sought())] == [0, 1]
    assert reader.damaged == 1


def test_a_link_in_the_place_of_the_file_is_not_followed(folder: Path, many: Callable[..., AuditFiles]) -> None:
    folder.mkdir()
    (folder / "audit.jsonl").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="Too many levels"):
        many().write(line(0), START_S, 0)


def test_what_is_sought(folder: Path, many: Callable[..., AuditFiles]) -> None:
    log = many(max_bytes=300)
    acts = [
        {"op": "unlink", "uid": 1, "user": "5", "path": "users/5/a/b", "result": "ok"},
        {"op": "rename", "uid": 2, "user": "6", "path": "users/6/x", "to": "users/5/a/y", "result": "EACCES"},
        {"op": "chmod", "uid": 2, "user": "5", "path": "users/5/ab", "result": "ok"},
    ]
    for number, each in enumerate(acts):
        log.write(json.dumps({"time_ns": number * 10**9} | each).encode() + b"\n", START_S, number)

    def found(**sought: Any) -> list[int]:
        return [acts.index({key: each[key] for key in each if key != "time_ns"}) for each in told(folder, **sought)]

    assert found() == [0, 1, 2]
    assert found(path="users/5/a") == [0, 1]
    assert found(path="users/5") == [0, 1, 2]
    assert found(user="6") == [1]
    assert found(uid=2) == [1, 2]
    assert found(ops=frozenset({"chmod", "unlink"})) == [0, 2]
    assert found(refused=True) == [1]
    assert found(since_ns=10**9) == [1, 2]
    assert found(until_ns=10**9) == [0, 1]


def _put_down(path: Path, numbers: range) -> None:
    path.write_bytes(b"".join(line(number) for number in numbers))


def _put_aside(folder: Path, stamp: str, numbers: range) -> None:
    """As the writer does: the file gets another name, and a new one is begun."""
    (folder / "audit.jsonl").rename(folder / f"audit-{stamp}.jsonl")
    _put_down(folder / "audit.jsonl", numbers)


def test_files_that_are_put_aside_while_they_are_read_are_read_once(folder: Path) -> None:
    """Several times: while an older file is read, while the written one is, and when it was read to its end."""
    folder.mkdir()
    _put_down(folder / "audit-20260101T000000Z.jsonl", range(100))
    _put_down(folder / "audit.jsonl", range(100, 200))
    reader = AuditReader(folder)
    acts = reader.acts(Sought())
    found = [next(acts)["number"]]
    _put_aside(folder, "20260102T000000Z", range(200, 300))
    _put_aside(folder, "20260103T000000Z", range(300, 400))
    found += [next(acts)["number"] for _ in range(349)]
    _put_aside(folder, "20260104T000000Z", range(400, 500))
    found += [next(acts)["number"] for _ in range(150)]
    with (folder / "audit.jsonl").open("ab") as file:  # what comes after its end was read
        file.write(line(500) + line(501))
    _put_aside(folder, "20260105T000000Z", range(502, 600))
    _put_aside(folder, "20260106T000000Z", range(600, 700))
    found += [each["number"] for each in acts]
    assert found == list(range(700))
    assert reader.damaged == 0


def test_a_file_that_is_put_aside_just_after_its_end_was_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a line of it half there when it is read, and its other half and more when it is put aside."""
    folder.mkdir()
    (folder / "audit.jsonl").write_bytes(line(0) + line(1)[:20])
    real, due = AuditReader._is_current, iter([False, True])

    def moved(self: AuditReader, file: Any) -> bool:
        if next(due, False):
            with (folder / "audit.jsonl").open("ab") as more:
                more.write(line(1)[20:] + line(2))
            _put_aside(folder, "20260102T000000Z", range(3, 5))
        return real(self, file)

    monkeypatch.setattr(AuditReader, "_is_current", moved)
    reader = AuditReader(folder)
    assert [each["number"] for each in reader.acts(Sought())] == list(range(5))
    assert reader.damaged == 0


def test_a_new_file_with_the_inode_of_one_that_was_read_and_removed(folder: Path) -> None:
    """Inodes are given again: a file with one that was seen is not taken for the one that had it."""
    folder.mkdir()
    first = folder / "audit-20260101T000000Z.jsonl"
    _put_down(first, range(10))
    _put_down(folder / "audit.jsonl", range(10, 20))
    acts = AuditReader(folder).acts(Sought())
    found = [next(acts)["number"] for _ in range(15)]
    (folder / "audit.jsonl").rename(folder / "audit-20260102T000000Z.jsonl")
    first.write_bytes(b"".join(line(number) for number in range(20, 30)))
    first.rename(folder / "audit.jsonl")
    found += [each["number"] for each in acts]
    assert found == list(range(30))


def test_no_log_at_all(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        told(folder)


async def test_every_method_that_is_an_act_has_its_meaning(place: Path) -> None:
    async with filesystem(place / "store") as fs:
        methods = set(fs.answers())
    of_a_daemon = {"reload", "leave", "upgrade", "upgraded", "sweep_run", "sweep_stop"}
    assert (methods | of_a_daemon) - LOOKS == set(CONTROL_OPS)


async def test_a_directory_that_was_named_is_not_made(
    tmp_path: Path, nursery: trio.Nursery, expect_log: ExpectLog
) -> None:
    """Its disk is not mounted, say: a file that is made there lies on another, and is not to be seen when it is."""
    folder = tmp_path / "disk/audit"
    expect_log("is its disk mounted")
    audit = AuditTrail(settings(folder, is_own=False), FakeClock(), reads=False)
    nursery.start_soon(audit.run)
    with trio.fail_after(GUARD_S):
        while audit.problem is None:  # noqa: ASYNC110  # a thread looks
            await trio.sleep(0.01)
    assert "is its disk mounted" in audit.problem, "it is told before anything is to be written"
    act(audit, "users/5/1")
    await written(audit, 1)
    assert (audit.dropped, list(tmp_path.iterdir())) == (1, [])
    folder.mkdir(parents=True)
    act(audit, "users/5/2")
    await written(audit, 2)
    assert audit.problem is None
    assert [(each["op"], each.get("path")) for each in told(folder)] == [("dropped", None), ("unlink", "users/5/2")]


async def test_the_store_s_own_directory_is_made(audit: AuditTrail, folder: Path) -> None:
    act(audit, "users/5/1")
    await written(audit, 1)
    assert len(told(folder)) == 1


def test_what_is_not_kept_goes_also_where_no_other_file_can_be_begun(
    folder: Path, many: Callable[..., AuditFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk that is what makes room."""
    log = many(max_bytes=60, keep_s=3600.0)
    log.write(line(0), START_S, 0)
    log.write(line(1), START_S, 0)
    (old,) = files.rotated(folder)
    os.utime(old, (1, 1))
    opened = os.open

    def full(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_CREAT and not Path(path).exists() and old.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return opened(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", full)
    log.write(line(2), START_S, 0)
    assert not old.exists()
    assert numbers(folder) == [1, 2]
