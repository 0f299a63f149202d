"""What is told of looks into files: by `recfs probe`, `info`, `ls-files --media` and `status`."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from recfs.api import summaries
from recfs.core.media.facts import describe
from recfs.errors import NotSupported
from recfs.media.checks import Finding
from tests.helpers.reports import answer_of

from .build import REC, filesystem
from .far import ask
from .test_probing import Looking, looking

broken = pytest.mark.expect_log("bad.mp4 is broken: truncated")


async def some(it: Looking) -> None:
    it.checks.found[b"bad"] = Finding("truncated: it has 3 bytes of 9")
    for name, data in (("good.mp4", b"good"), ("bad.mp4", b"bad"), ("notes.txt", b"text")):
        await it.write(name, data)
    await it.until("good.mp4", "whole")
    await it.until("bad.mp4", "broken")


@broken
async def test_files_are_listed_with_what_is_in_them(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        await some(it)
        files = await ask(it.fs, "ls_files", path="users", recursive=True, media=True)
        assert [(file["path"], file["media"]["verdict"], describe(file["media"])) for file in files] == [
            (f"{REC}/bad.mp4", "broken", "truncated: it has 3 bytes of 9"),
            (f"{REC}/good.mp4", "whole", "video/mp4, 2.5s, 64x48, h264, aac"),
        ]
        assert len(await ask(it.fs, "ls_files", path="users", recursive=True)) > len(files)
        [one] = await ask(it.fs, "ls_files", path=f"{REC}/good.mp4", media=True)
        assert one == files[1]


@broken
async def test_one_file_is_told_of_in_full(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        await some(it)
        info = await ask(it.fs, "info", path=f"{REC}/good.mp4")
        assert info["media"]["facts"]["duration_s"] == 2.5
        assert info["media"]["ended_ns"] == it.fs.clock.now_ns()
        assert info["status"]["status"] == "completed"
        told = await ask(it.fs, "info", path=f"{REC}/bad.mp4")
        assert (told["status"]["status"], told["status"]["code"]) == ("failed", "media_broken")
        assert (await ask(it.fs, "info", path=f"{REC}/notes.txt"))["media"] is None
        # Of bytes that are there no more nothing is told.
        it.checks.hold = trio.Event()
        await it.write("good.mp4", b"other")
        assert (await ask(it.fs, "info", path=f"{REC}/good.mp4"))["media"]["verdict"] == "pending"
        it.checks.hold.set()
        await it.until("good.mp4", "whole")


@broken
async def test_status_says_how_many_are_broken_and_what_is_missing(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        await some(it)
        status = await ask(it.fs, "status")
        assert (status["media"]["pending"], status["media"]["broken"], status["media"]["missing"]) == (0, 1, None)
        assert status["media"]["looks"] == {"whole": 1, "broken": 1}
        assert any("1 file is broken" in problem for problem in status["problems"])


@broken
async def test_files_are_looked_into_again_when_somebody_asks(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        await some(it)
        before = len(it.checks.looks)
        it.checks.found.clear()
        told = await ask(it.fs, "probe", path=REC)
        assert told == {"queued": 2, "skipped": 1, "missing": None}
        await it.until("bad.mp4", "whole")
        await it.until("good.mp4", "whole")
        assert len(it.checks.looks) == before + 2
        before_ns = (await ask(it.fs, "info", path=f"{REC}/good.mp4"))["status"]["times_ns"]
        it.fs.clock.advance(60)
        assert (await ask(it.fs, "probe", path=f"{REC}/good.mp4"))["queued"] == 1
        await it.until("good.mp4", "whole")
        times_ns = (await ask(it.fs, "info", path=f"{REC}/good.mp4"))["status"]["times_ns"]
        assert times_ns["uploaded"] == before_ns["uploaded"], "it has had these bytes since"
        assert times_ns["validating"] > before_ns["validating"]


@broken
async def test_without_a_daemon_the_catalogue_tells_the_same(tmp_path: Path) -> None:
    async with looking(tmp_path) as it:
        await some(it)
        await it.fs.parts.behind.flush()
        online = await ask(it.fs, "ls_files", path="users", recursive=True, media=True)
        path = it.fs.root / ".recfs" / "catalogue.db"
        assert answer_of(path, summaries.ls_files, "users", True, None, True) == online
        assert answer_of(path, summaries.status, it.fs.config)["problems"][-1].startswith("1 file is broken")


async def test_nothing_is_looked_into_where_that_is_off(tmp_path: Path) -> None:
    async with filesystem(tmp_path / "store", media={"enabled": False}) as fs:
        await fs.write(f"{REC}/a.mp4", b"a")
        await fs.drain()
        with pytest.raises(NotSupported, match="enabled = false"):
            await ask(fs, "probe", path=REC)
        assert (await ask(fs, "info", path=f"{REC}/a.mp4"))["media"] is None
        assert (await ask(fs, "status"))["media"] == {"pending": 0}
