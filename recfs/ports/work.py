"""Work in the background that the file system hands over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Pipeline(Protocol):
    """Where the file system hands over files whose last writer closed."""

    def submit(self, ino: int) -> None:
        """The file entered `sealing`. Called again, it replaces the earlier submission."""

    def withdraw(self, ino: int) -> None:
        """The file changes, or has gone: nothing of it is sealed until it is submitted again. Atomic."""

    def hurry(self, ino: int) -> None:
        """Somebody waits for this file: end its settling delay."""

    def want(self, ino: int) -> None:
        """As `hurry`, and a file that nobody has submitted, because it is hashed when there is time, is."""

    async def progress(self) -> None:
        """Wait until the pipeline has finished with some file, whatever came of it."""

    @property
    def depth(self) -> int:
        """How many files wait or are being sealed."""

    @property
    def busy_with(self) -> int:
        """How many of them others may have to wait for: not those that somebody keeps mapped."""

    def still_mapped(self) -> Sequence[int]:
        """Inode numbers of closed files that somebody could still write to by a mapping at the last look. Atomic."""


class Publisher(Protocol):
    """Brings the home tree to what the rows say."""

    worked_on: set[int]
    """Inode numbers of the files of which anything is now being carried out, be it only to their attributes."""

    def add(self, ino: int) -> None:
        """The row of *ino* has pending bits."""

    @property
    def is_moving(self) -> bool:
        """Whether any move is being carried out."""

    def touches(self, inos: Sequence[int]) -> bool:
        """Whether a move now being carried out concerns one of *inos*."""

    async def no_batch(self) -> None:
        """Wait until no batch at all is being carried out; none is until the next await."""

    async def arranged(self) -> None:
        """Wait until nothing in the home tree is being made, moved or removed; nothing is until the next await."""

    async def batch_done(self) -> None:
        """Wait until what is now being carried out is done."""

    def remake_above(self, ino: int) -> None:
        """Have the directories above *ino*, as far as they were removed out of band, made again. Atomic."""
