"""What S3 gave no answer to, and carries out all the same: later, and after what it was asked since."""

from __future__ import annotations

from pathlib import Path

import pytest

from recfs.core.model import State
from recfs.ports.object_errors import Stalled, StoreDown
from recfs.ports.objects import ObjectMeta
from recfs.stores.breaker import CircuitBreaker
from recfs.stores.wrap import RetryingObjectStore, RetryPolicy
from recfs.tier.queue.reasons import LOOKED_AT
from recfs.tier.queue.unanswered import KEPT_S
from tests.fake_object_store import FakeObjectStore

from .build import REC, Filesystem, pattern, until
from .far import ask
from .late import Late, drained, fs, not_replaced, restarted, stored_at_last, stored_once, waiting_move
from .test_tier import FILE, MIB, evict, node, stored

__all__ = ["fs"]
OTHER = f"{REC}/other"
pytestmark = pytest.mark.may_log("nothing came")


@pytest.mark.parametrize("size", [1000, 9 * MIB], ids=["small", "in-parts"])
async def test_an_earlier_version_that_comes_late_does_not_stay(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int
) -> None:
    """A file counts as stored, and its local copy may go, only when nothing has come in between."""
    late, new = Late(fs, monkeypatch, "put_file"), pattern(size)
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.write(FILE, new)
    await stored_once(fs, FILE, new)
    assert (await node(fs)).state is not State.STORED
    late.arrive(tmp_path)
    assert stored(fs) == {FILE: b"earlier"}
    await fs.drain()
    assert stored(fs) == {FILE: new}
    fs.clock.advance(KEPT_S)
    await stored_at_last(fs)
    await evict(fs)
    assert await fs.read(FILE) == new


async def test_nor_does_that_of_the_file_that_had_the_name(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.write(OTHER, b"other bytes")
    await fs.rename(OTHER, FILE)
    await stored_once(fs, FILE, b"other bytes")
    late.arrive(tmp_path)
    await fs.drain()
    assert stored(fs) == {FILE: b"other bytes"}


async def test_an_upload_after_the_removal_goes_as_well(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The object of a file that is not there is deleted once more, when nothing comes any more."""
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.unlink(FILE)
    await fs.drain()
    late.arrive(tmp_path)
    assert stored(fs) == {FILE: b"earlier"}
    fs.clock.advance(KEPT_S)
    await until(lambda: stored(fs) == {})


async def test_the_second_deletion_spares_a_new_file(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.unlink(FILE)
    await fs.drain()
    await fs.write(FILE, b"new")
    await fs.drain()
    fs.clock.advance(2 * KEPT_S)
    await fs.drain()
    assert stored(fs) == {FILE: b"new"}


async def test_a_late_deletion_takes_no_new_file(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await fs.write(FILE, b"earlier")
    await fs.drain()
    late = Late(fs, monkeypatch, "delete")
    await fs.unlink(FILE)
    await late.taken()
    await fs.write(FILE, b"new")
    await stored_once(fs, FILE, b"new")
    late.arrive(tmp_path)
    assert stored(fs) == {}
    await fs.drain()
    assert stored(fs) == {FILE: b"new"}


async def test_an_object_is_not_moved_to_where_an_upload_may_come_late(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be all there is of its file."""
    late = await waiting_move(fs, monkeypatch)
    late.arrive(tmp_path)
    assert await fs.read(FILE) == b"all there is"
    fs.clock.advance(KEPT_S)
    await until(lambda: stored(fs) == {FILE: b"all there is"})
    assert await fs.read(FILE) == b"all there is"


async def test_a_late_copy_does_not_stay(fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    await fs.write(OTHER, b"moved")
    await fs.drain()
    late = Late(fs, monkeypatch, "copy")
    await fs.rename(OTHER, FILE)
    await late.taken()
    await fs.write(f"{REC}/new", b"new")
    await fs.rename(f"{REC}/new", FILE)
    await stored_once(fs, FILE, b"new")
    if OTHER in stored(fs):
        late.arrive(tmp_path)
    await fs.drain()
    assert stored(fs) == {FILE: b"new"}


async def test_the_same_bytes_again_are_not_waited_for(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"bytes")
    await late.taken()
    await fs.drain()
    assert fs.objects is not None
    assert [operation for operation, _ in fs.objects.calls].count("head") == 0


@pytest.mark.parametrize("fs", ["fails"], indirect=True)
async def test_what_was_asked_before_the_start_may_come_late(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.crash()
    await fs.reopen()
    await fs.write(FILE, b"new")
    await stored_once(fs, FILE, b"new")
    late.arrive(tmp_path)
    await fs.drain()
    assert stored(fs) == {FILE: b"new"}


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("fs", ["fails"], indirect=True)
async def test_an_earlier_version_that_comes_after_a_restart_does_not_stay(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    """Though it was sent once more, and stored, before the file was overwritten."""
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await restarted(fs, how)
    await fs.drain()
    assert (await node(fs)).state is State.STORED
    await fs.write(FILE, b"new")
    await stored_once(fs, FILE, b"new")
    await not_replaced(fs, late, tmp_path)


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("fs", ["fails"], indirect=True)
async def test_nor_what_comes_under_the_name_that_a_file_had_before_the_restart(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"bytes")
    await late.taken()
    await fs.rename(FILE, OTHER)
    await restarted(fs, how)
    await fs.drain()
    late.arrive(tmp_path)
    assert stored(fs) == {FILE: b"bytes", OTHER: b"bytes"}
    fs.clock.advance(KEPT_S)
    await until(lambda: stored(fs) == {OTHER: b"bytes"})


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("fs", ["fails"], indirect=True)
async def test_a_deletion_that_comes_after_a_restart_takes_no_new_file(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    await fs.write(FILE, b"earlier")
    await fs.drain()
    late = Late(fs, monkeypatch, "delete")
    await fs.unlink(FILE)
    await late.taken()
    await restarted(fs, how)
    await fs.drain()
    await fs.write(FILE, b"new")
    await stored_once(fs, FILE, b"new")
    assert (await node(fs)).state is not State.STORED
    late.arrive(tmp_path)
    assert stored(fs) == {}
    await fs.drain()
    assert stored(fs) == {FILE: b"new"}


@pytest.mark.parametrize("fs", ["fails"], indirect=True)
async def test_what_a_version_before_the_last_one_sent_is_known_after_a_restart(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await until(lambda: bool(late._taken))
    await fs.write(FILE, b"new")
    await until(lambda: late._taken[-1][0] == b"new")
    late.takes = False
    await restarted(fs, "killed")
    await stored_once(fs, FILE, b"new")
    await not_replaced(fs, late, tmp_path)


def test_what_an_earlier_try_met_is_told_with_the_last_error() -> None:
    """The server may carry the first one out, though the last one found it down."""
    fake = FakeObjectStore()
    store = RetryingObjectStore(fake, RetryPolicy(max_attempts=2, first_wait_s=0.001), CircuitBreaker(1, 3600.0))
    fake.fail("copy", Stalled("nothing came"))
    fake.fail("check", Stalled("nothing came"))
    store._policy = RetryPolicy(max_attempts=2, deadline_s=0.05, first_wait_s=0.001)
    with pytest.raises(StoreDown) as caught:
        store.copy("a", "b", 1, meta=ObjectMeta())
    assert caught.value.unanswered
    store.close()
    assert not StoreDown("down").unanswered


@pytest.mark.parametrize("size", [1000, 9 * MIB], ids=["small", "in-parts"])
async def test_an_earlier_version_that_comes_minutes_later_does_not_stay(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int
) -> None:
    """The local copy, which may be all there is then, stays as long as such a request may come."""
    late, new = Late(fs, monkeypatch, "put_file"), pattern(size)
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.write(FILE, new)
    await drained(fs)
    assert (await ask(fs, "drain", timeout_s=10))["watched"] == 1
    assert (await node(fs)).state is not State.STORED
    assert LOOKED_AT in fs.tier.evictor.may_evict(await node(fs))
    late.arrive(tmp_path)
    assert stored(fs) == {FILE: b"earlier"}
    fs.clock.advance(KEPT_S)
    await stored_at_last(fs)
    assert stored(fs) == {FILE: new}
    await evict(fs)
    assert await fs.read(FILE) == new


@pytest.mark.parametrize("how", ["killed", "stopped", "goes on"])
async def test_a_deletion_that_comes_minutes_later_takes_no_new_file(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    await fs.write(FILE, b"earlier")
    await fs.drain()
    late = Late(fs, monkeypatch, "delete")
    await fs.unlink(FILE)
    await late.taken()
    await fs.write(FILE, b"new")
    await drained(fs)
    if how != "goes on":
        await restarted(fs, how)
        await drained(fs)
    late.arrive(tmp_path)
    assert stored(fs) == {}
    fs.clock.advance(KEPT_S)
    await stored_at_last(fs)
    assert stored(fs) == {FILE: b"new"}


async def test_what_is_looked_at_is_no_failure(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.write(FILE, b"new")
    await drained(fs)
    [row] = (await ask(fs, "queue"))["rows"]
    assert row["state"] == "waiting"
    assert row["why"] == LOOKED_AT
    assert (await ask(fs, "queue_retry", ids=[row["id"]]))["kept"] == [{"id": row["id"], "reason": LOOKED_AT}]
    status = await ask(fs, "status")
    assert status["s3"]["unsent_bytes"] == 0
    assert status["s3"]["problem"] is None


async def test_what_is_looked_at_goes_with_its_file(fs: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next name is free of such requests: it counts there at once."""
    late = Late(fs, monkeypatch, "put_file")
    await fs.write(FILE, b"earlier")
    await late.taken()
    await fs.write(FILE, b"new")
    await drained(fs)
    await fs.rename(FILE, OTHER)
    await until(lambda: stored(fs) == {OTHER: b"new"})
    await stored_at_last(fs, OTHER)
