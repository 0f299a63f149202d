"""Products that wait: owners take turns, and no step searches through what waits."""

from __future__ import annotations

import time

import pytest

from recfs.core.media.derived import Derived, Product, Status
from recfs.services.deriving.waiting import Waiting


def record(folder: int, *, next_ns: int = 0, source: int = 0) -> Derived:
    return Derived(
        folder, Product.THUMBNAIL, source or folder + 1_000_000, b"s" * 32, "{}", Status.PENDING, next_ns=next_ns
    )


def made(waiting: Waiting, now_ns: int = 0) -> int | None:
    """Begin and end what is next; the recording."""
    found, _ = waiting.pick(now_ns)
    if found is None:
        return None
    key = (found.folder, found.product)
    owner = waiting.begin(key)
    waiting.drop(key)
    waiting.end(key, owner)
    return found.folder


def test_owners_take_turns_and_each_has_what_was_asked_for_first() -> None:
    waiting = Waiting()
    for folder in (70, 71, 72, 80, 90, 91):
        waiting.put(record(folder), str(folder // 10))
    assert [made(waiting) for _ in range(7)] == [70, 80, 90, 71, 91, 72, None]


def test_who_comes_later_is_served_before_who_was_already() -> None:
    waiting = Waiting()
    for folder in (70, 71, 72):
        waiting.put(record(folder), "7")
    assert made(waiting) == 70
    waiting.put(record(80), "8")
    assert [made(waiting), made(waiting)] == [80, 71]
    waiting.put(record(81), "8")  # it does not come first again for having had nothing meanwhile
    waiting.put(record(90), "9")
    assert [made(waiting) for _ in range(3)] == [90, 81, 72]


def test_with_several_programs_whoever_has_fewest_is_next() -> None:
    waiting = Waiting()
    for folder in (70, 71, 72, 73):
        waiting.put(record(folder), "7")
    begun = []
    for _ in range(2):
        found, _ = waiting.pick(0)
        assert found is not None
        key = (found.folder, found.product)
        begun.append((key, waiting.begin(key)))
    waiting.put(record(80), "8")
    waiting.put(record(81), "8")
    found, _ = waiting.pick(0)
    assert found is not None
    assert found.folder == 80
    owner = waiting.begin((80, found.product))
    found, _ = waiting.pick(0)
    assert found is not None
    assert found.folder == 81
    waiting.end((80, found.product), owner)
    for key, of in begun:
        waiting.drop(key)
        waiting.end(key, of)


def test_what_is_due_later_is_not_made_before() -> None:
    waiting = Waiting()
    waiting.put(record(70, next_ns=50), "7")
    waiting.put(record(71, next_ns=20), "7")
    assert waiting.pick(10) == (None, 20)
    assert made(waiting, 20) == 71
    waiting.put(record(70, next_ns=90))
    assert waiting.pick(60)[0] is None
    waiting.source_came(70 + 1_000_000)
    assert made(waiting, 60) == 70
    assert (waiting.open, waiting.pick(100)) == ({}, (None, None))


def test_another_source_of_a_product_is_known_and_the_earlier_one_forgotten() -> None:
    waiting = Waiting()
    waiting.put(record(70, next_ns=50, source=5), "7")
    waiting.put(record(70, next_ns=50, source=6))
    waiting.source_came(5)
    assert waiting.pick(10)[0] is None
    waiting.source_came(6)
    assert made(waiting, 10) == 70


@pytest.mark.parametrize("owners", [1, 50])
def test_a_step_costs_as_much_however_much_waits(owners: int) -> None:
    def cost(many: int) -> float:
        waiting = Waiting()
        for folder in range(many):
            waiting.put(record(folder, next_ns=1 + folder % 7), str(folder % owners))
        while waiting.pick(10)[0] is None or waiting._later:
            pass
        began = time.process_time()
        for number in range(1000):
            waiting.source_came(many - 1 - number + 1_000_000)
            assert made(waiting, 10) is not None
        return time.process_time() - began

    few = min(cost(2000) for _ in range(3))
    assert min(cost(40_000) for _ in range(3)) < 6 * few, "twenty times as much waits"
