"""What the daemon answers of the rules: explaining them, and bringing files to where they want them."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import trio

from recfs.config import Config
from recfs.errors import Busy, InvalidArgument, InvalidPath, IoFailure, IsADirectory
from recfs.ports.object_errors import AccessRefused
from recfs.state.nodes import FileNode
from recfs.state.walk import Found

from .build import REC, Filesystem, pattern
from .far import OTHER, Hold, ask, bucket, fs, journalled, until
from .test_tier import FILE, MIB, evict, stored, tiered

__all__ = ["fs"]

ARCHIVE_RULE = {"pattern": "users/*/recordings/142/file", "to": "s3", "storage_class": "GLACIER"}
LOCAL_RULE = {"pattern": "users/*/recordings/**", "to": "local"}


async def committed_here(nursery: trio.Nursery, root: Path, files: dict[str, bytes]) -> None:
    """Make a store without S3 that has these files."""
    fs = Filesystem(nursery, root)
    await fs.start()
    for path, data in files.items():
        await fs.write(path, data)
    await fs.drain()
    await fs.stop()


async def test_route_explain_of_a_file(fs: Filesystem) -> None:
    """Which rule decides, and where the file is."""
    await fs.write(FILE, b"data")
    await fs.drain()
    found = await ask(fs, "route_explain", path=FILE)
    assert (found["exists"], found["size_bytes"], found["assumed"], found["move"]) == (True, 4, [], None)
    assert [(rule["matched"], rule["decides"]) for rule in found["rules"]] == [(True, True)]
    assert (found["decision"]["store"], found["decision"]["rule"]) == ("s3", 1)
    assert (found["now"]["state"], found["now"]["location"]) == ("stored", "local,s3")


async def test_route_explain_of_what_does_not_exist(nursery: trio.Nursery, tmp_path: Path) -> None:
    """By size and age, with what each rule says."""
    rules = [
        {"pattern": "users/**", "to": "s3", "min_size": "8 MiB", "min_age": "1d", "storage_class": "STANDARD_IA"},
        {"pattern": "users/**", "to": "local"},
    ]
    fs = tiered(nursery, tmp_path / "root", route=rules)
    await fs.start()
    found = await ask(fs, "route_explain", path=FILE)
    assert (found["exists"], found["now"], found["assumed"]) == (False, None, ["size", "age"])
    assert [rule["matched"] for rule in found["rules"]] == [False, True]
    assert "min_size" in found["rules"][0]["why"]
    assert found["decision"]["rule"] == 2
    found = await ask(fs, "route_explain", path=FILE, size_bytes=9 * MIB, age_s=90_000.0)
    assert (found["decision"]["rule"], found["decision"]["storage_class"]) == (1, "STANDARD_IA")
    with pytest.raises(InvalidPath):
        await ask(fs, "route_explain", path="users/file.mp4")
    with pytest.raises(InvalidArgument):
        await ask(fs, "route_explain", path=FILE, size_bytes=-1)
    await fs.mkdirs(REC)
    with pytest.raises(IsADirectory):
        await ask(fs, "route_explain", path=REC)
    await fs.stop()


async def test_tier_run_uploads_what_belongs_to_s3(nursery: trio.Nursery, tmp_path: Path) -> None:
    """The files of a store that had no S3; the dry run only tells."""
    files = {FILE: b"data", OTHER: b"other", "shared/thumbnails/one.png": b"png"}
    await committed_here(nursery, tmp_path / "root", files)
    fs = tiered(nursery, tmp_path / "root")
    await fs.start()
    dry = await ask(fs, "tier_run", dry_run=True)
    assert dry["steps"]["upload"] == {"files": 2, "bytes": 9}
    assert {(each["path"], each["step"]) for each in dry["moved"]} == {(FILE, "upload"), (OTHER, "upload")}
    assert "rule 1" in dry["moved"][0]["reason"]
    assert (await ask(fs, "route_explain", path=FILE))["move"]["step"] == "upload"
    await fs.drain()
    assert stored(fs) == {}
    done = await ask(fs, "tier_run")
    assert (done["files"], done["steps"]["upload"]["files"], done["kept"]) == (3, 2, [])
    await fs.drain()
    assert stored(fs) == {FILE: b"data", OTHER: b"other"}
    assert (await ask(fs, "tier_run"))["steps"]["upload"]["files"] == 0
    await fs.stop()


async def test_tier_run_keeps_half_the_budget_free(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Else the uploads of an old store would hold every writer back."""
    await committed_here(nursery, tmp_path / "root", {f"{REC}/f{n}": pattern(700_000, n) for n in range(6)})
    fs = tiered(
        nursery, tmp_path / "root", cache={"max_size": 2 * MIB, "fetch_whole_below": MIB, "read_ahead_max": MIB}
    )
    await fs.start()
    hold = Hold(fs, "put_file")
    async with trio.open_nursery() as runs:
        answers = fs.answers()
        runs.start_soon(answers["tier_run"], {})
        await hold.entered()
        await until(lambda: fs.tier.journal.unsent_bytes() >= MIB)
        for _ in range(20):
            await trio.testing.wait_all_tasks_blocked()
        assert fs.tier.journal.unsent_bytes() <= 2 * MIB
        progress = (await answers["status"]({}))["s3"]["tier_run"]
        assert 0 < progress["steps"]["upload"]["files"] < 6
        with pytest.raises(Busy):
            await answers["tier_run"]({})
        hold.let_go()
    await fs.drain()
    assert len(stored(fs)) == 6
    await fs.stop()


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.table
async def test_tier_run_brings_home_what_belongs_here(nursery: trio.Nursery, tmp_path: Path, here: bool) -> None:
    """Verified; then the object goes."""
    fs = tiered(nursery, tmp_path / "root")
    await fs.start()
    data = pattern(20 * MIB)
    await fs.write(FILE, data)
    await fs.drain()
    if not here:
        await evict(fs)
    await fs.stop()
    fs.config = Config.model_validate(
        {"root": fs.root, "min_free": 0, "s3": {"bucket": "bucket"}, "upload": {"settle": 0.0}, "route": [LOCAL_RULE]}
    )
    await fs.start()
    assert stored(fs) == {FILE: data}, "a changed rule moves nothing by itself"
    assert (await ask(fs, "tier_run"))["steps"]["bring home"] == {"files": 1, "bytes": len(data)}
    await fs.drain()
    assert await fs.state(FILE) == "committed"
    assert (stored(fs), (fs.root / FILE).read_bytes() == data) == ({}, True)
    assert fs.rows("select count(*) from object") == [0]
    assert fs.tier.copies.local_bytes == 0
    await fs.reopen()
    assert await fs.read(FILE) == data
    await fs.stop()


@pytest.mark.parametrize("then", ["dies", "file removed"])
async def test_what_was_brought_home_leaves_s3_also_where_that_was_not_sure(
    nursery: trio.Nursery, tmp_path: Path, then: str
) -> None:
    """The object is the way back until the rows are on the disk: here they are not, and the daemon dies, or the file is
    removed. No hour has to pass.
    """
    fs = tiered(nursery, tmp_path / "root")
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.drain()
    await fs.stop()
    fs.config = Config.model_validate(
        {"root": fs.root, "min_free": 0, "s3": {"bucket": "bucket"}, "upload": {"settle": 0.0}, "route": [LOCAL_RULE]}
    )
    await fs.start()
    refuses = mock.AsyncMock(side_effect=IoFailure("the log cannot be synced"))
    with mock.patch.object(fs.parts.catalogue, "sync", refuses), pytest.raises(IoFailure):
        await ask(fs, "tier_run")
    await fs.parts.behind.flush()
    await fs.drain()
    assert stored(fs) == {FILE: b"data"}, "it waits"
    if then == "dies":
        await fs.crash()
        await fs.reopen()
        assert await fs.read(FILE) == b"data"
    else:
        await fs.unlink(FILE)
    await fs.drain()
    assert stored(fs) == {}
    await fs.stop()


@pytest.mark.expect_log("not yours")
async def test_bringing_home_deletes_nothing_that_did_not_come(nursery: trio.Nursery, tmp_path: Path) -> None:
    """S3 has the only bytes then."""
    fs = tiered(nursery, tmp_path / "root")
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.drain()
    await evict(fs)
    await fs.stop()
    fs.config = Config.model_validate(
        {"root": fs.root, "min_free": 0, "s3": {"bucket": "bucket"}, "upload": {"settle": 0.0}, "route": []}
    )
    await fs.start()
    bucket(fs).fail("get_range", AccessRefused("not yours"), times=100)
    answer = await ask(fs, "tier_run")
    assert answer["steps"]["bring home"]["files"] == 0
    assert answer["kept"] == [{"path": FILE, "reason": "not yours"}]
    await fs.drain()
    assert stored(fs) == {FILE: b"data"}
    bucket(fs).heal()
    assert await fs.read(FILE) == b"data"
    await fs.drain()
    await fs.stop()


@pytest.mark.parametrize("here", [True, False])
async def test_tier_run_changes_the_storage_class(nursery: trio.Nursery, tmp_path: Path, here: bool) -> None:
    """To the one the rule names."""
    fs = tiered(nursery, tmp_path / "root")
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.write(OTHER, b"other")
    await fs.drain()
    if not here:
        await evict(fs)
    await fs.stop()
    fs.config = Config.model_validate(
        {"root": fs.root, "min_free": 0, "s3": {"bucket": "bucket"}, "upload": {"settle": 0.0}}
        | {"route": [ARCHIVE_RULE | {"storage_class": "STANDARD_IA"}, {"pattern": "users/**", "to": "s3"}]}
    )
    await fs.start()
    dry = await ask(fs, "tier_run", dry_run=True)
    assert [(each["path"], each["step"]) for each in dry["moved"]] == [(FILE, "store anew")]
    assert "STANDARD" in dry["moved"][0]["reason"]
    assert (await ask(fs, "tier_run"))["steps"]["store anew"]["files"] == 1
    await fs.drain()
    head = bucket(fs).head(FILE)
    assert head is not None
    assert head.storage_class == "STANDARD_IA"
    assert stored(fs) == {FILE: b"data", OTHER: b"other"}
    assert await fs.state(FILE) == "stored"
    assert fs.tier.copies.local_bytes == sum(len(data) for data in (b"data", b"other"))
    assert (await ask(fs, "tier_run"))["steps"]["store anew"]["files"] == 0
    await fs.stop()


async def test_tier_run_finds_files_that_are_evicted_while_it_looks(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its own fetching makes the cache do."""
    fs = tiered(nursery, tmp_path / "root")
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.drain()
    await fs.stop()
    fs.config = Config.model_validate(
        {"root": fs.root, "min_free": 0, "s3": {"bucket": "bucket"}, "upload": {"settle": 0.0}}
        | {"route": [ARCHIVE_RULE | {"storage_class": "STANDARD_IA"}]}
    )
    await fs.start()
    found = Found.node

    async def evicted(self: Found) -> FileNode | None:
        here = await found(self)
        assert here is not None
        fs.tier.evictor.evict(here)
        return here

    monkeypatch.setattr(Found, "node", evicted)
    assert (await ask(fs, "tier_run"))["steps"]["store anew"]["files"] == 1
    await fs.drain()
    head = bucket(fs).head(FILE)
    assert head is not None
    assert head.storage_class == "STANDARD_IA"
    await fs.stop()


async def test_tier_run_takes_uploads_back_that_are_not_wanted_any_more(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Out of the queue, before a byte has gone."""
    fs = tiered(nursery, tmp_path / "root", upload={"settle": 3600.0})
    await fs.start()
    await fs.write(FILE, b"data")
    await journalled(fs)
    await fs.stop()
    fs.config = Config.model_validate({"root": fs.root, "min_free": 0, "s3": {"bucket": "bucket"}, "route": []})
    await fs.start()
    assert (await ask(fs, "tier_run"))["steps"]["unqueue"]["files"] == 1
    await fs.drain()
    assert (stored(fs), await fs.state(FILE)) == ({}, "committed")
    assert fs.rows("select count(*) from journal") == [0]
    await fs.stop()
