"""Who waits for which bytes of a download."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recfs.errors import RecfsError
    from recfs.tier.downloads.extents import Stream


@dataclass(slots=True, eq=False)
class Waiter:
    """Somebody who waits for the blocks from *first* to before *stop*."""

    first: int
    stop: int
    stream: Stream | None = None
    """None: nobody reads, the file is to become whole."""
    error: RecfsError | None = None
    woken: trio.Event = field(default_factory=trio.Event)


class Waiters:
    """All of one download, in the order in which they came. Atomic."""

    def __init__(self) -> None:
        self._all: dict[Waiter, None] = {}

    @contextmanager
    def entered(self, waiter: Waiter) -> Iterator[None]:
        """Count *waiter* in until the end of the block."""
        self._all[waiter] = None
        try:
            yield
        finally:
            del self._all[waiter]

    def reading(self) -> Iterator[Waiter]:
        """Those who wait for a read."""
        return (waiter for waiter in self._all if waiter.stream is not None)

    @property
    def in_background(self) -> bool:
        """Whether the file is to become whole for somebody."""
        return any(waiter.stream is None and waiter.error is None for waiter in self._all)

    def any_of(self, first: int, stop: int) -> bool:
        """Whether somebody waits for some of these blocks."""
        return any(waiter.first < stop and first < waiter.stop for waiter in self._all)

    def wake(self, first: int, stop: int) -> None:
        """These blocks have come: have those who wait for some of them look."""
        for waiter in self._all:
            if waiter.first < stop and first < waiter.stop:
                waiter.woken.set()

    def fail(self, error: RecfsError, first: int = 0, stop: int | None = None) -> None:
        """Tell all, or those who wait for some of these blocks, that they do not come."""
        for waiter in self._all:
            if stop is None or (waiter.first < stop and first < waiter.stop):
                waiter.error = error
                waiter.woken.set()


__all__ = ["Waiter", "Waiters"]
