"""A long S3 queue holds up nobody: whoever looks at all of it does so in turns. Counted are the rows of each turn."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from recfs.ports.rows import DELETE, UPLOAD, JournalRow
from recfs.tier.queue import tally as module
from recfs.tier.queue import waited_for
from recfs.tier.queue.tally import Tally

from .far import ask, fs
from .test_metrics_told import told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .build import Filesystem

__all__ = ["fs"]

ROWS = 5000
AT_ONCE = 1000 + 50
"""So many may be looked at in one turn, with those that somebody looks at one by one."""
LATER_S = 86_400.0


class Counted(dict[int, JournalRow]):
    """Rows; counts how many are looked at."""

    looked = 0

    def get(self, key: int, default: Any = None) -> Any:
        self.looked += 1
        return super().get(key, default)

    def __iter__(self) -> Iterator[int]:
        for each in list(super().keys()):
            self.looked += 1
            yield each

    def values(self) -> Any:
        return (self[each] for each in self)

    def items(self) -> Any:
        return ((each, self[each]) for each in self)


class Steps(trio.abc.Instrument):
    """The largest number of rows that one step of a task looked at."""

    def __init__(self, rows: Counted) -> None:
        self.rows = rows
        self.most = 0
        self.steps = 0
        """Steps that looked at many."""

    async def end(self) -> int:
        """End the step of who asks; the most of all steps so far."""
        await trio.lowlevel.checkpoint()
        return self.most

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.rows.looked = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.most = max(self.most, self.rows.looked)
        self.steps += self.rows.looked > 40


@pytest.fixture
def steps(fs: Filesystem) -> Iterator[Steps]:
    """A queue of many rows that nothing is done of for a day; what is looked at is counted."""
    journal = fs.tier.journal
    rows = Counted(journal.rows)
    journal.rows = journal.due._rows = journal.tally._rows = rows
    for number in range(ROWS):
        journal.delete(f"gone/{number}", LATER_S)
    rows.looked = 0
    found = Steps(rows)
    trio.lowlevel.add_instrument(found)
    yield found
    trio.lowlevel.remove_instrument(found)


@pytest.mark.parametrize("failing", [False, True])
async def test_a_drain_looks_at_a_long_queue_in_turns(fs: Filesystem, steps: Steps, failing: bool) -> None:
    journal = fs.tier.journal
    if failing:
        for row in list(journal.rows.values())[::2]:
            journal.update(row._replace(attempts=1, error="refused"))
            journal.lasting.add(row.id)
        steps.rows.looked = 0
    await fs.write("users/5/recordings/1/a", b"x")
    with trio.fail_after(60):
        answer = await ask(fs, "drain", timeout_s=20, retries=not failing)
    assert answer["pending"] == 0
    assert 40 < await steps.end() <= AT_ONCE
    assert steps.steps >= ROWS / AT_ONCE


@pytest.mark.parametrize("method", ["status", "queue", "queue_retry", "drain"])
async def test_nobody_who_asks_goes_through_it_in_one_go(fs: Filesystem, steps: Steps, method: str) -> None:
    params: dict[str, Any] = {"queue_retry": {"all": True}, "drain": {"timeout_s": 0}}.get(method, {})
    await ask(fs, method, **params)
    assert await steps.end() <= AT_ONCE


async def test_metrics_do_not_go_through_it(fs: Filesystem, steps: Steps) -> None:
    journal = fs.tier.journal
    row = next(iter(journal.rows.values()))
    journal.update(row._replace(attempts=3))
    fs.clock.advance(90)
    await told(fs).look()
    await steps.end()
    steps.most = 0
    found = (await told(fs).look()).queue
    assert found is not None
    assert (found.rows["delete"], found.rows["upload"], found.failing) == (ROWS, 0, 1)
    assert found.oldest_s >= 90
    assert await steps.end() < 40


async def test_what_becomes_due_at_once_is_taken_up_in_turns(fs: Filesystem, steps: Steps) -> None:
    fs.clock.advance(LATER_S + 1)
    journal = fs.tier.journal
    found = list[int]()
    for arrived in range(1, ROWS // 1000 + 1):
        assert journal.due.next_ns() is not None
        journal.due.arrive()
        while (row := journal.due.take(deletions=True)) is not None:
            found.append(row.id)
        assert len(found) <= 1000 * arrived
    assert found == list(range(1, ROWS + 1))
    assert journal.due.take(deletions=False) is None


async def test_what_is_uploaded_goes_on_beside_very_many_deletions(fs: Filesystem, steps: Steps) -> None:
    """All become due at once: neither does their number hold anybody up, nor is any left out."""
    fs.clock.advance(LATER_S + 1)
    await fs.write("users/5/recordings/1/a", b"x")
    with trio.fail_after(60):
        while fs.tier.journal.rows:
            await ask(fs, "drain", timeout_s=1)
    assert await steps.end() <= 3 * AT_ONCE  # those that arrive, those that are begun with, and those that are done


async def test_what_settles_makes_room_in_turns(fs: Filesystem, steps: Steps) -> None:
    """It is hurried by who uploads, not by the commit that fills the budget."""
    hurried = set[int]()
    journal = fs.tier.journal
    await waited_for.hurry(journal, hurried)
    assert await steps.end() <= AT_ONCE
    assert hurried == set()
    assert not journal.is_short


def row(number: int, kind: str = DELETE, key: str = "", attempts: int = 0) -> JournalRow:
    return JournalRow(number, kind, 0, key, "", "", 0, attempts, 0, 0, "", 0)


def test_the_tally_agrees_with_the_rows() -> None:
    chance, rows = random.Random(5), dict[int, JournalRow]()
    tally, number = Tally(rows), 0
    for _ in range(5000):
        if rows and chance.random() < 0.4:
            gone = rows.pop(chance.choice(list(rows)))
            tally.drop(gone)
        elif rows and chance.random() < 0.5:
            before = rows[chance.choice(list(rows))]
            after = before._replace(key=chance.choice(["", "a", "b"]), attempts=chance.randrange(2))
            rows[before.id] = after
            tally.put(before, after)
        else:
            number += chance.choice([1, 1, 700])
            rows[number] = row(number, chance.choice([DELETE, UPLOAD]), chance.choice(["", "a"]))
            tally.put(None, rows[number])
    for kind in (DELETE, UPLOAD):
        assert tally.kinds[kind] == sum(each.kind == kind for each in rows.values())
    assert tally.failing == sum(bool(each.attempts) for each in rows.values())
    for key in ("a", "b", "c"):
        assert tally.at(key) == {each.id for each in rows.values() if each.key == key}
    seen: list[int] = []
    trio.run(tally.look_at_all, lambda each: seen.append(each.id))
    assert seen == sorted(rows)


async def test_who_looks_sees_what_comes_meanwhile_and_may_change_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 10)
    rows = {number: row(number) for number in range(1, 101)}
    tally = Tally(rows)
    for each in rows.values():
        tally.put(None, each)
    seen: list[int] = []

    def visit(each: JournalRow) -> None:
        seen.append(each.id)
        if each.id % 2 and each.id < 100:
            tally.drop(rows.pop(each.id))
        if each.id == 100:  # the last there was
            for number in (101, 5000):
                rows[number] = row(number)
                tally.put(None, rows[number])

    await tally.look_at_all(visit)
    assert seen == [*range(1, 102), 5000]
