"""The end of a mount with uploads to do: what is waited for, what is not, and what the next start goes on with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from recfs import ending, offline, remote
from recfs.clock import SystemClock
from recfs.config import Config
from recfs.ports.object_errors import AccessRefused, StoreDown, Unreachable
from recfs.stores.breaker import CircuitBreaker
from recfs.stores.wrap import RetryingObjectStore, RetryPolicy
from recfs.tier.queue.unanswered import Unanswered
from tests.fake_object_store import FakeObjectStore
from tests.helpers.virtual_time import GUARD_S

from .build import REC, Filesystem, filesystem, pattern
from .ending import ending_of
from .far import Hold, ask, bucket, down, failing, journalled, no_route
from .test_tier import FILE, MIB, S3, stored, tiered

HOUR = 3600


@pytest.fixture
async def fs(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Filesystem]:
    """A running one, whose files settle for a minute."""
    made = tiered(nursery, tmp_path / "root", upload={"settle": 60.0})
    await made.start()
    yield made
    await made.stop()


async def settle(fs: Filesystem, *, uploads: bool = True) -> None:
    """As a stop does."""
    with trio.fail_after(GUARD_S):
        await fs.parts.work.draining.drain(uploads=uploads, retries=False, mapped=False)


@pytest.mark.slow
async def test_a_stop_waits_for_uploads_and_does_not_let_them_settle(fs: Filesystem) -> None:
    """The minute is over at once."""
    await fs.write(FILE, pattern(20 * MIB))
    await settle(fs)
    assert stored(fs) == {FILE: pattern(20 * MIB)}


async def test_a_stop_without_uploads_still_commits(fs: Filesystem) -> None:
    """`recfs umount` has waited for the uploads as long as it was told to."""
    await fs.write(FILE, b"data")
    await settle(fs, uploads=False)
    assert stored(fs) == {}
    assert (fs.root / FILE).read_bytes() == b"data"
    assert fs.rows("select state from node where kind = 'file'") == ["committed"]


@pytest.mark.expect_log("not yours")
@pytest.mark.slow
async def test_a_stop_does_not_wait_for_what_fails(fs: Filesystem) -> None:
    """Each is tried once; the next start tries again."""
    bucket(fs).fail("put_file", AccessRefused("not yours"), times=1000)
    await fs.write(FILE, b"data")
    await fs.write(f"{REC}/large", pattern(20 * MIB))
    await settle(fs)
    assert stored(fs) == {f"{REC}/large": pattern(20 * MIB)}
    bucket(fs).heal()
    await fs.reopen()
    with trio.fail_after(GUARD_S):
        await fs.drain()
    assert stored(fs)[FILE] == b"data", "a start does not wait for the next try: something was put right, perhaps"


@no_route
async def test_a_stop_waits_for_nothing_while_s3_is_down(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Each of many files would run into the same timeout."""
    fs = tiered(nursery, tmp_path / "root")
    fake = bucket(fs)
    breaker = CircuitBreaker(threshold=1, first_pause_s=HOUR)
    fs.objects = RetryingObjectStore(fake, RetryPolicy(max_attempts=1), breaker)  # type: ignore[assignment]
    fake.fail("*", Unreachable("no route"), times=10_000)
    await fs.start()
    for number in range(50):
        await fs.write(f"{REC}/file{number}", b"data")
    await failing(fs)
    await settle(fs)
    assert (await ask(fs, "queue"))["totals"]["uploads"] == 50
    fs.parts.s3_services.close()  # type: ignore[union-attr]  # as the daemon does; else the waiting calls go on
    await fs.stop()


@pytest.mark.parametrize("size", [MIB, 20 * MIB])
@pytest.mark.slow
async def test_an_upload_that_a_stop_cuts_off_is_none_that_failed(fs: Filesystem, size: int) -> None:
    """It ends within a MiB, and goes on at the next start."""
    hold = Hold(fs, "put_file" if size == MIB else "upload_part")
    await fs.write(FILE, pattern(size))
    await journalled(fs)
    await ask(fs, "queue_retry", all=True)
    await hold.entered()
    async with trio.open_nursery() as ending:
        assert fs.parts.s3_services is not None
        fs.parts.s3_services.close()
        ending.start_soon(fs.stop)
        await trio.testing.wait_all_tasks_blocked()
        hold.let_go()
    assert stored(fs) == {}
    assert fs.rows("select kind, attempts, error from journal") == [("upload", 0, "")]
    assert fs.rows("select state from node where kind = 'file'") == ["committed"]
    await fs.reopen()
    await fs.drain()
    assert stored(fs) == {FILE: pattern(size)}


async def test_a_request_that_hangs_is_left_behind(
    fs: Filesystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    """It cannot be interrupted; all that counts is on the disk."""
    expect_log("leaves requests hanging")
    monkeypatch.setattr(ending, "HANGING_S", 0.05)
    stopping = ending_of(fs, tmp_path)
    codes: list[int] = []
    stopping._exit = codes.append
    await fs.write(FILE, b"data")
    async with trio.open_nursery() as services:
        services.start_soon(trio.sleep_forever)
        await stopping.leave_what_hangs(services)
        services.cancel_scope.cancel()
    assert codes == [0]
    assert fs.rows("select count(*) from node where kind = 'file'") == [1]
    async with trio.open_nursery() as services:
        await stopping.leave_what_hangs(services)
    assert codes == [0]


async def test_an_error_in_the_moment_of_a_stop_is_none(fs: Filesystem) -> None:
    """The store says that it is closing; nobody has to be told of that tomorrow."""
    hold = Hold(fs, "put_file")
    bucket(fs).fail("put_file", Unreachable("closing"))
    await fs.write(FILE, b"data")
    await journalled(fs)
    await ask(fs, "queue_retry", all=True)
    await hold.entered()
    async with trio.open_nursery() as ending:
        ending.start_soon(fs.stop)
        await trio.testing.wait_all_tasks_blocked()
        hold.let_go()
    assert fs.rows("select attempts from journal") == [0]
    await fs.reopen()


@no_route
async def test_drain_can_leave_what_fails(fs: Filesystem) -> None:
    """So does `recfs umount`; `recfs drain` waits for the next try."""
    down(fs)
    await fs.write(FILE, b"data")
    with trio.fail_after(GUARD_S):
        assert await ask(fs, "drain", timeout_s=60, retries=False) == {
            "pending": 0,
            "s3": True,
            "stays": {"files": 0, "bytes": 0, "oldest_s": None, "paths": []},
            "refused": {"rows": 0, "uploads": 0, "first": []},
            "stuck": {"items": 0, "first": []},
            "watched": 0,
            "lost": None,
        }
    assert (await ask(fs, "drain", timeout_s=0.1))["pending"] == 1
    bucket(fs).heal()


async def test_whoever_stops_says_whether_uploads_are_waited_for(fs: Filesystem) -> None:
    """By default they are."""
    for params, waits in (({}, True), ({"uploads": True}, True), ({"uploads": False}, False)):
        answers = fs._answers()
        assert await answers.stop_daemon(params) == {
            "stopping": True,
            "sealing_later": 0,
            "sealing_later_paths": [],
        }
        assert answers.waits_for_uploads is waits


@pytest.mark.slow
async def test_what_s3_did_not_even_see_is_tried_again_soon(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Not after [upload] retry_max: while it is down nobody asks it but for one probe at a time."""
    fs = tiered(nursery, tmp_path / "root", upload={"settle": 0.0, "retry_max": 3600.0})
    fake = bucket(fs)
    fake.fail("*", StoreDown("down: no route"), times=10_000)
    await fs.start()
    await fs.write(FILE, b"data")
    for _ in range(8):
        await failing(fs)
        [row] = (await ask(fs, "queue"))["rows"]
        assert row["next_try_s"] <= 15
        fs.clock.advance(15)
    fake.heal()
    await ask(fs, "queue_retry", all=True)
    await fs.drain()
    assert stored(fs) == {FILE: b"data"}
    await fs.stop()


# --- names that look temporary -------------------------------------------------------------------------------------


async def test_a_file_renamed_long_after_its_commit_is_uploaded_soon(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Not when its temporary name would have been looked at again, an hour later."""
    fs = tiered(nursery, tmp_path / "root", upload={"settle": 5.0})
    await fs.start()
    await fs.write(f"{REC}/.file.part", b"data")
    await journalled(fs)
    fs.clock.advance(5)
    fs.tier.journal.wake.set()
    with trio.fail_after(GUARD_S):
        while fs.rows("select next_try_ns from journal")[0] < fs.clock.now_ns() + 1000 * 10**9:  # noqa: ASYNC110
            await trio.sleep(0.001)
    await fs.rename(f"{REC}/.file.part", FILE)
    [row] = (await ask(fs, "queue"))["rows"]
    assert (row["path"], row["next_try_s"]) == (FILE, 5.0)
    fs.clock.advance(5)
    fs.tier.journal.wake.set()
    await fs.drain()
    assert stored(fs) == {FILE: b"data"}
    await fs.stop()


async def test_waiting_does_not_look_at_a_temporary_name_over_and_over(fs: Filesystem) -> None:
    """Each look would be a row written."""
    await fs.write(f"{REC}/.file.part", b"data")
    hold = Hold(fs, "put_file")
    await fs.write(FILE, b"data")
    journal = fs.tier.journal
    before, updates = journal.update, []
    journal.update = lambda row: (updates.append(row), before(row))
    async with trio.open_nursery() as waiting:
        waiting.start_soon(settle, fs)
        await hold.entered()
        for _ in range(50):
            await trio.sleep(0.001)
        hold.let_go()
    assert len([row for row in updates if row.ino == (fs.rows("select ino from journal")[0])]) <= 2


# --- without a mount -----------------------------------------------------------------------------------------------


def test_a_command_that_opens_the_store_for_a_moment_uploads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`recfs quota set` would take as long as all uploads."""
    root, fake = tmp_path / "root", FakeObjectStore()

    async def make() -> None:
        async with filesystem(root, start=False, **S3 | {"upload": {"settle": 60.0}}) as fs:
            fs.objects = fake
            await fs.start()
            await fs.write(FILE, b"data")
            await journalled(fs)

    trio.run(make)
    monkeypatch.setattr(remote, "connect", lambda *_: fake)
    config = Config.model_validate({"root": root, "min_free": 0, **S3})
    assert offline.Offline(config).call("quota_set", user="5", max_files=7)["limits"]["max_files"] == 7
    assert list(fake.keys()) == []


def test_the_store_tries_again_as_the_configuration_says() -> None:
    """And has a circuit breaker; nothing is asked of the server for that."""
    section = {"bucket": "bucket", "endpoint": "http://127.0.0.1:1", "max_attempts": 3, "deadline": "7s"}
    unanswered = Unanswered(SystemClock({}, "boot"))
    made = remote.connect(Config.model_validate({"root": "/srv", "s3": section}), unanswered)
    assert isinstance(made, RetryingObjectStore)
    assert (made._policy.max_attempts, made._policy.deadline_s) == (3, 7.0)
    made.close()
    assert remote.connect(Config.model_validate({"root": "/srv"}), unanswered) is None
