"""A descriptor lent to worker threads that can be taken back while they write."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from recfs.ports.object_errors import TransferCancelled


class RevocableFd:
    """A descriptor that threads write to, and that can be taken from them while they do. Thread-safe; owns it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._users = 0
        self._revoked = False

    def revoked(self) -> bool:
        """The `Cancel` of the port."""
        return self._revoked

    @contextmanager
    def lent(self) -> Iterator[int]:
        """The descriptor, which stays open for the block. Raises TransferCancelled once revoked."""
        with self._lock:
            if self._revoked:
                raise TransferCancelled("the download was closed")
            self._users += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._users -= 1
                self._close_unused()

    def revoke(self) -> None:
        """Nothing is written to the file any more, but for a write(2) under way. Closed after its last user."""
        with self._lock:
            if self._revoked:
                return
            self._revoked = True
            if self._users:
                # A thread may be anywhere between two writes, or stuck in the network for a minute. Its descriptor
                # becomes that of /dev/null, atomically (dup2(2)). Without a descriptor for that, `revoked` has to do.
                try:
                    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                except OSError:
                    return
                os.dup2(null, self._fd, inheritable=False)
                os.close(null)
            self._close_unused()

    def _close_unused(self) -> None:
        if self._revoked and not self._users:
            os.close(self._fd)
