"""Directories that go with all the files in them at once: what that is, who keeps them, and what of it survives."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs.core.figures.counters import RECOUNT_DUE
from recfs.errors import Busy, NotFound, Stale
from recfs.ports.batch import Batch
from recfs.services.figures.counting import Counting
from recfs.state.nodes import DirNode
from recfs.state.work.turns import Turn
from tests.helpers.reports import check

from .build import OPERATOR, Filesystem, filesystem, pattern, until
from .far import ask
from .test_tier import stored, tiered

ExpectLog = Callable[[str], None]
JOB = "temp/5/1"
FILES = {f"{JOB}/f{number}": pattern(100 + number, seed=number) for number in range(12)}
BYTES = sum(map(len, FILES.values()))
FEW = {"recfs.disk.home.emptying.REMOVED_AT_ONCE": 4, "recfs.disk.home.emptying.ROWS_AT_ONCE": 2}


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads' turns, and several transactions, for a few files."""
    for name, value in FEW.items():
        monkeypatch.setattr(name, value)
    monkeypatch.setattr("recfs.fs.names.wholes.ROWS_AT_ONCE", 2)


async def made(fs: Filesystem) -> DirNode:
    """A job with files at home."""
    for path, data in FILES.items():
        await fs.write(path, data)
    await fs.drain()
    job: DirNode = await fs.node(JOB)
    return job


async def removed(fs: Filesystem, path: str = JOB) -> int:
    gone: int = await fs.vfs.trees.remove(await fs.node(path))
    return gone


async def events(fs: Filesystem) -> list[tuple[Any, ...]]:
    told = (await ask(fs, "events", since="oldest", kinds=["removed"]))["events"]
    return [(each["path"], each.get("size_bytes"), each.get("detail")) for each in told]


def watch_batches(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """All that is written from now on."""
    written: list[Batch] = []
    apply = fs.parts.catalogue.apply

    async def applied(batch: Batch, *, trial: bool = False) -> None:
        written.append(batch)
        await apply(batch, trial=trial)

    monkeypatch.setattr(fs.parts.catalogue, "apply", applied)
    return written


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("loaded", [True, False])
async def test_a_job_goes_with_its_files_in_one_step(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, loaded: bool
) -> None:
    job = await made(fs)
    if not loaded:
        await fs.reopen()
        job = await fs.node(JOB)
    fs.kernel.entries.clear()
    written = watch_batches(fs, monkeypatch)
    assert await removed(fs) == len(FILES)
    assert fs.account() == (0, 0)
    assert fs.kernel.entries == [(job.parent.ino, b"1", job.ino)]
    await fs.drain()
    assert fs.rows("select name from node where kind = 'file'") == []
    assert sum(len(batch.garbage) for batch in written) <= 2  # the directory's alone: removed, and moved
    rows = [each for batch in written for each in batch.emptied]
    assert len(rows) == 6
    assert all(last - first < 3 * 2 for _, first, last in rows)
    assert await events(fs) == [(JOB, BYTES, "with 12 files in it")]
    assert not (fs.root / JOB).exists()
    assert fs.leftovers("trash") == []
    await fs.assert_consistent()


async def test_what_is_not_plain_goes_first_and_is_told_by_itself(fs: Filesystem) -> None:
    await made(fs)
    await fs.mkdirs(f"{JOB}/empty")
    await fs.write(f"{JOB}/sub/deep", b"deep")
    for number in range(10):
        await fs.write(f"{JOB}/many/{number}", b"deep")
    await fs.drain()
    await fs.write(f"{JOB}/fresh", b"not committed yet")
    assert await removed(fs) == len(FILES) + 12
    await fs.drain()
    told = await events(fs)
    assert set(told[:-1]) == {
        (f"{JOB}/empty", None, None), (f"{JOB}/fresh", None, None), (f"{JOB}/many", 40, "with 10 files in it"),
        (f"{JOB}/sub", None, None), (f"{JOB}/sub/deep", None, None),
    }  # fmt: skip
    assert told[-1] == (JOB, BYTES, "with 12 files in it")
    await fs.assert_consistent()


@pytest.mark.usefixtures("few_at_once")
async def test_while_its_bytes_go_the_name_is_free_and_nothing_counts_them(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await made(fs)
    inos = [child.ino for child in job.children.values()]
    listing = await fs.vfs.listings.open(job.ino)
    begun, go_on = trio.Event(), trio.Event()
    run = trio.to_thread.run_sync

    async def held(call: Any, *args: Any, **more: Any) -> Any:
        if getattr(call, "__name__", "") == "empty":
            begun.set()
            await go_on.wait()
        return await run(call, *args, **more)

    monkeypatch.setattr(trio.to_thread, "run_sync", held)
    await removed(fs)
    await begun.wait()
    assert await fs.vfs.listings.read(listing, 0) == []
    fs.vfs.listings.release(listing)
    assert fs.rows("select count(*) from node where parent = ?", job.ino) == [len(FILES)]
    assert not check(fs.parts.store.catalogue_path).differences
    for ino in inos:
        with pytest.raises(Stale):
            await fs.vfs.tree.get(ino)
    for path, data in FILES.items():
        await fs.write(path, data[::-1])
    with pytest.raises(NotFound):
        await fs.node(f"{JOB}/f12")
    assert fs.account() == (BYTES, len(FILES))
    go_on.set()
    await fs.drain()
    assert {path: await fs.read(path) for path in FILES} == {path: data[::-1] for path, data in FILES.items()}
    await fs.assert_consistent()


# --- somebody comes back --------------------------------------------------------------------------------------------


async def open_one(fs: Filesystem) -> Callable[[], Any]:
    number = await fs.open(f"{JOB}/f3")
    return lambda: fs.close(number)


async def write_one(fs: Filesystem) -> Callable[[], Any]:
    number = await fs.open(f"{JOB}/f3", os.O_WRONLY)
    await fs.vfs.files.write(number, 0, b"more")
    return lambda: fs.close(number)


async def make_one(fs: Filesystem) -> Callable[[], Any]:
    number = await fs.open(f"{JOB}/new", os.O_WRONLY | os.O_CREAT)
    return lambda: fs.close(number)


async def move_one_in(fs: Filesystem) -> None:
    await fs.rename("temp/5/2/other", f"{JOB}/other")


async def move_one_out(fs: Filesystem) -> None:
    await fs.rename(f"{JOB}/f3", "temp/5/2/f3")


async def remove_one(fs: Filesystem) -> None:
    await fs.unlink(f"{JOB}/f3")


async def remove_and_go(fs: Filesystem) -> None:
    await fs.rename(JOB, "temp/5/3")


ACTS = [open_one, write_one, make_one, move_one_in, move_one_out, remove_one, remove_and_go]


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("after", range(1, 24, 3))
@pytest.mark.table(6)
async def test_who_comes_back_meets_all_of_it_or_nothing(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, act: Any, after: int
) -> None:
    """*act* is done after so many turns of the removal, which is kept up by whoever has a file open."""
    monkeypatch.setattr("recfs.state.work.turns.TURN_S", 0.0)
    await made(fs)
    await fs.write("temp/5/2/other", b"elsewhere")
    await fs.drain()
    await fs.reopen()
    outcome: dict[str, Any] = {}

    job = await fs.node(JOB)

    async def remove() -> None:
        try:
            outcome["gone"] = await fs.vfs.trees.remove(job, keep=lambda top: bool(fs.vfs.files.jobs_in_use()[top.ino]))
        except Busy:
            outcome["busy"] = True

    async def come() -> None:
        for _ in range(after):
            await trio.lowlevel.checkpoint()
        fs.clock.advance(1)
        try:
            outcome["end"] = await act(fs)
        except (NotFound, Stale):
            outcome["late"] = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(remove)
        nursery.start_soon(come)
    there = {name for name in await fs.tree("temp/5") if "." not in name}
    if act is remove_and_go and "late" not in outcome:
        assert {path.replace(JOB, "temp/5/3") for path in FILES} <= there
    elif "busy" in outcome:
        assert FILES.keys() - ({f"{JOB}/f3"} if act in (remove_one, move_one_out) else set()) <= there
        assert "late" not in outcome
    else:
        assert not FILES.keys() & there, "a part of it stayed"
    if outcome.get("end") is not None:
        await outcome["end"]()
    await fs.drain()
    await fs.assert_consistent()


async def test_a_file_that_is_changed_just_before_is_not_taken_for_what_it_was(
    fs: Filesystem,
) -> None:
    """Its row was looked at, then it changes, is written, and leaves memory: it is looked at again."""
    job = await made(fs)
    wholes = fs.vfs.trees._wholes
    assert await wholes.others(job, Turn()) == []
    await fs.write(f"{JOB}/f3", b"more", append=True)
    assert wholes.take(job) is None
    await fs.drain()
    assert wholes.take(job) is None
    assert await wholes.others(job, Turn()) == []
    assert wholes.take(job) == len(FILES)
    await fs.assert_consistent()


# --- what is not recfs's --------------------------------------------------------------------------------------------


@pytest.mark.expect_log("held files recfs does not know")
@pytest.mark.parametrize("watch", [{"watch": {"enabled": False}}])
async def test_somebodys_files_in_it_are_kept(place: Path, watch: dict[str, Any]) -> None:
    async with filesystem(place / "root", **watch) as fs:
        await made(fs)
        (fs.root / JOB / "theirs").write_bytes(b"not recfs's")
        (fs.root / JOB / "f1").unlink()
        (fs.root / JOB / "f1").write_bytes(b"in the place of a file of recfs's")
        await removed(fs)
        await fs.drain()
        (kept,) = fs.leftovers("lost+found")
        found = {each.name: each.read_bytes() for each in (fs.root / ".recfs/lost+found" / kept).iterdir()}
        assert found == {"theirs": b"not recfs's", "f1": b"in the place of a file of recfs's"}
        await fs.assert_consistent(lost=1)


async def test_one_that_was_removed_on_both_sides_is_gone(fs: Filesystem) -> None:
    await made(fs)
    for path in (fs.root / JOB).iterdir():
        path.unlink()
    (fs.root / JOB).rmdir()
    await removed(fs)
    await until(lambda: not fs.parts.publisher.depth)
    await fs.drain()
    assert fs.rows("select count(*) from node where kind = 'file'") == [0]
    await fs.assert_consistent()


# --- what fails -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_at_once")
async def test_a_file_that_cannot_be_removed_is_told_and_keeps_no_other(fs: Filesystem, expect_log: ExpectLog) -> None:
    expect_log(f"{JOB}.*Operation not permitted.*f2")
    await made(fs)
    fs.faults.fail("unlink", errno.EPERM, "f2", times=2)
    await removed(fs)
    await until(lambda: fs.parts.publisher.aside)
    assert (await ask(fs, "status"))["problems"]
    assert sorted(name.name for name in (fs.root / ".recfs/trash").glob("*/*")) == ["f2"]
    await fs.drain()
    assert fs.leftovers("trash") == []
    await fs.assert_consistent()


# --- deaths ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.may_log("closed database")
@pytest.mark.slow
@pytest.mark.parametrize("cleanly", [False, True])
async def test_a_death_before_any_step_leaves_all_or_nothing(place: Path, cleanly: bool) -> None:
    """*cleanly*: the daemon that is stopped there gets its rows written, as when it hands over to another."""
    for step in itertools.count(1):
        async with filesystem(place / str(step), start=False) as fs:
            await fs.start()
            await made(fs)
            await fs.write("temp/5/2/other", b"stays")
            await fs.drain()

            async def run(fs: Filesystem) -> None:
                await removed(fs)
                await fs.drain()

            done = await fs.until_stopped(run, step)
            await (fs.stop() if cleanly and done else fs.crash())
            await fs.start_and_die(1 + step * 5 % 13)
            await fs.reopen()
            # Already before the rest of it is gone:
            there = {path for path in await fs.tree("temp/5") if path in FILES}
            assert there in (set(), FILES.keys()), f"step {step}: a part of it"
            if there:
                assert not done
                assert {path: await fs.read(path) for path in FILES} == FILES
                await removed(fs)
            await fs.drain()
            assert await fs.tree("temp/5") == {"temp/5/2": None, "temp/5/2/other": b"stays"}
            assert fs.account() == (5, 1)
            assert fs.leftovers("lost+found") == []
            await fs.assert_consistent()
        if done:
            break
    assert step > 12, "no step was stopped: nothing was tested"


# --- S3, and the trash ----------------------------------------------------------------------------------------------


async def test_the_tier_hears_of_each_file_that_concerns_it(nursery: trio.Nursery, place: Path) -> None:
    """They are committed, and wait for their upload: nobody uploads what is gone."""
    fs = tiered(nursery, place, route=[{"pattern": "temp/**", "to": "s3"}], upload={"settle": "1h"})
    await fs.start()
    for path, data in FILES.items():
        await fs.write(path, data)
    await until(lambda: not fs.parts.committer.depth)
    assert len(fs.tier.journal.rows) == len(FILES)
    assert await removed(fs) == len(FILES)
    assert fs.tier.journal.rows == {}
    assert {path for path, *_ in await events(fs)} == FILES.keys() | {JOB}
    fs.clock.advance(2 * 3600)
    await fs.drain()
    assert stored(fs) == {}
    await fs.assert_consistent()
    await fs.stop()


async def test_no_trash_keeps_what_was_temporary(place: Path) -> None:
    """Neither what goes as a whole, nor a file by itself, its earlier version, or its attributes."""
    async with filesystem(place / "root", trash={"retention": "1h"}) as fs:
        await made(fs)
        assert await removed(fs) == len(FILES)
        await fs.write("temp/5/9/again", b"once")
        await fs.drain()
        node = await fs.node("temp/5/9/again")
        await fs.xattrs.set(node.ino, b"user.note", b"mine", OPERATOR)
        await fs.write("temp/5/9/again", b"twice")
        await fs.drain()
        await fs.unlink("temp/5/9/again")
        await fs.rmdir("temp/5/9")
        await fs.drain()
        assert (await ask(fs, "trash_list"))["entries"] == []
        assert fs.leftovers("trash") == []
        await fs.assert_consistent()


@pytest.mark.parametrize("most", [1500, 3])
async def test_the_counters_of_stats_follow(fs: Filesystem, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Or are told to be counted anew, where so many at once would keep others waiting."""
    monkeypatch.setattr("recfs.catalogue.counting.counters.LEFT_FILES", most)
    monkeypatch.setattr("recfs.catalogue.counting.counters.LEFT_ALIKE", most)
    await made(fs)
    await fs.write("temp/5/2/other", b"stays")
    await fs.drain()
    await removed(fs)
    await fs.parts.behind.flush()
    counted = fs.rows("select files from figure where files <> 0")
    due = fs.rows("select value from meta where key = ?", RECOUNT_DUE)
    assert counted == ([1] if most > len(FILES) else [len(FILES) + 1])
    assert (due in ([], ["0"])) == (most > len(FILES))
    await fs.drain()
    if most < len(FILES):
        sweep = Counting(fs.parts.catalogue, fs.parts.reports).sweep()
        due = await sweep.look()
        assert sweep.decide(due)
        await sweep.act(due, mock.Mock())
    assert fs.rows("select files from figure where files <> 0") == [1]
    await fs.assert_consistent()
