"""What the file system asks of the kernel."""

from __future__ import annotations

from typing import Protocol


class KernelCache(Protocol):
    """Tells the kernel what the daemon changed behind its back. Asynchronous; never called under a lock."""

    def forget_entry(self, parent: int, name: bytes, ino: int) -> None:
        """The name is gone; *ino* = the inode it named (0 if not known)."""

    def forget_inode(self, ino: int) -> None:
        """Attributes and cached pages of *ino* are out of date."""

    async def flush(self) -> None:
        """Wait until the kernel knows everything announced so far. Never from within a request."""


class Acceleration(Protocol):
    """What the kernel does without asking."""

    @property
    def reads(self) -> bool:
        """It reads open files straight from the disk below."""

    @property
    def writes(self) -> bool:
        """It writes them, too."""


class KernelFiles(Protocol):
    """Hands files of the store to the kernel, which then reads and writes them by itself (FUSE passthrough)."""

    @property
    def acceleration(self) -> Acceleration:
        """What is possible on this mount."""

    def backing_open(self, fd: int) -> int:
        """Register the file behind *fd*; a backing id > 0, good until `backing_close`. Raises OSError."""

    def backing_close(self, backing_id: int) -> None:
        """Give the id back. Raises nothing."""
