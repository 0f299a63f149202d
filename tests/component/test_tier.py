"""Files between here and S3, on a fake store: uploads, what comes back, what leaves, and crashes in between."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.state.nodes import FileNode
from tests.fake_object_store import FakeObjectStore
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, pattern, until

FILE = f"{REC}/file"
MIB = 1 << 20
S3: dict[str, Any] = {"s3": {"bucket": "bucket"}, "upload": {"settle": 0.0}}


def tiered(nursery: trio.Nursery, root: Path, **settings: Any) -> Filesystem:
    """A file system with a fake S3, not started."""
    fs = Filesystem(nursery, root, **(S3 | settings))
    fs.objects = FakeObjectStore(smallest_part=8 * MIB)
    return fs


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """A running one."""
    made = tiered(nursery, place)
    await made.start()
    await made.mkdirs(REC)
    yield made
    await made.stop()


async def node(fs: Filesystem, path: str = FILE) -> FileNode:
    """The file."""
    found = await fs.node(path)
    assert isinstance(found, FileNode)
    return found


def stored(fs: Filesystem) -> dict[str, bytes]:
    """All objects by key."""
    assert fs.objects is not None
    return {key: fs.objects.data(key) for key in fs.objects.keys()}  # noqa: SIM118 (it is no mapping)


async def evict(fs: Filesystem, path: str = FILE) -> FileNode:
    """Let the local copy go."""
    found = await node(fs, path)
    tier = fs.tier
    assert tier.evictor.may_evict(found) is None
    tier.evictor.evict(found)
    await fs.drain()
    assert found.state is State.EVICTED
    assert not (fs.root / path).exists()
    return found


@pytest.mark.late_catalogue
async def test_a_committed_file_is_stored(fs: Filesystem) -> None:
    """The object has the bytes, the key is the path, and the row knows both."""
    await fs.write(FILE, b"data")
    await fs.drain()
    found = await node(fs)
    assert found.state is State.STORED
    assert stored(fs) == {FILE: b"data"}
    assert found.object is not None
    assert (found.object.key, found.object.size_bytes, found.object.copy.local) == (FILE, 4, 1)
    assert (fs.root / FILE).read_bytes() == b"data"
    assert fs.rows("select count(*) from journal") == [0]


async def test_temp_and_shared_stay_here(fs: Filesystem) -> None:
    """Unless a rule says otherwise."""
    await fs.write("temp/5/7/file", b"data")
    await fs.write("shared/thumbnails/one.png", b"png")
    await fs.drain()
    assert stored(fs) == {}
    assert await fs.state("temp/5/7/file") == "committed"


@pytest.mark.slow
async def test_a_large_file_goes_in_parts(fs: Filesystem) -> None:
    """And comes back the same."""
    data = pattern(20 * MIB)
    await fs.write(FILE, data)
    await fs.drain()
    assert stored(fs) == {FILE: data}
    await evict(fs)
    assert await fs.read(FILE) == data
    await fs.drain()


@pytest.mark.late_catalogue
async def test_an_evicted_file_is_fetched_when_it_is_read(fs: Filesystem) -> None:
    """Small ones whole at the open; then they are here again."""
    await fs.write(FILE, b"data")
    await fs.drain()
    found = await evict(fs)
    assert await fs.read(FILE) == b"data"
    await fs.drain()
    assert found.state is State.STORED
    assert (fs.root / FILE).read_bytes() == b"data"


@pytest.mark.slow
async def test_a_large_file_is_read_while_it_is_fetched(fs: Filesystem) -> None:
    """Only what is wanted and some ahead; the rest stays away, and the state says so."""
    data = pattern(64 * MIB)
    await fs.write(FILE, data)
    await fs.drain()
    found = await evict(fs)
    number = await fs.open(FILE)
    assert bytes(await fs.vfs.files.read(number, 30 * MIB, 1000)) == data[30 * MIB : 30 * MIB + 1000]
    assert found.state is State.FETCHING
    await fs.close(number)
    assert await fs.read(FILE) == data


@pytest.fixture
async def cold(nursery: trio.Nursery, place: Path) -> AsyncIterator[tuple[Filesystem, bytes]]:
    """A store with an evicted file that an open does not fetch whole, and its bytes."""
    made = tiered(nursery, place, cache={"fetch_whole_below": MIB, "read_ahead_max": MIB})
    await made.start()
    data = b"".join(number.to_bytes(4, "big") for number in range(MIB))
    await made.write(FILE, data)
    await made.drain()
    await evict(made)
    yield made, data
    await made.stop()


@pytest.mark.slow
async def test_an_evicted_file_is_all_data(cold: tuple[Filesystem, bytes]) -> None:
    """What is not here yet is no hole: whoever leaves holes out would copy nothing."""
    fs, data = cold
    number = await fs.open(FILE)
    seek = fs.vfs.ranges.seek
    assert await seek(number, 0, os.SEEK_DATA) == 0
    assert await seek(number, 1234, os.SEEK_DATA) == 1234
    assert await seek(number, 1234, os.SEEK_HOLE) == len(data)
    assert await seek(number, len(data), os.SEEK_DATA) is None
    await fs.close(number)


@pytest.mark.slow
@pytest.mark.parametrize("length", [100_000, 8 << 20], ids=["in small steps", "as much as there is"])
async def test_an_evicted_file_is_copied_by_ranges(cold: tuple[Filesystem, bytes], length: int) -> None:
    """copy_file_range(2) gives its bytes, never an end of the file where there is none."""
    fs, data = cold
    source, target = await fs.open(FILE), await fs.open(f"{REC}/copy", os.O_WRONLY | os.O_CREAT)
    done = 0
    while step := await fs.vfs.ranges.copy(source, done, target, done, length):
        done += step
    assert done == len(data)
    await fs.close(source)
    await fs.close(target)
    assert await fs.read(f"{REC}/copy") == data
    await fs.drain()


async def test_an_evicted_file_is_written_to(fs: Filesystem) -> None:
    """It is fetched first, and stored anew."""
    await fs.write(FILE, b"data")
    await fs.drain()
    found = await evict(fs)
    await fs.write(FILE, b" and more", append=True)
    await fs.drain()
    assert stored(fs) == {FILE: b"data and more"}
    assert found.state is State.STORED
    assert fs.account() == (13, 1)


@pytest.mark.late_catalogue
async def test_an_evicted_file_is_overwritten(fs: Filesystem) -> None:
    """Nothing is fetched for that; the old object stays until the new one is there."""
    await fs.write(FILE, b"old")
    await fs.drain()
    found = await evict(fs)
    assert fs.objects is not None
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, b"newer")
    assert stored(fs) == {FILE: b"old"}
    await fs.close(number)
    await fs.drain()
    assert stored(fs) == {FILE: b"newer"}
    assert found.object is not None
    assert found.object.copy.held == 0


@pytest.mark.late_catalogue
async def test_an_overwrite_of_an_evicted_file_is_taken_back_after_a_crash(fs: Filesystem) -> None:
    """S3 has the old bytes still."""
    await fs.write(FILE, b"old")
    await fs.drain()
    await evict(fs)
    number = await fs.open(FILE, os.O_WRONLY | os.O_TRUNC)
    await fs.vfs.files.write(number, 0, b"half")
    await fs.vfs.behind.flush()
    await fs.crash()
    await fs.reopen()
    assert await fs.state(FILE) == "evicted"
    assert await fs.read(FILE) == b"old"
    await fs.drain()


@pytest.mark.late_catalogue
async def test_a_removed_file_takes_its_object_along(fs: Filesystem) -> None:
    """Whether its bytes are here or not."""
    await fs.write(FILE, b"data")
    await fs.write(f"{REC}/other", b"data")
    await fs.drain()
    await evict(fs)
    await fs.unlink(FILE)
    await fs.unlink(f"{REC}/other")
    await fs.drain()
    assert stored(fs) == {}
    assert fs.rows("select count(*) from object") == [0]
    assert fs.leftovers("staging") == []


@pytest.mark.slow
async def test_an_open_file_is_read_to_its_end_after_its_removal(fs: Filesystem) -> None:
    """The object goes with the last close."""
    data = pattern(20 * MIB)
    await fs.write(FILE, data)
    await fs.drain()
    await evict(fs)
    number = await fs.open(FILE)
    assert bytes(await fs.vfs.files.read(number, 0, 10)) == data[:10]
    await fs.unlink(FILE)
    assert await fs.read_handle(number) == data
    await fs.close(number)
    await fs.drain()
    assert stored(fs) == {}
    assert fs.leftovers("staging") == []


@pytest.mark.parametrize("here", [True, False])
async def test_an_object_follows_its_name(fs: Filesystem, here: bool) -> None:
    """Reads go on under the old key until then."""
    await fs.write(FILE, b"data")
    await fs.drain()
    if not here:
        await evict(fs)
    await fs.rename(FILE, f"{REC}/new name")
    assert await fs.read(f"{REC}/new name") == b"data"
    await fs.drain()
    assert stored(fs) == {f"{REC}/new name": b"data"}


@pytest.mark.late_catalogue
async def test_objects_follow_their_directory(fs: Filesystem) -> None:
    """All of them, at any depth."""
    for name in ("one", "two", "three"):
        await fs.write(f"{REC}/assets/{name}/file", name.encode())
    await fs.drain()
    await evict(fs, f"{REC}/assets/two/file")
    await fs.rename(f"{REC}/assets", f"{REC}/moved")
    await fs.drain()
    assert stored(fs) == {f"{REC}/moved/{name}/file": name.encode() for name in ("one", "two", "three")}
    assert await fs.read(f"{REC}/moved/two/file") == b"two"
    await fs.drain()


async def test_write_aside_and_rename_costs_one_upload(fs: Filesystem) -> None:
    """A name that looks temporary is not uploaded (rsync, browsers, recorders)."""
    await fs.write(f"{REC}/.file.AbC123", b"data")
    await fs.drain()
    assert stored(fs) == {}
    await fs.rename(f"{REC}/.file.AbC123", FILE)
    await fs.drain()
    assert stored(fs) == {FILE: b"data"}


async def test_replacing_a_stored_file_keeps_its_object_until_the_new_one_is_there(fs: Filesystem) -> None:
    """rename(2) over it: at no moment S3 has neither."""
    await fs.write(FILE, b"old")
    await fs.drain()
    await evict(fs)
    number = await fs.open(f"{REC}/.new.tmp", os.O_WRONLY | os.O_CREAT)
    await fs.vfs.files.write(number, 0, b"new")
    await fs.rename(f"{REC}/.new.tmp", FILE)
    assert stored(fs) == {FILE: b"old"}
    await fs.close(number)
    await fs.drain()
    assert stored(fs) == {FILE: b"new"}


@pytest.mark.slow
async def test_uploads_go_on_after_a_crash(fs: Filesystem) -> None:
    """The journal has them."""
    assert fs.objects is not None
    await fs.write(FILE, pattern(20 * MIB))
    await fs.write(f"{REC}/small", b"small")
    while not fs.rows("select count(*) from journal")[0]:
        await fs.vfs.pipeline.progress()
    await fs.crash()
    await fs.reopen()
    await fs.drain()
    assert stored(fs) == {FILE: pattern(20 * MIB), f"{REC}/small": b"small"}


@pytest.mark.slow
async def test_the_budget_is_kept(nursery: trio.Nursery, place: Path) -> None:
    """The least recently used leave; what is not stored never does."""
    fs = tiered(nursery, place, cache={"max_size": 10 * MIB, "read_ahead_max": MIB})
    await fs.start()
    await fs.mkdirs(REC)
    for n in range(8):
        fs.clock.advance(100)
        await fs.write(f"{REC}/file{n}", pattern(3 * MIB, n))
        await fs.drain()
    await fs.tier.evictor.evict_excess()
    await fs.drain()
    states = [await fs.state(f"{REC}/file{n}") for n in range(8)]
    assert states == ["evicted"] * 5 + ["stored"] * 3
    assert fs.tier.copies.used_bytes <= 10 * MIB
    for n in range(8):
        assert await fs.read(f"{REC}/file{n}") == pattern(3 * MIB, n)
    await fs.stop()


async def test_a_cold_read_does_not_wait_for_uploads(nursery: trio.Nursery, place: Path) -> None:
    """However slow the uploads are that take all threads."""
    fs = tiered(nursery, place, s3={"bucket": "bucket", "threads": 2})
    assert fs.objects is not None
    await fs.start()
    await fs.mkdirs(REC)
    await fs.write(FILE, b"cold")
    await fs.drain()
    await evict(fs)
    release, held = threading.Event(), threading.Semaphore(0)

    def hold(operation: str, _key: str | None) -> None:
        if operation == "put_file":
            held.release()
            release.wait(60)

    fs.objects.before = hold
    for n in range(4):
        await fs.write(f"{REC}/slow{n}", b"slow")
    for _ in range(2):
        await trio.to_thread.run_sync(held.acquire)
    try:
        with trio.fail_after(GUARD_S):
            assert await fs.read(FILE) == b"cold"
    finally:
        release.set()
    await fs.stop()


@pytest.mark.slow
async def test_many_open_files_do_not_hide_the_one_that_may_leave(nursery: trio.Nursery, place: Path) -> None:
    """However many that were used longer ago have to stay."""
    fs = tiered(nursery, place, cache={"max_size": MIB, "fetch_whole_below": MIB, "read_ahead_max": MIB})
    await fs.start()
    await fs.mkdirs(REC)
    for n in range(120):
        await fs.write(f"{REC}/open{n}", b"some bytes")
    await fs.drain()
    numbers = [await fs.open(f"{REC}/open{n}") for n in range(120)]
    fs.clock.advance(3600)
    await fs.write(FILE, pattern(2 * MIB))
    await fs.drain()
    await fs.tier.evictor.evict_excess()
    await fs.drain()
    assert await fs.state(FILE) == "evicted"
    for number in numbers:
        await fs.close(number)
    await fs.stop()


@pytest.mark.slow
async def test_everything_comes_back_from_s3_alone(fs: Filesystem) -> None:
    """All local copies wiped behind recfs's back is not what this is about; all evicted is."""
    files = {f"{REC}/f{n}": pattern(n * 100_000, n) for n in range(20)}
    for path, data in files.items():
        await fs.write(path, data)
    await fs.drain()
    for path in files:
        await evict(fs, path)
    await fs.reopen()
    for path, data in files.items():
        assert await fs.read(path) == data
    await fs.drain()


async def test_an_upload_that_waits_for_a_reader_is_named(cold: tuple[Filesystem, bytes]) -> None:
    """Of the object that it is to replace: whoever may read can keep it waiting."""
    fs, data = cold
    reader = await fs.open(FILE)
    assert bytes(await fs.vfs.files.read(reader, 0, 1000)) == data[:1000]
    await fs.write(f"{REC}/new", b"new")
    await fs.rename(f"{REC}/new", FILE)
    answer = await fs.answers()["drain"]({"timeout_s": 2.0})
    assert [(row["path"], row["why"]) for row in answer["left"]["s3"]["rows"]] == [
        (FILE, "waits for those who read the object under its name")
    ]
    await fs.close(reader)
    assert (await fs.answers()["drain"]({"timeout_s": 60.0}))["pending"] == 0
    assert stored(fs) == {FILE: b"new"}


async def test_what_was_committed_elsewhere_is_sent_when_it_comes_to_where_the_rules_want_it(fs: Filesystem) -> None:
    """Written in `temp/`, looked at there, and moved to its recording: by itself, or with its directory."""
    await fs.write("temp/5/1/film", b"film")
    await fs.write("temp/5/2/assets/a", b"first")
    await fs.write("temp/5/2/assets/b", b"second")
    await fs.drain()
    await fs.rename("temp/5/1/film", FILE)
    await fs.rename("temp/5/2/assets", f"{REC}/assets")
    await fs.drain()
    assert (await node(fs)).state is State.STORED
    found = stored(fs)
    assert found[FILE] == b"film"
    assert (found[f"{REC}/assets/a"], found[f"{REC}/assets/b"]) == (b"first", b"second")


async def test_what_stays_where_the_rules_want_it_here_is_not_sent_for_its_name(fs: Filesystem) -> None:
    await fs.write("temp/5/1/film", b"film")
    await fs.drain()
    await fs.rename("temp/5/1/film", "temp/5/1/other")
    await fs.drain()
    assert not [key for key in stored(fs) if key.startswith("temp/")]


async def test_what_is_removed_in_temp_leaves_s3_at_once(nursery: trio.Nursery, place: Path) -> None:
    """Also where a rule has it go there, and a trash keeps everything else: here, and what S3 alone had."""
    fs = tiered(nursery, place, trash={"retention": "1h"}, route=[{"pattern": "temp/**", "to": "s3"}])
    await fs.start()
    for name in ("here", "afar"):
        await fs.write(f"temp/5/1/{name}", b"data")
    await fs.drain()
    await evict(fs, "temp/5/1/afar")
    assert len(stored(fs)) == 2
    for name in ("here", "afar"):
        await fs.unlink(f"temp/5/1/{name}")
    await fs.drain()
    await until(lambda: not stored(fs))
    assert (await fs.answers()["trash_list"]({}))["entries"] == []
    await fs.stop()


async def test_what_is_removed_while_room_is_made_is_no_problem(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the catalogue's answer and the look at each file; the others leave all the same."""
    for name in ("gone", "stays"):
        await fs.write(f"{REC}/{name}", b"data")
    await fs.drain()
    catalogue, tier = fs.parts.tree.catalogue, fs.tier
    evictable = catalogue.evictable

    async def late(*args: Any) -> list[int]:
        found = list(await evictable(*args))
        if await fs.exists(f"{REC}/gone"):
            await fs.unlink(f"{REC}/gone")
            await fs.parts.behind.flush()
            fs.parts.tree.memory.cached_inodes = 0
            fs.parts.tree.memory.shrink()
        return found

    monkeypatch.setattr(catalogue, "evictable", late)
    monkeypatch.setattr(tier.evictor, "over_bytes", lambda: 1)
    await tier.evictor.evict_excess()
    assert (await node(fs, f"{REC}/stays")).state is State.EVICTED
    assert fs.parts.problems.as_json() == []
