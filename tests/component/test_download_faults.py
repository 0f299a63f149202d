"""tier/downloads/download.py when something goes wrong: errors that end a download, and errors that pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from recfs.errors import IoFailure, OutOfSpace, RecfsError
from recfs.ports.object_errors import (
    AccessRefused,
    BadAnswer,
    BucketMissing,
    ChecksumMismatch,
    ClockSkewed,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    ServerFault,
    Stalled,
    StoreDown,
    Throttled,
    Unreachable,
    WrongCredentials,
)
from recfs.stores.wrap import RetryingObjectStore, RetryPolicy

from .downloads import BLOCK, KEY, MIB, STEP, GatedStore, Readers, downloading, expect, pattern, settled, still_clock

__all__ = ["still_clock"]

SIZE = 8 * MIB
ExpectLog = Callable[[str], None]


@pytest.fixture
def data() -> bytes:
    return pattern(SIZE)


@pytest.fixture
def store(data: bytes) -> GatedStore:
    return GatedStore(data)


def change(store: GatedStore) -> None:
    store.tamper(KEY, pattern(SIZE - 1))


def vanish(store: GatedStore) -> None:
    store.vanish(KEY)


def archive(store: GatedStore) -> None:
    store.archive(KEY)


def failing(error: RecfsError) -> Callable[[GatedStore], None]:
    def fail(store: GatedStore) -> None:
        store.fail("get_range", error, times=100)

    return fail


# --- errors that last ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("happens", "kind"),
    [
        (change, ObjectChanged),
        (vanish, ObjectMissing),
        (archive, ObjectArchived),
        *[
            (failing(kind("no", code="403")), kind)
            for kind in (AccessRefused, WrongCredentials, BucketMissing, ClockSkewed)
        ],
    ],
    ids=lambda value: value.__name__,
)
async def test_an_error_that_lasts_ends_the_download_for_everybody(
    data: bytes, store: GatedStore, happens: Callable[[GatedStore], None], kind: type[RecfsError]
) -> None:
    async with downloading(store, data, store.etag) as opened, trio.open_nursery() as nursery:
        readers = Readers(opened, nursery)
        await opened.read(0, BLOCK)
        store.hold = True
        for n, name in enumerate(("a", "b", "c"), 2):
            readers.start(name, n * MIB)
        await settled(store, opened.download)
        nursery.start_soon(expect, kind, opened.download.whole)
        await settled(store, opened.download)
        happens(store)
        store.release((3 * MIB, BLOCK))
        while len(readers.ended) < 3:  # although two of the GETs are still under way
            await wait_all_tasks_blocked()
        assert [type(error) for error in readers.ended.values()] == [kind] * 3
        assert len({id(error) for error in readers.ended.values()}) == 3  # each with a traceback of its own
        assert isinstance(opened.download.failed, kind)
        assert not opened.returned.is_set()
        store.release()
        await opened.returned.wait()
        requests = len(store.gets)
        store.heal()
        for offset in (0, 5 * MIB):  # not even what is here: nobody shall get a mix
            with pytest.raises(kind) as caught:
                await opened.download.ensure(offset, 10)
            assert caught.value.__cause__ is opened.download.failed
            assert not opened.download.has(offset, 10)
        with pytest.raises(kind):
            await opened.download.whole()
        assert len(store.gets) == requests


async def test_what_still_comes_of_an_older_version_is_not_taken(data: bytes, store: GatedStore) -> None:
    store.hold = True
    async with downloading(store, data, store.etag) as opened, trio.open_nursery() as nursery:
        readers = Readers(opened, nursery)
        readers.start("old", 0)
        readers.start("new", 4 * MIB)
        await settled(store, opened.download)
        etag, old = store.etag, store.data(KEY)
        change(store)
        store.release((4 * MIB, BLOCK))
        while len(readers.ended) < 2:
            await wait_all_tasks_blocked()
        store.tamper(KEY, old)
        assert store.etag == etag
        store.release((0, BLOCK))
        await opened.returned.wait()
        assert opened.content() == b""
        assert opened.download.present_bytes == 0


# --- errors that pass ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Unreachable, Stalled, Throttled, ServerFault, BadAnswer, StoreDown, ChecksumMismatch])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.table(4)
async def test_an_error_that_passes_fails_those_who_wait_for_these_bytes(
    data: bytes, store: GatedStore, kind: type[RecfsError], after: bool
) -> None:
    store.hold = True
    async with downloading(store, data, store.etag) as opened, trio.open_nursery() as nursery:
        readers = Readers(opened, nursery)
        readers.start("bad", 0)
        readers.start("bad too", 0)
        await settled(store, opened.download)
        readers.start("good", 4 * MIB)
        await settled(store, opened.download)
        store.fail("get_range", kind("trouble"), after=after)  # after: the bytes are in the file, yet do not count
        store.release((0, BLOCK))
        while len(readers.ended) < 2:
            await wait_all_tasks_blocked()
        assert {type(readers.ended[name]) for name in ("bad", "bad too")} == {kind}
        assert opened.download.failed is None
        assert isinstance(opened.download.error, kind)
        assert not opened.download.has(0, 1)
        await settled(store, opened.download)
        assert len(store.gets) == 2  # nobody waits for it any more
        store.release()
        await opened.read(0, STEP)  # the network is back
        assert opened.download.error is None
        assert store.gets == [(0, BLOCK), (4 * MIB, BLOCK), (0, BLOCK)]
    assert readers.ended["good"] == data[4 * MIB : 4 * MIB + STEP]


async def test_the_whole_file_fails_with_a_part_and_can_be_asked_for_again(data: bytes, store: GatedStore) -> None:
    async with downloading(store, data, store.etag) as opened:
        store.fail("get_range", Unreachable("cut"), skip=3)
        with pytest.raises(Unreachable):
            await opened.download.whole()
        await settled(store, opened.download)
        download = opened.download
        assert download.received_bytes == store.bytes_asked - MIB, (store.gets, download.requests, download.error)
        await opened.download.whole()
        assert opened.content() == data
        assert store.bytes_asked == SIZE + MIB


async def test_failing_read_ahead_harms_nobody_and_waits_for_the_next_read(data: bytes, store: GatedStore) -> None:
    async with downloading(store, data, store.etag) as opened:
        await opened.read(0, STEP)
        store.fail("get_range", Unreachable("cut"), times=10**6)
        await opened.read(STEP, STEP)  # present, and starts reading ahead
        await settled(store, opened.download)
        asked = len(store.gets)
        assert 1 < asked <= 5
        await opened.read(0, 2 * STEP)
        with pytest.raises(Unreachable):
            await opened.read(BLOCK, STEP)
        await settled(store, opened.download)
        assert asked < len(store.gets) <= asked + 5
        store.heal()
        await opened.play(0, 2 * MIB)
        await settled(store, opened.download)
        assert opened.download.has(3 * MIB, 1)


async def test_a_full_disk_is_told_and_may_have_room_later(data: bytes, store: GatedStore) -> None:
    async with downloading(store, data, store.etag) as opened:
        store.fail("get_range", OutOfSpace("no room"))
        with pytest.raises(OutOfSpace):
            await opened.read(0, 5)
        await opened.read(0, 5)


async def test_an_unforeseen_exception_is_an_io_failure_and_logged(
    data: bytes, store: GatedStore, expect_log: ExpectLog
) -> None:
    expect_log(f"{KEY}: fetching bytes 0 to {BLOCK - 1}")
    async with downloading(store, data, store.etag) as opened:
        store.fail("get_range", ZeroDivisionError("a bug"))
        with pytest.raises(IoFailure, match="a bug"):
            await opened.read(0, 5)
        await opened.read(0, 5)


async def test_trying_again_is_the_stores_business(data: bytes, store: GatedStore) -> None:
    retrying = RetryingObjectStore(store, RetryPolicy(first_wait_s=0.0))
    store.fail("get_range", Unreachable("reset"), times=2)
    async with downloading(retrying, data, store.etag) as opened:
        await opened.read(0, 5)
        assert opened.download.requests == 1
        assert store.gets == [(0, BLOCK)] * 3
