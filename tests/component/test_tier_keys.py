"""Who may put what under which key: names that change places, names taken again, answers that were lost."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.errors import StoreError
from recfs.ports.object_errors import ObjectStoreError, Unreachable
from recfs.ports.rows import MOVE
from recfs.state.nodes import Node
from recfs.tier.queue.unanswered import KEPT_S
from recfs.tier.uploads.moves import ASIDE
from tests.fake_object_store import FakeObjectStore

from .build import REC, Filesystem, pattern, until
from .far import Hold, down, failing, no_route, ticking
from .test_tier import FILE, MIB, evict, node, stored, tiered

OTHER = f"{REC}/other"


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    made = tiered(nursery, place)
    async with ticking(made, times=10.0):
        yield made


def objects(fs: Filesystem) -> FakeObjectStore:
    assert fs.objects is not None
    return fs.objects


async def away(fs: Filesystem, **files: bytes) -> None:
    """Files whose bytes only S3 has."""
    for name, data in files.items():
        await fs.write(f"{REC}/{name}", data)
    await fs.drain()
    for name in files:
        await evict(fs, f"{REC}/{name}")


async def test_two_evicted_files_change_places(fs: Filesystem) -> None:
    """Neither object is overwritten before it is safe elsewhere."""
    await away(fs, one=b"1", two=b"22")
    await fs.rename(f"{REC}/one", f"{REC}/two", exchange=True)
    assert await fs.read(f"{REC}/one") == b"22"
    await fs.drain()
    assert stored(fs) == {f"{REC}/one": b"22", f"{REC}/two": b"1"}
    assert await fs.read(f"{REC}/two") == b"1"


async def test_a_key_whose_object_is_just_being_deleted_is_not_taken(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an object waits while two change places, another one may still be on its way out."""
    await away(fs, one=b"1", two=b"22")
    asked, go_on, delete = threading.Event(), threading.Event(), objects(fs).delete

    def slowly(keys: Iterable[str]) -> Sequence[tuple[str, ObjectStoreError]]:
        keys = list(keys)
        if any(key.startswith(ASIDE) for key in keys):
            asked.set()
            assert go_on.wait(20)
        return delete(keys)

    monkeypatch.setattr(objects(fs), "delete", slowly)
    await fs.rename(f"{REC}/one", f"{REC}/two", exchange=True)
    await until(asked.is_set)
    await fs.rename(f"{REC}/two", f"{REC}/one", exchange=True)  # the same one has to make room again
    later_ns = fs.clock.steady_ns() + 5 * 10**9
    await until(lambda: fs.clock.steady_ns() > later_ns)
    go_on.set()
    await fs.drain()
    assert stored(fs) == {f"{REC}/one": b"1", f"{REC}/two": b"22"}
    assert await fs.read(f"{REC}/one") == b"1"
    assert await fs.read(f"{REC}/two") == b"22"


async def test_three_evicted_files_change_places_across_a_crash(fs: Filesystem) -> None:
    await away(fs, one=b"1", two=b"22", three=b"333")
    await fs.rename(f"{REC}/one", f"{REC}/two", exchange=True)
    await fs.rename(f"{REC}/two", f"{REC}/three", exchange=True)
    await fs.crash()
    await fs.reopen()
    await fs.drain()
    assert stored(fs) == {f"{REC}/one": b"22", f"{REC}/two": b"333", f"{REC}/three": b"1"}
    for name, data in (("one", b"22"), ("two", b"333"), ("three", b"1")):
        assert await fs.read(f"{REC}/{name}") == data


async def test_two_directories_of_evicted_files_change_places(fs: Filesystem) -> None:
    for folder in ("left", "right"):
        for n in range(5):
            await fs.write(f"{REC}/{folder}/{n}", f"{folder}{n}".encode())
    await fs.drain()
    for folder in ("left", "right"):
        for n in range(5):
            await evict(fs, f"{REC}/{folder}/{n}")
    await fs.rename(f"{REC}/left", f"{REC}/right", exchange=True)
    await fs.drain()
    expected = {f"{REC}/left/{n}": f"right{n}".encode() for n in range(5)}
    assert stored(fs) == expected | {f"{REC}/right/{n}": f"left{n}".encode() for n in range(5)}


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("folder", [False, True])
async def test_a_new_file_under_an_old_name_waits_for_the_move(
    fs: Filesystem, expect_log: Callable[[str], None], folder: bool, crash: bool
) -> None:
    """The evicted file's only bytes are under that key still."""
    expect_log("next try in")
    await fs.write(f"{REC}/a/file", b"old")
    await fs.drain()
    await evict(fs, f"{REC}/a/file")
    objects(fs).fail("copy", Unreachable("gone"), times=1000)
    new = f"{REC}/b/file" if folder else f"{REC}/a/moved"
    await fs.rename(*((f"{REC}/a", f"{REC}/b") if folder else (f"{REC}/a/file", new)))
    await fs.write(f"{REC}/a/file", b"newer")
    journal = fs.tier.journal
    while not any(row.attempts for row in journal.rows.values()):
        await journal.progress()
    objects(fs).heal()
    if crash:
        await fs.vfs.behind.flush()
        await fs.crash()
        await fs.reopen()
    await fs.drain()
    assert stored(fs) == {new: b"old", f"{REC}/a/file": b"newer"}
    assert await fs.read(new) == b"old"


@pytest.mark.parametrize("held", [pytest.param("move", marks=no_route), "reader"])
async def test_what_waits_for_a_name_goes_on_as_soon_as_it_is_free(
    nursery: trio.Nursery, place: Path, held: str
) -> None:
    """The clock stands still: no time is waited for."""
    fs = tiered(nursery, place, cache={"fetch_whole_below": MIB, "read_ahead_max": MIB})
    await fs.start()
    await fs.mkdirs(REC)
    await fs.write(FILE, pattern(16 * MIB))
    await fs.drain()
    await evict(fs)
    if held == "move":
        down(fs, "copy")
        await fs.rename(FILE, OTHER)
        await failing(fs)
    else:
        number = await fs.open(FILE)
        await fs.vfs.files.read(number, 0, 4096)
        await fs.unlink(FILE)
    await fs.write(FILE, b"new")
    journal = fs.tier.journal
    await until(lambda: any(row.error.startswith("waits for") for row in journal.rows.values()))
    await until(lambda: not journal.running)
    if held == "move":
        objects(fs).heal()
        [move] = [row.id for row in journal.rows.values() if row.kind == MOVE]
        journal.retry(move)
    else:
        await fs.close(number)
    await until(lambda: stored(fs).get(FILE) == b"new")
    await fs.stop()


async def test_a_name_is_taken_again_while_the_deletion_waits(nursery: trio.Nursery, place: Path) -> None:
    """The trash's retention neither holds the new file's upload up nor takes its object later."""
    fs = tiered(nursery, place, trash={"retention": "1h"})
    await fs.start()
    await fs.mkdirs(REC)
    await fs.write(FILE, b"old")
    await fs.drain()
    await fs.unlink(FILE)
    await fs.drain()
    assert stored(fs) == {FILE: b"old"}
    await fs.write(FILE, b"newer")
    await fs.drain()
    assert stored(fs) == {FILE: b"newer"}
    fs.clock.advance(10_000)
    await fs.drain()
    assert stored(fs) == {FILE: b"newer"}
    assert fs.rows("select count(*) from journal") == [0]
    await fs.stop()


@pytest.mark.slow
async def test_a_reader_of_a_removed_file_is_not_cut_off_by_its_successor(fs: Filesystem) -> None:
    data = pattern(20 * MIB)
    await away(fs, file=data)
    number = await fs.open(FILE)
    assert bytes(await fs.vfs.files.read(number, 0, 10)) == data[:10]
    await fs.unlink(FILE)
    await fs.write(FILE, b"successor")
    assert await fs.read_handle(number) == data
    await fs.close(number)
    await fs.drain()
    assert stored(fs) == {FILE: b"successor"}


async def test_an_upload_whose_answer_was_lost_leaves_nothing_behind(
    fs: Filesystem, expect_log: Callable[[str], None]
) -> None:
    """The object arrived, nobody knows, and then the file is removed."""
    expect_log("next try in")
    objects(fs).fail("put_file", Unreachable("reset"), after=True, times=1000)
    await fs.write(FILE, b"data")
    tier = fs.tier
    while not any(row.attempts for row in tier.journal.rows.values()):
        await tier.journal.progress()
    assert stored(fs)
    await fs.unlink(FILE)
    objects(fs).heal()
    await fs.drain()
    assert stored(fs) == {}


@pytest.mark.slow
async def test_an_upload_begun_and_not_recorded_is_aborted(fs: Filesystem, expect_log: Callable[[str], None]) -> None:
    """The answer to its beginning was lost."""
    expect_log("next try in")
    objects(fs).fail("start_multipart", Unreachable("reset"), after=True, times=1000)
    await fs.write(FILE, pattern(20 * MIB))
    tier = fs.tier
    while not any(row.attempts for row in tier.journal.rows.values()):
        await tier.journal.progress()
    assert objects(fs).list_multiparts()
    objects(fs).heal()
    await fs.drain()
    assert stored(fs) == {FILE: pattern(20 * MIB)}
    assert objects(fs).list_multiparts() == []


async def test_bytes_that_arrived_too_late_do_not_count(fs: Filesystem) -> None:
    """The file was rewritten while S3 was storing it: what S3 has is replaced by the next upload."""
    await fs.write(FILE, b"first")
    await fs.drain()
    put, entered, go_on = objects(fs).put_file, trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def late(*args: object, **kwargs: object) -> object:
        info = put(*args, **kwargs)  # type: ignore[arg-type]
        trio.from_thread.run_sync(entered.set, trio_token=token)
        trio.from_thread.run(go_on.wait, trio_token=token)
        return info

    objects(fs).put_file = late  # type: ignore[assignment, method-assign]
    await fs.write(FILE, b"second")
    await entered.wait()
    objects(fs).put_file = put  # type: ignore[method-assign]
    await fs.write(FILE, b"third")
    go_on.set()
    await fs.drain()
    assert stored(fs) == {FILE: b"third"}
    found = await evict(fs)
    assert await fs.read(FILE) == b"third"
    await fs.drain()
    assert found.state is State.STORED


@pytest.mark.slow
async def test_a_file_larger_than_the_budget_is_read(nursery: trio.Nursery, place: Path) -> None:
    """What was read leaves while the rest comes, and can be read again."""
    fs = tiered(nursery, place, cache={"max_size": 16 * MIB, "read_ahead_max": MIB, "fetch_whole_below": MIB})
    await fs.start()
    await fs.mkdirs(REC)
    data = pattern(64 * MIB)
    await fs.write(FILE, data)
    await fs.drain()
    tier = fs.tier
    await tier.evictor.evict_excess()
    await fs.drain()
    found = await node(fs)
    assert found.state is State.EVICTED
    number = await fs.open(FILE)
    most = 0
    for _ in range(2):
        for offset in range(0, len(data), 128 << 10):
            assert bytes(await fs.vfs.files.read(number, offset, 128 << 10)) == data[offset : offset + (128 << 10)]
            most = max(most, tier.copies.used_bytes, os.fstat(fs.vfs.files.handles[number].body.fd).st_blocks * 512)
    assert most <= 16 * MIB
    await fs.close(number)
    await fs.stop()


async def test_the_objects_of_a_store_stay_in_one_bucket(fs: Filesystem) -> None:
    """Another bucket or prefix in the configuration would make every evicted file unreadable."""
    await away(fs, file=b"data")
    assert fs.config.s3 is not None
    there = fs.config
    fs.config = there.model_copy(update={"s3": fs.config.s3.model_copy(update={"prefix": "elsewhere/"})})
    await fs.stop()
    with pytest.raises(StoreError, match="s3://bucket/"):
        await fs.start()
    fs.config = there
    await fs.start()
    assert await fs.read(FILE) == b"data"
    await fs.unlink(FILE)
    await fs.drain()
    await fs.stop()
    fs.config = there.model_copy(update={"s3": fs.config.s3.model_copy(update={"prefix": "elsewhere/"})})
    await fs.start()  # nothing is in S3 any more


async def test_an_object_that_an_upload_may_have_replaced_is_not_taken_for_the_file(
    fs: Filesystem, expect_log: Callable[[str], None]
) -> None:
    """The answer to the upload was lost, and the file has become what it had been before."""
    expect_log("next try in")
    await fs.write(FILE, b"before")
    await fs.drain()
    objects(fs).fail("put_file", Unreachable("gone"), after=True)
    journal = fs.tier.journal
    await fs.write(FILE, b"between")
    await until(lambda: any(row.attempts for row in journal.rows.values()))
    objects(fs).fail("*", Unreachable("gone"), times=1000)
    await fs.write(FILE, b"before")
    fs.parts.committer.hurry((await node(fs)).ino)
    await until(lambda: not fs.parts.committer.depth)
    objects(fs).heal()
    await fs.drain()
    assert stored(fs) == {FILE: b"before"}
    fs.clock.advance(KEPT_S)
    found = await node(fs)
    await until(lambda: found.state is State.STORED)
    await evict(fs)
    assert await fs.read(FILE) == b"before"


async def test_an_object_that_is_being_replaced_is_not_handed_on(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was renamed over another is being uploaded while a third one takes its name."""
    await fs.write(FILE, b"first")
    await fs.drain()
    asked, go_on, put_file = threading.Event(), threading.Event(), objects(fs).put_file

    def slowly(*args: Any, **kwargs: Any) -> Any:
        answer = put_file(*args, **kwargs)
        asked.set()
        assert go_on.wait(20)
        return answer

    monkeypatch.setattr(objects(fs), "put_file", slowly)
    await fs.write(OTHER, b"second")
    await fs.rename(OTHER, FILE)
    await until(asked.is_set)
    number = await fs.open(OTHER, os.O_WRONLY | os.O_CREAT)
    await fs.rename(OTHER, FILE)
    go_on.set()
    await fs.drain()
    assert stored(fs) == {}
    assert fs.rows("select key from object") == []
    await fs.vfs.files.write(number, 0, b"first")
    await fs.close(number)
    await fs.drain()
    await evict(fs)
    assert await fs.read(FILE) == b"first"


@pytest.mark.parametrize("closed", [False, True], ids=["unfinished", "closed"])
async def test_of_two_files_renamed_over_one_that_only_s3_has_neither_is_finished(fs: Filesystem, closed: bool) -> None:
    fs.checked_at_end = False
    await away(fs, file=b"promised")
    first = await fs.open(OTHER, os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(first, 0, b"cut off")
    await fs.rename(OTHER, FILE)
    if closed:
        await fs.close(first)
    await fs.open(OTHER, os.O_WRONLY | os.O_CREAT)
    await fs.rename(OTHER, FILE)
    await fs.parts.behind.flush()
    await fs.crash()
    await fs.reopen()
    assert await fs.read(FILE) == (b"cut off" if closed else b"promised")


async def test_a_file_removed_just_before_its_upload_is_no_failure(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is warned of bytes that are missing."""
    reached, go_on, still = trio.Event(), trio.Event(), fs.parts.backing_files.wait_for_moves

    async def slowly(node: Node) -> None:
        reached.set()
        await go_on.wait()
        await still(node)

    monkeypatch.setattr(fs.parts.backing_files, "wait_for_moves", slowly)
    await fs.write(FILE, b"bytes")
    fs.parts.committer.hurry((await node(fs)).ino)
    await reached.wait()
    await fs.unlink(FILE)
    await until(lambda: not (fs.root / FILE).exists() and not fs.leftovers("staging"))
    go_on.set()
    await fs.drain()
    assert stored(fs) == {}


async def test_the_object_of_a_file_is_not_deleted_whoever_had_its_key_before(fs: Filesystem) -> None:
    """A deletion that was due for another file's sake comes when the key is this one's."""
    await away(fs, file=b"all there is")
    fs.tier.journal.delete(FILE)
    await fs.drain()
    assert fs.rows("select count(*) from journal") == [0]
    assert await fs.read(FILE) == b"all there is"


# --- what is read from S3 while its file is renamed ---------------------------------------------------------------


@contextlib.asynccontextmanager
async def partly_read(nursery: trio.Nursery, place: Path, data: bytes) -> AsyncIterator[tuple[Filesystem, int]]:
    """A file that S3 alone has, open, with its first bytes here."""
    fs = tiered(nursery, place, cache={"fetch_whole_below": MIB, "read_ahead_max": MIB})
    async with ticking(fs):
        await fs.write(FILE, data)
        await fs.drain()
        await evict(fs)
        number = await fs.open(FILE)
        assert bytes(await fs.vfs.files.read(number, 0, 4096)) == data[:4096]
        assert not fs.tier.copies.partial[(await node(fs)).ino].download.complete
        yield fs, number


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_partly_read_file_that_was_renamed_keeps_no_other_from_its_name(
    nursery: trio.Nursery, place: Path, is_open: bool
) -> None:
    """What is here of it is filled from where its object lies now, whether anybody has it open or not."""
    data = pattern(16 * MIB)
    async with partly_read(nursery, place, data) as (fs, number):
        if not is_open:
            await fs.close(number)
        await fs.rename(FILE, f"{REC}/other")
        await fs.write(FILE, b"new")
        await fs.drain()
        assert stored(fs) == {FILE: b"new", f"{REC}/other": data}
        assert fs.rows("select count(*) from journal") == [0]
        if not is_open:
            number = await fs.open(f"{REC}/other")
        for offset in range(0, len(data), MIB):
            assert bytes(await fs.vfs.files.read(number, offset, MIB)) == data[offset : offset + MIB]
        await fs.close(number)
        assert await fs.read(FILE) == b"new"


async def test_what_is_asked_for_while_its_object_moves_comes_from_its_new_place(
    nursery: trio.Nursery, place: Path
) -> None:
    """The request is under way under the old name, where nothing is any more when S3 looks."""
    data = pattern(16 * MIB)
    async with partly_read(nursery, place, data) as (fs, number):
        hold = Hold(fs, "get_range")
        async with trio.open_nursery() as readers:
            readers.start_soon(reads, fs, number, 8 * MIB, data)
            await hold.entered()
            await fs.rename(FILE, f"{REC}/other")
            await until(lambda: stored(fs) == {f"{REC}/other": data})
            hold.let_go()
        await fs.close(number)
        await fs.drain()
        assert stored(fs) == {f"{REC}/other": data}


async def reads(fs: Filesystem, number: int, offset: int, data: bytes) -> None:
    """A MiB of it is what it should be."""
    assert bytes(await fs.vfs.files.read(number, offset, MIB)) == data[offset : offset + MIB]
