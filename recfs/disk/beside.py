"""Work on what was read, in a second thread, while the next bytes are read. Blocking; for threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

ROUND_BUFFERS: Final = 4


class Beside:
    """Hands each part to *feed*: at once, or *beside* the caller, in the order in which they came.

    A few buffers go round, so that the second thread finds the next one filled when it is done with the last: waking a
    thread for each would cost it a tenth of its time. What *feed* raises, the end of the block raises.
    """

    def __init__(self, feed: Callable[[memoryview], None], size_bytes: int, *, beside: bool) -> None:
        """*size_bytes*: of a buffer."""
        self._feed = feed
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._filled: SimpleQueue[tuple[memoryview, memoryview] | None] = SimpleQueue()
        self._buffers = ROUND_BUFFERS if beside else 1
        for _ in range(self._buffers):
            self._free.put(memoryview(bytearray(size_bytes)))
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="recfs-beside") if beside else None

    def __enter__(self) -> Beside:
        if self._helper is not None:
            self._behind = self._helper.submit(self._feed_behind)
        return self

    def __exit__(self, *failed: object) -> None:
        if self._helper is not None:
            self._filled.put(None)
            self._helper.shutdown()
            self._behind.result()

    def _feed_behind(self) -> None:
        failed: Exception | None = None
        while (item := self._filled.get()) is not None:
            part, buffer = item
            try:
                if failed is None:
                    self._feed(part)
            except Exception as error:
                failed = error  # told in the end: the other one may be waiting for a buffer
            self._free.put(buffer)
        if failed is not None:
            raise failed

    def buffer(self) -> memoryview:
        """A buffer to fill. Waits until there is one, so that the second thread stays close behind."""
        return self._free.get()

    def give(self, part: memoryview, buffer: memoryview) -> None:
        """Feed *part*, and have *buffer* back."""
        if self._helper is not None:
            self._filled.put((part, buffer))
        else:
            self._feed(part)
            self._free.put(buffer)

    def catch_up(self) -> None:
        """Wait until everything was fed."""
        for buffer in [self._free.get() for _ in range(self._buffers)]:
            self._free.put(buffer)


__all__ = ["Beside"]
