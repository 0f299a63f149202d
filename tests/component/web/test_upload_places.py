"""Where the gateway may make nothing, nothing can be uploaded: that is told before anybody tries."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import CapacityLimiter

from recfs.client.writing import open_folder
from recfs.web.problems import Problem
from recfs.web.uploads import admission, service
from recfs.web.uploads.plan import Plan, UploadId
from recfs.web.uploads.service import Uploads


def told(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *closed: set[str]) -> list[str]:
    """What is said by one look for what was left after another; *closed*: where nobody may write at each of them."""
    numbers: set[int] = set()
    real = os.access

    def access(path: Any, mode: int, *, dir_fd: int, effective_ids: bool) -> bool:
        assert effective_ids
        return os.fstat(dir_fd).st_ino not in numbers and real(path, mode, dir_fd=dir_fd, effective_ids=True)

    def folders(*parts: str, make: bool = False) -> int:
        return open_folder(root, parts, make=make)

    async def look() -> None:
        uploads = Uploads(folders, calls=CapacityLimiter(4), writes=CapacityLimiter(4))
        for each in closed:
            numbers.clear()
            numbers.update((root / path).stat().st_ino for path in each)
            await uploads.recover()
        await uploads.close()

    monkeypatch.setattr(admission.os, "access", access)
    with caplog.at_level("WARNING"):
        asyncio.run(look())
    return [record.getMessage().partition(":")[0] for record in caplog.records]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with two users who have uploaded before."""
    for each in ("users/5/recordings", "users/7/recordings", "temp/5", "temp/7"):
        (tmp_path / each).mkdir(parents=True)
    return tmp_path


@pytest.mark.expect_log("nothing can be uploaded by way of temp and 2 more", "nothing can be uploaded by way of temp/7")
def test_it_is_told_once(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    all_of_them = {"temp", "temp/5", "temp/7"}
    said = told(root, monkeypatch, caplog, all_of_them, all_of_them, set(), {"temp/7"})
    assert said == ["nothing can be uploaded by way of temp and 2 more", "nothing can be uploaded by way of temp/7"]


def test_where_all_is_well_nothing_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert told(root, monkeypatch, caplog, set()) == []


@pytest.mark.expect_log("nothing can be uploaded by way of temp:")
def test_the_warning_names_the_uid_and_the_guide(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told(root, monkeypatch, caplog, {"temp"})
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"uid {os.geteuid()}" in said
    assert "runbook.md" in said


def open_below(root: Path) -> list[str]:
    """What this process has open there."""
    links = []
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(f"/proc/self/fd/{each}"))
    return [each for each in links if each.startswith(f"{root}/temp/")]


def test_nothing_stays_open_of_a_mount_that_is_gone_however_often_its_clients_ask(root: Path) -> None:
    """Else it could never be mounted again: the daemon of the old one lives as long as anything is open there."""
    away = False

    def folders(*parts: str, make: bool = False) -> int:
        if away:
            raise Problem("DaemonGone")
        return open_folder(root, parts, make=make)

    async def story() -> None:
        nonlocal away
        uploads = Uploads(folders, calls=CapacityLimiter(4), writes=CapacityLimiter(4))
        plan = Plan(UploadId.new("5"), "142", ("source.mp4",), 1000)
        await uploads.create(plan)
        assert open_below(root)
        away = True
        with pytest.raises(Problem):
            await uploads.resume(plan.id)
        with anyio.fail_after(30):
            while open_below(root):  # noqa: ASYNC110  # a thread closes it
                await asyncio.sleep(0)
        away = False
        assert (await uploads.resume(plan.id)).plan.length == 1000
        await uploads.close()

    asyncio.run(story())


@pytest.mark.expect_log("temp/ could not be looked through")
def test_a_look_that_failed_is_tried_again_soon(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon may begin later than the gateway, and what is left of uploads is charged until then."""
    waits: list[float] = []
    looks = 0

    def folders(*parts: str, make: bool = False) -> int:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the daemon is away")
        return open_folder(root, parts, make=make)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise asyncio.CancelledError

    async def story() -> None:
        uploads = Uploads(folders, calls=CapacityLimiter(4), writes=CapacityLimiter(4))
        with contextlib.suppress(asyncio.CancelledError):
            await uploads._tidy()
        await uploads.close()

    monkeypatch.setattr(service.asyncio, "sleep", sleep)
    asyncio.run(story())
    assert waits == [service.AGAIN_S, service.TIDY_S]
