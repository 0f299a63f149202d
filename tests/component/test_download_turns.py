"""tier/downloads/download.py and tier/downloads/fetchslots.py: whose requests go first, and how many at a time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from recfs.tier.downloads.download import PARALLEL
from recfs.tier.downloads.requests import MAX_URGENT_BYTES

from .downloads import BLOCK, MIB, STEP, GatedStore, downloading, fast_slots, pattern, settled, still_clock

__all__ = ["still_clock"]


@pytest.mark.slow
async def test_no_download_has_more_requests_under_way_than_it_may() -> None:
    data = pattern(64 * MIB)
    store = GatedStore(data, hold=True)
    async with downloading(store, data, store.etag, slots=fast_slots(64)) as opened:
        async with trio.open_nursery() as readers:
            for n in range(20):
                readers.start_soon(opened.read, n * 3 * MIB, STEP)
                await settled(store, opened.download)
            assert [start for start, _ in store.gets] == [n * 3 * MIB for n in range(PARALLEL)]
            store.release()
        assert store.peak == PARALLEL


@pytest.mark.slow
async def test_a_waiting_reader_goes_before_read_ahead_and_before_whole_files() -> None:
    data = pattern(64 * MIB)
    store = GatedStore(data, hold=True)
    slots = fast_slots(4, reserved=0)
    async with (
        downloading(store, data, store.etag, slots=slots) as busy,
        downloading(store, data, store.etag, slots=slots) as other,
        trio.open_nursery() as tasks,
    ):
        tasks.start_soon(busy.download.whole)
        await settled(store, busy.download, other.download)
        assert len(store.held) == 4  # all slots
        tasks.start_soon(other.read, 40 * MIB, STEP)
        await settled(store, busy.download, other.download)
        tasks.start_soon(busy.read, 50 * MIB, STEP)
        await settled(store, busy.download, other.download)
        assert len(store.gets) == 4
        for _ in range(2):
            store.release(next(iter(store.held)))
            await settled(store, busy.download, other.download)
        assert store.gets[4:] == [(40 * MIB, BLOCK), (50 * MIB, BLOCK)]
        store.release()


@pytest.mark.slow
async def test_reserved_slots_serve_a_reader_at_once() -> None:
    data = pattern(64 * MIB)
    store = GatedStore(data, hold=True)
    slots = fast_slots(4)
    async with (
        downloading(store, data, store.etag, slots=slots) as busy,
        downloading(store, data, store.etag, slots=slots) as other,
        trio.open_nursery() as tasks,
    ):
        tasks.start_soon(busy.download.whole)
        await settled(store, busy.download, other.download)
        assert len(store.held) == 3
        tasks.start_soon(other.read, 40 * MIB, STEP)
        await settled(store, busy.download, other.download)
        assert (40 * MIB, BLOCK) in store.held
        store.release()


@pytest.mark.slow
async def test_a_reader_without_slots_for_its_read_ahead_gets_larger_requests() -> None:
    data = pattern(24 * MIB)
    hog, store = GatedStore(data, hold=True), GatedStore(data)
    slots = fast_slots(4)
    async with (
        downloading(hog, data, hog.etag, slots=slots) as busy,
        downloading(store, data, store.etag, slots=slots) as reading,
        trio.open_nursery() as tasks,
    ):
        tasks.start_soon(busy.download.whole)
        await settled(hog, busy.download)
        await reading.play(0, len(data))
        sizes = [length for _, length in store.gets]
        assert sizes[:-1] == sorted(sizes[:-1])
        assert sizes[-2] == MAX_URGENT_BYTES
        assert store.peak == 1
        hog.release()
    store.assert_nothing_twice()


@pytest.mark.slow
async def test_downloads_take_turns_with_what_nobody_waits_for() -> None:
    data = {name: pattern(32 * MIB) for name in "ab"}
    stores = {name: GatedStore(data[name], hold=True) for name in "ab"}
    slots = fast_slots(2, reserved=0)
    async with (
        downloading(stores["a"], data["a"], stores["a"].etag, slots=slots) as a,
        downloading(stores["b"], data["b"], stores["b"].etag, slots=slots) as b,
        trio.open_nursery() as tasks,
    ):
        tasks.start_soon(a.download.whole)
        await settled(stores["a"], a.download)
        tasks.start_soon(b.download.whole)
        await settled(stores["b"], b.download)
        assert (a.download.running, b.download.running) == (2, 0)
        for running in ((2, 0), (1, 1)):  # the first was in the queue already
            stores["a"].release(next(iter(stores["a"].held)))
            before = len(stores["a"].gets) + len(stores["b"].gets)
            while len(stores["a"].gets) + len(stores["b"].gets) == before:
                await wait_all_tasks_blocked()
            assert (a.download.running, b.download.running) == running
        for store in stores.values():
            store.release()


async def test_threads_are_those_of_the_limiter() -> None:
    data = pattern(16 * MIB)
    store = GatedStore(data, hold=True)
    limiter = trio.CapacityLimiter(3)
    async with downloading(store, data, store.etag, limiter=limiter) as opened:
        opened.nursery.start_soon(opened.download.whole)
        while len(store.held) < 3:
            await wait_all_tasks_blocked()
        assert limiter.borrowed_tokens == 3
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        store.release()
        await opened.returned.wait()
        assert store.peak == 3
