"""max_monthly_uploads: what counts as an upload when a directory is renamed, so that no rename gets round the limit."""

from __future__ import annotations

from typing import Any

import pytest

from recfs.errors import InvalidPath, QuotaExceeded
from recfs.fs.names.births import MOST_SOURCES

from .build import REC, Filesystem

NEW = "users/5/recordings/15"


async def limited(fs: Filesystem, uploads: int, user: str = "5") -> None:
    """Give a user so many each month."""
    await fs.answers()["quota_set"]({"user": user, "max_monthly_uploads": str(uploads)})


async def counted(fs: Filesystem, user: str = "5") -> Any:
    """How many were counted in this month."""
    return fs.parts.tree.accounts._known[user].month_uploads


@pytest.mark.parametrize("above", [f"{REC}/m", "temp/5/7", "users/5/thumbnails/m"])
@pytest.mark.parametrize("cold", [False, True])
async def test_a_directory_that_becomes_a_recording_brings_its_sources_as_uploads(
    fs: Filesystem, above: str, cold: bool
) -> None:
    await fs.write(f"{REC}/source.mp4", b"first")
    await fs.write(f"{above}/source.mp4", b"second")
    await fs.write(f"{above}/source.webm", b"third")
    await fs.write(f"{above}/source.mp4.part", b"none")
    await fs.write(f"{above}/source.x/source.mp4", b"none")
    await fs.mkdirs("users/5/recordings")
    if cold:
        await fs.drain()
        await fs.reopen()
    await limited(fs, 2)
    assert await counted(fs) == 1
    with pytest.raises(QuotaExceeded, match="max_monthly_uploads = 2 is reached"):
        await fs.rename(above, NEW)
    await fs.mkdirs(NEW)
    with pytest.raises(QuotaExceeded):
        await fs.rename(above, NEW, exchange=True)
    with pytest.raises(QuotaExceeded):
        await fs.rename(NEW, above, exchange=True)
    assert (await counted(fs), await fs.names(NEW)) == (1, [])
    await limited(fs, 3)
    await fs.rename(above, NEW)
    assert await counted(fs) == 3
    await fs.drain()
    await fs.reopen()
    await fs.node(NEW)
    assert await counted(fs) == 3
    await fs.assert_consistent()


async def test_what_is_exchanged_counts_where_it_becomes_a_recording(fs: Filesystem) -> None:
    await fs.write("temp/5/7/source.mp4", b"x")
    await fs.write(f"{NEW}/source.mov", b"y")
    await fs.rename("temp/5/7", NEW, exchange=True)
    assert await counted(fs) == 2
    assert await fs.names(NEW) == ["source.mp4"]


async def test_a_recording_that_is_moved_whole_counts_for_nobody(fs: Filesystem) -> None:
    await fs.write(f"{REC}/source.mp4", b"x")
    await fs.mkdirs("users/6/recordings")
    for user in ("5", "6"):
        await limited(fs, 1 if user == "5" else 0, user)
    await fs.rename(REC, NEW)
    await fs.rename(NEW, "users/6/recordings/1")
    assert (await counted(fs), await counted(fs, "6")) == (1, 0)


async def test_one_that_was_moved_aside_counts_again(fs: Filesystem) -> None:
    """As a source does that had another name meanwhile: nobody knows whether it is the same."""
    await fs.write(f"{REC}/source.mp4", b"x")
    await fs.mkdirs("temp/5")
    await fs.rename(REC, "temp/5/7")
    await fs.write("temp/5/7/source.mp4", b"another")
    await fs.rename("temp/5/7", REC)
    assert await counted(fs) == 2


async def test_a_directory_of_more_sources_than_anybody_has_becomes_no_recording(fs: Filesystem) -> None:
    """What is counted in one moment is bounded."""
    await fs.mkdirs("users/5/recordings")
    for number in range(MOST_SOURCES + 1):
        await fs.write(f"temp/5/7/source.{number}", b"")
    with pytest.raises(InvalidPath, match="more than"):
        await fs.rename("temp/5/7", NEW)
    await fs.unlink("temp/5/7/source.0")
    await fs.rename("temp/5/7", NEW)
    assert await counted(fs) == MOST_SOURCES


async def test_two_sources_that_are_exchanged_are_no_new_uploads(fs: Filesystem) -> None:
    await fs.write(f"{REC}/source.mp4", b"x")
    await fs.write(f"{REC}/source.mov", b"y")
    await fs.write(f"{REC}/other", b"z")
    await fs.rename(f"{REC}/source.mp4", f"{REC}/source.mov", exchange=True)
    assert await counted(fs) == 2
    await fs.rename(f"{REC}/source.mp4", f"{REC}/other", exchange=True)
    assert await counted(fs) == 3, "that had another name"
