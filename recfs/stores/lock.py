"""The lock of a store's root: one daemon at a time has it, and its file says which."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from recfs.errors import RootBusy

DYING_S = 2.0
"""How long the lock of a daemon that is gone may outlive it: a child has it until its execve(2)."""


class RootLock:
    """flock(2) on a file of the store. Blocking."""

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path
        self.fd = -1
        """The open file, -1 for none."""

    def open(self, inherited: int = -1) -> None:
        """Open the file; an *inherited* descriptor of it, which has the lock, is taken over. Raises OSError."""
        self.fd = inherited if inherited >= 0 else os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> None:
        """Take the lock, and write down who has it. Raises RootBusy, with the file closed."""
        try:
            self._wait()
        except OSError as error:
            holder = self._holder()
            self.close()
            raise RootBusy(
                f"store {self._root} is in use by another recfs daemon (process {holder or 'unknown'}). "
                f"Stop it with `recfs umount --root {self._root}`, or use its mount."
            ) from error
        mine = f"{os.getpid()}\n".encode("ascii")
        with contextlib.suppress(OSError):  # a full disk; the number only tells who holds it
            os.pwrite(self.fd, mine, 0)
        os.ftruncate(self.fd, len(mine))

    def _wait(self) -> None:
        """Take the lock. Raises OSError while somebody has it; a killed daemon's child is waited for a moment."""
        deadline = time.monotonic() + DYING_S
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = self._holder()
                if not holder.isdigit() or Path(f"/proc/{int(holder)}").exists() or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _holder(self) -> str:
        # The first line: what is behind it, of one with a longer number, is about to be cut off.
        return os.pread(self.fd, 64, 0).decode("ascii", "replace").partition("\n")[0]

    def leave(self) -> int:
        """A descriptor for another daemon, which has the lock then, whatever becomes of this one's."""
        return os.dup(self.fd)

    def sign_off(self) -> None:
        """Take this process's number out of the file: it ends in order, and did not die."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, 0)

    def close(self) -> None:
        """Give the lock back."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


__all__ = ["RootLock"]
