"""Power fails before any step: what fsync and `committed` promised is there, and nothing wrong is called committed."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .build import REC, Filesystem, filesystem, pattern
from .powercut import Disk
from .test_crash_steps import files, states_of

OLD, NEW = pattern(9000, seed=1), pattern(14_000, seed=2)
FILE, OTHER = f"{REC}/file", f"{REC}/other"
Promise = dict[str, bytes | None]
Procedure = Callable[[Filesystem, Promise], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """A procedure, the bytes its files may have when they are called committed, and how many may be missing."""

    run: Procedure
    whole: dict[str, tuple[bytes, ...]]
    may_go: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return self.run.__name__.replace("_", "-")


async def pieces(fs: Filesystem, number: int, data: bytes, offset: int = 0) -> None:
    """Write in pieces, the books flushed in between."""
    for start in range(0, len(data), 5000):
        await fs.vfs.files.write(number, offset + start, data[start : start + 5000])
        await fs.parts.behind.flush()


async def new_file(fs: Filesystem, promise: Promise) -> None:
    number = await fs.open(f"{REC}/new", os.O_WRONLY | os.O_CREAT)
    await pieces(fs, number, NEW)
    await fs.close(number)
    await fs.drain()
    promise[f"{REC}/new"] = NEW


async def new_file_fsynced(fs: Filesystem, promise: Promise) -> None:
    number = await fs.open(f"{REC}/new", os.O_WRONLY | os.O_CREAT)
    await pieces(fs, number, NEW[:5000])
    await fs.vfs.files.fsync(number)
    promise[f"{REC}/new"] = NEW[:5000]
    await pieces(fs, number, NEW[5000:], 5000)
    await fs.vfs.files.fsync(number)
    promise[f"{REC}/new"] = NEW
    await fs.close(number)
    await fs.drain()


async def overwrite(fs: Filesystem, promise: Promise) -> None:
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await pieces(fs, number, NEW)
    await fs.close(number)
    await fs.drain()
    promise[FILE] = NEW


async def overwrite_fsynced(fs: Filesystem, promise: Promise) -> None:
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await pieces(fs, number, NEW)
    await fs.vfs.files.fsync(number)
    promise[FILE] = NEW
    await fs.close(number)
    await fs.drain()


async def append(fs: Filesystem, promise: Promise) -> None:
    number = await fs.open(FILE, os.O_WRONLY)
    await pieces(fs, number, NEW, len(OLD))
    await fs.close(number)
    await fs.drain()
    promise[FILE] = OLD + NEW


async def append_fsynced(fs: Filesystem, promise: Promise) -> None:
    number = await fs.open(FILE, os.O_WRONLY)
    await pieces(fs, number, NEW, len(OLD))
    await fs.vfs.files.fsync(number)
    promise[FILE] = OLD + NEW
    await fs.close(number)
    await fs.drain()


async def rewrite_in_place(fs: Filesystem, promise: Promise) -> None:
    number = await fs.open(FILE, os.O_RDWR)
    await pieces(fs, number, NEW[: len(OLD)])
    await fs.close(number)
    await fs.vfs.behind.durable()  # somebody else's fsync: the row survives, these bytes need not
    await fs.drain()
    promise[FILE] = NEW[: len(OLD)]


async def careful_replace(fs: Filesystem, promise: Promise) -> None:
    """Write aside, fsync, rename over, fsync the directory."""
    number = await fs.open(f"{REC}/.part", os.O_WRONLY | os.O_CREAT)
    await pieces(fs, number, NEW)
    await fs.vfs.files.fsync(number)
    await fs.close(number)
    await fs.rename(f"{REC}/.part", FILE)
    await fs.vfs.behind.durable()
    promise[FILE] = NEW
    await fs.drain()


async def rename_over(fs: Filesystem, promise: Promise) -> None:
    await fs.rename(OTHER, FILE)
    await fs.vfs.behind.durable()
    promise |= {FILE: OLD, OTHER: None}
    await fs.drain()


async def delete(fs: Filesystem, promise: Promise) -> None:
    await fs.unlink(FILE)
    await fs.vfs.behind.durable()
    promise[FILE] = None
    await fs.drain()


async def move_directory(fs: Filesystem, promise: Promise) -> None:
    await fs.rename(REC, "users/5/recordings/7")
    await fs.vfs.behind.durable()
    promise |= {FILE: None, OTHER: None, "users/5/recordings/7/file": OLD, "users/5/recordings/7/other": OLD}
    await fs.drain()


async def exchange(fs: Filesystem, promise: Promise) -> None:
    await fs.write(f"{REC}/third", NEW)
    await fs.drain()
    await fs.rename(FILE, f"{REC}/third", exchange=True)
    await fs.vfs.behind.durable()
    promise |= {FILE: NEW, f"{REC}/third": OLD}
    await fs.drain()


MOVED = {"users/5/recordings/7/file": (OLD,), "users/5/recordings/7/other": (OLD,)}
CASES = [
    Case(new_file, {f"{REC}/new": (NEW,)}),
    Case(new_file_fsynced, {f"{REC}/new": (NEW,)}),
    Case(overwrite, {FILE: (OLD, NEW)}),
    Case(overwrite_fsynced, {FILE: (OLD, NEW)}),
    Case(append, {FILE: (OLD, OLD + NEW)}),
    Case(append_fsynced, {FILE: (OLD, OLD + NEW)}),
    Case(rewrite_in_place, {FILE: (OLD, NEW[: len(OLD)])}),
    Case(careful_replace, {FILE: (OLD, NEW), f"{REC}/.part": (NEW,)}),
    Case(rename_over, {FILE: (OLD,)}, frozenset({OTHER})),
    Case(delete, {}, frozenset({FILE})),
    Case(move_directory, MOVED, frozenset({FILE, OTHER})),
    Case(exchange, {FILE: (OLD, NEW), f"{REC}/third": (OLD, NEW)}),
]


async def cut_and_look(place: Path, case: Case, step: int, *, torn: bool, names_kept: bool) -> bool:
    """One power cut before *step*; True when the procedure came to its end before it."""
    place = place / str(step)
    async with filesystem(place / "store") as fs:
        await fs.write(FILE, OLD)
        await fs.write(OTHER, OLD)
        await fs.drain()
        disk = Disk(fs.root, place / "disk")
        fs.faults.observers.append(disk.watch)
        promise: Promise = {}

        async def run(fs: Filesystem) -> None:
            await case.run(fs, promise)

        done = await fs.until_stopped(run, step)
        fs.faults.observers.clear()
        where = f"{case}: power cut before step {step} ({' '.join(fs.faults.trace[-8:])} | …)"
        await fs.crash()
        disk.cut(torn=torn, names_kept=names_kept)
        fs.boot = "after the power cut"
        try:
            await fs.reopen()
            await fs.drain()
            tree = files(await fs.tree("users"))
            states = await states_of(fs, tree)
            whole = {FILE: (OLD,), OTHER: (OLD,)} | case.whole
            for path, state in states.items():
                if state == "committed":
                    assert tree[path] in whole[path], f"{path}: wrong bytes are called committed"
            for path in (FILE, OTHER):
                assert path in tree or path in case.may_go, f"{path} is gone"
            if OTHER in tree:
                assert states[OTHER] == "committed"
            for path, content in promise.items():
                found = tree.get(path)
                kept = found is None if content is None else found is not None and found.startswith(content)
                assert kept, f"{path}: what was promised is not there"
                if done and content is not None:
                    assert states[path] == "committed"
            await fs.assert_consistent(lost=len(os.listdir(fs.root / ".recfs/lost+found")))
        except BaseException as error:
            error.add_note(where)
            raise
        return done


@pytest.mark.may_log("closed database")  # said by a task of the dead, if it is slow to notice
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_power_cut_before_any_step_breaks_no_promise(place: Path, case: Case) -> None:
    step, done = 1, False
    while not done:
        # By turns, everything that was not synced is lost, or all names survive and half of each file's data does.
        torn = step % 2 == 0
        done = await cut_and_look(place, case, step, torn=torn, names_kept=torn)
        step += 1
    assert step > 6, "no step was stopped: nothing was tested"
