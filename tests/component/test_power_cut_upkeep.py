"""Power fails while recordings end, the trash takes and gives back, bytes are adopted, and catalogues change places.

The model is that of `powercut.py`: what was synced is there, and of the rest nothing, some, or all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from recfs.catalogue import rebuilding
from recfs.disk.watching import looks
from recfs.stores import restoring

from .build import REC, Filesystem, filesystem, pattern
from .faults import Stopped
from .powercut import Disk
from .sweeping import swept
from .test_leftovers import later, look
from .test_power_cut import cut
from .test_rebuild import facts, populate, rebuild
from .test_recordings import DAY, OTHER, RULES, ask, sweep
from .test_recordings_end import ALL, due
from .test_restore_catalogue import KEEPS, aside, backed_up

Procedure = Callable[[Filesystem], Awaitable[None]]
FILE, KEPT = f"{REC}/file", f"{REC}/kept"
DATA = pattern(9000, seed=1)
FOREIGN = {f"{REC}/foreign": pattern(12_000, seed=2), f"{REC}/sub/more": b"more"}
MONTH: dict[str, Any] = {"trash": {"retention": 30 * DAY}}


@dataclass(frozen=True)
class Case:
    """What power is cut in, and what there is after the next start, and after another run."""

    name: str
    prepare: Procedure
    run: Procedure
    judge: Callable[[Filesystem, bool], Awaitable[int]]
    """(the store, whether it had come to its end) → how many are in the trash."""
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


async def removed(fs: Filesystem) -> None:
    await ask(fs, "sweep_expired")
    await fs.drain()


async def has_ended(fs: Filesystem, done: bool) -> int:
    """Expired and whole, or on its way out; never half of it with another status, and never back."""
    if await fs.exists(REC):
        assert not done
        status = str((await fs.node(REC)).life.status)
        assert status in ("expired", "removing")
        if status == "expired":
            for path, data in ALL.items():
                assert await fs.read(path) == data
        assert await sweep(fs) == {REC: "remove"}
    await fs.drain()
    assert not await fs.exists(REC)
    assert await fs.read(f"{OTHER}/file") == b"stays"
    assert fs.account() == (5, 1)
    return len(os.listdir(fs.root / ".recfs/trash"))


async def a_file(fs: Filesystem) -> None:
    await fs.write(FILE, DATA)
    await fs.write(KEPT, b"kept")
    await fs.drain()


async def unlink(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    await fs.vfs.behind.durable()
    await fs.drain()


async def a_file_in_the_trash(fs: Filesystem) -> None:
    await a_file(fs)
    await unlink(fs)


async def restore(fs: Filesystem) -> None:
    await ask(fs, "trash_restore", path=FILE)
    await fs.drain()


async def in_the_trash(fs: Filesystem) -> list[str]:
    return [each["path"] for each in (await ask(fs, "trash_list"))["entries"] if each["kind"] == "file"]


async def is_in_one_place(fs: Filesystem, done: bool, *, wanted: bool) -> int:
    """In the mount, or in the trash, from where it comes back with every byte."""
    there = await fs.exists(FILE)
    assert (await in_the_trash(fs) == []) == there
    if done:
        assert there == wanted
    if not there:
        assert (await ask(fs, "trash_restore", path=FILE))["kept"] == []
    await fs.drain()
    assert (await fs.read(FILE), await fs.read(KEPT)) == (DATA, b"kept")
    assert fs.account() == (len(DATA) + 4, 2)
    return 0


async def is_removed(fs: Filesystem, done: bool) -> int:
    return await is_in_one_place(fs, done, wanted=False)


async def is_restored(fs: Filesystem, done: bool) -> int:
    return await is_in_one_place(fs, done, wanted=True)


async def foreign_files(fs: Filesystem) -> None:
    await a_file(fs)
    for path, data in FOREIGN.items():
        local = fs.root / path
        local.parent.mkdir(exist_ok=True)
        local.write_bytes(data)
    later(fs)


async def adopt(fs: Filesystem) -> None:
    await swept(fs, "orphans-adopt")
    await fs.drain()


async def are_adopted(fs: Filesystem, done: bool) -> int:
    """Each is a file, or lies where it lay. One whose seal was cut off stays incomplete (its bytes may be missing)."""
    for path, data in FOREIGN.items():
        there = await fs.exists(path)
        assert there or (fs.root / path).read_bytes() == data
        if done:
            assert (there, await fs.state(path)) == (True, "committed")
    later(fs)
    await look(fs, "adopt")
    await fs.drain()
    for path, data in FOREIGN.items():
        assert await fs.state(path) in ("committed", "incomplete")
        assert await fs.read(path) == data
    return 0


CASES = [
    Case("recording-removed", due, removed, has_ended, RULES),
    Case("recording-to-the-trash", due, removed, has_ended, RULES | MONTH),
    Case("to-the-trash", a_file, unlink, is_removed, MONTH),
    Case("from-the-trash", a_file_in_the_trash, restore, is_restored, MONTH),
    Case("adopted", foreign_files, adopt, are_adopted),
]


async def cut_and_look(place: Path, case: Case, step: int) -> bool:
    """One power cut before *step*; True when the procedure came to its end before it."""
    async with filesystem(place / "store", start=False, **case.settings) as fs:
        fs.faults.books_watched = True
        await fs.start()
        await case.prepare(fs)
        await fs.vfs.behind.durable()
        disk = Disk(fs.root, place / "disk")
        disk.attach(fs.faults)
        done = await fs.until_stopped(case.run, step)
        disk.detach(fs.faults)
        where = f"{case}: power cut before step {step} ({' '.join(fs.faults.trace[-8:])} | …)"
        await fs.crash()
        cut(disk, step)
        fs.boot = "after the power cut"
        try:
            await fs.reopen()
            await fs.drain()
            trash = await case.judge(fs, done)
            assert fs.parts.recovered.said == [], "a power cut is not taken for a catalogue of another time"
            await fs.assert_consistent(trash=trash, lost=len(os.listdir(fs.root / ".recfs/lost+found")))
        except BaseException as error:
            error.add_note(where)
            raise
        return done


@pytest.fixture(autouse=True)
def no_links_but_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The links by which the model keeps files alive are not there on a real disk, and nobody has to fear them."""
    seen = looks.seen
    monkeypatch.setattr(looks, "seen", lambda info: seen(info)._replace(links=1))


@pytest.mark.may_log("closed database|disk I/O error|Bad file descriptor|orphans: ")  # said by a task of the dead
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_power_cut_before_any_step_loses_nothing_that_was_kept(place: Path, case: Case) -> None:
    step, done = 0, False
    while not done:
        step += 1
        done = await cut_and_look(place / str(step), case, step)
    assert step > 4, "no step was stopped: nothing was tested"


# --- another catalogue takes the place of a store's own ------------------------------------------------------------


class Plain(Disk):
    """A disk on which no catalogue is open: its files are files like any others."""

    def _is_book(self, path: str) -> bool:
        return False


@pytest.mark.usefixtures("any_log")
@pytest.mark.slow
async def test_a_power_cut_while_a_backup_is_put_in_place_leaves_the_one_catalogue_or_the_other(place: Path) -> None:
    step, done = 0, False
    while not done:
        step += 1
        async with filesystem(place / str(step) / "store", start=False, **KEEPS) as fs:
            fs.checked_at_end = False
            await fs.start()
            await fs.write(FILE, DATA)
            await fs.write(KEPT, b"kept")
            made = await backed_up(fs)
            await fs.rename(KEPT, f"{REC}/renamed")
            await fs.write(f"{REC}/new", b"new")
            await fs.drain()
            before = await fs.tree()
            await fs.stop()
            backup = fs.root / ".recfs/backups" / made.header.name
            disk = Plain(fs.root, place / str(step) / "disk")
            fs.faults.observers.append(disk.watch)

            async def run(fs: Filesystem, backup: Path = backup) -> None:
                private = fs.root / ".recfs"
                shutil.copy(backup, private / restoring.NEXT)
                fd = os.open(private / restoring.NEXT, os.O_RDONLY)
                os.fsync(fd)
                os.close(fd)
                restoring.place(private, restoring.Restoration("the backup", f"{restoring.ASIDE}now"))

            with fs.faults.installed():
                done = await fs.until_stopped(run, step)
            disk.detach(fs.faults)
            cut(disk, step)
            fs.boot = "after the power cut"
            try:
                await fs.reopen()
                await fs.drain()
                assert await fs.tree() == before
                assert aside(fs) == []
                trash = len((await fs.answers()["trash_list"]({}))["entries"])
                await fs.assert_consistent(trash=trash)
            except BaseException as error:
                error.add_note(f"power cut before step {step}: {' '.join(fs.faults.trace[-8:])}")
                raise
    assert step > 5


@pytest.mark.usefixtures("any_log")
@pytest.mark.slow
async def test_a_power_cut_while_a_rebuilt_catalogue_takes_its_place(place: Path) -> None:
    real_finished = rebuilding.finished
    step, done = 0, False
    while not done:
        step += 1
        async with filesystem(place / str(step) / "store") as fs:
            fs.checked_at_end = False
            await populate(fs)
            before = await facts(fs)
            await fs.stop()
            disk: Plain | None = None

            def finished(path: Path, here: Path = place / str(step), fs: Filesystem = fs, step: int = step) -> Path:
                nonlocal disk
                disk = Plain(fs.root, here / "disk")
                fs.faults.observers.append(disk.watch)
                fs.faults.count, fs.faults.stop_before = 0, step
                return real_finished(path)

            done = True
            with fs.faults.installed(), mock.patch.object(rebuilding, "finished", finished):
                try:
                    await rebuild(fs)
                except Stopped:
                    done = False
            fs.faults.dead, fs.faults.stop_before = False, None
            assert disk is not None
            disk.detach(fs.faults)
            cut(disk, step)
            fs.boot = "after the power cut"
            try:
                await fs.reopen()
                assert await facts(fs) == before
                await fs.assert_consistent()
            except BaseException as error:
                error.add_note(f"power cut before step {step}: {' '.join(fs.faults.trace[-8:])}")
                raise
    assert step > 4
