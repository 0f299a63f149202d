"""The publisher when the disk says no: the metadata is right meanwhile, and right afterwards."""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

import pytest
import trio
import trio.testing

from recfs.disk.home.homeplan import HomePlan, Plan
from recfs.errors import IoFailure
from recfs.fs.attributes import Changes
from recfs.stores.steps import Outcome, Step

from .build import OPERATOR as ROOT
from .build import REC, Filesystem, pattern, until

ExpectLog = Callable[[str], None]
OTHER = "users/5/recordings/143"


async def prepare(fs: Filesystem) -> None:
    """Two recordings with committed files, all at home."""
    for n in range(3):
        await fs.write(f"{REC}/file{n}", pattern(3000, seed=n))
    await fs.write(f"{REC}/sub/deep", b"deep")
    await fs.write(f"{OTHER}/other", b"other")
    node = await fs.node(REC)
    await fs.vfs.symlink(node.ino, b"link", b"file0", ROOT)
    await fs.drain()


async def settled(fs: Filesystem, problem: bool) -> None:
    """Wait until the publisher has met its fault, or (not *problem*) got over it."""
    await until(lambda: bool(fs.parts.publisher.problem) == problem)


def held_up(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """The publisher's thread waits before its steps: (it does, it may go on)."""
    store, begun, gate = fs.parts.store, threading.Event(), threading.Event()
    apply = store.apply

    def slow(steps: Sequence[Step], *, durable: bool = True) -> list[Outcome]:
        begun.set()
        assert gate.wait(60)
        return apply(steps, durable=durable)

    monkeypatch.setattr(store, "apply", slow)
    return begun, gate


async def commit(fs: Filesystem) -> None:
    await fs.write(f"{REC}/new", pattern(5000, seed=9))


async def overwrite(fs: Filesystem) -> None:
    await fs.write(f"{REC}/file0", pattern(6000, seed=8))


async def delete(fs: Filesystem) -> None:
    await fs.unlink(f"{REC}/file0")


async def rename(fs: Filesystem) -> None:
    await fs.rename(f"{REC}/file0", f"{OTHER}/renamed")


async def rename_over(fs: Filesystem) -> None:
    await fs.rename(f"{REC}/file0", f"{REC}/file1")


async def exchange(fs: Filesystem) -> None:
    await fs.rename(f"{REC}/file0", f"{REC}/file1", exchange=True)


async def rename_directory(fs: Filesystem) -> None:
    await fs.rename(REC, "users/5/recordings/999")


async def remove_directory(fs: Filesystem) -> None:
    await fs.unlink(f"{REC}/sub/deep")
    await fs.rmdir(f"{REC}/sub")


async def make(fs: Filesystem) -> None:
    await fs.mkdirs(f"{REC}/fresh/er")


async def link(fs: Filesystem) -> None:
    await fs.vfs.symlink((await fs.node(REC)).ino, b"link2", b"file1", ROOT)


async def chmod(fs: Filesystem) -> None:
    await fs.vfs.setattr((await fs.node(f"{REC}/file0")).ino, Changes(mode=0o600), ROOT)


WORK = {
    "commit": (commit, "rename"),
    "overwrite": (overwrite, "rename"),
    "overwrite-remove": (overwrite, "unlink"),
    "delete": (delete, "unlink"),
    "rename": (rename, "rename"),
    "rename-over": (rename_over, "rename"),
    "exchange": (exchange, "rename"),
    "rename-directory": (rename_directory, "rename"),
    "remove-directory": (remove_directory, "rmdir"),
    "make": (make, "mkdir"),
    "link": (link, "symlink"),
    "chmod": (chmod, "chmod"),
}


@pytest.mark.parametrize("fault", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(("work", "call"), WORK.values(), ids=WORK.keys())
@pytest.mark.table(6)
async def test_a_step_that_fails_is_tried_again(
    fs: Filesystem, expect_log: ExpectLog, work: Callable[[Filesystem], Awaitable[None]], call: str, fault: int
) -> None:
    await prepare(fs)
    plan = fs.faults.fail(call, fault, times=3)
    expect_log("home tree: ")
    await work(fs)
    while plan.hits < 3:
        await fs.parts.behind.flush()
        fs.parts.publisher.hurry()
        await trio.sleep(0.05)
        fs.parts.tree.check_invariants()
        expected = await fs.tree("users")  # every file can be read while it is not where it should be
    await fs.drain()
    assert fs.parts.publisher.problem is None
    assert await fs.tree("users") == expected


@pytest.mark.parametrize("work", dict(WORK.values()), ids=lambda work: work.__name__)
@pytest.mark.table(3)
async def test_a_failing_fsync_keeps_rows_pending_and_files_readable(
    fs: Filesystem, expect_log: ExpectLog, work: Callable[[Filesystem], Awaitable[None]]
) -> None:
    await prepare(fs)
    folder, group = fs.faults.fail("fsync", errno.EIO, "users", times=2), fs.faults.fail("sync_all", errno.EIO, times=4)
    expect_log("home tree: .*fsync")
    await work(fs)
    while not (folder.hits and group.hits >= 3):
        for name in list(fs.parts.tree.nodes):
            fs.parts.committer.hurry(name)
        await fs.parts.behind.flush()
        fs.parts.publisher.hurry()
        await trio.sleep(0.05)
        expected = await fs.tree("users")
    pending = fs.rows("select count(*) from placement where pending <> 0")[0]
    assert pending + fs.rows("select count(*) from garbage")[0] > 0
    await fs.drain()
    assert await fs.tree("users") == expected


@pytest.mark.parametrize("fault", ["rename", "fsync"])
async def test_a_crash_while_steps_fail_is_repaired(fs: Filesystem, expect_log: ExpectLog, fault: str) -> None:
    await prepare(fs)
    fs.faults.fail(fault, errno.EIO, "users", times=1000)
    fs.faults.fail("sync_all", errno.EIO, times=1000)
    expect_log("home tree: ")
    await fs.rename(REC, "users/5/recordings/7")
    await fs.rename("users/5/recordings/7/file0", "users/5/recordings/7/file1", exchange=True)
    await fs.unlink("users/5/recordings/7/file2")
    await settled(fs, problem=True)
    await fs.parts.behind.flush()
    expected = await fs.tree("users")
    await fs.crash()
    fs.faults.heal()
    await fs.reopen()
    await fs.drain()
    assert await fs.tree("users") == expected


@pytest.mark.expect_log("recordings/142/new: somebody's file stood here; kept as lost\\+found/")
async def test_a_stranger_in_the_way_is_kept(fs: Filesystem) -> None:
    fs.checked_at_end = False
    await prepare(fs)
    (fs.root / REC / "new").write_bytes(b"put there out of band")
    await commit(fs)
    await fs.assert_consistent(lost=1)
    (kept,) = (fs.root / ".recfs/lost+found").iterdir()
    assert kept.read_bytes() == b"put there out of band"
    assert await fs.read(f"{REC}/new") == pattern(5000, seed=9)


async def test_a_directory_with_strangers_is_kept(fs: Filesystem, expect_log: ExpectLog) -> None:
    fs.checked_at_end = False
    await prepare(fs)
    (fs.root / REC / "sub/stranger").write_bytes(b"put there out of band")
    expect_log("held files recfs does not know")
    await remove_directory(fs)
    await fs.assert_consistent(lost=1)
    (kept,) = (fs.root / ".recfs/lost+found").iterdir()
    assert [path.name for path in kept.iterdir()] == ["stranger"]


@pytest.mark.slow
async def test_many_entries_settle_in_batches(fs: Filesystem) -> None:
    for n in range(350):
        await fs.write(f"{REC}/dir{n % 7}/file{n}", b"%d" % n)
    await fs.drain()
    for n in range(0, 350, 2):
        await fs.unlink(f"{REC}/dir{n % 7}/file{n}")
    await fs.rename(REC, OTHER)
    await fs.drain()
    assert len(os.listdir(fs.root / OTHER / "dir3")) == 25


def in_turns(monkeypatch: pytest.MonkeyPatch) -> tuple[list[tuple[Plan, int]], trio.Event]:
    """A turn of planning ends with each entry: (the plan, and how many steps it has, after each; two are planned)."""
    monkeypatch.setattr("recfs.state.work.turns.TURN_S", 0.0)
    extend, turns, begun = HomePlan.extend, list[tuple[Plan, int]](), trio.Event()

    def extended(todo: HomePlan, plan: Plan) -> bool:
        is_more = extend(todo, plan)
        turns.append((plan, len(plan.jobs)))
        if is_more and len(plan.jobs) == 2:
            begun.set()
        return is_more

    monkeypatch.setattr(HomePlan, "extend", extended)
    return turns, begun


async def test_a_batch_is_planned_in_turns(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have their turn after each entry, however many there are; what is planned so far is under way then."""
    await fs.mkdirs(OTHER)
    for n in range(30):
        await fs.write(f"{REC}/file{n}", b"%d" % n)
    await fs.drain()
    monkeypatch.setattr("recfs.disk.home.homeplan.PLAN_S", math.inf)  # on a slow machine it would be two batches
    publisher, (works, gate) = fs.parts.publisher, held_up(fs, monkeypatch)
    await chmod(fs)
    await trio.to_thread.run_sync(works.wait)
    for n in range(30):
        await (fs.rename(f"{REC}/file{n}", f"{OTHER}/file{n}") if n % 2 else fs.unlink(f"{REC}/file{n}"))
    await fs.parts.behind.flush()
    turns, begun = in_turns(monkeypatch)
    gate.set()
    met: set[int] = set()
    async with trio.open_nursery() as nursery:

        async def others() -> None:
            await begun.wait()
            plan, count = turns[-1]
            while plan.nodes_left + plan.garbage_left > 0:
                assert publisher.is_working
                assert publisher.worked_on == {job.item.ino for job in plan.jobs}
                assert all(publisher.touches([job.item.ino]) for job in plan.jobs if job.item.ino in plan.moving)
                met.add(count)
                await trio.lowlevel.checkpoint()
                count = len(plan.jobs)

        nursery.start_soon(others)
        await fs.drain()
    steps = [after - before for (plan, before), (same, after) in pairwise(turns) if plan is same]
    assert max(steps) <= 1
    assert len(met) >= 14  # trio has each task run once a round, in any order: two at most are planned in between
    assert sorted(os.listdir(fs.root / OTHER)) == sorted(f"file{n}" for n in range(1, 30, 2))
    assert os.listdir(fs.root / REC) == []
    await fs.assert_consistent()


@pytest.mark.parametrize("change", [work for work, _ in WORK.values()], ids=WORK.keys())
@pytest.mark.table(4)
async def test_what_changes_while_a_batch_is_planned(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, change: Callable[[Filesystem], Awaitable[None]]
) -> None:
    await prepare(fs)
    names = [f"{REC}/file{n}" for n in range(3)] + [f"{REC}/sub", f"{OTHER}/other"]
    for name in names:
        await fs.rename(name, f"{name}.before")
    await fs.drain()
    _, begun = in_turns(monkeypatch)
    for name in names:
        await fs.rename(f"{name}.before", name)
    await begun.wait()
    assert fs.parts.publisher.is_working
    await change(fs)
    expected = await fs.tree("users")
    await fs.drain()
    assert await fs.tree("users") == expected
    await fs.assert_consistent()


async def test_a_chain_of_renames_before_anything_settles(fs: Filesystem) -> None:
    await prepare(fs)
    for step in range(10):
        names = ["file0", "file1", "file2"]
        await fs.rename(f"{REC}/{names[step % 3]}", f"{REC}/spare")
        await fs.rename(f"{REC}/{names[(step + 1) % 3]}", f"{REC}/{names[step % 3]}")
        await fs.rename(f"{REC}/spare", f"{REC}/{names[(step + 1) % 3]}")
        await fs.rename(f"{REC}/sub", f"{REC}/sub{step}")
        await fs.rename(f"{REC}/sub{step}", f"{REC}/sub")
    expected = await fs.tree("users")
    await fs.drain()
    assert await fs.tree("users") == expected


async def test_directories_that_change_places_with_what_was_inside(fs: Filesystem) -> None:
    await fs.write(f"{REC}/a/b/c/file", b"deep")
    await fs.drain()
    await fs.rename(f"{REC}/a/b", f"{REC}/b")
    await fs.rename(f"{REC}/a", f"{REC}/b/c/a")
    await fs.rename(f"{REC}/b", f"{REC}/a")
    await fs.drain()
    assert (fs.root / REC / "a/c/file").read_bytes() == b"deep"
    assert (fs.root / REC / "a/c/a").is_dir()


async def test_no_step_is_taken_whose_row_a_power_cut_could_take_back(fs: Filesystem) -> None:
    await prepare(fs)
    synced: list[int] = []
    bare: list[str] = []

    def watch(name: str, args: tuple[object, ...]) -> None:
        if name == "apply":
            synced.clear()
        elif name == "sync":
            synced.append(1)
        elif name in ("rename", "unlink", "rmdir", "mkdir") and not synced:
            bare.append(name)

    fs.faults.observers.append(watch)
    await fs.rename(f"{REC}/file0", f"{REC}/file1")
    await fs.unlink(f"{REC}/file2")
    await fs.rename(REC, "users/5/recordings/7")
    await fs.drain()
    fs.faults.observers.clear()
    assert bare == []


async def test_a_catalogue_that_cannot_be_synced_holds_the_home_tree_back(
    fs: Filesystem, expect_log: ExpectLog
) -> None:
    await prepare(fs)
    full = fs.faults.fail("sync", IoFailure("the log cannot be synced"), times=3)
    expect_log("home tree: .*the log cannot be synced")
    await fs.rename(f"{REC}/file0", f"{REC}/file1")
    await until(lambda: full.hits)
    await settled(fs, problem=True)
    assert (fs.root / REC / "file0").exists()
    assert await fs.read(f"{REC}/file1") == pattern(3000, seed=0)
    await fs.drain()
    assert not (fs.root / REC / "file0").exists()


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_TRUNC, os.O_RDWR])
async def test_attributes_that_were_given_to_earlier_bytes_say_nothing_of_the_present_ones(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, flags: int
) -> None:
    """The file is removed before it is committed: its bytes go, and do not bring it back at the next start."""
    await prepare(fs)
    begun, gate = held_up(fs, monkeypatch)
    node = await fs.node(f"{REC}/file0")
    await fs.vfs.setattr(node.ino, Changes(mode=0o600), ROOT)
    await fs.parts.behind.flush()
    fs.parts.publisher.hurry()
    await until(begun.is_set)
    opened: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_begins_to_write, fs, f"{REC}/file0", flags, opened)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    await until(lambda: not fs.parts.publisher.depth)
    await fs.unlink(f"{REC}/file0")
    await fs.close(opened[0])
    await fs.drain()
    await fs.assert_consistent()
    await fs.reopen()
    assert "file0" not in await fs.names(REC)


async def _begins_to_write(fs: Filesystem, path: str, flags: int, opened: list[int]) -> None:
    opened.append(await fs.open(path, flags))
    await fs.vfs.files.write(opened[0], 0, b"newer")


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC])
@pytest.mark.parametrize("depth", [1, 2])
async def test_a_file_taken_out_of_a_directory_that_is_being_moved_is_found(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, depth: int, flags: int
) -> None:
    """Its name leads elsewhere, its bytes lie where the directory was, or will be in a moment."""
    await prepare(fs)
    below = "/x" * (depth - 1)
    await fs.write(f"{REC}/a{below}/file", b"deep")
    await fs.mkdirs(f"{REC}/out")
    await fs.drain()
    begun, gate = held_up(fs, monkeypatch)
    await fs.rename(f"{REC}/a", f"{REC}/b")
    await fs.parts.behind.flush()
    fs.parts.publisher.hurry()
    await until(begun.is_set)
    await fs.rename(f"{REC}/b{below}/file", f"{REC}/out/file")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_is_read, fs, f"{REC}/out/file", flags, b"" if flags & os.O_TRUNC else b"deep")
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
    finally:
        gate.set()
    await fs.drain()


async def _is_read(fs: Filesystem, path: str, flags: int, content: bytes) -> None:
    number = await fs.open(path, flags)
    assert await fs.read_handle(number) == content
    await fs.close(number)


async def test_a_directory_does_not_go_before_what_could_not_leave_it(fs: Filesystem, expect_log: ExpectLog) -> None:
    """Both are removed in one batch: a file that the disk keeps for now is not a stranger's for that."""
    expect_log("sub/deep")
    await prepare(fs)
    fs.faults.fail("unlink", errno.EIO, "deep")
    await fs.unlink(f"{REC}/sub/deep")
    await fs.rmdir(f"{REC}/sub")
    await fs.drain()
    assert not (fs.root / REC / "sub").exists()
    await fs.assert_consistent()


@pytest.mark.expect_log("Operation not permitted")
@pytest.mark.parametrize("what", ["link", "directory", "file"])
async def test_what_failed_and_was_removed_is_no_problem_any_more(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    await prepare(fs)
    folder, store = (await fs.node(REC)).ino, fs.parts.store
    plain = store.apply

    def refused(steps: Sequence[Step], *, durable: bool = True) -> list[Outcome]:
        return [Outcome(error=errno.EPERM) for _ in steps]

    monkeypatch.setattr(store, "apply", refused)
    if what == "link":
        await fs.vfs.symlink(folder, b"new", b"target", ROOT)
    elif what == "directory":
        await fs.mkdirs(f"{REC}/new")
    else:
        await fs.write(f"{REC}/new", b"new")
    await settled(fs, problem=True)
    await (fs.rmdir if what == "directory" else fs.unlink)(f"{REC}/new")
    monkeypatch.setattr(store, "apply", plain)
    answer = await fs.answers()["drain"]({"timeout_s": 30.0})
    assert answer["pending"] == 0, answer
    assert not fs.parts.problems.as_json()
