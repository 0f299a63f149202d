"""Removals that have returned, and that the catalogue has yet to be told of: a note of each survives the daemon.

A note goes into the page cache (mmap(2), which costs no system call), and that outlives the process. It does
not outlive a power cut, and must not: then the catalogue goes back to an earlier moment as a whole, and a later removal
does not belong there. So the files carry the boot's id in their names, and those of another boot count for nothing.

Two files take turns. When a batch of rows is taken, the notes so far are closed off in one; once the catalogue has that
batch, and all removals with it, that file begins anew. Its blocks stay, so that notes can be taken on a full disk. What
older notes may be read behind the new ones does no harm: their rows are gone, and no inode number is used twice.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import struct
from typing import TYPE_CHECKING

from recfs.core.bounds import MAX_INT

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("recfs.store")

ROOM_BYTES = 64 << 10
"""What each file has on the disk from the beginning."""
_NOTE = struct.Struct("<Q")
_LAST = struct.Struct("<QQ")
"""A note, and the 0 that ends them."""
_PREFIX = "removals-"


class Removals:
    """Inode numbers of what was removed, in a directory of the store's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fds: list[int] = []
        self._maps: list[mmap.mmap] = []
        """Of both files, where their room could be put aside: a page without a block would end the daemon (SIGBUS)."""
        self._current = 0
        self._noted = 0
        """How many notes the current file has."""
        self._closed_off = False
        """Whether the other one still has notes."""
        self._failed = False

    def _paths(self, boot: str) -> list[Path]:
        return [self._folder / f"{_PREFIX}{boot}-{number}" for number in range(2)]

    def left(self, boot: str) -> list[int]:
        """What the last run noted in this boot and did not get to tell the catalogue. Raises nothing."""
        inos: dict[int, None] = {}
        for path in self._paths(boot):
            with contextlib.suppress(OSError):
                notes = path.read_bytes()
                whole = len(notes) - len(notes) % _NOTE.size  # a full disk may have taken a part of one
                for (ino,) in _NOTE.iter_unpack(notes[:whole]):
                    if not ino:
                        break
                    if ino <= MAX_INT:
                        inos[ino] = None
        return list(inos)

    def begin(self, boot: str) -> None:
        """Take notes from now on; those of before are done with. Raises nothing: without them less is promised."""
        self.close()
        paths = self._paths(boot)
        with contextlib.suppress(OSError):
            for path in self._folder.glob(f"{_PREFIX}*"):
                if path not in paths:
                    path.unlink()
        try:
            for path in paths:
                self._fds.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        except OSError as error:
            self.close()
            log.warning("removals are not noted: a death of the daemon may undo those of its last moment: %s", error)
        with contextlib.suppress(OSError):
            for fd in self._fds:
                os.posix_fallocate(fd, 0, ROOM_BYTES)
            self._maps = [mmap.mmap(fd, ROOM_BYTES) for fd in self._fds]
        self._noted, self._closed_off = 0, False

    def note(self, ino: int) -> None:
        """The inode was removed. Raises nothing."""
        if not self._fds:
            return
        place = self._noted * _NOTE.size
        if self._maps and place + _LAST.size <= ROOM_BYTES:
            _LAST.pack_into(self._maps[self._current], place, ino, 0)
            self._noted += 1
            return
        try:
            os.pwrite(self._fds[self._current], _LAST.pack(ino, 0), place)
            self._noted += 1
        except OSError as error:
            if not self._failed:  # a full disk says it again and again
                log.warning("a removal cannot be noted: a death of the daemon may undo it: %s", error)
            self._failed = True

    def close_off(self) -> None:
        """A batch is taken that has all removals noted so far."""
        if self._noted and not self._closed_off:
            self._current, self._noted, self._closed_off = 1 - self._current, 0, True

    def written(self) -> None:
        """The catalogue has the last batch that was taken."""
        if self._closed_off and self._maps:
            _NOTE.pack_into(self._maps[1 - self._current], 0, 0)
        elif self._closed_off and self._fds:
            with contextlib.suppress(OSError):
                os.pwrite(self._fds[1 - self._current], _NOTE.pack(0), 0)
        self._closed_off = self._failed = False

    def close(self) -> None:
        """Stop taking notes."""
        for each in self._maps:
            each.close()
        self._maps.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
