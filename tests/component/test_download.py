"""tier/downloads/download.py: what is asked of the object store, and how much of it."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from recfs.ports.object_errors import ObjectChanged
from recfs.tier.downloads.download import PARALLEL_AHEAD, Download
from recfs.tier.downloads.fetchslots import FetchSlots
from recfs.tier.downloads.requests import MAX_REQUEST_BYTES
from tests.helpers.s3_servers import Bucket, moto_bucket, moto_server

from .downloads import BLOCK, KEY, MIB, STEP, GatedStore, downloading, fast_slots, pattern, settled, still_clock

__all__ = ["moto_bucket", "moto_server", "still_clock"]


# --- how much is asked for ----------------------------------------------------------------------------------------


async def test_the_first_read_of_a_cold_file_is_one_small_request() -> None:
    data = pattern(40 * MIB)
    for offset in (0, 17 * MIB + 12345):
        store = GatedStore(data)
        async with downloading(store, data, store.etag) as opened:
            await opened.read(offset, 4096)
            await settled(store, opened.download)
            assert store.gets == [(offset // BLOCK * BLOCK, BLOCK)]
            assert opened.download.received_bytes == BLOCK
            assert not opened.download.complete


async def test_a_read_across_a_block_edge_is_one_request() -> None:
    data = pattern(4 * BLOCK)
    store = GatedStore(data)
    async with downloading(store, data, store.etag) as opened:
        await opened.read(2 * BLOCK - 1, 2)
        assert store.gets == [(BLOCK, 2 * BLOCK)]


@pytest.mark.slow
async def test_requests_grow_with_a_sequential_reader_and_a_jump_starts_small_again() -> None:
    data = pattern(64 * MIB)
    store = GatedStore(data)
    async with downloading(store, data, store.etag, slots=fast_slots()) as opened:
        for position in range(0, 20 * MIB, STEP):
            await opened.read(position, STEP)
            await settled(store, opened.download)
        sizes = [length for _, length in sorted(store.gets)]
        assert sizes[0] == BLOCK
        assert sizes[-1] == MAX_REQUEST_BYTES
        assert sizes == sorted(sizes)
        assert len(sizes) < 40
        before = len(store.gets)
        await opened.read(62 * MIB, STEP)
        await settled(store, opened.download)
        assert store.gets[before:] == [(62 * MIB, BLOCK)]
    store.assert_nothing_twice()


@pytest.mark.slow
async def test_read_ahead_stops_at_its_bound() -> None:
    data = pattern(24 * MIB)
    store = GatedStore(data)
    bound = 6 * MIB
    async with downloading(store, data, store.etag, slots=fast_slots(), read_ahead_max=bound) as opened:
        furthest = 0
        for position in range(0, 12 * MIB, STEP):
            await opened.read(position, STEP)
            await settled(store, opened.download)
            end = max(start + length for start, length in store.gets)
            assert end <= position + STEP + bound
            furthest = max(furthest, end - position)
        assert furthest > bound - 2 * MIB  # it does go that far
    store.assert_nothing_twice()


async def test_read_ahead_fills_holes_and_reaches_the_end() -> None:
    data = pattern(12 * MIB + 100)
    store = GatedStore(data)
    async with downloading(store, data, store.etag, slots=fast_slots()) as opened:
        await opened.read(6 * MIB + 5 * BLOCK, 10)  # leaves no hole of a request's size before it
        await opened.play(0, 5 * MIB)
        await settled(store, opened.download)
        assert opened.download.complete
    store.assert_nothing_twice()


async def test_slow_connections_get_small_requests(mock_clock: MockClock) -> None:
    data = pattern(20 * MIB)
    store = GatedStore(data)
    slots = FetchSlots(16)
    slots.learn(MIB, 2.0)
    async with downloading(store, data, store.etag, slots=slots) as opened:
        await opened.download.whole()
        assert {length for _, length in store.gets} == {MIB}
    store = GatedStore(data, hold=True)
    async with downloading(store, data, store.etag, slots=slots) as opened, trio.open_nursery() as waiting:
        waiting.start_soon(opened.download.whole)
        await settled(store, opened.download)
        mock_clock.jump(4)  # 1 MiB in 4 s: 256 KiB/s; the mean with 512 KiB/s over 2 s is 768 KiB
        store.release(next(iter(store.held)))
        await settled(store, opened.download)
        assert store.gets[-1][1] == 768 << 10
        store.release()


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77])
async def test_edges_of_files(size: int) -> None:
    data = pattern(size)
    store = GatedStore(data)
    async with downloading(store, data, store.etag) as opened:
        await opened.download.ensure(size, 100)
        await opened.download.ensure(10**15, 1)
        await opened.download.ensure(0, 0)
        assert store.gets == []
        if size:
            await opened.read(size - 1, 5 * BLOCK)
        await opened.read(0, size + 100)
        assert opened.download.complete
        await opened.returned.wait()
        assert opened.content() == data
        assert opened.download.received_bytes == store.bytes_asked == size
        with pytest.raises(ValueError):
            await opened.download.ensure(-1, 5)
    store.assert_nothing_twice()


# --- players ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_tail_then_head_fetches_those_only() -> None:
    data = pattern(64 * MIB)
    store = GatedStore(data)
    async with downloading(store, data, store.etag, slots=fast_slots()) as opened:
        await opened.read(0, 32 << 10)  # ftyp
        await opened.play(len(data) - 700_000, 700_000)  # moov
        await opened.play(64, MIB)  # and the first second
        await settled(store, opened.download)
        assert store.bytes_asked <= MIB + 2 * MIB + MIB + 2 * BLOCK
    store.assert_nothing_twice()


@pytest.mark.slow
async def test_playing_from_the_middle_fetches_from_the_middle() -> None:
    data = pattern(96 * MIB)
    store = GatedStore(data)
    async with downloading(store, data, store.etag, slots=fast_slots()) as opened:
        await opened.play(48 * MIB + 1000, 8 * MIB)
        await settled(store, opened.download)
        assert min(store.gets)[0] == 48 * MIB
        assert 8 * MIB <= store.bytes_asked <= 3 * 8 * MIB + BLOCK
    store.assert_nothing_twice()


@pytest.mark.slow
async def test_random_reads_fetch_a_block_each() -> None:
    data = pattern(64 * MIB)
    store = GatedStore(data)
    async with downloading(store, data, store.etag, slots=fast_slots()) as opened:
        for n in range(30):
            await opened.read(n * 17 % 31 * 2 * MIB + 5000, 4096)
        await settled(store, opened.download)
        assert store.bytes_asked == 30 * BLOCK
    store.assert_nothing_twice()


async def test_two_readers_share_what_is_fetched() -> None:
    data = pattern(12 * MIB + 5)
    store = GatedStore(data)
    async with downloading(store, data, store.etag, slots=fast_slots()) as opened:
        async with trio.open_nursery() as readers:
            readers.start_soon(opened.play, 0, len(data), STEP)
            readers.start_soon(opened.play, 0, len(data), 1_000_003)
            readers.start_soon(opened.play, 5 * MIB, 3 * MIB, 50_000)
        assert store.bytes_asked == len(data)
        assert opened.download.complete
    store.assert_nothing_twice()


async def test_readers_of_the_same_bytes_wait_for_one_request() -> None:
    data = pattern(4 * MIB)
    store = GatedStore(data, hold=True)
    async with downloading(store, data, store.etag) as opened, trio.open_nursery() as readers:
        for _ in range(5):
            readers.start_soon(opened.read, 1000, 2000)
        await settled(store, opened.download)
        assert store.gets == [(0, BLOCK)]
        readers.start_soon(opened.read, BLOCK - 10, 20)
        await settled(store, opened.download)
        assert (BLOCK, BLOCK) in store.gets
        store.release()
    store.assert_nothing_twice()


# --- whole files --------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_whole_file_in_parallel_and_large_requests() -> None:
    data = pattern(90 * MIB + 12345)
    store = GatedStore(data, hold=True)
    async with downloading(store, data, store.etag, slots=fast_slots(), read_ahead_max=MIB) as opened:
        async with trio.open_nursery() as waiting:
            waiting.start_soon(opened.download.whole)
            waiting.start_soon(opened.download.whole)
            await settled(store, opened.download)
            assert len(store.held) == PARALLEL_AHEAD
            store.release()
        assert opened.download.complete
        await opened.returned.wait()
        assert opened.content() == data
        assert len(store.gets) == 12
        await opened.download.whole()
        await opened.read(5, 500)
    store.assert_nothing_twice()


async def test_a_hurried_reader_of_everything_gets_parallel_requests() -> None:
    data = pattern(8 * MIB)
    store = GatedStore(data, hold=True)
    async with downloading(store, data, store.etag, slots=fast_slots()) as opened, trio.open_nursery() as waiting:
        waiting.start_soon(opened.read, 0, len(data))
        await settled(store, opened.download)
        assert sorted(store.held) == [(n * 2 * MIB, 2 * MIB) for n in range(4)]
        store.release()


# --- everything at once -------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.slow
def test_any_reads_by_any_readers_give_the_right_bytes(data: st.DataObject) -> None:
    block = data.draw(st.sampled_from([512, 1000, 4096]), label="block")
    size = data.draw(st.integers(0, 60_000), label="size")
    content = pattern(size)
    ranges = st.tuples(st.integers(0, size + 100), st.integers(0, 9000))
    readers = data.draw(st.lists(st.lists(ranges, max_size=12), min_size=1, max_size=4), label="readers")
    ahead = data.draw(st.sampled_from([0, 5000, 100_000]), label="read-ahead")
    present = data.draw(st.booleans(), label="whole")

    async def main() -> None:
        store = GatedStore(content)
        async with downloading(store, content, store.etag, block_bytes=block, read_ahead_max=ahead) as opened:

            async def reader(reads: list[tuple[int, int]]) -> None:
                for offset, length in reads:
                    await opened.read(offset, length)

            async with trio.open_nursery() as nursery:
                for reads in readers:
                    nursery.start_soon(reader, reads)
                if present:
                    nursery.start_soon(opened.download.whole)
            if present:
                assert opened.content() == content
            await settled(store, opened.download)
            store.assert_nothing_twice()
            assert opened.download.received_bytes == opened.download.present_bytes == store.bytes_asked

    trio.run(main, clock=MockClock())


# --- a real server ------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_from_a_server(moto_bucket: Bucket, tmp_path: Any) -> None:
    data = pattern(9 * MIB + 321)
    moto_bucket.client.put_object(Bucket=moto_bucket.name, Key=KEY, Body=data)
    store = moto_bucket.store()
    info = store.head(KEY)
    assert info is not None
    async with downloading(store, data, info.etag) as opened:
        await opened.play(len(data) - 300_000, 300_000)
        await opened.play(0, len(data))
        assert opened.content() == data
        assert opened.download.received_bytes == len(data)
    moto_bucket.client.put_object(Bucket=moto_bucket.name, Key=KEY, Body=data[:-1])
    with (tmp_path / "other").open("w+b") as file:
        stale = Download(store, KEY, info.etag, len(data), file.fileno(), trio.CapacityLimiter(2), FetchSlots(2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stale.run)
            with pytest.raises(ObjectChanged):
                await stale.ensure(0, 100)
        assert os.fstat(file.fileno()).st_size == 0
    store.close()
