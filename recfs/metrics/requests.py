"""Requests of the kernel, by kind, outcome and the time they took: a few integers are counted up for each."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from recfs.fuse.observers.watched import Watched

BOUNDS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)
"""Upper bounds of the times that are told apart, in seconds; above the last there is one more."""


@dataclass(slots=True)
class Latency:
    """How long requests of one kind took."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    """Of those within each bound, and above the one before."""
    total_s: float = 0.0


class Requests:
    """Counts. Atomic; read by the thread that counts."""

    def __init__(self) -> None:
        self.results: Counter[tuple[str, int]] = Counter()
        """By kind and error number; 0: carried out."""
        self.latencies: defaultdict[str, Latency] = defaultdict(Latency)

    def observe(self, operations: Watched) -> None:
        """Count what *operations* handle from now on."""
        for name in dir(type(operations)):
            if hasattr(getattr(type(operations), name), "__wrapped__"):  # a handler in its guard
                operations.watch(name, self.done)

    def done(self, op: str, args: tuple[Any, ...], error: int, seconds: float) -> None:
        """Count one: an `Observer`."""
        self.results[op, error] += 1
        latency = self.latencies[op]
        latency.counts[bisect_left(BOUNDS_S, seconds)] += 1
        latency.total_s += seconds


__all__ = ["BOUNDS_S", "Latency", "Requests"]
