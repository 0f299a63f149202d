"""What the daemon answers of the S3 queue and the tier as a whole; and of everything, where there is no S3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from recfs.api import summaries, summaries_s3
from recfs.errors import InvalidArgument, NotSupported
from recfs.ports.object_errors import Unreachable
from recfs.stores.breaker import CircuitBreaker
from recfs.stores.wrap import RetryingObjectStore, RetryPolicy
from tests.helpers.reports import answer_of
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, pattern
from .far import OTHER, Hold, ask, bucket, down, failing, fs, journalled, no_route, until
from .test_tier import FILE, MIB, evict, stored, tiered

__all__ = ["fs"]


# --- the queue -----------------------------------------------------------------------------------------------------


async def test_an_empty_queue(fs: Filesystem) -> None:
    """Nothing to do, and totals that say so."""
    found = await ask(fs, "queue")
    assert (found["rows"], found["more"], found["totals"]["rows"]) == ([], 0, 0)


@no_route
async def test_what_fails_is_told_with_error_and_next_try(fs: Filesystem) -> None:
    """And stays in the queue; status tells of it, too."""
    down(fs)
    await fs.write(FILE, b"data")
    await failing(fs)
    [row] = (await ask(fs, "queue"))["rows"]
    assert (row["kind"], row["path"], row["state"], row["size_bytes"]) == ("upload", FILE, "failed", 4)
    assert "no route" in row["error"]
    assert row["attempts"] == 1
    assert 0 < row["next_try_s"] <= 300
    status = await ask(fs, "status")
    assert status["s3"]["queue"]["failed"] == 1
    assert status["s3"]["unsent_bytes"] == 4
    assert any(FILE in problem and "no route" in problem for problem in status["problems"])
    bucket(fs).heal()


@no_route
async def test_retry_does_not_wait_for_the_next_try(fs: Filesystem) -> None:
    """The clock stands still here: nothing else would make it due."""
    bucket(fs).fail("put_file", Unreachable("no route"))
    await fs.write(FILE, b"data")
    await failing(fs)
    [row] = (await ask(fs, "queue"))["rows"]
    answer = await ask(fs, "queue_retry", ids=[row["id"], 999])
    assert (answer["retried"], answer["kept"], answer["gone"]) == ([row["id"]], [], [999])
    await until(lambda: stored(fs) == {FILE: b"data"})


async def test_retry_counts_what_is_really_tried(fs: Filesystem) -> None:
    """A temporary name does not change by asking; asked for by number, the answer says so."""
    await fs.write(f"{REC}/.hidden", b"x")
    await journalled(fs)
    await until(lambda: not fs.tier.journal.running)
    [row] = (await ask(fs, "queue"))["rows"]
    answer = await ask(fs, "queue_retry", all=True)
    assert (answer["retried"], answer["kept"], answer["gone"], answer["running"]) == ([], [], [], 0)
    answer = await ask(fs, "queue_retry", ids=[row["id"]])
    assert answer["retried"] == []
    [kept] = answer["kept"]
    assert (kept["id"], "rename" in kept["reason"]) == (row["id"], True)


@pytest.mark.slow
async def test_running_uploads_are_first_and_tell_how_far_they_are(fs: Filesystem) -> None:
    """Parts that were sent count."""
    await fs.write(f"{REC}/.hidden", b"x")
    await journalled(fs)
    hold = Hold(fs, "finish_multipart")
    await fs.write(FILE, pattern(20 * MIB))
    await hold.entered()
    found = await ask(fs, "queue")
    assert [(row["path"], row["state"]) for row in found["rows"]] == [
        (FILE, "running"),
        (f"{REC}/.hidden", "waiting"),
    ]
    assert found["rows"][0]["sent_bytes"] == 20 * MIB
    assert found["rows"][1]["why"] == "its name looks temporary"
    limited = await ask(fs, "queue", limit=1)
    assert (len(limited["rows"]), limited["more"], limited["totals"]["rows"]) == (1, 1, 2)
    hold.let_go()
    await fs.drain()


async def test_an_upload_that_settles_can_be_hurried(nursery: trio.Nursery, tmp_path: Path) -> None:
    """With retry."""
    fs = tiered(nursery, tmp_path / "root", upload={"settle": 60.0})
    await fs.start()
    await fs.write(FILE, b"data")
    await journalled(fs)
    [row] = (await ask(fs, "queue"))["rows"]
    assert (row["state"], row["why"], row["next_try_s"]) == ("waiting", "settling", 60.0)
    assert (await ask(fs, "queue_retry", all=True))["retried"] == [row["id"]]
    await until(lambda: stored(fs) == {FILE: b"data"})
    await fs.stop()


async def test_a_deletion_that_waits_for_the_trash_is_not_hurried(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Not even by `retry --all`: the retention was promised."""
    fs = tiered(nursery, tmp_path / "root", trash={"retention": 3600.0})
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.drain()
    await fs.unlink(FILE)
    await journalled(fs)
    [row] = (await ask(fs, "queue"))["rows"]
    assert (row["kind"], row["state"], row["next_try_s"]) == ("delete", "waiting", 3600.0)
    assert (await ask(fs, "queue_retry", all=True))["retried"] == []
    assert stored(fs) == {FILE: b"data"}
    assert (await ask(fs, "queue_drop", ids=[row["id"]]))["dropped"] == [row["id"]]
    fs.clock.advance(4000)
    await fs.drain()
    assert stored(fs) == {FILE: b"data"}, "a dropped deletion leaves the object"
    await fs.stop()


@no_route
async def test_dropping_an_upload_leaves_the_file_committed(fs: Filesystem) -> None:
    """And nothing brings it back by itself."""
    down(fs)
    await fs.write(FILE, b"data")
    await failing(fs)
    assert len((await ask(fs, "queue_drop", all=True))["dropped"]) == 1
    bucket(fs).heal()
    await fs.drain()
    assert await fs.state(FILE) == "committed"
    assert stored(fs) == {}
    assert await fs.read(FILE) == b"data"
    await fs.reopen()
    await fs.drain()
    assert stored(fs) == {}


@pytest.mark.slow
async def test_dropping_a_multipart_upload_under_way_aborts_it(fs: Filesystem) -> None:
    """Nothing of it stays in the bucket."""
    hold = Hold(fs, "upload_part")
    await fs.write(FILE, pattern(20 * MIB))
    await hold.entered()
    [row] = (await ask(fs, "queue"))["rows"]
    assert (await ask(fs, "queue_drop", ids=[row["id"]]))["dropped"] == [row["id"]]
    hold.let_go()
    await fs.drain()
    assert await fs.state(FILE) == "committed"
    assert (stored(fs), bucket(fs).list_multiparts()) == ({}, [])


async def test_dropping_an_upload_that_is_all_but_done_takes_its_object_away(fs: Filesystem) -> None:
    """The server has it by then; the file is committed all the same."""
    hold = Hold(fs, "put_file")
    await fs.write(FILE, b"data")
    await hold.entered()
    await ask(fs, "queue_drop", all=True)
    hold.let_go()
    await fs.drain()
    assert await fs.state(FILE) == "committed"
    assert stored(fs) == {}
    assert fs.rows("select count(*) from journal") == [0]


@no_route
async def test_moves_cannot_be_dropped(fs: Filesystem) -> None:
    """The next file of the old name would take the object's place."""
    await fs.write(FILE, b"data")
    await fs.drain()
    down(fs, "copy")
    await fs.rename(FILE, OTHER)
    await failing(fs)
    answer = await ask(fs, "queue_drop", all=True)
    assert answer["dropped"] == []
    assert "overwrite the object" in answer["kept"][0]["reason"]
    [row] = (await ask(fs, "queue"))["rows"]
    assert (row["kind"], row["path"]) == ("move", OTHER)
    bucket(fs).heal()


@pytest.mark.parametrize("params", [{}, {"ids": []}, {"ids": ["1"]}, {"ids": 3}, {"ids": [True]}])
async def test_retry_and_drop_say_what_they_want(fs: Filesystem, params: dict[str, Any]) -> None:
    """Numbers, or all."""
    for method in ("queue_retry", "queue_drop"):
        with pytest.raises(InvalidArgument, match="--all"):
            await ask(fs, method, **params)


@no_route
async def test_the_queue_is_read_without_a_daemon(fs: Filesystem) -> None:
    """From the catalogue, the same rows."""
    down(fs)
    await fs.write(FILE, b"data")
    await failing(fs)
    live = await ask(fs, "queue")
    await fs.crash()
    path = fs.root / ".recfs" / "catalogue.db"
    read = answer_of(path, lambda snapshot: summaries_s3.queue(snapshot, fs.clock.now_ns(), {}))
    assert (read["rows"], read["totals"]) == (live["rows"], live["totals"])
    status = answer_of(path, summaries.status, fs.config)
    assert status["s3"]["queue"]["failed"] == 1
    assert status["s3"]["url"] == "s3://bucket/"
    assert "no route" in status["problems"][0]
    bucket(fs).heal()
    await fs.reopen()


@no_route
async def test_one_of_few_rows_says_why_something_fails(fs: Filesystem) -> None:
    """However many others are under way, which come first."""
    down(fs)
    for name in (FILE, OTHER):
        await fs.write(name, b"data")
    await until(lambda: fs.rows("select count(*) from journal where attempts > 0") == [2])
    path = fs.root / ".recfs" / "catalogue.db"
    first, second = answer_of(path, lambda snapshot: summaries_s3.queue(snapshot, fs.clock.now_ns(), {}))["rows"]
    found = answer_of(path, lambda snapshot: summaries_s3.queue(snapshot, fs.clock.now_ns(), {first["id"]: 0}, limit=1))
    assert [row["id"] for row in found["rows"]] == [second["id"]]
    assert "no route" in str(summaries_s3.problem(found))
    bucket(fs).heal()


@no_route
async def test_drain_says_what_is_left(fs: Filesystem) -> None:
    """By name, with the error."""
    down(fs)
    await fs.write(FILE, b"data")
    with trio.fail_after(GUARD_S):
        while (answer := await ask(fs, "drain", timeout_s=0.2))["pending"] != 1:
            pass  # all else takes its time, and is done in the end
    [row] = answer["left"]["s3"]["rows"]
    assert (row["path"], row["kind"]) == (FILE, "upload")
    bucket(fs).heal()
    await ask(fs, "queue_retry", all=True)
    assert await ask(fs, "drain", timeout_s=10) == {
        "pending": 0,
        "s3": True,
        "stays": {"files": 0, "bytes": 0, "oldest_s": None, "paths": []},
        "refused": {"rows": 0, "uploads": 0, "first": []},
        "stuck": {"items": 0, "first": []},
        "watched": 0,
        "lost": None,
    }


# --- status --------------------------------------------------------------------------------------------------------


async def test_status_tells_of_the_tier(fs: Filesystem) -> None:
    """Where the bucket is, and how much of the budget is used."""
    await fs.write(FILE, b"data")
    await fs.drain()
    block = (await ask(fs, "status"))["s3"]
    assert block["url"] == "s3://bucket/"
    assert (block["local_bytes"], block["budget_bytes"], block["unsent_bytes"]) == (4, 20 << 30, 0)
    assert (block["problem"], block["tier_run"]) == (None, None)
    await evict(fs)
    assert (await ask(fs, "status"))["s3"]["local_bytes"] == 0


@no_route
async def test_status_tells_of_the_circuit_breaker(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Open, and what opened it."""
    fs = tiered(nursery, tmp_path / "root")
    fake = bucket(fs)
    wrapped = RetryingObjectStore(fake, RetryPolicy(max_attempts=1, deadline_s=0.01), CircuitBreaker(threshold=1))
    fs.objects = wrapped  # type: ignore[assignment]
    await fs.start()
    assert (await ask(fs, "queue"))["breaker"] == {"state": "closed", "error": None}
    fake.fail("*", Unreachable("no route"), times=10_000)
    await fs.write(FILE, b"data")
    await failing(fs)
    breaker = (await ask(fs, "status"))["s3"]["breaker"]
    assert (breaker["state"], breaker["error"]) == ("open", "no route")
    await fs.stop()


async def test_info_tells_what_s3_holds(fs: Filesystem) -> None:
    """And that nothing is here, once it is evicted."""
    await fs.write(FILE, b"data")
    await fs.drain()
    found = await ask(fs, "info", path=FILE)
    assert (found["location"], found["s3"]["key"], found["s3"]["current"]) == ("local,s3", FILE, True)
    await evict(fs)
    found = await ask(fs, "info", path=FILE)
    assert (found["location"], found["local_path"], found["state"]) == ("s3", None, "evicted")


# --- without [s3] --------------------------------------------------------------------------------------------------


async def test_without_s3_everything_says_so(nursery: trio.Nursery, tmp_path: Path) -> None:
    """With the remedy; routes are explained all the same."""
    fs = Filesystem(nursery, tmp_path / "root")
    await fs.start()
    await fs.write(FILE, b"data")
    await fs.drain()
    for method, params in {
        "queue": {},
        "queue_retry": {"all": True},
        "queue_drop": {"all": True},
        "evict": {"path": FILE},
        "fetch": {"path": FILE},
        "pin": {"path": FILE},
        "tier_run": {},
        "restore": {"path": FILE},
        "presign": {"path": FILE},
        "lifecycle_show": {},
        "lifecycle_apply": {},
    }.items():
        with pytest.raises(NotSupported, match=r"add \[s3\]"):
            await ask(fs, method, **params)
    assert (await ask(fs, "route_explain", path=FILE))["decision"]["store"] == "local"
    assert (await ask(fs, "status"))["s3"] is None
    await fs.stop()
