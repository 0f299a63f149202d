"""Batches of many rows are written in a thread: who reads meanwhile, who writes, and what becomes of it at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.rows import Run
from recfs.catalogue.sqlite import FEW_ROWS, SqliteCatalogue
from recfs.errors import OutOfSpace, RowRefused, StoreError
from recfs.ports.batch import Batch
from tests.component.test_catalogue import node

MANY = FEW_ROWS + 1


def files(first: int, count: int = MANY, size: int = 1) -> Batch:
    """A batch of *count* files in the root."""
    return Batch(nodes=[node(ino, 1, b"%d" % ino, size=size) for ino in range(first, first + count)])


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[SqliteCatalogue]:
    """A new one."""
    made = open_catalogue(tmp_path / "catalogue.db")
    yield made
    made.close()


class Gate:
    """Holds what runs SQL in a thread until it is let go."""

    def __init__(self) -> None:
        self.reached = trio.Event()
        self.released = threading.Event()
        self.threads: list[threading.Thread] = []


@contextmanager
def held(catalogue: SqliteCatalogue) -> Iterator[Gate]:
    """Each batch waits inside its transaction, if it is written in a thread; who did it is noted."""
    gate, run = Gate(), SqliteCatalogue._run
    main, token = threading.current_thread(), trio.lowlevel.current_trio_token()

    def slow(self: SqliteCatalogue, todo: Sequence[Run], *, trial: bool) -> None:
        gate.threads.append(threading.current_thread())
        if threading.current_thread() is not main:
            with self._transaction(trial=trial) as db:
                for text, values in todo:
                    db.execute(text, values)
                token.run_sync_soon(gate.reached.set)
                assert gate.released.wait(60)
            return
        run(self, todo, trial=trial)

    try:
        with mock.patch.object(SqliteCatalogue, "_run", slow):
            yield gate
    finally:
        gate.released.set()


async def test_what_is_read_meanwhile_is_the_batch_before_and_waits_for_nobody(catalogue: SqliteCatalogue) -> None:
    await catalogue.apply(files(10))
    async with trio.open_nursery() as nursery:
        with held(catalogue) as gate:
            nursery.start_soon(catalogue.apply, files(10, size=7))
            await gate.reached.wait()
            assert gate.threads != [threading.current_thread()]
            row = await catalogue.node(10)  # while the transaction is open
            assert row is not None
            assert row.size_bytes == 1
            gate.released.set()
    row = await catalogue.node(10)
    assert row is not None
    assert row.size_bytes == 7


async def test_who_writes_meanwhile_comes_after_it_in_order(catalogue: SqliteCatalogue) -> None:
    order: list[str] = []

    async def write(name: str, batch: Batch) -> None:
        await catalogue.apply(batch)
        order.append(name)

    async with trio.open_nursery() as nursery:
        with held(catalogue) as gate:
            nursery.start_soon(write, "many", files(10, size=2))
            await gate.reached.wait()
            nursery.start_soon(write, "few", Batch(meta={"a": "1"}))
            await wait_all_tasks_blocked()
            assert order == []
            assert await catalogue.meta() == {}
            catalogue.give_back()  # touches nothing now
            gate.released.set()
    assert order == ["many", "few"]
    assert (await catalogue.meta())["a"] == "1"


async def test_few_rows_are_written_at_once(catalogue: SqliteCatalogue) -> None:
    with held(catalogue) as gate:
        await catalogue.apply(files(10, FEW_ROWS))
    assert gate.threads == [threading.current_thread()]


async def test_an_emptied_directory_counts_as_many_rows(catalogue: SqliteCatalogue) -> None:
    await catalogue.apply(Batch(nodes=[node(ino, 5, b"%d" % ino) for ino in range(10, 10 + MANY)]))
    with held(catalogue) as gate:
        gate.released.set()
        await catalogue.apply(Batch(emptied=[(5, 10, 10 + MANY)]))
    assert threading.current_thread() not in gate.threads
    assert await catalogue.node(10) is None


async def test_a_caller_that_is_cancelled_hears_that_it_was_written(catalogue: SqliteCatalogue) -> None:
    returned = False

    async def write() -> None:
        nonlocal returned
        await catalogue.apply(files(10))
        returned = True

    async with trio.open_nursery() as nursery:
        with held(catalogue) as gate:
            nursery.start_soon(write)
            await gate.reached.wait()
            nursery.cancel_scope.cancel()
            gate.released.set()
    assert returned
    assert await catalogue.node(10) is not None


@pytest.mark.parametrize("error", [OutOfSpace("full"), RowRefused("no"), SystemError("odd")])
async def test_an_error_in_the_thread_is_the_callers_and_ends_with_it(
    catalogue: SqliteCatalogue, error: Exception
) -> None:
    with mock.patch.object(SqliteCatalogue, "_run", side_effect=error), pytest.raises(type(error)):
        await catalogue.apply(files(10))
    assert await catalogue.node(10) is None
    with suppress(OutOfSpace):
        await catalogue.apply(files(10))
    assert await catalogue.node(10) is not None


async def test_a_value_that_does_not_fit_is_made_to_in_the_thread_too(
    catalogue: SqliteCatalogue, expect_log: Callable[[str], None]
) -> None:
    expect_log("does not fit")
    batch = files(10)
    batch.nodes[3] = batch.nodes[3]._replace(uid=1 << 70)
    await catalogue.apply(batch)
    assert len(catalogue.refused) == 1
    assert await catalogue.node(13) is not None


async def test_without_a_descriptor_for_the_reader_it_is_written_at_once(catalogue: SqliteCatalogue) -> None:
    with (
        held(catalogue) as gate,
        mock.patch("recfs.catalogue.sqlite.connect", side_effect=StoreError("too many open files")),
    ):
        await catalogue.apply(files(10))
    assert gate.threads == [threading.current_thread()]
    assert await catalogue.node(10) is not None


async def test_the_last_of_the_log_is_folded_in_after_the_thread(catalogue: SqliteCatalogue) -> None:
    folded = trio.Event()

    async def fold() -> None:
        with mock.patch("recfs.catalogue.sqlite.LONG_LOG_BYTES", 0):
            await catalogue.checkpoint(at_least_pages=0)
        folded.set()

    async with trio.open_nursery() as nursery:
        with held(catalogue) as gate:
            nursery.start_soon(catalogue.apply, files(10))
            await gate.reached.wait()
            with mock.patch.object(SqliteCatalogue, "_checkpoint_in_thread", return_value=False):
                nursery.start_soon(fold)
                while catalogue._last_fold is None:
                    await trio.lowlevel.checkpoint()
                assert not folded.is_set()
                gate.released.set()
                await folded.wait()
    assert await catalogue.node(10) is not None
