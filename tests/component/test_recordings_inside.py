"""A recording that is kept goes by no expiry, wherever its directory was moved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from recfs.core.life import Status
from recfs.errors import Busy

from .build import REC, Filesystem, filesystem, pattern
from .test_recordings import DAY, FILE, OTHER, RULES, ask, show, sweep
from .test_trash import kept

HOUR = 3600.0
INSIDE = f"{OTHER}/deep/in"
SETTINGS: dict[str, Any] = RULES | {
    "trash": {"retention": 90 * DAY},
    "temp": {"max_age": HOUR},
    "versions": [{"pattern": "shared/sets/set-{N}", "keep": 1, "min_age": 0.0}],
}


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """One with a trash, rules for recordings, jobs and versions, and a recording that is kept."""
    async with filesystem(place / "root", **SETTINGS) as made:
        await made.write(FILE, pattern(5000))
        await ask(made, "recording_keep", path=REC, note="court")
        yield made


async def moved(fs: Filesystem, to: str = INSIDE) -> None:
    """The recording that is kept is a directory of something else."""
    await fs.mkdirs(to.rpartition("/")[0])
    await fs.rename(REC, to)
    await fs.drain()


async def reasons(fs: Filesystem) -> dict[str, tuple[str, str]]:
    """What a sweep would do now, and why."""
    told = await ask(fs, "sweep_expired", dry_run=True)
    return {each["path"]: (each["action"], each["reason"]) for each in told["recordings"]}


@pytest.mark.parametrize("restart", [False, True])
async def test_one_that_is_kept_holds_up_the_end_of_the_one_it_lies_in(fs: Filesystem, restart: bool) -> None:
    await fs.write(f"{OTHER}/old", b"bytes")
    await moved(fs)
    if restart:
        await fs.stop()
        await fs.reopen()
    fs.clock.advance(31 * DAY)
    (told,) = (await reasons(fs)).items()
    assert told[0] == OTHER
    assert told[1][0] == "none"
    assert told[1][1].endswith(f"but {INSIDE} in it is kept")
    assert await sweep(fs) == {OTHER: "none"}
    shown = await show(fs, OTHER)
    assert (shown["status"], shown["reason"]) == (Status.ACTIVE, told[1][1])
    with pytest.raises(Busy, match=f"{INSIDE} in it is kept"):
        await ask(fs, "recording_expire", path=OTHER)
    await fs.rename(INSIDE, REC)
    assert (await show(fs))["keep"]
    assert await sweep(fs) == {}, "that was a change of the other"
    fs.clock.advance(31 * DAY)
    assert await sweep(fs) == {OTHER: "expire"}
    fs.clock.advance(8 * DAY)
    assert await sweep(fs) == {OTHER: "remove"}
    assert await fs.read(FILE) == pattern(5000)


async def test_one_with_a_date_does_so_until_then(fs: Filesystem) -> None:
    await ask(fs, "recording_keep", path=REC, on=False)
    await ask(fs, "recording_set_expiry", path=REC, date=str(fs.clock.now_ns() + round(50 * DAY) * 10**9))
    await fs.write(f"{OTHER}/old", b"bytes")
    await moved(fs)
    fs.clock.advance(31 * DAY)
    ((action, reason),) = (await reasons(fs)).values()
    assert action == "none"
    assert f"but {INSIDE} in it has expires_at" in reason
    fs.clock.advance(31 * DAY)
    assert await sweep(fs) == {OTHER: "expire"}


async def test_without_a_mark_it_goes_with_the_other(fs: Filesystem) -> None:
    await ask(fs, "recording_keep", path=REC, on=False)
    await moved(fs)
    fs.clock.advance(31 * DAY)
    assert await sweep(fs) == {OTHER: "expire"}


async def test_one_that_expired_already_is_not_removed(fs: Filesystem) -> None:
    """As an earlier version of recfs left it: expired around one that is kept."""
    await moved(fs)
    fs.clock.advance(31 * DAY)
    folder = await fs.node(OTHER)
    fs.vfs.lives._set(folder, folder.life._replace(status=Status.EXPIRED, expired_ns=fs.clock.steady_ns()), None)
    fs.clock.advance(8 * DAY)
    assert await sweep(fs) == {OTHER: "none"}
    assert await fs.read(f"{INSIDE}/video.mp4") == pattern(5000)
    await fs.rename(INSIDE, REC)
    assert await sweep(fs) == {OTHER: "remove"}


async def test_a_job_that_holds_one_stays(fs: Filesystem) -> None:
    await fs.write("temp/5/3/other", b"bytes")
    await moved(fs, "temp/5/3/in")
    fs.clock.advance(2 * HOUR)
    (job,) = (await ask(fs, "sweep_temp", dry_run=True))["jobs"]
    assert (job["action"], job["reason"].rpartition(", ")[2]) == ("kept", "but temp/5/3/in in it is kept")
    (job,) = (await ask(fs, "sweep_temp"))["jobs"]
    assert job["action"] == "kept"
    assert await fs.read("temp/5/3/in/video.mp4") == pattern(5000)
    assert await fs.read("temp/5/3/other") == b"bytes"
    await fs.rename("temp/5/3/in", REC)
    fs.clock.advance(2 * HOUR)
    (job,) = (await ask(fs, "sweep_temp"))["jobs"]
    assert job["action"] == "expired"


async def test_a_version_that_holds_one_stays(fs: Filesystem) -> None:
    for number in (1, 2):
        await fs.write(f"shared/sets/set-{number}/file", b"bytes")
    await moved(fs, "shared/sets/set-1/in")
    fs.clock.advance(DAY)
    told = (await ask(fs, "sweep_versions", dry_run=True, kept=True))["versions"]
    reason = next(each["reason"] for each in told if each["path"] == "shared/sets/set-1")
    assert "shared/sets/set-1/in in it is kept" in reason
    await ask(fs, "sweep_versions")
    assert await fs.read("shared/sets/set-1/in/video.mp4") == pattern(5000)


async def test_one_that_comes_while_a_job_is_removed_stops_that(fs: Filesystem) -> None:
    await fs.write("temp/5/3/other", b"bytes")
    await fs.drain()
    fs.clock.advance(2 * HOUR)
    job = await fs.node("temp/5/3")
    await fs.rename(REC, "temp/5/3/in")
    with pytest.raises(Busy, match="temp/5/3/in is kept"):
        await fs.vfs.trees.remove(job)
    assert await fs.read("temp/5/3/in/video.mp4") == pattern(5000)


async def test_keep_and_note_come_back_from_the_trash(fs: Filesystem) -> None:
    """A user removes it where it lies, by name: the trash has what was kept of it, whoever has it in memory."""
    await moved(fs)
    await fs.stop()
    await fs.reopen()
    await fs.unlink(f"{INSIDE}/video.mp4")
    await fs.rmdir(INSIDE)
    await fs.drain()
    assert fs.rows("select keep from recording where keep = 1") == []
    assert await kept(fs, path=INSIDE) == {}
    await fs.drain()
    assert fs.rows("select note from recording where keep = 1") == ["court"]
    await fs.rename(INSIDE, REC)
    told = await show(fs)
    assert (told["keep"], told["note"]) == (True, "court")
