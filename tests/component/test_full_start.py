"""A store starts on a disk that is full to the last byte, or says that the disk is full, not that it is damaged."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recfs.catalogue.headroom import give_up
from recfs.errors import StoreFull
from tests.helpers.disks import disk
from tests.helpers.machine import skip
from tests.helpers.reports import answer_of

from .build import REC, filesystem

pytestmark = [pytest.mark.slow, pytest.mark.all_steps]

SIZE_BYTES = 64 << 20
FILE = f"{REC}/file"


@pytest.fixture
def small_reserves() -> None:
    """Not here: what is put aside is what it is about."""


@pytest.fixture(params=["tmpfs", "ext4"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small disk."""
    at = tmp_path / "disk"
    at.mkdir()
    if os.geteuid():
        skip("needs root")
    with disk(request.param, at, SIZE_BYTES) as why_not:
        if why_not is not None:
            skip(f"needs root: {why_not}")
        yield at / "store"


def fill(place: Path) -> None:
    """Write a file of others until nothing more goes."""
    with open(place.parent / "others", "ab", buffering=0) as file:
        for step in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(step)):
                    pass
    info = os.statvfs(place)
    assert info.f_bavail * info.f_frsize < 4096


async def crashed(place: Path) -> Path:
    """A store whose daemon has gone, with a log and without its index; its catalogue."""
    async with filesystem(place) as fs:
        fs.checked_at_end = False
        await fs.write(FILE, b"bytes")
        await fs.drain()
        await fs.crash()
        catalogue = fs.root / ".recfs/catalogue.db"
    catalogue.with_name("catalogue.db-shm").unlink(missing_ok=True)
    return catalogue


async def test_a_start_on_a_full_disk_takes_what_was_put_aside(place: Path) -> None:
    await crashed(place)
    fill(place)
    async with filesystem(place) as fs:
        assert await fs.read(FILE) == b"bytes"
        await fs.unlink(FILE)
        await fs.drain()


async def test_without_any_room_the_disk_is_said_to_be_full(place: Path) -> None:
    catalogue = await crashed(place)
    (catalogue.parent / "ballast").unlink()
    give_up(catalogue)
    fill(place)
    with pytest.raises(StoreFull, match=r"its disk is full .*Nothing is lost\. Free some MiB"):
        answer_of(catalogue, lambda snapshot: snapshot.meta())
    with pytest.raises(Exception) as caught:  # trio's groups
        async with filesystem(place):
            pass
    assert "is full" in repr(caught.value) or errno.errorcode[errno.ENOSPC] in repr(caught.value)
    (place.parent / "others").unlink()
    async with filesystem(place) as fs:
        assert await fs.read(FILE) == b"bytes"
