"""Every Catalogue, real and fake, against the one contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recfs.catalogue.opening import open_catalogue
from recfs.catalogue.sqlite import SqliteCatalogue
from recfs.errors import OutOfSpace
from recfs.ports.batch import Batch
from recfs.ports.catalogue import Catalogue
from tests.fakes import MemoryCatalogue

from .catalogue_contract import CatalogueContract, row


class TestSqlite(CatalogueContract):
    """The real one."""

    @pytest.fixture
    def catalogue(self, tmp_path: Path) -> Iterator[SqliteCatalogue]:
        """A new file."""
        made = open_catalogue(tmp_path / "catalogue.db")
        yield made
        made.close()

    @pytest.fixture
    def break_next_apply(self) -> Callable[[SqliteCatalogue], None]:
        """Let SQLite itself find the disk full in the middle of the batch."""

        def full(catalogue: SqliteCatalogue) -> None:
            db = catalogue._db
            (pages,) = db.execute("pragma page_count").fetchone()
            db.execute(f"pragma max_page_count = {pages}")
            apply = catalogue.apply

            async def once(batch: Batch) -> None:
                catalogue.apply = apply  # type: ignore[method-assign]
                try:
                    # Attributes are written after rows and counters, and these do not fit into the pages there are.
                    await apply(replace(batch, xattrs=[*batch.xattrs, (10, b"user.big", bytes(1 << 20))]))
                finally:
                    db.execute("pragma max_page_count = 1000000")

            catalogue.apply = once  # type: ignore[method-assign]

        return full

    async def test_a_reopened_catalogue_has_everything(self, catalogue: SqliteCatalogue, tmp_path: Path) -> None:
        await catalogue.apply(Batch(nodes=[row(10, b"a", 2)], meta={"k": "v"}))
        catalogue.close()
        again = open_catalogue(tmp_path / "catalogue.db", expect_new=False)
        assert await again.node(10) == row(10, b"a", 2)
        assert await again.meta() == {"k": "v"}
        again.close()
        catalogue._db = open_catalogue(tmp_path / "catalogue.db")._db


class TestMemory(CatalogueContract):
    """The fake."""

    @pytest.fixture
    def catalogue(self) -> MemoryCatalogue:
        """Empty."""
        return MemoryCatalogue()

    @pytest.fixture
    def break_next_apply(self) -> Callable[[Catalogue], None]:
        """Set its error."""

        def full(catalogue: Catalogue) -> None:
            assert isinstance(catalogue, MemoryCatalogue)
            catalogue.error = OutOfSpace("the disk is full")

        return full
