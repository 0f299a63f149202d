"""What must hold when the catalogue's answer comes late: others go on meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import trio

from recfs.catalogue.sqlite import SqliteCatalogue

from .build import REC, Filesystem, pattern
from .far import until
from .test_tier import FILE, stored, tiered

LATE_S = 5.0


@contextlib.contextmanager
def late(name: str) -> Iterator[None]:
    """The answer of one of its methods is of now, and comes in some seconds."""
    method: Callable[..., Awaitable[Any]] = getattr(SqliteCatalogue, name)

    async def slowly(*args: Any) -> Any:
        answer = await method(*args)
        await trio.sleep(LATE_S)
        return answer

    with mock.patch.object(SqliteCatalogue, name, slowly):
        yield


@pytest.fixture
async def fs(nursery: trio.Nursery, place: Path) -> AsyncIterator[Filesystem]:
    """One with S3, not started."""
    made = tiered(nursery, place)
    yield made
    await made.stop()


async def test_what_local_copies_take_is_right_when_the_catalogue_says_it_late(fs: Filesystem) -> None:
    """A file that is uploaded meanwhile counts, and counts once."""
    with late("local_object_bytes"):
        await fs.start()
        await fs.mkdirs(REC)
        await fs.write(FILE, pattern(1000))
        await until(lambda: stored(fs))
        await trio.sleep(2 * LATE_S)
    await fs.drain()
    assert fs.tier.copies.used_bytes == 1000
