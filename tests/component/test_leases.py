"""Work on S3 has an owner: what another machine has a lease of is left to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from recfs.core.bounds import MAX_INT
from recfs.core.model import State
from recfs.ports.rows import HOST, JournalRow
from recfs.services.far.queue_changes import QueueChanges

from .build import Filesystem, until
from .test_clock_steps import FILE, committed, look, started

OTHER = HOST + 1
MINUTE_NS = 60_000_000_000


@pytest.fixture
async def fs(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Filesystem]:
    """A file waits for its upload, for a minute."""
    made = await started(nursery, tmp_path, upload={"settle": 60.0})
    await made.write(FILE, b"data")
    await committed(made)
    yield made
    await made.stop()


async def given(fs: Filesystem, host: int, minutes: int) -> JournalRow:
    """The upload as the next start finds it, with somebody's lease of *minutes* from now; its time has come."""
    journal = fs.tier.journal
    (row,) = journal.rows.values()
    journal.update(row._replace(host=host, lease_until_ns=journal.now_ns() + minutes * MINUTE_NS))
    await fs.stop()
    await fs.reopen()
    fs.clock.advance(61)
    look(fs)
    return fs.tier.journal.rows[row.id]


async def is_taken(fs: Filesystem) -> None:
    node = await fs.node(FILE)
    await until(lambda: node.state is State.STORED)
    assert not fs.tier.journal.rows


async def test_work_is_the_machines_whose_file_it_is(fs: Filesystem) -> None:
    await fs.vfs.behind.flush()
    assert fs.rows("select host, lease_until_ns from journal") == [(HOST, MAX_INT)]


async def test_what_another_machine_has_a_lease_of_is_not_taken_until_that_ends(fs: Filesystem) -> None:
    row = await given(fs, OTHER, 10)
    journal = fs.tier.journal
    await trio.testing.wait_all_tasks_blocked()
    journal.due.arrive()
    assert journal.due.take(deletions=False) is None
    assert (await fs.node(FILE)).state is State.COMMITTED
    changes = QueueChanges(fs.tier, fs.parts.tree)
    assert changes.retry(row) == (False, "another machine has it")
    assert await changes.drop(row) == "another machine has it"
    fs.clock.advance(8 * 60)
    journal.due.arrive()
    assert journal.due.take(deletions=False) is None
    fs.clock.advance(60)
    journal.due.arrive()
    taken = journal.due.take(deletions=False)
    assert taken == journal.rows[row.id] == row._replace(host=HOST, lease_until_ns=MAX_INT)
    await fs.vfs.behind.flush()
    assert fs.rows("select host, lease_until_ns from journal") == [(HOST, MAX_INT)]
    journal.due.put_back([row.id])
    look(fs)
    await is_taken(fs)


@pytest.mark.parametrize("host", [HOST, OTHER])
async def test_what_nobody_else_has_a_lease_of_is_taken(fs: Filesystem, host: int) -> None:
    await given(fs, host, 0)
    await is_taken(fs)


async def test_a_start_takes_up_what_its_machine_has_a_lease_of(fs: Filesystem) -> None:
    await given(fs, HOST, 10)
    await is_taken(fs)
