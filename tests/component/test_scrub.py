"""The background scrub: its rounds, its hours, what it yields to, and what it remembers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.services.verification import scrub
from recfs.services.verification.scrub import Scrub

from .build import REC, Filesystem, filesystem, pattern, until
from .test_verify import flip, problems

FILES = [f"{REC}/{number}" for number in range(5)]
DAY_S = 86_400.0
LOOK_S = 0.5


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time of these tests; and the scrub looks at it often."""
    monkeypatch.setattr(scrub, "LOOK_S", LOOK_S)
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


def settings(**changes: Any) -> dict[str, Any]:
    """A store with a scrub."""
    return {"scrub": {"enabled": True, "rate": "1 GiB"} | changes}


def of(fs: Filesystem) -> Scrub:
    """Its service."""
    found = fs.parts.work.upkeep.scrub
    assert found is not None
    return found


async def filled(fs: Filesystem) -> None:
    """Some files, committed."""
    for number, path in enumerate(FILES):
        await fs.write(path, pattern(100_000, seed=number))
    await fs.drain()


def told(fs: Filesystem) -> dict[str, Any]:
    """How far it is."""
    return of(fs).as_json()


async def test_it_is_off_unless_asked_for_and_runs_only_where_the_store_is_mounted(place: Path) -> None:
    async with filesystem(place / "off") as fs:
        assert fs.parts.work.upkeep.scrub is None
        assert await fs.answers()["verify_status"]({}) == {"scrub": None}
    async with filesystem(place / "on", **settings()) as fs:
        names = [[name for name, _ in fs.parts.upkeep.services(mounted=mounted)] for mounted in (True, False)]
        assert ["scrub" in each for each in names] == [True, False]


@pytest.mark.expect_log("is corrupt")
async def test_a_round_looks_at_every_file_and_the_next_one_comes_when_it_is_due(
    place: Path, nursery: trio.Nursery
) -> None:
    async with filesystem(place / "root", **settings(period="10d")) as fs:
        await filled(fs)
        flip(fs.root / FILES[3])
        nursery.start_soon(of(fs).run)
        await until(lambda: told(fs)["ended_s_ago"] is not None)
        assert (told(fs)["files"], told(fs)["read_bytes"], told(fs)["problems"]) == (5, 600_000, 1)
        assert (problems(fs), await fs.state(FILES[3])) == ([FILES[3]], "corrupt")
        await trio.sleep(3 * LOOK_S)
        assert told(fs)["doing"] == "waits for the next round"
        await fs.write(f"{REC}/new", b"new")
        await fs.drain()
        fs.clock.advance(9.9 * DAY_S)
        await trio.sleep(3 * LOOK_S)
        assert told(fs)["files"] == 5
        fs.clock.advance(0.2 * DAY_S)
        await until(lambda: told(fs)["ended_s_ago"] == 0.0)
        assert told(fs)["files"] == 6


@pytest.mark.may_log("scrub: .*Bad file descriptor")  # its thread reads on in what the dead had open
async def test_a_round_goes_on_after_a_restart(place: Path) -> None:
    async with trio.open_nursery() as before, filesystem(place / "root", **settings(rate="64 KiB")) as fs:
        await filled(fs)
        before.start_soon(of(fs).run)
        await until(lambda: told(fs)["files"] >= 3)
        await fs.parts.behind.flush()
        before.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await fs.crash()
    async with trio.open_nursery() as after, filesystem(place / "root", **settings()) as fs:
        looked: list[str] = []
        verifier = of(fs)._verifier
        verify = verifier.verify

        async def noted(node: Any, *args: Any) -> Any:
            looked.append(node.path)
            return await verify(node, *args)

        verifier.verify = noted  # type: ignore[method-assign]
        after.start_soon(of(fs).run)
        await until(lambda: told(fs)["ended_s_ago"] is not None)
        assert 0 < len(looked) < 5, "not from the beginning"
        assert looked == FILES[-len(looked) :]
        assert told(fs)["files"] == 5
        after.cancel_scope.cancel()


async def test_it_reads_in_its_hours_only(place: Path, nursery: trio.Nursery) -> None:
    """It is noon."""
    async with filesystem(place / "root", **settings(window="22:00-06:00")) as fs:
        await filled(fs)
        nursery.start_soon(of(fs).run)
        await trio.sleep(3 * LOOK_S)
        assert (told(fs)["doing"], told(fs)["files"]) == ("waits for its hours", 0)
        fs.clock.advance(10.1 * 3600)
        await until(lambda: told(fs)["ended_s_ago"] is not None)
        assert told(fs)["files"] == 5


async def test_a_file_goes_on_where_it_was_when_its_hours_come_again(place: Path, nursery: trio.Nursery) -> None:
    async with filesystem(place / "root", **settings(window="11:00-13:00", rate="64 KiB")) as fs:
        await fs.write(FILES[0], pattern(1 << 20))
        await fs.drain()
        nursery.start_soon(of(fs).run)
        await trio.sleep(5)
        assert told(fs)["doing"] == "reads"
        fs.clock.advance(2 * 3600)
        await trio.sleep(5)
        assert (told(fs)["doing"], told(fs)["at"]) == ("waits for its hours", FILES[0])
        fs.clock.advance(22 * 3600)
        await until(lambda: told(fs)["ended_s_ago"] is not None)
        assert (told(fs)["files"], told(fs)["read_bytes"]) == (1, 1 << 20)


async def test_jumps_of_the_wall_clock_do_not_make_it_run_wild(place: Path, nursery: trio.Nursery) -> None:
    async with filesystem(place / "root", **settings(rate="64 KiB", period="10d")) as fs:
        await filled(fs)
        nursery.start_soon(of(fs).run)
        began = trio.current_time()
        for jump_s in (1e7, -2e7, 3e8, -4e8) * 3:
            fs.clock.put(jump_s)
            await trio.sleep(0.3)
        await until(lambda: told(fs)["ended_s_ago"] is not None)
        assert trio.current_time() - began > 500_000 / 65_536 - 1, "no faster"
        for jump_s in (1e7, -3e7):
            fs.clock.put(jump_s)
            await trio.sleep(3 * LOOK_S)
            assert (told(fs)["files"], told(fs)["ended_s_ago"]) == (5, 0.0), "and no sooner again"


async def test_it_yields_to_what_is_committed_and_not_for_ever(place: Path, nursery: trio.Nursery) -> None:
    async with filesystem(place / "root", **settings()) as fs:
        await filled(fs)
        of(fs)._is_busy = lambda: True
        nursery.start_soon(of(fs).run)
        await trio.sleep(scrub.PATIENCE_S - 1)
        assert (told(fs)["doing"], told(fs)["files"]) == ("yields to others", 0)
        await trio.sleep(10 * scrub.PATIENCE_S)
        assert 0 < told(fs)["files"] <= 6


async def test_a_catalogue_that_fails_is_tried_again(place: Path, nursery: trio.Nursery, expect_log: Any) -> None:
    expect_log("scrub")
    async with filesystem(place / "root", **settings()) as fs:
        await filled(fs)
        catalogue = fs.parts.catalogue
        files, left = catalogue.files, 2

        async def fails(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left >= 0:
                raise OSError(5, "Input/output error")
            return await files(*args)

        catalogue.files = fails  # type: ignore[method-assign]
        nursery.start_soon(of(fs).run)
        await until(lambda: told(fs)["ended_s_ago"] is not None)
        assert told(fs)["files"] == 5
