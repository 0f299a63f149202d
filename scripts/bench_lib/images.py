"""A file system of its own to measure on: an ext4 image in a file, mounted by a loop device."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .target import TargetError, run

SIZE = 32 << 30
"""Of the image, in bytes; it is sparse, and takes what is written to it."""
_LEAST = 4 << 30
_SPARE = 1 << 30


@contextlib.contextmanager
def ext4(directory: Path) -> Iterator[Path]:
    """Make an image in *directory*, and mount it; where it is mounted. All of it is gone when the block ends.

    Raises TargetError where there is no room, no root, or no loop device.
    """
    free = os.statvfs(directory)
    size = min(SIZE, free.f_bavail * free.f_frsize - _SPARE)
    if size < _LEAST:
        raise TargetError(f"{directory}: {size + _SPARE:,} bytes are free; an image for ext4 wants {_LEAST + _SPARE:,}")
    image, top = directory / f"recfs-bench-{os.getpid()}.ext4", directory / f"recfs-bench-{os.getpid()}.mnt"
    try:
        with image.open("wb") as file:
            file.truncate(size)
        run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image])
        top.mkdir()
        run(["mount", "-o", "loop", image, top])
        try:
            yield top
        finally:
            run(["umount", top])
    finally:
        with contextlib.suppress(OSError):
            top.rmdir()
        image.unlink(missing_ok=True)


__all__ = ["SIZE", "ext4"]
