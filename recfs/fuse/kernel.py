"""The KernelCache port on pyfuse3: what the daemon changed by itself is announced to the kernel.

A notification may wait in the kernel for a lock that a request of ours is to release (pyfuse3 documentation,
invalidate_entry), so one thread of ours sends them, in order, and nobody waits for it while answering a request.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from queue import Empty, SimpleQueue

import pyfuse3
import trio

log = logging.getLogger("recfs.fuse")

_GONE = (errno.ENOENT, errno.EBADF, errno.ENODEV, errno.ENOTCONN, errno.EINVAL)
"""The kernel does not know the name, or the mount is going away: nothing left to announce."""

_Entry = tuple[int, bytes, int]


class PyfuseKernelCache:
    """Sends FUSE_NOTIFY_DELETE, _INVAL_ENTRY and _INVAL_INODE."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Entry | int | trio.Event | None] = SimpleQueue()
        self._sending: _Entry | int | trio.Event | None = None
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._send, name="recfs-notify", daemon=True)
        self._thread.start()

    def forget_entry(self, parent: int, name: bytes, ino: int) -> None:
        """The name is gone; *ino* = what it named."""
        self._queue.put((parent, name, ino))

    def forget_inode(self, ino: int) -> None:
        """Attributes and pages are out of date."""
        self._queue.put(ino)

    async def flush(self) -> None:
        """Wait until the kernel knows everything announced so far. Never from within a request."""
        done = trio.Event()
        self._queue.put(done)
        await done.wait()

    def pause(self) -> None:
        """Announce nothing more for now; what is being announced may take until a request is answered."""
        self._goes_on.clear()

    def go_on(self) -> None:
        """Announce again, after `pause`; what was under way then may not have arrived."""
        if self._sending is not None:
            self._queue.put(self._sending)
        self._goes_on.set()

    def unsent(self) -> list[_Entry | int]:
        """Take what may not have arrived, after `pause`."""
        left = [self._sending]
        with contextlib.suppress(Empty):
            while True:
                left.append(self._queue.get_nowait())
        self._queue.put(None)
        self._goes_on.set()
        return [item for item in left if isinstance(item, int | tuple)]

    def close(self) -> None:
        """Stop the thread; what is queued is dropped with the mount anyway."""
        self._queue.put(None)

    def _next(self) -> _Entry | int | trio.Event | None:
        self._sending = None
        item = self._queue.get()
        while not self._goes_on.is_set():
            self._queue.put(item)  # last of all now: for who is told that something is out of date, that is all one
            self._goes_on.wait()
            item = self._queue.get()
        self._sending = item
        return item

    def _send(self) -> None:
        while (item := self._next()) is not None:
            try:
                if isinstance(item, trio.Event):
                    with contextlib.suppress(trio.RunFinishedError):
                        self._token.run_sync_soon(item.set)
                elif isinstance(item, int):
                    pyfuse3.invalidate_inode(item)
                else:
                    _forget(*item)
            except OSError as error:
                if error.errno not in _GONE:
                    log.warning("kernel cache: %s", error)
            except Exception:
                log.exception("kernel cache: notification failed")


def _forget(parent: int, name: bytes, ino: int) -> None:
    if ino:
        try:
            pyfuse3.invalidate_entry(parent, name, ino)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            # A directory in which the kernel still believes something: dropping the name does for path walks what
            # announcing the deletion would have done, only watchers (inotify) do not hear of it.
        else:
            return
    pyfuse3.invalidate_entry(parent, name)
