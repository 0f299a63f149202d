"""Versions that lie beside each other: the last are kept, whatever happens meanwhile."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from .build import REC, Filesystem, filesystem
from .sweeping import running, swept

DAY_S = 86_400.0
SETTINGS: dict[str, Any] = {
    "versions": [{"pattern": "users/*/recordings/*/topics_v{N}", "keep": 2}],
    "trash": {"retention": 30 * DAY_S},
}


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """One with a trash, and a rule."""
    async with filesystem(place / "root", **SETTINGS) as made:
        yield made


async def write(fs: Filesystem, *numbers: int) -> None:
    for number in numbers:
        await fs.write(f"{REC}/topics_v{number}/deep/a.json", b"data")
        await fs.write(f"{REC}/topics_v{number}/b.json", b"data")
    await fs.write(f"{REC}/other_v1", b"data")
    await fs.drain()
    fs.clock.advance(2 * DAY_S)


async def left(fs: Filesystem) -> list[int]:
    return [number for number in range(20) if await fs.exists(f"{REC}/topics_v{number}")]


async def preview(fs: Filesystem) -> list[str]:
    found = (await fs.answers()["sweep_versions"]({}))["versions"]
    return [each["path"].rpartition("_v")[2] for each in found if each["removes"]]


async def test_the_last_are_kept_and_a_dry_run_says_so(fs: Filesystem) -> None:
    await write(fs, 1, 2, 9, 10, 12)
    assert await preview(fs) == ["9", "2", "1"]
    assert await left(fs) == [1, 2, 9, 10, 12]
    ended = await swept(fs, "versions")
    assert (ended["outcome"], ended["result"]) == ("done", "3 removed, 24 B")
    assert await left(fs) == [10, 12]
    assert await fs.exists(f"{REC}/other_v1")
    await fs.drain()
    await fs.assert_consistent(trash=6)
    assert await preview(fs) == []
    assert (await swept(fs, "versions"))["outcome"] == "nothing"


async def test_what_is_open_stays(fs: Filesystem) -> None:
    await write(fs, 1, 2, 3, 4)
    handle = await fs.open(f"{REC}/topics_v1/deep/a.json", os.O_RDONLY)
    assert await preview(fs) == ["2"]
    await swept(fs, "versions")
    assert await left(fs) == [1, 3, 4]
    await fs.close(handle)
    await swept(fs, "versions")
    assert await left(fs) == [3, 4]


async def test_what_was_changed_lately_or_is_being_written_stays(fs: Filesystem) -> None:
    await write(fs, 1, 2, 3, 4)
    await fs.write(f"{REC}/topics_v1/deep/new.json", b"data")
    await fs.drain()
    assert await preview(fs) == ["2"]
    handle = await fs.open(f"{REC}/topics_v5", os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(handle, 0, b"data")
    assert await preview(fs) == ["2"]  # the unfinished one pushes none out
    await fs.close(handle)
    await fs.drain()
    assert await preview(fs) == ["3", "2"]


async def test_a_run_is_stopped_after_the_one_it_is_at(fs: Filesystem) -> None:
    await write(fs, *range(1, 8))
    async with running(fs, "versions") as sweeps:
        number = sweeps.ask("versions")
        while len(await left(fs)) == 7:
            await trio.lowlevel.checkpoint()
        sweeps.stop("versions")
        ended = await sweeps.wait("versions", number, 60.0)
    assert ended["outcome"] == "stopped"
    assert 2 < len(await left(fs)) < 7
    await swept(fs, "versions")
    assert await left(fs) == [6, 7]


@pytest.mark.slow
@pytest.mark.may_log("versions: ")
async def test_a_death_at_any_step_takes_no_version_that_is_kept(nursery: trio.Nursery, place: Path) -> None:
    for stop_before in range(0, 200, 3):
        fs = Filesystem(nursery, place / f"root{stop_before}", **SETTINGS)
        await fs.start()
        await write(fs, 1, 2, 3)

        async def procedure(fs: Filesystem) -> None:
            await swept(fs, "versions")
            await fs.drain()

        finished = await fs.until_stopped(procedure, stop_before)
        await fs.crash()
        await fs.reopen()
        assert [number for number in await left(fs) if number != 1] == [2, 3]
        await swept(fs, "versions")
        assert await left(fs) == [2, 3]
        await fs.drain()
        await fs.assert_consistent(trash=2)
        await fs.stop()
        if finished:
            return
    raise AssertionError("it never came to its end")


async def test_without_rules_nothing_goes(place: Path) -> None:
    async with filesystem(place / "root") as fs:
        await write(fs, 1, 2, 3, 4)
        assert await preview(fs) == []
        assert (await swept(fs, "versions"))["outcome"] == "nothing"
        assert await left(fs) == [1, 2, 3, 4]


async def test_versions_that_are_moved_away_while_a_run_is_about_them_stay(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie where no rule is by then, as the recording does that somebody wants to keep."""
    await write(fs, 1, 2, 3, 4)
    remove = fs.vfs.trees.remove

    async def removed(folder: Any, **how: Any) -> int:
        gone = int(await remove(folder, **how))
        if await fs.exists(REC):
            await fs.mkdirs("shared/kept")
            await fs.rename(REC, "shared/kept/142")
        return gone

    monkeypatch.setattr(fs.vfs.trees, "remove", removed)
    await swept(fs, "versions")
    assert await fs.names("shared/kept/142") == ["other_v1", "topics_v1", "topics_v3", "topics_v4"]


async def test_a_version_that_is_opened_while_it_is_about_to_go_stays(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While what the trash keeps of it is read."""
    for number in (1, 2, 3):
        await fs.write(f"{REC}/topics_v{number}", b"old")
    await fs.drain()
    await fs.reopen()
    fs.clock.advance(2 * DAY_S)
    prepare = fs.vfs.removal.prepare

    async def slowly(node: Any) -> bool:
        monkeypatch.undo()
        assert node.name == b"topics_v1"
        opened.append(await fs.open(f"{REC}/topics_v1"))
        return bool(await prepare(node))

    opened: list[int] = []
    monkeypatch.setattr(fs.vfs.removal, "prepare", slowly)
    await swept(fs, "versions")
    assert await fs.exists(f"{REC}/topics_v1")
    await fs.vfs.files.release(opened[0])
    await swept(fs, "versions")
    assert not await fs.exists(f"{REC}/topics_v1")


async def test_a_file_that_has_taken_the_name_of_a_version_that_goes_stays(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written anew, and renamed over it, while what the trash keeps of the old one is read."""
    for number in (1, 2, 3):
        await fs.write(f"{REC}/topics_v{number}", b"old")
    await fs.write(f"{REC}/new", b"new")
    await fs.drain()
    fs.clock.advance(2 * DAY_S)
    prepare = fs.vfs.removal.prepare

    async def slowly(node: Any) -> bool:
        if node.name == b"topics_v1" and await fs.exists(f"{REC}/new"):
            monkeypatch.undo()
            await fs.rename(f"{REC}/new", f"{REC}/topics_v1")
            return True
        return bool(await prepare(node))

    monkeypatch.setattr(fs.vfs.removal, "prepare", slowly)
    await swept(fs, "versions")
    assert await fs.read(f"{REC}/topics_v1") == b"new"
    assert fs.parts.problems.as_json() == []
