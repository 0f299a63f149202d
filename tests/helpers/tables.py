"""Tables of rows, like a death before each of a hundred steps: a few rows say most of it, the rest of them are slow.

`@pytest.mark.table(3)` leaves three rows, spread evenly, to `scripts/test --fast`; all others are `slow`.
"""

from __future__ import annotations

from collections import defaultdict

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the rows; before `-m` looks at the marks."""
    tables: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("table") is not None:
            tables[item.nodeid.partition("[")[0]].append(item)
    for rows in tables.values():
        mark = rows[0].get_closest_marker("table")
        kept = spread(len(rows), mark.args[0] if mark is not None and mark.args else 1)
        for number, row in enumerate(rows):
            if number not in kept:
                row.add_marker(pytest.mark.slow)


def spread(count: int, wanted: int) -> set[int]:
    """So many of the numbers below *count*, the first one among them, as far apart as they can be."""
    return {number * count // min(wanted, count) for number in range(min(wanted, count))}
