"""Which programs there are, and how each is given the file that it is to read.

It reads a descriptor: the file that was opened and found to be the committed one, whatever its name stands for by
then. From ffmpeg 6 on there is a protocol for that (`fd:`, ffmpeg-protocols(1)), which seeks. Earlier ones read a
descriptor only as a stream (`pipe:`), and an mp4 whose index is at its end cannot be read so; they open the descriptor
again, by its name in proc(5).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Final

INPUT: Final = "recfs-input"
"""Stands in arguments for what is read, wherever that is named."""
SEEKING: Final = "fd:"
AGAIN: Final = "file:/proc/self/fd/0"
"""Standard input, opened by its name."""


@dataclass(frozen=True, slots=True)
class Program:
    """One of them, as it is installed."""

    name: str
    """ffprobe or ffmpeg."""
    path: str
    version: str
    """As it tells it: "5.1.9-0+deb12u1"."""
    seeks: bool
    """It can read a descriptor that it is given."""
    caged_by: frozenset[str]
    """What the kernel of this machine confines it with (`sandbox.py`)."""

    @property
    def input_name(self) -> str:
        """What it is told to read."""
        return SEEKING if self.seeks else AGAIN


def installed(name: str) -> tuple[str, int, int] | None:
    """Where a program is on the daemon's PATH, with what changes when another takes its place; None: nowhere."""
    path = shutil.which(name)
    if path is None:
        return None
    path = os.path.realpath(path)
    found = os.stat(path)
    return path, found.st_ino, found.st_mtime_ns


def version_of(banner: str) -> str:
    """The version in what a program says first ("ffprobe version 5.1.9-0+deb12u1 Copyright …"); "?": none."""
    words = banner.split()
    return words[words.index("version") + 1][:40] if "version" in words[:-1] else "?"


__all__ = ["AGAIN", "INPUT", "SEEKING", "Program", "installed", "version_of"]
