"""Which rows of a table are left to the fast tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers import tables


class Row:
    """As much of a collected test as the helper looks at."""

    def __init__(self, nodeid: str, *marks: Any) -> None:
        self.nodeid = nodeid
        self.marks = [mark.mark for mark in marks]

    def get_closest_marker(self, name: str) -> Any:
        return next((mark for mark in self.marks if mark.name == name), None)

    def add_marker(self, mark: Any) -> None:
        self.marks.append(mark.mark)


@pytest.mark.parametrize(
    ("mark", "left"),
    [(pytest.mark.table, [0]), (pytest.mark.table(3), [0, 3, 6]), (pytest.mark.table(99), list(range(10)))],
    ids=["one", "three", "all"],
)
def test_so_many_rows_are_fast_and_far_apart(mark: Any, left: list[int]) -> None:
    rows = [Row(f"a.py::test_table[{number}]", mark) for number in range(10)]
    others = [Row("a.py::test_other[1]"), Row("a.py::test_other[2]")]
    tables.pytest_collection_modifyitems([*rows, *others])  # type: ignore[arg-type]
    assert [number for number, row in enumerate(rows) if not row.get_closest_marker("slow")] == left
    assert not any(row.marks for row in others)


def test_each_table_has_rows_of_its_own() -> None:
    rows = [Row(f"a.py::test_{name}[{number}]", pytest.mark.table) for name in "ab" for number in range(3)]
    tables.pytest_collection_modifyitems(rows)  # type: ignore[arg-type]
    assert [row.nodeid for row in rows if not row.get_closest_marker("slow")] == ["a.py::test_a[0]", "a.py::test_b[0]"]
