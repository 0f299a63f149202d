"""How much of the gateway one token, one address or one user may have."""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from recfs.web.problems import Problem

MOST_KEYS: Final = 10_000
"""So many are told apart; of more, the one that has asked for nothing for the longest time begins anew."""


class Rate:
    """Token buckets: each key has *burst* requests at once, and *per_s* more each second. For one thread."""

    def __init__(self, per_s: float, burst: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._now_s = per_s, float(burst), now_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one: 0.0, or so many seconds until there is one again."""
        now_s = self._now_s()
        left, at_s = self._left.pop(key, (self._burst, now_s))
        left = min(self._burst, left + (now_s - at_s) * self._per_s)
        wait_s = 0.0 if left >= 1.0 else (1.0 - left) / self._per_s
        self._left[key] = (left if wait_s else left - 1.0, now_s)
        if len(self._left) > MOST_KEYS:
            self._left.popitem(last=False)
        return wait_s

    def check(self, key: str) -> None:
        """Take one. Raises Problem 429 with Retry-After."""
        wait_s = self.take(key)
        if wait_s:
            raise too_many(f"more than {self._per_s:g} requests a second", wait_s)


class Places:
    """So many things at once for each key: uploads of a user. For one thread."""

    def __init__(self, most: int, what: str) -> None:
        """*what* they are, for messages."""
        self._most, self._what = most, what
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Have one for the time of a block. Raises Problem 429."""
        if self._held[key] >= self._most:
            raise too_many(f"{self._most} {self._what} at once are let; one has to end first", 1.0)
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]

    def held(self, key: str) -> int:
        """How many there are now."""
        return self._held[key]


def too_many(detail: str, wait_s: float) -> Problem:
    """Problem 429 that says when to come again (RFC 9110, section 10.2.3: whole seconds)."""
    return Problem("TooManyRequests", detail, headers={"Retry-After": str(max(1, math.ceil(wait_s)))})


__all__ = ["Places", "Rate", "too_many"]
