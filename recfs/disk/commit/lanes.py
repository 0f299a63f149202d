"""Whose file is hashed next: size classes that never wait for each other, and turns between owners within each."""

from __future__ import annotations

import enum
import heapq
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

SMALL_BYTES = 1 << 20
"""Files up to this size are sealed many at a time."""
MEDIUM_BYTES = 64 << 20
"""Files up to this size are hashed in one go, well under a second."""
OLDEST_EVERY = 4
"""Every so many turns of an owner its oldest item is taken, and not the one that is done soonest."""


class Lane(enum.StrEnum):
    """A class of sizes with threads of its own."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


def lane_of(size_bytes: int) -> Lane:
    """The lane of a file of this size."""
    if size_bytes <= SMALL_BYTES:
        return Lane.SMALL
    return Lane.MEDIUM if size_bytes <= MEDIUM_BYTES else Lane.LARGE


def beyond(sizes: Iterable[int], room_bytes: float) -> int:
    """Of the files of a queue, taken from the smallest on: from which index on they do not fit into *room_bytes*."""
    index = 0
    for size in sizes:
        room_bytes -= size
        if room_bytes < 0:
            break
        index += 1
    return index


class _Own(Generic[T]):
    """What waits of one owner."""

    __slots__ = ("by_age", "by_size", "turns")

    def __init__(self) -> None:
        self.by_size: list[tuple[int, int, T]] = []
        self.by_age: deque[tuple[int, T]] = deque()
        self.turns = 0


class Turns(Generic[T]):
    """Items that wait for their turn: owners take turns, whatever each of them has waiting.

    Of an owner the smallest item goes first, so that a long one does not hold up what is done soon; but every fourth
    turn is the oldest's, so that it is not held up for ever. Of n owners each gets every n-th turn, and the oldest of
    an owner's items waits for at most `OLDEST_EVERY` x n of them.
    """

    __slots__ = ("_live", "_owners", "_serial")

    def __init__(self) -> None:
        self._owners: OrderedDict[Hashable, _Own[T]] = OrderedDict()
        self._live: dict[T, int] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, item: T) -> bool:
        return item in self._live

    def put(self, owner: Hashable, item: T, size: int = 0) -> None:
        """Queue an item, once."""
        if item in self._live:
            return
        own = self._owners.get(owner)
        if own is None:
            own = self._owners[owner] = _Own()
        self._serial += 1
        self._live[item] = self._serial
        heapq.heappush(own.by_size, (size, self._serial, item))
        own.by_age.append((self._serial, item))

    def discard(self, item: T) -> bool:
        """Forget an item; tells whether it waited."""
        return self._live.pop(item, None) is not None

    def take(self) -> T | None:
        """The next item, which does not wait any more; None when nothing waits."""
        while self._owners:
            owner, own = next(iter(self._owners.items()))
            item = self._next_of(own)
            if item is None:
                del self._owners[owner]
                continue
            del self._live[item]
            self._owners.move_to_end(owner)
            return item
        return None

    def _next_of(self, own: _Own[T]) -> T | None:
        live, by_age, by_size = self._live, own.by_age, own.by_size
        while by_age and live.get(by_age[0][1]) != by_age[0][0]:
            by_age.popleft()
        while by_size and live.get(by_size[0][2]) != by_size[0][1]:
            heapq.heappop(by_size)
        if not by_age:
            return None
        own.turns += 1
        if own.turns % OLDEST_EVERY:
            return heapq.heappop(by_size)[2]
        return by_age.popleft()[1]
