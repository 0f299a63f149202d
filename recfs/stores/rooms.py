"""Directories on the store's disk in which programs write what is then brought into the mount: `.recfs/rooms`.

Nothing in them is anybody's file yet, so nothing in them outlives a start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Rooms:
    """Makes and empties them. Blocking calls, short ones but for `clear`; they raise OSError."""

    def __init__(self, private: Path) -> None:
        """*private*: the store's own directory."""
        self._folder = private / "rooms"

    def clear(self) -> None:
        """Remove what an earlier daemon has left."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextlib.contextmanager
    def room(self, identity: tuple[int, int] | None) -> Iterator[Path]:
        """A directory of its own for one run of a program; gone at the end, with all in it.

        *identity*: whose it is, uid and gid; None: the daemon's.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        made = self._folder / os.path.basename(tempfile.mkdtemp(dir=self._folder))
        try:
            if identity is not None:
                os.chown(made, *identity)
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    @contextlib.contextmanager
    def nameless(self) -> Iterator[int]:
        """A descriptor of an empty file without a name."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        fd, path = tempfile.mkstemp(dir=self._folder)
        try:
            os.unlink(path)
            yield fd
        finally:
            os.close(fd)


__all__ = ["Rooms"]
