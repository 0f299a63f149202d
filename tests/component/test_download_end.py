"""tier/downloads/download.py when it takes too long or is no longer wanted: deadlines, cancelled readers, closing."""

from __future__ import annotations

import os
import tempfile
import threading
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from recfs.ports.object_errors import Stalled, TransferCancelled
from recfs.ports.objects import Cancel
from recfs.tier.downloads.download import DEADLINE_S, Download
from recfs.tier.downloads.fetchslots import FetchSlots
from tests.fake_object_store import FakeObjectStore

from .downloads import BLOCK, KEY, MIB, STEP, GatedStore, Readers, downloading, expect, pattern, settled, still_clock

__all__ = ["still_clock"]

SIZE = 8 * MIB


@pytest.fixture
def data() -> bytes:
    return pattern(SIZE)


@pytest.fixture
def store(data: bytes) -> GatedStore:
    return GatedStore(data)


# --- deadlines ----------------------------------------------------------------------------------------------------


async def test_no_reader_waits_longer_than_the_deadline(data: bytes, store: GatedStore, mock_clock: MockClock) -> None:
    store.hold = True
    async with downloading(store, data, store.etag) as opened, trio.open_nursery() as nursery:
        readers = Readers(opened, nursery)
        readers.start("first", 0)
        await settled(store, opened.download)
        mock_clock.jump(DEADLINE_S - 1)
        readers.start("second", 0)
        await settled(store, opened.download)
        assert readers.ended == {}
        mock_clock.jump(1.5)
        await settled(store, opened.download)
        assert list(readers.ended) == ["first"]
        assert isinstance(readers.ended["first"], Stalled)
        assert "bytes 0 to 262143" in str(readers.ended["first"])
        store.release()
        await opened.read(0, STEP)
        assert store.gets == [(0, BLOCK)]
    assert readers.ended["second"] == data[:STEP]


@pytest.mark.slow
async def test_the_deadline_of_a_long_wait_starts_again_with_what_comes(
    data: bytes, store: GatedStore, mock_clock: MockClock
) -> None:
    store.hold = True
    async with downloading(store, data, store.etag, slots=FetchSlots(1)) as opened, trio.open_nursery() as nursery:
        nursery.start_soon(opened.download.whole)
        while not opened.returned.is_set():
            await settled(store, opened.download)
            mock_clock.jump(DEADLINE_S - 1)
            await settled(store, opened.download)
            store.release(*store.held)
        assert mock_clock.current_time() > 3 * DEADLINE_S
    assert opened.download.complete


async def test_whole_files_wait_for_their_turn_as_long_as_it_takes(
    data: bytes, store: GatedStore, mock_clock: MockClock
) -> None:
    store.hold = True
    slots = FetchSlots(1)
    async with (
        downloading(store, data, store.etag, slots=slots, deadline_s=1e9) as reading,
        downloading(store, data, store.etag, slots=slots) as patient,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(reading.read, 0, STEP)
        await settled(store, reading.download, patient.download)
        nursery.start_soon(patient.download.whole)
        for _ in range(3):
            await settled(store, reading.download, patient.download)
            mock_clock.jump(DEADLINE_S + 1)
        await settled(store, reading.download, patient.download)
        assert store.gets == [(0, BLOCK)]
        store.release()
        await patient.returned.wait()
    assert patient.download.complete


async def test_a_whole_file_whose_own_request_is_stuck_is_given_up(
    data: bytes, store: GatedStore, mock_clock: MockClock
) -> None:
    store.hold = True
    async with downloading(store, data, store.etag, slots=FetchSlots(1)) as opened, trio.open_nursery() as nursery:
        nursery.start_soon(expect, Stalled, opened.download.whole)
        await settled(store, opened.download)
        mock_clock.jump(DEADLINE_S + 1)


async def test_a_download_that_nobody_runs_does_not_hang_its_readers(
    data: bytes, store: GatedStore, mock_clock: MockClock
) -> None:
    async with downloading(store, data, store.etag, start=False) as opened, trio.open_nursery() as nursery:
        nursery.start_soon(expect, Stalled, partial(opened.download.ensure, 0, 5))
        nursery.start_soon(expect, Stalled, opened.download.whole)
        await wait_all_tasks_blocked()
        mock_clock.jump(DEADLINE_S + 1)


# --- cancelled readers --------------------------------------------------------------------------------------------


async def test_a_cancelled_reader_leaves_its_request_to_others(data: bytes, store: GatedStore) -> None:
    store.hold = True
    async with downloading(store, data, store.etag) as opened:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.read, 0, STEP)
            await settled(store, opened.download)
            nursery.cancel_scope.cancel()
        store.release()
        await settled(store, opened.download)
        assert opened.download.has(0, BLOCK)
        await opened.read(0, STEP)
        assert store.gets == [(0, BLOCK)]


async def test_what_a_cancelled_reader_wanted_is_not_asked_for_any_more(data: bytes, store: GatedStore) -> None:
    store.hold = True
    async with downloading(store, data, store.etag, slots=FetchSlots(1)) as opened, trio.open_nursery() as outer:
        outer.start_soon(opened.read, 0, STEP)
        await settled(store, opened.download)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.read, 4 * MIB, STEP)
            nursery.start_soon(opened.download.whole)
            await settled(store, opened.download)
            nursery.cancel_scope.cancel()
        store.release()
        await settled(store, opened.download)
        assert store.gets == [(0, BLOCK)]


# --- closing ------------------------------------------------------------------------------------------------------


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_closing_ends_readers_at_once_and_run_with_the_last_thread(data: bytes, store: GatedStore) -> None:
    store.hold = True
    async with downloading(store, data, store.etag) as opened, trio.open_nursery() as nursery:
        readers = Readers(opened, nursery)
        readers.start("reader", 0)
        nursery.start_soon(expect, TransferCancelled, opened.download.whole)
        await settled(store, opened.download)
        opened.download.close()
        opened.download.close()
        while not readers.ended:
            await wait_all_tasks_blocked()
        assert isinstance(readers.ended["reader"], TransferCancelled)
        with pytest.raises(TransferCancelled):
            await opened.download.ensure(0, 5)
        assert not opened.returned.is_set()
        asked = len(store.gets)
        store.release()
        await opened.returned.wait()
        assert opened.content() == b""  # threads that were under way wrote nothing any more
        assert opened.download.present_bytes == opened.download.received_bytes == 0
        assert opened.download.running == 0
        assert len(store.gets) == asked


async def test_a_thread_that_starts_after_closing_asks_for_nothing(data: bytes, store: GatedStore) -> None:
    store.hold = True
    limiter = trio.CapacityLimiter(1)
    async with downloading(store, data, store.etag, limiter=limiter) as opened, trio.open_nursery() as nursery:
        nursery.start_soon(expect, TransferCancelled, opened.download.whole)
        while not (store.held and limiter.statistics().tasks_waiting):
            await wait_all_tasks_blocked()
        opened.download.close()
        store.release()
        await opened.returned.wait()
        assert len(store.gets) == 1


class StuckStore(FakeObjectStore):
    """Its GETs write, wait, write again, and do not ask whether they are cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled: Cancel | None = None
        self.reached, self.go_on, self.left = threading.Event(), threading.Event(), threading.Event()

    def get_range(
        self,
        key: str,
        start: int,
        length: int,
        *,
        if_match: str | None,
        into: memoryview | int,
        at: int | None = None,
        cancel: Cancel | None = None,
    ) -> int:
        assert isinstance(into, int)
        self.cancelled = cancel
        try:
            os.pwrite(into, b"before", start)
            self.reached.set()
            assert self.go_on.wait(30)
            os.pwrite(into, b"after!", start)
        finally:
            self.left.set()
        return length


async def test_a_thread_that_is_stuck_holds_up_nobody_and_writes_nothing(data: bytes) -> None:
    stuck, limiter = StuckStore(), trio.CapacityLimiter(1)
    with tempfile.TemporaryFile() as file:
        files = open_files()
        download = Download(stuck, KEY, "etag", SIZE, file.fileno(), trio.CapacityLimiter(4), FetchSlots(4))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download.run)
            nursery.start_soon(expect, TransferCancelled, partial(download.ensure, MIB, 5))
            await trio.to_thread.run_sync(stuck.reached.wait, 30, limiter=limiter)
            nursery.start_soon(cancel_when_closed, download, nursery)
        assert not stuck.left.is_set()  # run() has returned, the thread has not
        assert os.pread(file.fileno(), 6, MIB) == b"before"
        stuck.go_on.set()
        await trio.to_thread.run_sync(stuck.left.wait, 30, limiter=limiter)
        assert os.pread(file.fileno(), 6, MIB) == b"before"
        while open_files() > files:  # the thread closes the descriptor a moment later
            await wait_all_tasks_blocked()


async def test_what_a_request_brings_after_closing_does_not_count() -> None:
    stuck, limiter = StuckStore(), trio.CapacityLimiter(1)
    with tempfile.TemporaryFile() as file:
        download = Download(stuck, KEY, "etag", 3, file.fileno(), trio.CapacityLimiter(4), FetchSlots(4))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download.run)
            nursery.start_soon(expect, TransferCancelled, download.whole)
            await trio.to_thread.run_sync(stuck.reached.wait, 30, limiter=limiter)
            assert stuck.cancelled is not None
            assert not stuck.cancelled()
            download.close()
            assert stuck.cancelled()
            stuck.go_on.set()  # it will say that all went well
        assert not download.complete
        assert download.present_bytes == download.received_bytes == 0
        assert not download.has(0, 1)


async def cancel_when_closed(download: Download, nursery: trio.Nursery) -> None:
    download.close()
    await wait_all_tasks_blocked()  # the reader got its error
    nursery.cancel_scope.cancel()


async def test_cancelling_run_closes_the_download(data: bytes, store: GatedStore) -> None:
    store.hold = True
    with tempfile.TemporaryFile() as file:
        slots = FetchSlots(2)
        download = Download(store, KEY, store.etag, SIZE, file.fileno(), trio.CapacityLimiter(4), slots)
        async with trio.open_nursery() as readers, trio.open_nursery() as nursery:
            nursery.start_soon(download.run)
            for n in range(4):
                readers.start_soon(expect, TransferCancelled, partial(download.ensure, n * 2 * MIB, 5))
            await settled(store, download)
            nursery.cancel_scope.cancel()
        assert download.running == 0
        assert download.requests == len(store.gets) == 2
        assert [slots.take(lambda: None, urgent=True) for _ in range(3)] == [True, True, False]
        store.release()


async def test_descriptors_are_its_own_and_closed(data: bytes, store: GatedStore) -> None:
    files = open_files()
    with tempfile.TemporaryFile() as file:
        theirs = os.dup(file.fileno())
        download = Download(store, KEY, store.etag, SIZE, theirs, trio.CapacityLimiter(4), FetchSlots(4))
        os.close(theirs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(download.run)
            await download.whole()
        assert file.read() == data
        never_run = Download(store, KEY, store.etag, SIZE, file.fileno(), trio.CapacityLimiter(4), FetchSlots(4))
        never_run.close()
        with pytest.raises(TransferCancelled):
            await never_run.whole()
        await never_run.run()
        Download(store, KEY, store.etag, 0, file.fileno(), trio.CapacityLimiter(4), FetchSlots(4))
    assert open_files() == files
