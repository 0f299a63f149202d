"""A prefix of a bucket and its store: who writes there, and who does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.core.model import State
from recfs.core.ownership import LOST_REMEDY, MARK_KEY
from recfs.ports.object_errors import ObjectMissing, PrefixTaken, Unreachable
from recfs.tier import ownership
from tests.fake_object_store import FakeObjectStore
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, until
from .test_tier import evict, tiered

pytestmark = pytest.mark.slow
FILE = f"{REC}/source.mp4"
ExpectLog = Callable[[str], None]
CHANGES = {"put_file", "start_multipart", "upload_part", "finish_multipart", "copy", "delete", "abort_multipart"}


async def store(nursery: trio.Nursery, root: Path, objects: FakeObjectStore) -> Filesystem:
    fs = tiered(nursery, root)
    fs.objects = objects
    await fs.start()
    await fs.mkdirs(REC)
    return fs


@pytest.fixture
def objects() -> FakeObjectStore:
    return FakeObjectStore()


def mark(objects: FakeObjectStore) -> dict[str, Any]:
    found = objects.get_small(MARK_KEY)
    assert found is not None
    return dict(json.loads(found))


def changed(objects: FakeObjectStore) -> set[str]:
    """What was changed in the bucket so far, but for the mark."""
    return {operation for operation, _ in objects.calls} & CHANGES


async def refused(fs: Filesystem) -> str:
    """Wait until the first piece of work was refused; the reason in the queue."""
    journal = fs.tier.journal
    await until(lambda: any(row.attempts for row in journal.rows.values()))
    (row, *_) = (await fs.answers()["queue"]({}))["rows"]
    assert row["state"] == "failed"
    return str(row["why"])


async def owner(fs: Filesystem, method: str = "bucket_owner", **params: Any) -> dict[str, Any]:
    return dict(await fs.answers()[method](params))


async def test_the_first_upload_marks_the_prefix(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore
) -> None:
    fs = await store(nursery, tmp_path / "root", objects)
    assert (await owner(fs))["verdict"] == "free"
    assert objects.get_small(MARK_KEY) is None
    await fs.write(FILE, b"a take")
    await fs.drain()
    calls = [call for call in objects.calls if call[0] in ("get_small", "put_small", "put_file")]
    assert calls[-2:] == [("get_small", MARK_KEY), ("put_file", FILE)]
    assert mark(objects)["root"] == str(fs.root)
    assert mark(objects)["store"] == (await fs.parts.catalogue.meta())["store_id"]
    assert (await owner(fs))["verdict"] == "ours"
    asked = len(objects.calls)
    await fs.write(FILE, b"another take")
    await fs.drain()
    assert ("get_small", MARK_KEY) not in objects.calls[asked:]
    await fs.stop()


async def test_another_store_changes_nothing_and_says_why(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore, expect_log: ExpectLog
) -> None:
    """As a new store where the disk of the first did not come up."""
    first = await store(nursery, tmp_path / "disk", objects)
    await first.write(FILE, b"the original")
    await first.drain()
    await first.stop()
    objects.calls.clear()
    expect_log("belongs to the store .*/disk on")
    second = await store(nursery, tmp_path / "bare", objects)
    await second.write(FILE, b"another")
    await second.write(f"{REC}/second", b"another")
    await second.unlink(f"{REC}/second")
    reason = await refused(second)
    for word in (str(first.root), "prefix", "recfs bucket claim --force"):
        assert word in reason
    status = await second.answers()["status"]({})
    assert any("belongs to" in problem for problem in status["problems"])
    with pytest.raises(PrefixTaken):
        await second.answers()["lifecycle_apply"]({})
    with pytest.raises(PrefixTaken):
        await second.answers()["presign"]({"path": f"{REC}/new", "put": True})
    with trio.fail_after(GUARD_S):
        await second.answers()["drain"]({"timeout_s": 10.0, "retries": False})
        await second.stop()
    assert changed(objects) == set()
    assert objects.data(FILE) == b"the original"


async def test_objects_without_a_mark_are_not_touched_by_a_store_that_does_not_know_them(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore, expect_log: ExpectLog
) -> None:
    objects.tamper("users/5/recordings/9/theirs", b"somebody's")
    fs = await store(nursery, tmp_path / "root", objects)
    expect_log("holds objects that this store knows nothing of")
    await fs.write(FILE, b"a take")
    assert "knows nothing of" in await refused(fs)
    assert (await owner(fs, "bucket_claim"))["claimed"] is False
    assert changed(objects) == set()
    assert (await owner(fs, "bucket_claim", force=True))["claimed"] is True
    await fs.drain()
    assert objects.data(FILE) == b"a take"
    await fs.stop()


async def test_other_things_in_the_bucket_are_nobodys_business(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore
) -> None:
    """Without a prefix, a bucket may hold anything beside users/, shared/ and temp/."""
    objects.tamper("backups/users/1", b"")
    fs = await store(nursery, tmp_path / "root", objects)
    await fs.write(FILE, b"a take")
    await fs.drain()
    assert objects.data(FILE) == b"a take"
    await fs.stop()


async def test_a_store_of_an_earlier_version_marks_what_it_has(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore
) -> None:
    fs = await store(nursery, tmp_path / "root", objects)
    await fs.write(FILE, b"a take")
    await fs.drain()
    await fs.stop()
    objects._small.clear()
    await fs.reopen()
    await fs.write(FILE, b"another take")
    await fs.drain()
    assert mark(objects)["root"] == str(fs.root)
    assert objects.data(FILE) == b"another take"
    await fs.stop()


async def test_a_restart_is_no_news(nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore) -> None:
    """Neither in order nor after a crash: nothing is logged, and the token is another."""
    fs = await store(nursery, tmp_path / "root", objects)
    tokens = set()
    for n in range(4):
        await fs.write(FILE, b"take %d" % n)
        await fs.drain()
        tokens.add(mark(objects)["token"])
        await (fs.stop() if n % 2 else fs.crash())
        await fs.reopen()
    assert len(tokens) == 4
    await fs.stop()


async def test_two_daemons_on_copies_of_one_store(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore, expect_log: ExpectLog
) -> None:
    """Who came last goes on, with a word of warning; the other changes nothing any more."""
    first = await store(nursery, tmp_path / "root", objects)
    await first.write(FILE, b"a take")
    await first.drain()
    await first.stop()
    shutil.copytree(first.root, tmp_path / "copy", symlinks=True)
    await first.reopen()
    await first.write(FILE, b"of the first")
    await first.drain()
    expect_log("was last used by a copy of this store|copied or restored|is used by a copy of this store")
    second = tiered(nursery, tmp_path / "copy")
    second.objects = objects
    await second.start()
    await second.write(FILE, b"of the copy")
    await second.drain()
    assert objects.data(FILE) == b"of the copy"
    first.tier.ownership._good_until = float("-inf")  # ten minutes later
    await first.write(FILE, b"too late")
    assert "used by a copy of this store" in await refused(first)
    assert objects.data(FILE) == b"of the copy"
    await first.stop()
    await second.stop()


async def test_the_mark_is_looked_at_again_after_a_while(
    nursery: trio.Nursery,
    tmp_path: Path,
    objects: FakeObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: ExpectLog,
) -> None:
    monkeypatch.setattr(ownership, "LOOK_EVERY_S", 0.0)
    fs = await store(nursery, tmp_path / "root", objects)
    await fs.write(FILE, b"a take")
    await fs.drain()
    objects.put_small(MARK_KEY, b'{"store": "x", "token": "", "host": "h", "root": "/r", "since": ""}', only_new=False)
    expect_log("belongs to the store /r on h")
    await fs.write(FILE, b"another take")
    assert "belongs to" in await refused(fs)
    assert objects.data(FILE) == b"a take"
    monkeypatch.setattr(ownership, "REFUSED_LOOK_S", 0.0)
    assert (await owner(fs, "bucket_claim", force=True))["claimed"] is True
    await fs.drain()
    assert objects.data(FILE) == b"another take"
    await fs.stop()


async def test_without_s3_the_store_is_mounted_and_the_look_is_made_when_there_is_one(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore, expect_log: ExpectLog
) -> None:
    objects.fail("get_small", Unreachable("no route"), times=1)
    expect_log("no route")
    fs = await store(nursery, tmp_path / "root", objects)
    await fs.write(FILE, b"a take")
    assert "no route" in await refused(fs)
    assert changed(objects) == set()
    await fs.answers()["queue_retry"]({"all": True})
    await fs.drain()
    assert await fs.state(FILE) == State.STORED
    await fs.stop()


async def test_of_two_new_stores_one_gets_the_prefix(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore, expect_log: ExpectLog
) -> None:
    first = await store(nursery, tmp_path / "first", objects)
    second = await store(nursery, tmp_path / "second", objects)
    expect_log("belongs to the store")

    def other_is_faster(operation: str, _key: str | None) -> None:
        if operation == "put_small":
            objects.before = lambda _operation, _key: None
            trio.from_thread.run(second.tier.ownership.ensure)

    objects.before = other_is_faster
    with pytest.raises(PrefixTaken):
        await first.tier.ownership.ensure()
    assert mark(objects)["root"] == str(second.root)
    await first.stop()
    await second.stop()


async def test_a_server_that_does_not_write_on_condition_is_read_back(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore, expect_log: ExpectLog
) -> None:
    objects.knows_conditions = False
    first = await store(nursery, tmp_path / "first", objects)
    second = await store(nursery, tmp_path / "second", objects)
    expect_log("belongs to the store")
    looks = 0

    def other_writes_in_between(operation: str, _key: str | None) -> None:
        nonlocal looks
        looks += operation == "get_small"
        if looks == 2:
            objects.before = lambda _operation, _key: None
            trio.from_thread.run(second.tier.ownership.claim)

    objects.before = other_writes_in_between
    with pytest.raises(PrefixTaken):
        await first.tier.ownership.ensure()
    assert mark(objects)["root"] == str(second.root)
    await first.stop()
    await second.stop()


# --- a mark that is gone -----------------------------------------------------------------------------------------


async def emptied(nursery: trio.Nursery, root: Path, objects: FakeObjectStore) -> Filesystem:
    """A store with a file in S3 alone and one that is here as well, whose bucket was emptied past it."""
    fs = await store(nursery, root, objects)
    await fs.write(FILE, b"a take")
    await fs.write(f"{REC}/here", b"a take that is here as well")
    await fs.drain()
    await evict(fs, FILE)
    empty(objects)
    return fs


def empty(objects: FakeObjectStore) -> None:
    for key in list(objects.keys()):
        objects.vanish(key)
    objects._small.clear()


async def problems(fs: Filesystem) -> str:
    return "\n".join((await fs.answers()["status"]({}))["problems"])


async def test_an_emptied_bucket_is_told_and_not_taken_for_new(
    nursery: trio.Nursery,
    tmp_path: Path,
    objects: FakeObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: ExpectLog,
) -> None:
    monkeypatch.setattr(ownership, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(ownership, "REFUSED_LOOK_S", 0.0)
    fs = await emptied(nursery, tmp_path / "root", objects)
    expect_log("has lost the mark and objects of this store: .* 1 file is in S3 only")
    objects.calls.clear()
    await fs.write(f"{REC}/new", b"another take")
    assert "has lost the mark and objects" in await refused(fs)
    assert objects.get_small(MARK_KEY) is None
    assert changed(objects) == set()
    assert "1 file is in S3 only" in await problems(fs)
    assert "recfs bucket claim" in await problems(fs)
    told = await owner(fs)
    assert (told["verdict"], told["usable"]) == ("lost", False)
    drained = await fs.answers()["drain"]({"timeout_s": 10.0})
    assert "has lost the mark and objects" in drained["stuck"]["first"][0]["reason"]
    kept = await fs.answers()["evict"]({"path": f"{REC}/here"})
    assert "may be the only copy" in kept["kept"][0]["reason"]
    assert (await owner(fs, "bucket_claim"))["claimed"] is True
    await fs.drain()
    assert objects.data(f"{REC}/new") == b"another take"
    assert objects.data(f"{REC}/here") == b"a take that is here as well"
    await evict(fs, f"{REC}/here")
    assert await fs.read(f"{REC}/here") == b"a take that is here as well"
    assert await problems(fs) == ""
    await fs.stop()


async def test_a_read_that_finds_its_object_gone_has_the_mark_looked_at(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore, expect_log: ExpectLog
) -> None:
    """Also when nothing is to be uploaded, and the bucket was made anew since by a server that makes them itself."""
    fs = await emptied(nursery, tmp_path / "root", objects)
    await fs.write(f"{REC}/new", b"another take")  # the last look at the mark was not long ago
    await fs.drain()
    assert objects.get_small(MARK_KEY) is None
    expect_log("has lost the mark and objects of this store|source.mp4: users/5/recordings/142/source.mp4")
    with pytest.raises(ObjectMissing):
        await fs.read(FILE)
    await until(lambda: fs.tier.ownership.lost)
    assert "1 file is in S3 only" in await problems(fs)
    drained = await fs.answers()["drain"]({"timeout_s": 10})
    assert "1 file is in S3 only" in drained["lost"]
    assert LOST_REMEDY not in drained["lost"]
    await fs.stop()


async def test_an_emptied_bucket_is_told_after_a_restart(
    nursery: trio.Nursery, tmp_path: Path, objects: FakeObjectStore, expect_log: ExpectLog
) -> None:
    fs = await emptied(nursery, tmp_path / "root", objects)
    await fs.stop()
    await fs.reopen()
    expect_log("has lost the mark and objects of this store")
    await fs.write(f"{REC}/new", b"another take")
    assert "has lost the mark and objects" in await refused(fs)
    assert objects.get_small(MARK_KEY) is None
    await fs.stop()


async def test_objects_that_are_brought_back_end_it(
    nursery: trio.Nursery,
    tmp_path: Path,
    objects: FakeObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: ExpectLog,
) -> None:
    monkeypatch.setattr(ownership, "REFUSED_LOOK_S", 0.0)
    fs = await store(nursery, tmp_path / "root", objects)
    await fs.write(FILE, b"a take")
    await fs.drain()
    kept = dict(objects._objects), dict(objects._small)
    empty(objects)
    await fs.stop()
    await fs.reopen()
    expect_log("has lost the mark and objects of this store")
    await fs.write(f"{REC}/new", b"another take")
    await refused(fs)
    objects._objects.update(kept[0])
    objects._small.update(kept[1])
    await fs.answers()["queue_retry"]({"all": True})
    await fs.drain()
    assert objects.data(f"{REC}/new") == b"another take"
    assert await problems(fs) == ""
    await fs.stop()
