"""Small disks of a chosen file system, for stores that are to fill up or to be frozen. Needs root."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

FREEZING = {"ext4", "xfs", "btrfs"}
"""File systems on which an immutable file refuses writes through descriptors that are open already."""


@contextlib.contextmanager
def disk(kind: str, at: Path, size_bytes: int) -> Iterator[str | None]:
    """Mount a fresh disk ("tmpfs", or "ext4" or "xfs" from an image beside it) on the directory `at`.

    Gives None, or the reason why this machine cannot.
    """
    image = at.with_name(f"{at.name}.img")
    if kind == "tmpfs":
        commands = [["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=755", "recfs-test", str(at)]]
    else:
        image.touch()
        with image.open("r+b") as stream:
            stream.truncate(size_bytes)
        make = ["mkfs.ext4", "-q", "-m", "0"] if kind == "ext4" else ["mkfs.xfs", "-q"]
        commands = [[*make, str(image)], ["mount", "-o", "loop", str(image), str(at)]]
    why_not = None
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            why_not = done.stderr.strip() if done.returncode else None
        except FileNotFoundError as error:
            why_not = str(error)
        if why_not is not None:
            break
    try:
        yield why_not
    finally:
        if why_not is None:
            subprocess.run(["umount", "--lazy", str(at)], capture_output=True, timeout=60, check=False)
        image.unlink(missing_ok=True)
