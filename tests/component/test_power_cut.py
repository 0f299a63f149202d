"""Power fails before any step: what fsync and `committed` promised is there, and nothing wrong is called committed."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from recfs.fs.attributes import Changes

from .build import OPERATOR, REC, Filesystem, filesystem, pattern
from .powercut import Disk, Kept
from .test_crash_steps import files, states_of

OLD, NEW = pattern(9000, seed=1), pattern(14_000, seed=2)
FILE, OTHER = f"{REC}/file", f"{REC}/other"
ATTRIBUTES = Changes(mode=0o640, uid=1234, gid=4321, mtime_ns=1_700_000_000_123_456_789)
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
    """Write in pieces, the metadata flushed in between."""
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


async def attributes(fs: Filesystem, promise: Promise) -> None:
    """Mode, owner and times of files and directories, there and on their way."""
    await fs.write(f"{REC}/new", NEW)
    for path in (FILE, f"{REC}/new", REC):
        await fs.vfs.setattr((await fs.node(path)).ino, ATTRIBUTES, OPERATOR)
    await fs.vfs.behind.durable()
    promise[f"{FILE} attributes"] = promise[f"{REC} attributes"] = promise[f"{REC}/new attributes"] = b""
    await fs.drain()
    promise[f"{REC}/new"] = NEW


async def folds(fs: Filesystem, promise: Promise) -> None:
    """The catalogue's log is folded in, begun anew, and grows, while files come and go."""
    for count in range(3):
        await fs.write(f"{REC}/new{count}", NEW)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(fs.parts.catalogue.checkpoint, at_least_pages=1))
            await fs.rename(OTHER, f"{REC}/elsewhere")
            await fs.rename(f"{REC}/elsewhere", OTHER)
        await fs.drain()
        await fs.parts.catalogue.fold()
        await fs.parts.generations.advance()
        promise[f"{REC}/new{count}"] = NEW


async def new_directories(fs: Filesystem, promise: Promise) -> None:
    """Names in several directories, of which some reach the disk and others do not."""
    for name in "abc":
        await fs.write(f"{REC}/{name}/{name}", NEW)
    await fs.vfs.symlink((await fs.node(REC)).ino, b"link", b"target", OPERATOR)
    await fs.drain()
    promise |= {f"{REC}/{name}/{name}": NEW for name in "abc"} | {f"{REC}/link": b"-> target"}
    del promise[f"{REC}/a/a"], promise[f"{REC}/c/c"]
    await fs.rename(f"{REC}/a", f"{REC}/b/a")
    await fs.unlink(f"{REC}/c/c")
    await fs.rmdir(f"{REC}/c")
    await fs.vfs.behind.durable()
    promise |= {f"{REC}/a/a": None, f"{REC}/c/c": None, f"{REC}/b/a/a": NEW}
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
BOOKS = [
    Case(attributes, {f"{REC}/new": (NEW,)}),
    Case(folds, {f"{REC}/new{n}": (NEW,) for n in range(3)} | {f"{REC}/elsewhere": (OLD,)}, frozenset({OTHER})),
    Case(new_directories, {f"{REC}/{path}": (NEW,) for path in ("a/a", "b/b", "c/c", "b/a/a")}),
]
KEPT: tuple[Kept, ...] = ("none", "some", "all")


def cut(disk: Disk, step: int) -> None:
    """By turns: what was not synced is lost, or some of it, or all of its names survive; half of the data, or none."""
    disk.cut(torn=step % 2 == 0, kept=KEPT[step % 3], seed=step)


async def look(fs: Filesystem, case: Case, promise: Promise, *, done: bool) -> None:
    """What was promised is there, and nothing wrong is called committed."""
    await fs.drain()
    tree = files(await fs.tree("users"))
    states = await states_of(fs, {path: content for path, content in tree.items() if not content.startswith(b"-> ")})
    whole = {FILE: (OLD,), OTHER: (OLD,)} | case.whole
    for path, state in states.items():
        if state == "committed":
            assert tree[path] in whole[path], f"{path}: wrong bytes are called committed"
    for path in (FILE, OTHER):
        assert path in tree or path in case.may_go, f"{path} is gone"
    if OTHER in tree:
        assert states[OTHER] == "committed"
    for path, content in promise.items():
        if path.endswith(" attributes"):
            node = await fs.node(path.removesuffix(" attributes"))
            assert (node.mode, node.uid, node.gid) == (ATTRIBUTES.mode, ATTRIBUTES.uid, ATTRIBUTES.gid), path
            continue
        found = tree.get(path)
        kept = found is None if content is None else found is not None and found.startswith(content)
        assert kept, f"{path}: what was promised is not there"
        if done and content is not None and path in states:
            assert states[path] == "committed"
    assert fs.parts.recovered.said == [], "a power cut is not taken for a catalogue of another time"
    await fs.assert_consistent(lost=len(os.listdir(fs.root / ".recfs/lost+found")))


async def cut_and_look(place: Path, case: Case, step: int) -> bool:
    """One power cut before *step*; True when the procedure came to its end before it."""
    place = place / str(step)
    async with filesystem(place / "store", start=False) as fs:
        fs.faults.books_watched = True
        await fs.start()
        await fs.write(FILE, OLD)
        await fs.write(OTHER, OLD)
        await fs.drain()
        disk = Disk(fs.root, place / "disk")
        disk.attach(fs.faults)
        promise: Promise = {}

        async def run(fs: Filesystem) -> None:
            await case.run(fs, promise)

        done = await fs.until_stopped(run, step)
        disk.detach(fs.faults)
        where = f"{case}: power cut before step {step} ({' '.join(fs.faults.trace[-8:])} | …)"
        await fs.crash()
        cut(disk, step)
        fs.boot = "after the power cut"
        try:
            await fs.reopen()
            await look(fs, case, promise, done=done)
        except BaseException as error:
            error.add_note(where)
            raise
        return done


@pytest.mark.may_log(
    "closed database|disk I/O error|Bad file descriptor"
)  # said by a task of the dead, if it is slow to notice
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES + BOOKS, ids=str)
async def test_a_power_cut_before_any_step_breaks_no_promise(place: Path, case: Case) -> None:
    step, done = 1, False
    while not done:
        done = await cut_and_look(place, case, step)
        step += 1
    assert step > 6, "no step was stopped: nothing was tested"


STARTS = {"first": 0, "after a stop": 1, "after a death": 2}


@pytest.mark.may_log("closed database|disk I/O error|Bad file descriptor")
@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [pytest.param(start, marks=() if kind else pytest.mark.all_steps) for start, kind in STARTS.items()],
    ids=lambda start: start.replace(" ", "-"),
)
async def test_a_power_cut_in_a_start(place: Path, start: str) -> None:
    """Before any step of it, the first of a new store included: the next one finds everything, and is not refused."""
    for step in range(1, 1000):
        here = place / str(step)
        (here / "store").mkdir(parents=True)
        async with filesystem(here / "store", start=False) as fs:
            fs.faults.books_watched = True
            promise: Promise = {}
            if STARTS[start]:
                await fs.start()
                await fs.write(FILE, OLD)
                await fs.write(OTHER, OLD)
                await fs.drain()
                promise = {FILE: OLD, OTHER: OLD}
                if start == "after a death":
                    await fs.rename(OTHER, f"{REC}/moved")
                    await fs.unlink(FILE)
                    await fs.vfs.behind.durable()
                    promise = {FILE: None, OTHER: None, f"{REC}/moved": OLD}
                    await fs.crash()
                else:
                    await fs.stop()
            disk = Disk(fs.root, here / "disk")
            disk.attach(fs.faults)
            await fs.start_and_die(step)
            over = fs.faults.count < step
            disk.detach(fs.faults)
            cut(disk, step)
            fs.boot = "after the power cut"
            try:
                await fs.reopen()
                tree = files(await fs.tree("users"))
                assert {path: tree.get(path) for path in promise} == promise
                assert fs.parts.recovered.said == []
                await fs.assert_consistent()
            except BaseException as error:
                error.add_note(f"power cut before step {step}: {' '.join(fs.faults.trace[-8:])}")
                raise
        if over:
            break
    assert step > 6, "no step was stopped: nothing was tested"
