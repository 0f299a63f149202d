"""Versions in the trash whose bytes only S3 has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.errors import NotSupported, Stale
from recfs.ports.object_errors import AccessRefused, ObjectArchived, ObjectStoreError, ServerFault

from .build import OPERATOR, REC, Filesystem, filesystem, pattern
from .far import ask, bucket, failing, tick, until
from .test_tier import evict, stored, tiered

HOUR = 3600.0
FILE, OTHER = f"{REC}/file", f"{REC}/other"
KEEPS: dict[str, Any] = {"trash": {"retention": HOUR}}
OLD, NEW = pattern(70_000), pattern(50_000, 1)


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One whose trash keeps everything for an hour, with a file that only S3 has."""
    made = tiered(nursery, place, **KEEPS)
    await made.start()
    await made.write(FILE, OLD)
    await made.drain()
    await evict(made)
    yield made
    await made.stop()


async def listed(fs: Filesystem) -> list[tuple[str, int, str | None]]:
    """What is in the trash: path, size, where the bytes are."""
    entries = (await ask(fs, "trash_list"))["entries"]
    return [(each["path"], each["size_bytes"], each["in"]) for each in entries if each["kind"] == "file"]


async def restored(fs: Filesystem, **params: Any) -> dict[str, str]:
    """Restore; what is left where it is, and why."""
    result = await ask(fs, "trash_restore", **({"path": FILE} | params))
    return {each["path"]: each["reason"] for each in result["kept"]}


async def rest(fs: Filesystem) -> None:
    """Let everything that waits for the retention be due, and done."""
    fs.clock.advance(HOUR + 1)
    fs.parts.work.upkeep.sweeper.sweep_trash()
    await fs.drain()


async def test_a_removed_file_comes_back_without_a_transfer(fs: Filesystem) -> None:
    before = await fs.node(FILE)
    was = before.mode, before.uid, before.gid, before.mtime_ns, before.sha256, before.md5, before.bytes
    await fs.unlink(FILE)
    await fs.drain()
    assert fs.account() == (0, 0)
    assert await listed(fs) == [(FILE, len(OLD), "s3")]
    bucket(fs).calls.clear()
    assert await restored(fs) == {}
    node = await fs.node(FILE)
    assert (node.mode, node.uid, node.gid, node.mtime_ns, node.sha256, node.md5, node.bytes) == was
    assert node.state is State.EVICTED
    await fs.drain()
    assert [name for name, _ in bucket(fs).calls if name != "head"] == []
    assert fs.account() == (len(OLD), 1)
    await rest(fs)
    assert stored(fs) == {FILE: OLD}
    assert await fs.read(FILE) == OLD
    await fs.drain()
    await fs.assert_consistent()


async def test_it_does_so_after_a_restart_and_under_another_name(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    await fs.drain()
    await fs.stop()
    await fs.reopen()
    (entry,) = [each for each in (await ask(fs, "trash_list"))["entries"] if each["kind"] == "file"]
    assert await restored(fs, ids=[entry["number"]], to=OTHER) == {}
    await fs.drain()
    assert stored(fs) == {OTHER: OLD}
    await rest(fs)
    assert stored(fs) == {OTHER: OLD}
    assert await fs.read(OTHER) == OLD


async def test_its_object_goes_when_its_time_is_over(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    await fs.drain()
    assert stored(fs) == {FILE: OLD}
    await rest(fs)
    assert (await listed(fs), stored(fs), fs.rows("select * from trash_entry")) == ([], {}, [])


async def test_its_object_goes_when_it_is_given_up(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    await fs.drain()
    assert (await ask(fs, "trash_purge", path=FILE))["files"] == 1
    await fs.drain()
    assert (await listed(fs), stored(fs)) == ([], {})


async def test_a_new_file_of_its_name_does_not_overwrite_it(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    await fs.write(FILE, NEW)
    await fs.drain()
    assert sorted(stored(fs).values()) == sorted([OLD, NEW])
    assert stored(fs)[FILE] == NEW
    assert await restored(fs) == {FILE: f"{FILE} exists by now; --force replaces it, --to PATH gives another name"}
    assert await restored(fs, to=OTHER) == {}
    await fs.drain()
    assert stored(fs) == {FILE: NEW, OTHER: OLD}
    await rest(fs)
    assert stored(fs) == {FILE: NEW, OTHER: OLD}
    assert await fs.read(OTHER) == OLD


async def test_overwritten_it_is_kept_as_well(fs: Filesystem) -> None:
    await fs.write(FILE, NEW)
    await fs.drain()
    assert await listed(fs) == [(FILE, len(OLD), "s3")]
    assert stored(fs)[FILE] == NEW
    assert await restored(fs, force=True) == {}
    await fs.drain()
    assert await fs.read(FILE) == OLD
    assert await listed(fs) == [(FILE, len(NEW), "trash")]
    await rest(fs)
    assert stored(fs) == {FILE: OLD}


async def test_overwritten_it_has_its_attributes_with_it(fs: Filesystem) -> None:
    await fs.xattrs.set((await fs.node(FILE)).ino, b"user.of", b"the first", OPERATOR)
    await fs.stop()
    await fs.reopen()  # they are not in memory when the file is emptied
    await fs.write(FILE, NEW)
    await fs.drain()
    (entry,) = [each for each in (await ask(fs, "trash_list"))["entries"] if each["kind"] == "file"]
    assert await restored(fs, ids=[entry["number"]], to=OTHER) == {}
    assert await fs.parts.tree.xattrs(await fs.node(OTHER)) == {b"user.of": b"the first"}


async def test_replaced_by_a_rename_it_is_kept_as_well(fs: Filesystem) -> None:
    await fs.write(OTHER, NEW)
    await fs.rename(OTHER, FILE)
    await fs.drain()
    assert await listed(fs) == [(FILE, len(OLD), "s3")]
    assert stored(fs)[FILE] == NEW
    assert await restored(fs, to=OTHER) == {}
    await fs.drain()
    assert stored(fs) == {FILE: NEW, OTHER: OLD}


async def test_several_versions_of_one_name(fs: Filesystem) -> None:
    versions = [OLD]
    for number in range(3):
        versions.append(pattern(1000, number))
        await fs.write(FILE, versions[-1])
        await fs.drain()
        await evict(fs)
    entries = (await ask(fs, "trash_list"))["entries"]
    assert [each["size_bytes"] for each in entries] == [len(OLD), 1000, 1000]
    for number, entry in enumerate(entries):
        assert await restored(fs, ids=[entry["number"]], to=f"{REC}/{number}") == {}
    await fs.drain()
    assert stored(fs) == {FILE: versions[3]} | {f"{REC}/{number}": versions[number] for number in range(3)}
    await rest(fs)
    for number in range(3):
        assert await fs.read(f"{REC}/{number}") == versions[number]


async def test_a_number_that_is_given_out_again_overwrites_nothing(fs: Filesystem) -> None:
    """As after a restore of an older catalogue."""
    await fs.unlink(FILE)
    await fs.write(FILE, NEW)
    await fs.drain()
    (aside,) = [key for key in stored(fs) if key != FILE]
    (entry,) = fs.rows("select gid from trash_entry")
    index = fs.tier.trashed.index
    index.drop(entry)
    fs.clock.advance(5)
    await evict(fs)
    fs.parts.tree._next_gid = entry
    await fs.unlink(FILE)
    await fs.write(FILE, b"third")
    await fs.drain()
    assert fs.rows("select gid from trash_entry") == [entry]
    assert stored(fs)[aside] == OLD
    assert sorted(map(len, stored(fs).values())) == sorted([len(OLD), len(NEW), 5])


async def test_another_files_object_moves_to_its_key(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    await fs.write(OTHER, NEW)
    await fs.drain()
    await evict(fs, OTHER)
    await fs.rename(OTHER, FILE)
    await fs.drain()
    assert stored(fs)[FILE] == NEW
    assert await restored(fs, to=OTHER) == {}
    assert await fs.read(OTHER) == OLD
    assert await fs.read(FILE) == NEW


@pytest.mark.parametrize("what", ["deleted", "replaced"])
async def test_what_is_gone_from_s3_is_said_so(fs: Filesystem, what: str) -> None:
    await fs.unlink(FILE)
    await fs.drain()
    if what == "deleted":
        bucket(fs).delete([FILE])
    else:
        bucket(fs).tamper(FILE, b"something else")
    reasons = await restored(fs)
    assert list(reasons) == [FILE]
    assert "its object" in reasons[FILE]
    assert await listed(fs) == []
    assert not await fs.exists(FILE)


async def test_while_s3_does_not_answer_it_stays_in_the_trash(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    await fs.drain()
    bucket(fs).fail("head", ServerFault("not now"), times=1)
    assert await restored(fs) == {FILE: "not now"}
    assert await listed(fs) == [(FILE, len(OLD), "s3")]
    assert await restored(fs) == {}
    assert await fs.read(FILE) == OLD


@pytest.mark.expect_log("upload of .*: not now")
async def test_nothing_is_put_over_it_while_it_cannot_be_copied(fs: Filesystem, nursery: trio.Nursery) -> None:
    await fs.unlink(FILE)
    bucket(fs).fail("copy", ServerFault("not now"), times=100)
    await fs.write(FILE, NEW)
    await failing(fs)
    assert stored(fs) == {FILE: OLD}
    bucket(fs).heal()
    nursery.start_soon(tick, fs, 100.0)
    await fs.drain()
    assert stored(fs)[FILE] == NEW
    assert await restored(fs, to=OTHER) == {}
    assert await fs.read(OTHER) == OLD


@pytest.mark.expect_log("is not kept any longer")
async def test_what_cannot_be_copied_at_all_does_not_stop_an_upload_for_ever(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    bucket(fs).fail("copy", ObjectArchived("in Glacier"), times=1)
    await fs.write(FILE, NEW)
    await fs.drain()
    assert (stored(fs), await listed(fs)) == ({FILE: NEW}, [])


@pytest.mark.parametrize("error", [AccessRefused("no"), ServerFault("not now")], ids=["answered", "unanswered"])
async def test_tries_that_fail_leave_no_work_behind(fs: Filesystem, error: ObjectStoreError) -> None:
    asides = "select count(*) from journal where kind = 'delete' and key like '.recfs/trash/%'"
    await fs.unlink(FILE)
    bucket(fs).fail("copy", error, times=3)
    for _ in range(3):
        with pytest.raises(type(error)):
            await fs.tier.trashed.make_way(FILE)
        await fs.parts.behind.flush()
        assert fs.rows(asides) == [error.unanswered]  # what may have got there all the same is to go
    await fs.write(FILE, NEW)
    await fs.drain()
    assert fs.rows(asides) == [1]
    assert await restored(fs, to=OTHER) == {}
    await fs.drain()
    assert stored(fs) == {FILE: NEW, OTHER: OLD}
    assert fs.rows(asides) == [error.unanswered]  # it is looked for a while whether something comes late


async def test_restored_while_somebody_still_reads_the_removed_file(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place, cache={"fetch_whole_below": 0}, **KEEPS)
    await fs.start()
    await fs.write(FILE, OLD)
    await fs.drain()
    await evict(fs)
    number = await fs.open(FILE)
    await fs.unlink(FILE)
    assert await restored(fs) == {}
    assert await fs.read_handle(number) == OLD
    await fs.close(number)
    await fs.drain()
    fs.clock.advance(2 * HOUR)
    await fs.drain()
    assert stored(fs) == {FILE: OLD}
    assert await fs.read(FILE) == OLD
    await fs.stop()


async def test_it_cannot_come_back_while_its_deletion_is_under_way(fs: Filesystem) -> None:
    await fs.unlink(FILE)
    await fs.drain()
    entered, go_on = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def hold(operation: str, _key: str | None) -> None:
        if operation == "delete":
            token.run_sync_soon(entered.set)
            trio.from_thread.run(go_on.wait, trio_token=token)

    bucket(fs).before = hold
    tier = fs.tier
    fs.clock.advance(HOUR + 1)  # its time is over, and no sweep has looked at it yet
    tier.journal.wake.set()
    await entered.wait()
    assert await restored(fs) == {FILE: "its object is just being deleted"}
    assert not await fs.exists(FILE)
    go_on.set()
    await until(lambda: not tier.journal.running)
    assert stored(fs) == {}
    with pytest.raises(Stale):
        await fs.parts.work.upkeep.trash.restore((await ask(fs, "trash_list"))["entries"][0]["number"])


async def test_what_is_purged_leaves_the_bucket_at_once_and_nothing_of_another_version(fs: Filesystem) -> None:
    """Its bytes lie in the trash, and its object waits for the retention as well."""
    await fs.read(FILE)
    await fs.drain()
    await fs.unlink(FILE)
    await fs.write(OTHER, NEW)
    await fs.drain()
    await evict(fs, OTHER)
    await fs.unlink(OTHER)
    await fs.drain()
    assert await listed(fs) == [(FILE, len(OLD), "trash"), (OTHER, len(NEW), "s3")]
    assert stored(fs) == {FILE: OLD, OTHER: NEW}
    assert (await ask(fs, "trash_purge", path=FILE))["files"] == 1
    await fs.drain()
    await until(lambda: FILE not in stored(fs))
    assert await listed(fs) == [(OTHER, len(NEW), "s3")]
    await fs.write(OTHER, OLD)  # one in the trash alone, and one whose key somebody has by now
    await fs.drain()
    await fs.unlink(OTHER)
    await fs.write(OTHER, OLD)
    await fs.drain()
    for number in [each["number"] for each in (await ask(fs, "trash_list"))["entries"] if each["in"] == "trash"]:
        await ask(fs, "trash_purge", ids=[number])
    await fs.drain()
    assert stored(fs)[OTHER] == OLD
    assert await restored(fs, path=OTHER, to=FILE) == {}
    assert await fs.read(FILE) == NEW
    assert await fs.read(OTHER) == OLD


async def test_without_s3_in_the_configuration(fs: Filesystem, nursery: trio.Nursery) -> None:
    await fs.unlink(FILE)
    await fs.drain()
    await fs.stop()
    async with filesystem(fs.root, **KEEPS) as alone:
        assert await listed(alone) == [(FILE, len(OLD), "s3")]
        with pytest.raises(NotSupported):
            await alone.parts.work.upkeep.trash.restore((await ask(alone, "trash_list"))["entries"][0]["number"])
        assert (await ask(alone, "trash_purge", all=True))["kept_files"] == 1
        alone.clock.advance(2 * HOUR)
        alone.parts.work.upkeep.sweeper.sweep_trash()
        assert await listed(alone) == [(FILE, len(OLD), "s3")]  # nobody could remove its object
    await fs.start()
    assert await restored(fs) == {}
    assert await fs.read(FILE) == OLD


@pytest.mark.slow
@pytest.mark.parametrize("way", ["restored", "replaced"])
@pytest.mark.may_log("closed database")
async def test_a_death_before_any_step_loses_nothing(nursery: trio.Nursery, place: Path, way: str) -> None:
    step, done = 0, False
    while not done:
        step += 2
        fs = tiered(nursery, place / str(step), **KEEPS)
        await fs.start()
        await fs.write(FILE, OLD)
        await fs.drain()
        await evict(fs)
        await fs.unlink(FILE)
        await fs.drain()
        done = await fs.until_stopped(_restore if way == "restored" else _replace, step)
        await fs.crash()
        await fs.start_and_die(1 + step * 5 % 13)
        await fs.reopen()
        await fs.drain()
        if way == "restored":
            if not await fs.exists(FILE):
                assert await restored(fs) == {}, step
            assert await fs.read(FILE) == OLD, step
        else:
            assert await restored(fs, to=OTHER) == {}, step
            assert await fs.read(OTHER) == OLD, step
            if await fs.exists(FILE) and await fs.read(FILE):
                assert await fs.read(FILE) == NEW, step
        await rest(fs)
        assert sorted(stored(fs)) == sorted(path for path, data in (await fs.tree(REC)).items() if data), step
        await fs.stop()
    assert step > 5


async def _restore(fs: Filesystem) -> None:
    await ask(fs, "trash_restore", path=FILE)
    await fs.drain()


async def _replace(fs: Filesystem) -> None:
    await fs.write(FILE, NEW)
    await fs.drain()
