"""What is broken is not uploaded, unless a route says so; an upload waits for the look into its file, not for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.media.checks import Finding
from tests.helpers.virtual_time import GUARD_S

from .build import REC
from .far import ask
from .test_probing import Looking
from .test_tier import tiered

CUT = Finding("truncated: it has 3 bytes of 9")
broken = pytest.mark.expect_log("video.mp4 is broken: truncated")


async def looking(nursery: trio.Nursery, place: Path, **settings: Any) -> Looking:
    found = Looking(tiered(nursery, place, **settings))
    await found.start()
    await found.fs.mkdirs(REC)
    return found


async def until(it: Looking, name: str, state: State) -> None:
    with trio.fail_after(GUARD_S):
        while (await it.fs.node(f"{REC}/{name}")).state is not state:
            it.fs.clock.advance(0.5)
            await trio.sleep(0.005)


async def row_of(it: Looking) -> dict[str, Any]:
    [row] = (await ask(it.fs, "queue"))["rows"]
    return dict(row)


@broken
async def test_a_broken_file_stays_here_until_it_is_written_anew(nursery: trio.Nursery, place: Path) -> None:
    it = await looking(nursery, place)
    it.checks.found[b"bad"] = CUT
    await it.write("video.mp4", b"bad")
    await it.until("video.mp4", "broken")
    await it.write("other.txt", b"other")
    await until(it, "other.txt", State.STORED)
    with trio.fail_after(GUARD_S):
        while (row := await row_of(it))["why"] != f"it is not uploaded: {CUT.reason}":
            it.fs.clock.advance(0.5)
            await trio.sleep(0.005)
    assert (row["path"], row["state"], row["attempts"]) == (f"{REC}/video.mp4", "waiting", 0)
    assert (await it.fs.node(f"{REC}/video.mp4")).state is State.COMMITTED
    assert await it.attribute("video.mp4", "status") == "failed"
    asked = await ask(it.fs, "queue_retry", ids=[row["id"]])
    assert "broken = true" in str(asked)
    assert (await ask(it.fs, "drain", timeout_s=5.0))["pending"] == 0  # nobody waits for it
    await it.write("video.mp4", b"good")
    await it.until("video.mp4", "whole")
    await until(it, "video.mp4", State.STORED)
    await it.fs.stop()


@broken
async def test_a_route_may_take_what_is_broken(nursery: trio.Nursery, place: Path) -> None:
    it = await looking(nursery, place, route=[{"pattern": "users/**", "to": "s3", "broken": True}])
    it.checks.found[b"bad"] = CUT
    await it.write("video.mp4", b"bad")
    await it.until("video.mp4", "broken")
    await until(it, "video.mp4", State.STORED)
    assert await it.attribute("video.mp4", "status") == "failed"
    await it.fs.stop()


async def test_an_upload_waits_for_the_look_into_its_file_and_not_for_ever(nursery: trio.Nursery, place: Path) -> None:
    it = await looking(nursery, place, media={"upload_wait": 60})
    it.checks.hold = trio.Event()
    await it.fs.write(f"{REC}/video.mp4", b"a")
    await it.until("video.mp4", "pending")
    with trio.fail_after(GUARD_S):
        while [row["why"] for row in (await ask(it.fs, "queue"))["rows"]] != ["what is in it is looked into first"]:
            it.fs.clock.advance(0.5)
            await trio.sleep(0.005)
    it.fs.clock.advance(61)
    await until(it, "video.mp4", State.STORED)
    assert await it.attribute("video.mp4", "media") == "pending"
    it.checks.hold.set()
    await it.until("video.mp4", "whole")
    await it.fs.stop()


@broken
async def test_what_is_known_to_be_broken_stays_here_while_it_is_looked_into_again(
    nursery: trio.Nursery, place: Path
) -> None:
    """However long that takes: a look into a whole store again is a long queue."""
    it = await looking(nursery, place, media={"upload_wait": 60})
    it.checks.found[b"bad"] = CUT
    await it.write("video.mp4", b"bad")
    await it.until("video.mp4", "broken")
    with trio.fail_after(GUARD_S):
        while (await row_of(it))["why"] != f"it is not uploaded: {CUT.reason}":
            it.fs.clock.advance(0.5)
            await trio.sleep(0.005)
    it.checks.hold = trio.Event()
    await ask(it.fs, "probe", path=f"{REC}/video.mp4")
    await it.until("video.mp4", "pending")
    it.fs.clock.advance(700)
    await it.write("other.txt", b"other")
    await until(it, "other.txt", State.STORED)
    with trio.fail_after(GUARD_S):
        while (await row_of(it))["why"] != "it was broken when it was looked into last, and is looked into once more":
            it.fs.clock.advance(0.5)
            await trio.sleep(0.005)
    assert (await it.fs.node(f"{REC}/video.mp4")).state is State.COMMITTED
    assert (await ask(it.fs, "drain", timeout_s=5.0))["pending"] == 0
    await it.fs.crash()
    await it.start()
    it.fs.clock.advance(700)
    await it.write("other.txt", b"other bytes")
    await until(it, "other.txt", State.STORED)
    assert (await it.fs.node(f"{REC}/video.mp4")).state is State.COMMITTED, "the next daemon knows as much"
    assert (await ask(it.fs, "drain", timeout_s=5.0))["pending"] == 0
    assert await it.attribute("video.mp4", "media") == "pending"
    # other bytes are another question, which is waited for no longer than for any
    await it.fs.write(f"{REC}/video.mp4", b"anew")
    it.fs.clock.advance(61)
    await until(it, "video.mp4", State.STORED)
    it.checks.hold.set()
    await it.until("video.mp4", "whole")
    await it.fs.stop()


async def test_nothing_waits_for_a_program_that_is_not_there(nursery: trio.Nursery, place: Path) -> None:
    it = await looking(nursery, place, media={"upload_wait": 86_400})
    it.checks.missing = "no ffprobe"
    it.probing.rows.queued.set()
    await it.write("video.mp4", b"a")
    await until(it, "video.mp4", State.STORED)
    await it.fs.stop()
