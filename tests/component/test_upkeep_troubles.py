"""Sweeps while something else goes wrong: S3 goes, a clock is put, a directory is locked, the trash fills the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.errors import OutOfSpace
from recfs.ports.object_errors import Unreachable

from .build import REC, filesystem, pattern
from .far import bucket
from .sweeping import running, swept
from .test_archiving import AUDIO, CLASS, VIDEO, classes
from .test_archiving import RULES as ARCHIVES
from .test_recordings import DAY, OTHER, RULES, ask, show, sweep
from .test_tier import evict, stored, tiered

FILE = f"{REC}/file"


# --- S3 goes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.may_log("no route|archive: |upload of|orphans: |the bucket")
async def test_s3_goes_in_the_middle_of_an_archive_run(nursery: trio.Nursery, place: Path) -> None:
    """At any request. No file has less than it had, and the next run finishes what the first has not done."""
    met, skip = True, 0
    while met:
        fs = tiered(nursery, place / str(skip), **ARCHIVES)
        await fs.start()
        for path in (VIDEO, AUDIO):
            await fs.write(path, pattern(9000))
        await fs.drain()
        await evict(fs, AUDIO)
        fs.clock.advance(31 * DAY)
        bucket(fs).fail("*", Unreachable("no route"), times=10_000, skip=skip)
        with trio.move_on_after(5):  # it waits for S3, which does not come back
            await swept(fs, "archive")
            await fs.drain()
        met = bucket(fs)._faults[0].times < 10_000
        bucket(fs).heal()
        fs.clock.advance(DAY)
        fs.tier.journal.wake.set()
        for row_id in list(fs.tier.journal.rows):
            fs.tier.journal.retry(row_id)
        await fs.drain()
        for path in (VIDEO, AUDIO):
            assert await fs.read(path) == pattern(9000), skip
        await swept(fs, "archive")
        await fs.drain()
        assert classes(fs) == {VIDEO: CLASS, AUDIO: CLASS}, skip
        assert stored(fs) == {VIDEO: pattern(9000), AUDIO: pattern(9000)}
        await fs.assert_consistent()
        await fs.stop()
        skip += 1
    assert skip > 3


# --- a clock is put ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("put", [400 * DAY, -400 * DAY], ids=["ahead", "back"])
async def test_a_clock_that_is_put_during_a_sweep_removes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, put: float
) -> None:
    """Between the look and the act: what is due is due by the time that passed."""
    async with filesystem(place / "root", **RULES) as fs:
        for top in (REC, OTHER):
            await fs.write(f"{top}/file", b"bytes")
        await fs.drain()
        fs.clock.advance(31 * DAY)
        await fs.write(f"{OTHER}/file", b"young")
        assert await sweep(fs) == {REC: "expire"}
        expiry = fs.parts.work.upkeep.expiry
        real = expiry.look

        async def then() -> Any:
            seen = await real()
            fs.clock.put(put)
            return seen

        monkeypatch.setattr(expiry, "look", then)
        assert await sweep(fs) == {}
        assert (await show(fs, OTHER))["status"] == "active"
        fs.clock.advance(8 * DAY)
        assert await sweep(fs) == {REC: "remove"}
        assert await fs.read(f"{OTHER}/file") == b"young"
        await fs.assert_consistent()


async def test_two_operators_have_the_same_run(nursery: trio.Nursery, place: Path) -> None:
    """Of each sweep: who asks while one is under way gets that one's number, and no second one begins."""
    fs = tiered(nursery, place, **ARCHIVES)
    await fs.start()
    await fs.write(FILE, b"bytes")
    await fs.drain()
    for name in ("orphans", "orphans-adopt", "orphans-delete", "multiparts", "tier", "archive", "versions"):
        async with running(fs, name) as sweeps:
            numbers = [sweeps.ask(name) for _ in range(3)]
            assert len(set(numbers)) == 1, name
            ended = await sweeps.wait(name, numbers[0], float("inf"))
            assert ended["outcome"] in ("done", "nothing"), (name, ended)
            assert sweeps._records[name].runs == numbers[0], name
    await fs.stop()


# --- permissions ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_directory_that_was_locked_by_hand_is_not_taken_for_gone() -> None:
    """The tests of locked_directory.py, in a process that needs permissions, as one that is not root."""
    here = Path(__file__)
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if not os.geteuid() else []
    command += [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(here.with_name("locked_directory.py")),
    ]
    done = subprocess.run(
        command,
        cwd=here.parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout, done.stdout


# --- the trash --------------------------------------------------------------------------------------------------------


async def test_a_trash_larger_than_what_is_left_of_the_disk_can_be_purged_and_keeps_what_it_has(place: Path) -> None:
    """Its time is not shortened by a full disk: writers are refused, removals and a purge go on."""
    async with filesystem(place / "root", trash={"retention": 30 * DAY}) as fs:
        for number in range(5):
            await fs.write(f"{REC}/{number}", pattern(200_000, number))
        await fs.drain()
        fs.vfs.files.space.min_free = 1 << 60
        for number in range(5):
            await fs.unlink(f"{REC}/{number}")
        await fs.drain()
        fs.parts.work.upkeep.sweeper.sweep_trash()
        await fs.drain()
        entries = (await ask(fs, "trash_list"))["entries"]
        assert len(entries) == 5
        with pytest.raises(OutOfSpace):
            await fs.write(f"{REC}/more", b"bytes")
        assert (await ask(fs, "trash_restore", path=f"{REC}/1"))["kept"] == [], "what is there already needs no room"
        await fs.drain()
        assert await fs.read(f"{REC}/1") == pattern(200_000, 1)
        assert (await ask(fs, "trash_purge", all=True))["files"] == 4
        await fs.drain()
        assert os.listdir(fs.root / ".recfs/trash") == []
        fs.vfs.files.space.min_free = 0
        await fs.write(f"{REC}/more", b"bytes")
        await fs.assert_consistent()
