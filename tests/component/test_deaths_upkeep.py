"""Work on a whole store, stopped before each of its steps: the next start, and another run, come to the defined end.

A step is a system call that changes the store, a transaction, or a request that changes the bucket. The process dies
before the n-th of them, and once more while it starts; then the work is done again, to its end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from recfs.config import Config
from recfs.core.model import State
from recfs.core.upkeep.backups import BUCKET_FOLDER
from recfs.ports.objects import ObjectMeta
from recfs.rescue.backups import Backups

from .build import REC, Filesystem, pattern
from .far import ask, bucket
from .sweeping import swept
from .test_archiving import AUDIO, CLASS, VIDEO, classes
from .test_archiving import RULES as ARCHIVES
from .test_backups import make
from .test_leftovers import copied, later, look
from .test_leftovers import emptied as queue_emptied
from .test_recordings import DAY, OTHER, RULES, sweep
from .test_recordings_end import ALL, due_in_s3
from .test_tier import FILE, S3, evict, stored, tiered

if TYPE_CHECKING:
    import trio

Procedure = Callable[[Filesystem], Awaitable[None]]
DATA = pattern(70_000)
ADOPTED = "users/9/recordings/1/deep/ours"
YOUNG = f"{REC}/young"
LOCAL_RULE = {"pattern": "users/*/recordings/**", "to": "local"}


@dataclass(frozen=True)
class Case:
    """Work that a death may interrupt, what it starts from, and what there is after another run."""

    name: str
    prepare: Procedure
    run: Procedure
    """It is what a second run does, too."""
    judge: Procedure
    meanwhile: Procedure | None = None
    """What has to hold right after the start that follows the death."""
    settings: dict[str, Any] = field(default_factory=dict)
    fewest: int = 3
    """It has more steps than that, or it is not what was meant."""

    def __str__(self) -> str:
        return self.name


async def emptied(fs: Filesystem) -> None:
    """Nothing is to be done in S3 any more, also of what a start only suspects."""
    fs.clock.advance(2 * 3600)
    fs.tier.journal.wake.set()
    await queue_emptied(fs)


# --- orphans -------------------------------------------------------------------------------------------------------


async def an_object_of_nobody(fs: Filesystem) -> None:
    await fs.write(FILE, DATA)
    await fs.drain()
    copied(fs, FILE, ADOPTED)
    later(fs)


async def adopt(fs: Filesystem) -> None:
    await swept(fs, "orphans-adopt")
    await fs.drain()


async def is_adopted(fs: Filesystem) -> None:
    assert (await fs.node(ADOPTED)).state is State.EVICTED
    assert await fs.read(ADOPTED) == DATA
    assert stored(fs) == {FILE: DATA, ADOPTED: DATA}
    assert fs.account("9") == (len(DATA), 1)
    assert (await look(fs))["found"] == []


async def delete(fs: Filesystem) -> None:
    await swept(fs, "orphans-delete")
    await fs.drain()
    await emptied(fs)


async def is_deleted(fs: Filesystem) -> None:
    assert stored(fs) == {FILE: DATA}
    assert not await fs.exists(ADOPTED)
    assert (await look(fs))["found"] == []


async def the_file_is_right(fs: Filesystem) -> None:
    assert await fs.read(FILE) == DATA
    assert stored(fs)[FILE] == DATA


# --- unfinished uploads --------------------------------------------------------------------------------------------


async def uploads_of_nobody(fs: Filesystem) -> None:
    await fs.write(FILE, DATA)
    await fs.drain()
    for name in "abc":
        bucket(fs).start_multipart(f"{REC}/{name}", ObjectMeta())
    fs.clock.advance(8 * DAY)
    begun = {each.key: each.initiated_ns for each in bucket(fs).list_multiparts()}
    fs.clock.advance(-((fs.clock.now_ns() - begun[f"{REC}/a"]) / 1e9 - 7.5 * DAY))
    fake = bucket(fs)
    now = fake._now
    fake._now = lambda: fs.clock.now_ns() - round(3600e9)  # type: ignore[method-assign]
    bucket(fs).start_multipart(YOUNG, ObjectMeta())
    fake._now = now  # type: ignore[method-assign]


async def abort(fs: Filesystem) -> None:
    await swept(fs, "multiparts")


async def old_ones_are_gone(fs: Filesystem) -> None:
    assert [each.key for each in bucket(fs).list_multiparts()] == [YOUNG]
    await the_file_is_right(fs)


# --- where files belong --------------------------------------------------------------------------------------------


async def belong_home(fs: Filesystem) -> None:
    """Files in S3, one of them there alone, that a new rule wants here."""
    await fs.write(FILE, DATA)
    await fs.write(YOUNG, b"young")
    await fs.drain()
    await evict(fs, FILE)
    await fs.drain()
    await fs.stop()
    fs.config = Config.model_validate({"root": fs.root, "min_free": 0} | S3 | {"route": [LOCAL_RULE]})
    await fs.reopen()


async def tier(fs: Filesystem) -> None:
    await swept(fs, "tier")
    await fs.drain()


async def are_home(fs: Filesystem) -> None:
    for path, data in ((FILE, DATA), (YOUNG, b"young")):
        assert await fs.state(path) == "committed"
        assert await fs.read(path) == data
    await emptied(fs)
    assert stored(fs) == {}


async def can_be_read(fs: Filesystem) -> None:
    assert (await fs.read(FILE), await fs.read(YOUNG)) == (DATA, b"young")


async def come_of_age(fs: Filesystem) -> None:
    for path in (VIDEO, AUDIO):
        await fs.write(path, pattern(9000))
    await fs.drain()
    await evict(fs, AUDIO)
    fs.clock.advance(31 * DAY)


async def archive(fs: Filesystem) -> None:
    await swept(fs, "archive")
    await fs.drain()


async def are_archived(fs: Filesystem) -> None:
    await emptied(fs)
    assert classes(fs) == {VIDEO: CLASS, AUDIO: CLASS}
    for path in (VIDEO, AUDIO):
        info = bucket(fs).head(path)
        assert info is not None
        assert info.storage_class == CLASS
        assert await fs.read(path) == pattern(9000)
    assert sorted(stored(fs)) == sorted((VIDEO, AUDIO))


async def recordings_can_be_read(fs: Filesystem) -> None:
    for path in (VIDEO, AUDIO):
        assert await fs.read(path) == pattern(9000)


# --- what is removed -----------------------------------------------------------------------------------------------


async def in_the_trash(fs: Filesystem) -> None:
    """A file that lay in S3 alone."""
    await fs.write(FILE, DATA)
    await fs.write(YOUNG, b"young")
    await fs.drain()
    await evict(fs, FILE)
    await fs.unlink(FILE)
    await fs.drain()


async def restore(fs: Filesystem) -> None:
    if not await fs.exists(FILE):
        await ask(fs, "trash_restore", path=FILE)
    await fs.drain()


async def is_restored(fs: Filesystem) -> None:
    assert await fs.read(FILE) == DATA
    fs.clock.advance(2 * DAY)
    fs.parts.work.upkeep.sweeper.sweep_trash()
    await fs.drain()
    await emptied(fs)
    assert stored(fs) == {FILE: DATA, YOUNG: b"young"}
    assert (await ask(fs, "trash_list"))["entries"] == []


async def is_in_one_place(fs: Filesystem) -> None:
    """In the mount or in the trash."""
    kept = [each["path"] for each in (await ask(fs, "trash_list"))["entries"] if each["kind"] == "file"]
    assert await fs.exists(FILE) or FILE in kept


async def remove(fs: Filesystem) -> None:
    await sweep(fs)
    await fs.drain()


async def is_removed(fs: Filesystem) -> None:
    assert not await fs.exists(REC)
    await emptied(fs)
    assert set(stored(fs)) == {f"{OTHER}/file"}
    assert fs.account() == (5, 1)
    assert fs.rows("select keep from recording") == [1]


async def is_whole_or_being_removed(fs: Filesystem) -> None:
    if await fs.exists(REC):
        status = (await fs.node(REC)).life.status
        assert str(status) in ("expired", "removing")
        if str(status) == "expired":
            for path, data in ALL.items():
                assert await fs.read(path) == data


# --- backups -------------------------------------------------------------------------------------------------------


async def backed_up(fs: Filesystem) -> None:
    await fs.write(FILE, DATA)
    await fs.drain()
    await back_up(fs)
    bucket(fs).hold_parts_to_minimum = False
    bucket(fs)._smallest_part = 64 << 10  # so that it goes in parts


async def back_up(fs: Filesystem) -> None:
    await fs.parts.work.upkeep.backups.send(await make(fs))


def backups(fs: Filesystem) -> Backups:
    return Backups(fs.config, fs.objects)


async def one_is_whole(fs: Filesystem) -> None:
    assert [each for each in backups(fs).kept() if each.in_bucket and each.damage is None]
    whole = [each for each in backups(fs).verify([], None) if each["damage"] is None]
    assert whole


async def all_are_whole(fs: Filesystem) -> None:
    assert all(each["damage"] is None for each in backups(fs).verify([], None))
    there = [each.header.name for each in backups(fs).kept() if each.in_bucket]
    assert len(there) == 1
    keys = [key.removeprefix(BUCKET_FOLDER) for key in stored(fs) if key.startswith(BUCKET_FOLDER)]
    assert keys == there
    assert list(bucket(fs).list_multiparts()) == []


TRASH: dict[str, Any] = {"trash": {"retention": DAY}}
CASES = [
    Case("object-adopted", an_object_of_nobody, adopt, is_adopted, the_file_is_right),
    Case("object-deleted", an_object_of_nobody, delete, is_deleted, the_file_is_right),
    Case("uploads-aborted", uploads_of_nobody, abort, old_ones_are_gone, the_file_is_right),
    Case("brought-home", belong_home, tier, are_home, can_be_read),
    Case("archived", come_of_age, archive, are_archived, recordings_can_be_read, ARCHIVES),
    Case("restored-in-S3", in_the_trash, restore, is_restored, is_in_one_place, TRASH),
    Case("recording-removed", due_in_s3, remove, is_removed, is_whole_or_being_removed, RULES),
    Case("backed-up", backed_up, back_up, all_are_whole, one_is_whole, {"backup": {"to_bucket": True, "keep": 1}}),
]


async def die_and_go_on(nursery: trio.Nursery, place: Path, case: Case, step: int) -> bool:
    """One death before *step*; True when the work came to its end before it."""
    fs = tiered(nursery, place, **case.settings)
    await fs.start()
    await case.prepare(fs)
    await fs.vfs.behind.durable()
    bucket(fs).before = fs.faults.of_s3
    done = await fs.until_stopped(case.run, step)
    where = f"{case}: death before step {step} ({' '.join(fs.faults.trace[-8:])} | …)"
    try:
        await fs.crash()
        await fs.start_and_die(1 + step * 5 % 13)
        await fs.reopen()
        await fs.drain()
        if case.meanwhile is not None:
            await case.meanwhile(fs)
        await case.run(fs)
        await case.judge(fs)
        await fs.assert_consistent()
    except BaseException as error:
        error.add_note(where)
        raise
    await fs.stop()
    return done


@pytest.mark.slow
@pytest.mark.may_log("closed database|orphans: |unfinished uploads: |tier run: |archive: |backup")  # the dead said it
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_death_before_any_step_is_made_up_for_by_another_run(
    nursery: trio.Nursery, place: Path, case: Case
) -> None:
    step, done = 0, False
    while not done:
        step += 1
        done = await die_and_go_on(nursery, place / str(step), case, step)
    assert step > case.fewest, "no step was stopped: nothing was tested"
