"""How much of a file lies in blocks that another one has not: by extents, however they are cut."""

from __future__ import annotations

import pytest

from recfs.core.reuse.extents import own_bytes

WHOLE = [(0, 1000, 100)]


@pytest.mark.parametrize(
    ("one", "other", "own"),
    [
        (WHOLE, WHOLE, 0),
        (WHOLE, [(0, 1000, 40), (40, 1040, 60)], 0),
        ([(0, 1000, 40), (40, 1040, 60)], WHOLE, 0),
        (WHOLE, [(0, 5000, 100)], 100),
        (WHOLE, [(0, 1000, 50), (50, 7000, 50)], 50),
        (WHOLE, [(10, 1000, 50)], 50),
        (WHOLE, [(20, 1020, 30)], 0),
        (WHOLE, [], 0),
        ([], WHOLE, 100),
        ([], [], 0),
        ([(0, 1000, 10), (50, 1050, 10)], WHOLE, 80),
    ],
)
def test_blocks_of_its_own(one: list[tuple[int, int, int]], other: list[tuple[int, int, int]], own: int) -> None:
    assert own_bytes(one, other) == own
