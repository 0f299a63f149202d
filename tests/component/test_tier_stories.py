"""Whatever becomes of files, of S3's answers and of the daemon: rows and bucket agree in the end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.fake_object_store import FakeObjectStore

from .build import REC
from .stories import RETENTION_S, Story
from .test_tier import MIB, S3, tiered

if TYPE_CHECKING:
    from pathlib import Path

    import trio

    from .build import Filesystem

LENGTH = 60
"""So many things happen in each."""
SEEDS = [int(os.environ["STORY_SEED"])] if "STORY_SEED" in os.environ else [*range(24), 1043]


@pytest.mark.prompt_catalogue
@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.table(4)
async def test_rows_and_bucket_agree(nursery: trio.Nursery, place: Path, seed: int) -> None:
    """With a trash and without one, on servers where a copy has its source's etag and on others."""
    fs = tiered(nursery, place, trash={"retention": RETENTION_S if seed % 2 else 0.0})
    await told(fs, seed, twins=False)


@pytest.mark.prompt_catalogue
@pytest.mark.usefixtures("any_log")
@pytest.mark.parametrize("seed", SEEDS[:12])
@pytest.mark.table(2)
async def test_rows_and_bucket_agree_where_the_same_bytes_are_copied(
    nursery: trio.Nursery, place: Path, seed: int
) -> None:
    """Of whatever size: many files have the bytes of others, and S3 is asked to copy them."""
    trash, upload = {"retention": RETENTION_S if seed % 2 else 0.0}, S3["upload"] | {"copy_min_size": 0}
    fs = tiered(nursery, place, trash=trash, upload=upload)
    await told(fs, seed, twins=True)


async def told(fs: Filesystem, seed: int, *, twins: bool) -> None:
    fs.checked_at_end = False
    fs.objects = FakeObjectStore(smallest_part=MIB)
    fs.objects.hold_parts_to_minimum = False
    story = Story(fs, seed, own_etags=seed % 3 == 0, twins=twins)
    await fs.start()
    await fs.mkdirs(REC)
    try:
        await story.tell(LENGTH)
        await story.end()
    except BaseException:
        print("\n".join(story.acts))
        raise
    await fs.stop()
