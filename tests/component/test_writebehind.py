"""What a failed write leaves to be written again, when more has changed meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from recfs.errors import IoFailure
from recfs.fs.writebehind import WriteBehind
from recfs.ports import Batch, ObjectRow

ROW = ObjectRow(7, "key", "etag", 1, b"s" * 32, b"m" * 16, 0, "STANDARD", 0, 0, 1, 0, 0, 0)


class Failing:
    """A catalogue whose first write fails, after something else has happened."""

    def __init__(self) -> None:
        self.meanwhile: Any = None
        self.written: list[Batch] = []

    async def apply(self, batch: Batch) -> None:
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
            raise IoFailure("no")
        self.written.append(batch)


async def test_an_object_that_went_meanwhile_does_not_come_back() -> None:
    """Deletions of a batch come before its rows, so the row must not be in it any more."""
    catalogue = Failing()
    behind = WriteBehind(catalogue, 1.0)  # type: ignore[arg-type]
    behind.object(ROW)
    catalogue.meanwhile = lambda: behind.object_gone(7)
    with pytest.raises(IoFailure):
        await behind.flush()
    await behind.flush()
    [batch] = catalogue.written
    assert (batch.objects, batch.objects_gone) == ([], [7])


async def test_an_object_that_is_there_again_is_written() -> None:
    catalogue = Failing()
    behind = WriteBehind(catalogue, 1.0)  # type: ignore[arg-type]
    behind.object_gone(7)
    catalogue.meanwhile = lambda: behind.object(ROW)
    with pytest.raises(IoFailure):
        await behind.flush()
    await behind.flush()
    [batch] = catalogue.written
    assert (batch.objects, batch.objects_gone) == ([ROW], [7])
