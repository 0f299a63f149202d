"""Who is hashed next: size classes, and turns between owners."""

from __future__ import annotations

import random

import pytest

from recfs.disk.commit.lanes import MEDIUM_BYTES, OLDEST_EVERY, SMALL_BYTES, Lane, Turns, beyond, lane_of


@pytest.mark.parametrize(
    ("size", "lane"),
    [
        (0, Lane.SMALL),
        (SMALL_BYTES, Lane.SMALL),
        (SMALL_BYTES + 1, Lane.MEDIUM),
        (MEDIUM_BYTES, Lane.MEDIUM),
        (MEDIUM_BYTES + 1, Lane.LARGE),
        (1 << 60, Lane.LARGE),
    ],
)
def test_size_classes(size: int, lane: Lane) -> None:
    assert lane_of(size) is lane


def test_owners_take_turns_whatever_each_has_waiting() -> None:
    turns: Turns[str] = Turns()
    for n in range(50):
        turns.put("a", f"a{n}", 100)
    turns.put("b", "b0", 10**12)
    turns.put("c", "c0", 1)
    assert sorted(str(turns.take())[0] for _ in range(3)) == ["a", "b", "c"]
    turns.put("b", "b1", 1)
    assert {str(turns.take())[0] for _ in range(2)} == {"a", "b"}


def test_an_owner_that_comes_back_each_time_gets_no_more_than_the_others() -> None:
    """A pass that has had its slice is put back: so do the large files of one user share with another's."""
    turns: Turns[str] = Turns()
    for n in range(50):
        turns.put("a", f"a{n}", 100)
    turns.put("b", "b", 10**12)
    taken = []
    for _ in range(20):
        item = str(turns.take())
        taken.append(item)
        turns.put(item[0], item, 100 if item[0] == "a" else 10**12)
    assert [item[0] for item in taken].count("b") == 10


def test_of_an_owner_the_smallest_goes_first_and_the_oldest_is_not_held_up_for_ever() -> None:
    turns: Turns[int] = Turns()
    turns.put("a", -1, 10**12)
    order = []
    for n in range(40):
        turns.put("a", 2 * n, 5)
        turns.put("a", 2 * n + 1, 7)
        order.append(turns.take())
    assert order.index(-1) == OLDEST_EVERY - 1
    assert order[0] == 0


def test_equal_items_keep_their_order() -> None:
    turns: Turns[int] = Turns()
    for n in range(20):
        turns.put("a", n)
    assert [turns.take() for _ in range(20)] == list(range(20))
    assert turns.take() is None


def test_what_is_discarded_is_not_taken_and_may_come_back() -> None:
    turns: Turns[str] = Turns()
    for item in ("one", "two", "three"):
        turns.put("a", item)
    assert turns.discard("one")
    assert not turns.discard("one")
    turns.put("a", "one")
    turns.put("a", "one")
    assert len(turns) == 3
    assert [turns.take() for _ in range(4)] == ["two", "three", "one", None]


def test_nothing_is_lost_and_nobody_waits_longer_than_promised() -> None:
    """Against a plain list, over random comings and goings."""
    chance = random.Random(8)
    turns: Turns[int] = Turns()
    waiting: dict[int, tuple[int, int]] = {}  # item → owner, takes of its owner since it became that owner's oldest
    for n in range(5000):
        if chance.random() < 0.5:
            owner = chance.randrange(5)
            turns.put(owner, n, chance.randrange(1000))
            waiting[n] = (owner, 0)
        elif waiting and chance.random() < 0.1:
            gone = chance.choice(list(waiting))
            assert turns.discard(gone)
            del waiting[gone]
        else:
            taken = turns.take()
            assert (taken is None) == (not waiting)
            if taken is not None:
                owner, _ = waiting.pop(taken)
                own = [item for item, (whose, _) in waiting.items() if whose == owner]
                if own and min(own) < taken:
                    waiting[min(own)] = (owner, waiting[min(own)][1] + 1)
                    assert waiting[min(own)][1] < OLDEST_EVERY
        assert len(turns) == len(waiting)


def test_what_does_not_fit_into_the_time_left() -> None:
    assert beyond([], 0) == 0
    assert beyond([1, 2, 3], 6) == 3
    assert beyond([1, 2, 4], 6) == 2
    assert beyond([7], 6) == 0
    assert beyond([0, 0, 1], 0) == 2
