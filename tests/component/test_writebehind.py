"""What a failed write leaves to be written again, when more has changed meanwhile."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.errors import Busy, IoFailure
from recfs.ports.batch import Batch
from recfs.ports.reports import Difference
from recfs.ports.rows import LocalCopy, ObjectRow
from recfs.state.writebehind import WriteBehind
from recfs.stores.local import LABEL_XATTR
from tests.helpers.reports import check

from .build import REC, Filesystem, filesystem

ROW = ObjectRow(7, "key", "etag", 1, b"s" * 32, b"m" * 16, 0, "STANDARD", 0, LocalCopy(local=1))


class Failing:
    """A catalogue whose first write fails, after something else has happened."""

    def __init__(self) -> None:
        self.meanwhile: Any = None
        self.written: list[Batch] = []

    async def apply(self, batch: Batch, *, trial: bool = False) -> None:
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


class Refusing:
    """A catalogue that does not take what speaks of a name; counts the transactions that are kept."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.kept = 0
        self.original = SqliteCatalogue.apply

    async def apply(self, catalogue: SqliteCatalogue, batch: Batch, *, trial: bool = False) -> None:
        if any(row.name == self.name for row in batch.nodes):
            raise ValueError("not this one")
        await self.original(catalogue, batch, trial=trial)
        self.kept += not trial


@pytest.mark.expect_log("not this one|does not take its row")
async def test_counters_are_right_after_a_start_that_misses_a_row(place: Path) -> None:
    """Rows and counters travel together; where a row is refused, the catalogue says that they differ."""
    refusing = Refusing(b"refused")
    async with filesystem(place) as fs:
        fs.checked_at_end = False
        await fs.write(f"{REC}/before", b"1")
        await fs.drain()
        with mock.patch.object(SqliteCatalogue, "apply", lambda *args, **more: refusing.apply(*args, **more)):
            for number in range(20):
                await fs.write(f"{REC}/file{number}", b"22")
            await fs.write(f"{REC}/refused", b"333")
            refusing.kept = 0
            await fs.parts.behind.flush()
            assert refusing.kept == 1, "all that is taken is one transaction"
            assert fs.rows("select count(*) from node where kind = 'file'") == [21]
            with pytest.raises(Busy, match="does not take"):
                await fs.answers()["quota_check"]({"repair": True})
            await fs.crash()
        assert check(place / ".recfs/catalogue.db").differences, "the row that is missing is counted"
        for each in (place / ".recfs/staging").iterdir():  # nor can it be adopted
            with contextlib.suppress(OSError):  # those nobody uses yet have no label
                if b"refused" in os.getxattr(each, LABEL_XATTR):
                    each.unlink()
        await fs.reopen()
        assert not (await fs.answers()["quota_check"]({}))["differences"]
        assert fs.rows("select value from meta where key = 'counters_unsure'") == ["0"]


@pytest.mark.expect_log("not this one|does not take its row")
async def test_a_row_that_is_taken_in_the_end_makes_the_counters_sure(place: Path) -> None:
    refusing = Refusing(b"refused")
    async with filesystem(place) as fs:
        with mock.patch.object(SqliteCatalogue, "apply", lambda *args, **more: refusing.apply(*args, **more)):
            await fs.write(f"{REC}/refused", b"333")
            await fs.parts.behind.flush()
            assert fs.rows("select value from meta where key = 'counters_unsure'") == ["1"]
        await fs.drain()
        await fs.parts.behind.flush()
        assert fs.rows("select value from meta where key = 'counters_unsure'") == ["0"]
        assert not (await fs.answers()["quota_check"]({}))["differences"]


async def test_a_directory_that_goes_while_counters_are_repaired_is_passed_over(fs: Filesystem) -> None:
    folder = await fs.mkdirs(f"{REC}/sub")
    off = Difference("bytes", folder.ino, None, 5, 1, 0, 0)
    await fs.rmdir(f"{REC}/sub")
    await fs.parts.work.recount.repair([off])
    assert not (await fs.answers()["quota_check"]({}))["differences"]
