"""The gate of the request loop, and the count of requests in hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

LOOK_S: Final = 0.002


class Gate:
    """Whether requests are read. Closed, they wait in the kernel, and those in hand are answered as ever.

    Counts those in hand, too: whoever leaves the mount to another daemon has to know that there are none.
    """

    __slots__ = ("_changed", "closed", "ended", "in_hand")

    def __init__(self) -> None:
        self.closed = False
        self.ended = False
        """The workers are to end: nothing is read here any more."""
        self.in_hand = 0
        """Requests that were read and are not answered yet."""
        self._changed = trio.Event()

    def close(self) -> None:
        """Read no more, from the next step on."""
        self.closed = True

    def open(self) -> None:
        """Go on reading; also what a new session begins with."""
        self.closed = self.ended = False
        self._changed.set()
        self._changed = trio.Event()

    def end(self) -> None:
        """Have `serve` return. Only while it is closed and nothing is in hand."""
        self.ended = True
        self._changed.set()

    async def passed(self) -> None:
        """Return when it is open. Raises trio.ClosedResourceError when it ends instead."""
        while self.closed:
            if self.ended:
                raise trio.ClosedResourceError
            await self._changed.wait()


GATE: Final = Gate()


async def none_in_hand(patience_s: float, again: Callable[[], None] = lambda: None) -> bool:
    """Wait until every request that was read is answered; False when that takes too long. *again*: before each look."""
    with trio.move_on_after(patience_s):
        while GATE.in_hand:  # counted for each request: nobody is told of each
            again()
            await trio.sleep(LOOK_S)
    return not GATE.in_hand


__all__ = ["GATE", "Gate", "none_in_hand"]
