"""Orphans: bytes without a row and rows without bytes, what is said of them, and what may be done about them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.disk.staging import FETCH_LABEL
from recfs.errors import IoFailure, NotFound
from recfs.fs.attributes import Changes
from recfs.fs.leftovers import local
from recfs.ports.object_errors import ServerFault
from recfs.ports.objects import ObjectInfo, ObjectMeta
from recfs.ports.sweep import Progress
from recfs.stores.beneath import Beneath
from recfs.stores.local import LABEL_XATTR
from recfs.tier.trashed import TRASH
from tests.fake_object_store import FakeObjectStore

from .build import OPERATOR, REC, Filesystem, filesystem, pattern
from .sweeping import running, swept
from .test_tier import evict, tiered

DAY_S = 86_400.0
FILE = f"{REC}/file"


@pytest.fixture
async def fs(place: Path) -> AsyncIterator[Filesystem]:
    """One without S3."""
    async with filesystem(place / "root") as made:
        yield made


@pytest.fixture
async def far(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One with S3."""
    made = tiered(nursery, place)
    await made.start()
    await made.mkdirs(REC)
    yield made
    await made.stop()


def later(fs: Filesystem, days: float = 2.0) -> None:
    """So much later than what the disk dates now."""
    fs.clock.advance((time.time_ns() - fs.clock.now_ns()) / 1e9 + days * DAY_S)


def put(fs: Filesystem, path: str, data: bytes = b"foreign") -> Path:
    """Bytes that come past recfs."""
    local = fs.root / path
    local.parent.mkdir(parents=True, exist_ok=True)
    local.write_bytes(data)
    return local


def bucket(fs: Filesystem) -> FakeObjectStore:
    assert fs.objects is not None
    return fs.objects


async def look(fs: Filesystem, mode: str = "report") -> dict[str, Any]:
    """A run in that mode, and what it found."""
    ended = await swept(fs, "orphans" if mode == "report" else f"orphans-{mode}")
    assert ended["outcome"] == "done", ended
    found: dict[str, Any] = await fs.answers()["sweep_orphans"]({"mode": mode})
    return found


def gist(found: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    keys = ("where", "what", "name", "adopt", "delete")
    return [tuple(each[key] for key in keys) for each in found["found"]]  # type: ignore[misc]


def lost(fs: Filesystem) -> list[bytes]:
    return [each.read_bytes() for each in sorted((fs.root / ".recfs/lost+found").iterdir())]


async def told(fs: Filesystem) -> list[Any]:
    """What a look at the disk tells of."""
    found: list[Any] = []

    async def tell(orphan: object) -> None:
        found.append(orphan)

    await fs.parts.upkeep.work.orphans._local.look(Progress(), tell)
    return found


async def settled(fs: Filesystem) -> None:
    await fs.drain()
    await fs.assert_consistent()


# --- the disk ------------------------------------------------------------------------------------------------------


async def test_a_store_that_is_in_order_has_none(fs: Filesystem) -> None:
    for number in range(5):
        await fs.write(f"{REC}/{number}/file", b"data")
    await fs.drain()
    handle = await fs.open(f"{REC}/open", os.O_WRONLY | os.O_CREAT)
    await fs.rename(f"{REC}/1", f"{REC}/one")
    await fs.write(f"{REC}/2/file", b"other")
    later(fs)
    found = await look(fs)
    assert (found["found"], found["files"]) == ([], 6)
    assert "none among 6 files" in (await swept(fs, "orphans"))["result"]
    await fs.close(handle)


async def test_bytes_in_the_home_tree_are_told_and_nothing_is_done(fs: Filesystem) -> None:
    await fs.write(FILE, b"data")
    await fs.drain()
    put(fs, f"{REC}/foreign", b"four")
    put(fs, f"{REC}/sub/deep/more", b"seven!!")
    put(fs, "users/not an id/file")
    os.mkfifo(fs.root / f"{REC}/fifo")
    later(fs, 0.5)
    found = await look(fs)
    assert sorted(gist(found)) == [
        ("home", "bytes", f"{REC}/fifo", "-", "-"),
        ("home", "bytes", f"{REC}/foreign", "adopt", "-"),
        ("home", "bytes", f"{REC}/sub", "adopt", "-"),
        ("home", "bytes", "users/not an id", "-", "-"),
    ]
    assert all("stays for 1d" in each["why"] for each in found["found"])
    later(fs)
    found = await look(fs)
    assert {each["delete"] for each in found["found"]} == {"lost+found"}
    sizes = {each["name"]: each["size_bytes"] for each in found["found"]}
    assert (sizes[f"{REC}/foreign"], sizes[f"{REC}/sub"]) == (4, 7)
    assert (fs.root / f"{REC}/foreign").read_bytes() == b"four"
    assert not await fs.exists(f"{REC}/foreign")
    for name in ("fifo", "foreign"):
        (fs.root / REC / name).unlink()


@pytest.mark.expect_log("orphans: the disk: 1 directory could not be read|1 files have lost their bytes")
@pytest.mark.parametrize("part", ["home", "lost"])
async def test_a_directory_that_cannot_be_read_is_named_and_the_others_are_looked_at(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    sick = f"{REC}/sick".encode() if part == "home" else b".recfs/limbo"
    await fs.write(f"{REC}/sick/file", b"data")
    await fs.write(f"{REC}/sick/below/file", b"data")
    await fs.write(f"{REC}/well/file", b"data")
    await fs.drain()
    for each in ("sick/unseen", "sick/below/seen", "well/seen"):
        put(fs, f"{REC}/{each}")
    (fs.root / f"{REC}/sick/file").unlink()
    later(fs)
    listed = local._listed

    def failing(beneath: Beneath, path: bytes) -> set[bytes]:
        if path.endswith(sick):
            raise IoFailure(f"{os.fsdecode(path)}: Input/output error")
        return listed(beneath, path)

    monkeypatch.setattr(local, "_listed", failing)
    found = await look(fs)
    names = [each["name"] for each in found["found"]]
    seen = [f"{REC}/sick/below/seen", f"{REC}/well/seen"]
    others = [f"{REC}/sick/file", f"{REC}/sick/unseen"]
    assert sorted(names) == sorted(seen if part == "home" else seen + others)
    assert found["unread"] == [f"{fs.root / os.fsdecode(sick)}: Input/output error"]
    assert "1 directory could not be read" in (await swept(fs, "orphans"))["result"]
    assert any("could not be read" in str(each) for each in fs.parts.tree.behind.problems.as_json())
    monkeypatch.undo()
    found = await look(fs)
    assert (found["unread"], len(found["found"])) == ([], 4)
    assert not any("could not be read" in str(each) for each in fs.parts.tree.behind.problems.as_json())
    for each in ("sick/unseen", "sick/below/seen", "well/seen"):
        (fs.root / REC / each).unlink()
    (fs.root / f"{REC}/sick/file").write_bytes(b"data")


async def test_what_has_just_come_is_left_alone(fs: Filesystem) -> None:
    await fs.mkdirs(REC)
    await fs.drain()
    put(fs, f"{REC}/foreign")
    later(fs, 30 / DAY_S)
    for mode in ("report", "adopt", "delete"):
        assert (await look(fs, mode))["found"] == []
    fs.clock.put(-400 * DAY_S)  # a clock that was put back makes nothing older
    assert (await look(fs, "delete"))["found"] == []
    later(fs)
    calendar = fs.clock.calendar_ns() - round(10 * DAY_S * 1e9)
    fs.clock.calendar_ns = lambda: calendar  # type: ignore[method-assign]  # … nor one that was just put ahead
    assert (await look(fs, "delete"))["found"] == []
    assert (fs.root / f"{REC}/foreign").exists()
    (fs.root / f"{REC}/foreign").unlink()


@pytest.mark.expect_log("orphans: users/8/stray: left alone: ")
async def test_adopted_they_are_files_like_any_others(fs: Filesystem) -> None:
    await fs.write(FILE, b"data")
    await fs.drain()
    put(fs, f"{REC}/foreign", pattern(70_000))
    put(fs, f"{REC}/sub/deep/more", b"more")
    (fs.root / f"{REC}/sub/link").symlink_to("deep/more")
    put(fs, "users/8/stray", b"not allowed there")
    later(fs, 0.5)
    found = await look(fs, "adopt")
    assert found["done"] == {"adopt": 6}
    await fs.drain()
    assert await fs.read(f"{REC}/foreign") == pattern(70_000)
    assert await fs.read(f"{REC}/sub/deep/more") == b"more"
    assert (await fs.node(f"{REC}/foreign")).state is State.COMMITTED
    assert fs.account() == (4 + 70_000 + 4, 4)
    (fs.root / "users/8/stray").unlink()
    await settled(fs)
    assert (await look(fs, "adopt"))["found"] == []


async def test_deleted_they_are_in_lost_and_found(fs: Filesystem) -> None:
    await fs.write(FILE, b"data")
    await fs.drain()
    put(fs, f"{REC}/foreign", b"four")
    put(fs, f"{REC}/sub/deep/more")
    later(fs)
    ended = await swept(fs, "orphans-delete")
    assert ended["result"].endswith("; 2 moved to lost+found")
    assert [each.name.startswith("home-") for each in (fs.root / ".recfs/lost+found").iterdir()] == [True, True]
    await fs.drain()
    assert not (fs.root / f"{REC}/foreign").exists()
    assert await fs.read(FILE) == b"data"


async def test_what_lies_in_staging_and_trash(fs: Filesystem) -> None:
    await fs.write(FILE, b"data")
    half, whole, empty, number = (
        put(fs, f".recfs/{path}") for path in ("staging/old-half", "staging/old-whole", "staging/empty", "trash/7000")
    )
    os.setxattr(half, LABEL_XATTR, FETCH_LABEL + b"1")
    empty.write_bytes(b"")
    later(fs)
    assert sorted(gist(await look(fs))) == [
        ("cache", "bytes", ".recfs/staging/old-half", "-", "delete"),
        ("staging", "bytes", ".recfs/staging/empty", "-", "delete"),
        ("staging", "bytes", ".recfs/staging/old-whole", "-", "lost+found"),
        ("trash", "bytes", ".recfs/trash/7000", "-", "delete"),
    ]
    found = await look(fs, "delete")
    assert found["done"] == {"delete": 3, "lost+found": 1}
    assert not any(each.exists() for each in (half, whole, empty, number))
    assert lost(fs) == [b"foreign"]


async def test_what_is_in_the_trash_by_rights_stays_and_what_is_missing_there_is_told(place: Path) -> None:
    async with filesystem(place / "root", trash={"retention": 30 * DAY_S}) as fs:
        await fs.write(FILE, b"data")
        await fs.write(f"{REC}/other", b"data")
        await fs.drain()
        await fs.unlink(FILE)
        await fs.unlink(f"{REC}/other")
        await fs.drain()
        first, second = sorted((fs.root / ".recfs/trash").iterdir())
        later(fs)
        assert (await look(fs, "delete"))["found"] == []
        second.unlink()
        assert [each[:2] for each in gist(await look(fs, "delete"))] == [("trash", "row")]
        assert first.exists()
        assert len(fs.parts.tree.garbage) == 2


@pytest.mark.expect_log("orphans: the disk: 1 files have lost their bytes")
async def test_a_row_without_bytes_keeps_its_name_and_is_a_problem_until_they_are_back(fs: Filesystem) -> None:
    await fs.write(FILE, b"data")
    await fs.write(f"{REC}/other", b"data")
    await fs.drain()
    away = (fs.root / FILE).rename(fs.root / ".recfs/away")
    later(fs)
    for mode in ("report", "adopt", "delete"):
        assert gist(await look(fs, mode)) == [("home", "row", FILE, "-", "-")]
        assert [each["path"] for each in fs.parts.problems.as_json()] == ["the disk"]
    assert (await fs.node(FILE)).state is State.COMMITTED
    away.rename(fs.root / FILE)
    assert (await look(fs))["found"] == []
    assert fs.parts.problems.as_json() == []
    assert await fs.read(FILE) == b"data"


@pytest.mark.expect_log("30 of 30 files are not where they should be on the disk: is all of it there?")
async def test_much_at_once_is_a_disk_that_is_not_there_and_nothing_is_done(fs: Filesystem) -> None:
    for number in range(30):
        await fs.write(f"{REC}/{number}", b"data")
    await fs.drain()
    (fs.root / REC).rename(fs.root / ".recfs/away")
    (fs.root / REC).mkdir()
    put(fs, f"{REC}/foreign")
    later(fs)
    ended = await swept(fs, "orphans-delete")
    assert ended["outcome"] == "failed"
    assert (fs.root / f"{REC}/foreign").exists()
    assert lost(fs) == []
    (fs.root / f"{REC}/foreign").unlink()
    (fs.root / REC).rmdir()
    (fs.root / ".recfs/away").rename(fs.root / REC)


@pytest.mark.expect_log("the catalogue is older|were not in the catalogue|differ from what the catalogue says")
async def test_after_a_catalogue_was_restored_nothing_from_before_is_removed(
    nursery: trio.Nursery, place: Path
) -> None:
    fs = Filesystem(nursery, place / "root")
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.drain()
    await fs.stop()
    before = fs.parts.store.catalogue_path.read_bytes()
    await fs.reopen()
    await fs.write(f"{REC}/later", b"data")
    await fs.drain()
    await fs.stop()
    fs.parts.store.catalogue_path.write_bytes(before)
    put(fs, ".recfs/trash/7000")
    later(fs, 0.0)
    await fs.reopen()
    put(fs, ".recfs/trash/7001")
    await fs.reopen()  # it is known over restarts
    later(fs)
    found = {each["name"]: each for each in (await look(fs, "delete"))["found"]}
    assert [found[f".recfs/trash/{each}"]["delete"] for each in (7000, 7001)] == ["-", "delete"]
    assert "older than a catalogue that was restored" in found[".recfs/trash/7000"]["why"]
    assert [each.name for each in (fs.root / ".recfs/trash").iterdir()] == ["7000"]
    await fs.stop()


@pytest.mark.expect_log("somebody's file stood here")
async def test_what_becomes_somebodys_between_the_looks_is_left(fs: Filesystem) -> None:
    await fs.write(FILE, b"data")
    await fs.drain()
    put(fs, f"{REC}/foreign", b"four")
    later(fs)
    local = fs.parts.upkeep.work.orphans._local
    (lying,) = await told(fs)
    (fs.root / f"{REC}/foreign").write_bytes(b"changed meanwhile")
    assert not await local.remove(lying)
    (lying,) = await told(fs)
    await fs.write(f"{REC}/foreign", b"mine")  # what lies there makes room
    await fs.drain()
    assert not await local.remove(lying)
    assert await fs.read(f"{REC}/foreign") == b"mine"
    assert lost(fs) == [b"changed meanwhile"]
    await fs.assert_consistent(lost=1)


async def test_beside_writers_nothing_of_theirs_is_ever_taken_for_an_orphan(fs: Filesystem) -> None:
    later(fs, 400.0)  # all of it would be old enough
    stop = False

    await fs.mkdirs(REC)

    async def work(seed: int) -> None:
        number = 0
        while not stop:
            number += 1
            path = f"{REC}/{seed}/{number % 7}"
            await fs.write(path, pattern(100, number))
            if number % 3 == 0:
                await fs.rename(path, f"{REC}/{seed}/{number % 5}-renamed")
            if number % 4 == 0:
                with contextlib.suppress(NotFound):
                    await fs.unlink(f"{REC}/{seed}/{(number - 1) % 7}")
            if number % 5 == 0:
                await fs.rename(f"{REC}/{seed}", f"{REC}/moved{seed}")
                await fs.rename(f"{REC}/moved{seed}", f"{REC}/{seed}")
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        for seed in range(3):
            nursery.start_soon(work, seed)
        for _ in range(10):
            found = await look(fs, "delete")
            assert (found["found"], lost(fs)) == ([], [])
        stop = True
    await settled(fs)


@pytest.mark.slow
@pytest.mark.may_log("orphans: ")  # what the dead told
@pytest.mark.parametrize("mode", ["adopt", "delete"])
async def test_a_death_at_any_step_loses_nothing(nursery: trio.Nursery, place: Path, mode: str) -> None:
    for stop_before in range(40):
        fs = Filesystem(nursery, place / f"root{stop_before}")
        await fs.start()
        await fs.write(FILE, b"data")
        await fs.drain()
        put(fs, f"{REC}/foreign", b"four")
        put(fs, f"{REC}/sub/more", b"more")
        later(fs)

        async def procedure(fs: Filesystem) -> None:
            await swept(fs, f"orphans-{mode}")

        finished = await fs.until_stopped(procedure, stop_before)
        await fs.crash()
        await fs.reopen()
        await fs.drain()
        assert await fs.read(FILE) == b"data"
        later(fs)
        await look(fs, mode)
        await fs.drain()
        if mode == "adopt":
            assert (await fs.read(f"{REC}/foreign"), await fs.read(f"{REC}/sub/more")) == (b"four", b"more")
            await fs.assert_consistent()
        else:
            there = (fs.root / ".recfs/lost+found").rglob("*")
            assert sorted(each.read_bytes() for each in there if each.is_file()) == [b"four", b"more"]
        await fs.stop()
        if finished:
            return
    raise AssertionError("it never came to its end")


async def test_a_run_is_stopped_and_two_operators_share_one(fs: Filesystem) -> None:
    for number in range(300):
        await fs.mkdirs(f"{REC}/{number}")
    await fs.drain()
    async with running(fs, "orphans") as sweeps:
        number = sweeps.ask("orphans")
        assert sweeps.ask("orphans") == number
        while not sweeps.stop("orphans"):
            await trio.lowlevel.checkpoint()
        ended = await sweeps.wait("orphans", number, 60.0)
    assert ended["outcome"] == "stopped"


# --- the bucket ----------------------------------------------------------------------------------------------------


def objects(fs: Filesystem) -> list[str]:
    return bucket(fs).keys()


async def emptied(fs: Filesystem) -> None:
    """The queue, deletions included."""
    while fs.tier.journal.rows:
        await fs.tier.journal.progress()


def copied(fs: Filesystem, key: str, to: str) -> None:
    """An object that recfs wrote, as another store, or a restored catalogue, may have left it."""
    size = len(bucket(fs).data(key))
    bucket(fs).copy(key, to, size)


def foreign(fs: Filesystem, key: str) -> None:
    """An object that somebody else put there."""
    with tempfile.TemporaryFile() as file:
        file.write(b"theirs")
        file.flush()
        bucket(fs).put_file(file.fileno(), 6, key, ObjectMeta())


async def test_rows_and_objects_that_agree_are_none(far: Filesystem) -> None:
    for number in range(5):
        await far.write(f"{REC}/{number}", b"data")
    await far.drain()
    await evict(far, f"{REC}/1")
    foreign(far, ".recfs/backups/one")
    later(far)
    found = await look(far)
    assert (found["found"], found["objects"], found["bucket_unseen"]) == ([], 6, None)


async def test_objects_that_no_row_knows(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.drain()
    copied(far, FILE, f"{REC}/ours")
    foreign(far, f"{REC}/theirs")
    foreign(far, "elsewhere/theirs")
    later(far)
    assert gist(await look(far)) == [
        ("bucket", "bytes", "elsewhere/theirs", "-", "-"),
        ("bucket", "bytes", f"{REC}/ours", "adopt", "delete"),
        ("bucket", "bytes", f"{REC}/theirs", "-", "-"),
    ]
    assert objects(far) == ["elsewhere/theirs", FILE, f"{REC}/ours", f"{REC}/theirs"]
    assert (await look(far, "delete"))["done"] == {"delete": 1}
    await emptied(far)
    assert objects(far) == ["elsewhere/theirs", FILE, f"{REC}/theirs"]
    assert await far.read(FILE) == b"data"


async def test_an_object_that_recfs_wrote_becomes_a_file_in_s3_alone(far: Filesystem) -> None:
    await far.write(FILE, pattern(70_000))
    node = await far.node(FILE)
    await far.vfs.setattr(node.ino, Changes(mode=0o640, uid=1005, gid=1006, mtime_ns=10**18), OPERATOR)
    await far.drain()
    copied(far, FILE, "users/9/recordings/1/deep/ours")
    later(far)
    assert (await look(far, "adopt"))["done"] == {"adopt": 1}
    found = await far.node("users/9/recordings/1/deep/ours")
    assert (found.state, found.bytes, found.mode, found.uid, found.gid, found.mtime_ns) == (
        State.EVICTED, 70_000, 0o640, 1005, 1006, 10**18,
    )  # fmt: skip
    assert await far.read("users/9/recordings/1/deep/ours") == pattern(70_000)
    await far.drain()
    await far.assert_consistent()
    await far.reopen()
    assert await far.read("users/9/recordings/1/deep/ours") == pattern(70_000)
    assert (await look(far, "adopt"))["found"] == []


async def test_what_the_queue_has_to_do_with_is_no_orphan(far: Filesystem) -> None:
    for name in ("removed", "renamed", "file"):
        await far.write(f"{REC}/{name}", b"data")
    await far.drain()
    await far.stop()
    await far.reopen(services=False)
    await far.unlink(f"{REC}/removed")
    await far.rename(f"{REC}/renamed", f"{REC}/new")
    await far.parts.behind.flush()
    later(far)
    for mode in ("report", "adopt", "delete"):
        found = await look(far, mode)
        assert [each for each in found["found"] if each["where"] == "bucket"] == []
    await far.crash()
    await far.reopen()
    await far.drain()
    await emptied(far)
    assert objects(far) == [FILE, f"{REC}/new"]


@pytest.mark.expect_log("orphans: the bucket: 1 files have lost their bytes")
async def test_a_row_whose_object_is_gone_is_told_and_uploaded_again_from_here(far: Filesystem) -> None:
    for number in range(40):
        await far.write(f"{REC}/{number}", b"data")
    await far.drain()
    bucket(far).vanish(f"{REC}/7")
    later(far)
    assert gist(await look(far)) == [("bucket", "row", f"{REC}/7", "upload", "-")]
    assert (await look(far, "adopt"))["done"] == {"upload": 1}
    await far.drain()
    assert bucket(far).data(f"{REC}/7") == b"data"
    assert (await look(far))["found"] == []
    await evict(far, f"{REC}/8")
    bucket(far).vanish(f"{REC}/8")
    assert gist(await look(far, "adopt")) == [("bucket", "row", f"{REC}/8", "-", "-")]
    assert (await far.node(f"{REC}/8")).state is State.EVICTED
    far.parts.problems.solved("orphans", ("missing", True))


@pytest.mark.expect_log(
    "has lost the mark and objects|the bucket: not looked at|orphans: orphans-adopt: 40 of 40 files"
)
async def test_a_bucket_that_was_emptied_is_not_compared(far: Filesystem) -> None:
    for number in range(40):
        await far.write(f"{REC}/{number}", b"data")
    await far.drain()
    put(far, f"{REC}/foreign")
    for key in objects(far):
        bucket(far).vanish(key)
    later(far)
    ended = await swept(far, "orphans-adopt")
    assert (ended["outcome"], "40 of 40 files are not where they should be on the bucket" in ended["result"]) == (
        "failed", True,
    )  # fmt: skip
    assert not far.parts.tier.journal.rows
    bucket(far)._small.clear()  # the mark
    far.tier.ownership.forget()
    found = await look(far)
    assert "has lost the mark and objects" in found["bucket_unseen"]
    assert [each["name"] for each in found["found"]] == [f"{REC}/foreign"]  # the disk is looked at all the same
    (far.root / f"{REC}/foreign").unlink()


@pytest.mark.expect_log("the bucket: not looked at")
async def test_s3_that_goes_in_the_middle_is_told_and_deletes_nothing(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.drain()
    copied(far, FILE, f"{REC}/ours")
    later(far)
    bucket(far).fail("list", ServerFault("no"))
    found = await look(far, "delete")
    assert (found["found"], "no" in found["bucket_unseen"]) == ([], True)
    assert objects(far) == [FILE, f"{REC}/ours"]
    assert (await look(far, "delete"))["done"] == {"delete": 1}
    assert far.parts.problems.as_json() == []


async def test_objects_from_before_another_copy_of_the_store_used_the_prefix_are_not_removed(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.drain()
    copied(far, FILE, f"{REC}/ours")
    later(far)
    await far.tier.ownership.claim()
    far.clock.advance(10 * DAY_S)
    (found,) = (await look(far, "delete"))["found"]
    assert (found["adopt"], found["delete"]) == ("adopt", "-")
    assert objects(far) == [FILE, f"{REC}/ours"]


@pytest.mark.expect_log("its local copy was removed out of band|the disk: 1 files have lost their bytes")
async def test_a_local_copy_that_is_gone_or_was_to_be(far: Filesystem) -> None:
    for name in ("gone", "left"):
        await far.write(f"{REC}/{name}", b"data")
    await far.drain()
    await evict(far, f"{REC}/left")
    put(far, f"{REC}/left", b"a copy")
    (far.root / f"{REC}/gone").unlink()
    later(far)
    assert sorted(gist(await look(far, "delete"))) == [
        ("cache", "bytes", f"{REC}/left", "-", "lost+found"),
        ("cache", "row", f"{REC}/gone", "forget", "-"),
    ]
    assert lost(far) == [b"a copy"]
    assert (await look(far, "adopt"))["done"] == {"forget": 1}
    assert (await far.node(f"{REC}/gone")).state is State.EVICTED
    assert await far.read(f"{REC}/gone") == b"data"
    await far.drain()
    await far.assert_consistent(lost=1)
    assert (await look(far))["found"] == []


@pytest.mark.slow
async def test_many_objects_of_others_take_little_memory_and_few_requests(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.drain()
    later(far)
    count, asked, long_ago = 20_000, 0, far.clock.now_ns() - round(9 * DAY_S * 1e9)
    own = [bucket(far).head(FILE)]

    def listed(prefix: str = "", after: str = "") -> Iterator[ObjectInfo]:
        yield from (ObjectInfo(f"aaa/{n:07}", 5, "etag", last_modified_ns=long_ago) for n in range(count // 2))
        yield own[0]  # type: ignore[misc]
        yield from (ObjectInfo(f"{REC}/g{n:07}", 5, "etag", last_modified_ns=long_ago) for n in range(count // 2))

    def head(key: str, *, checksum: bool = False) -> ObjectInfo | None:
        nonlocal asked
        asked += 1
        return own[0] if key == FILE else ObjectInfo(key, 5, "etag", last_modified_ns=long_ago)

    bucket(far).list = listed  # type: ignore[method-assign]
    bucket(far).head = head  # type: ignore[method-assign]
    tracemalloc.start()
    try:
        found = await look(far)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found["objects"], len(found["found"]), found["more"]) == (count + 1, 1000, count - 1000)
    assert found["counts"] == [{"where": "bucket", "what": "bytes", "count": count}]
    assert asked <= 1000
    assert peak < 8 << 20


async def test_what_the_trash_keeps_in_s3_is_no_orphan(nursery: trio.Nursery, place: Path) -> None:
    fs = tiered(nursery, place, trash={"retention": 365 * 86_400.0})
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.drain()
    await evict(fs)
    await fs.unlink(FILE)
    for row_id in set(fs.tier.journal.deletions_of(FILE)):
        fs.tier.journal.done(row_id)  # as after a restore of an older catalogue: what was to be deleted is not any more
    later(fs)
    for mode in ("report", "adopt", "delete"):
        assert (await look(fs, mode))["found"] == []
    (entry,) = [each for each in (await fs.answers()["trash_list"]({}))["entries"] if each["kind"] == "file"]
    await fs.answers()["trash_restore"]({"ids": [entry["number"]]})
    assert await fs.read(FILE) == b"data"
    await fs.stop()


async def test_what_was_kept_for_a_trash_that_is_not_there_any_more_is_named_and_removed(far: Filesystem) -> None:
    await far.write(FILE, b"data")
    await far.drain()
    copied(far, FILE, f"{TRASH}7-12-old")
    later(far)
    assert gist(await look(far)) == [("bucket", "bytes", f"{TRASH}7-12-old", "-", "delete")]
    assert (await look(far, "delete"))["done"] == {"delete": 1}
    await emptied(far)
    assert objects(far) == [FILE]
