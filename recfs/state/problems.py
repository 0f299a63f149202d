"""What is set aside: work that failed, with its reason, while everything else goes on.

The one mechanism by which services outlive every exception, whatever its class. A service's loop is a step that
`forever` repeats; work on one item stands in `with problems.aside(...)`, or is noted by whoever carries it out. What
is noted is logged once (and again when its reason changes), told by `recfs status`, tried again after a growing delay,
and forgotten when it succeeds. Cancellation and KeyboardInterrupt pass through.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import trio

from recfs.errors import RecfsError

FIRST_S = 1.0
"""How long the first failure of an item is left alone."""
LONGEST_S = 60.0
RETRIED = frozenset({"catalogue", "commit", "home tree"})
"""The parts that somebody who drains waits for. What they set aside is tried again after `Problem.delay_s`."""
STUCK_TRIES = 3
"""What has failed so often in a row will not get done by waiting."""
NAMED = 100
"""So many are named one by one; the others are counted."""

log = logging.getLogger("recfs.problems")


@dataclass(slots=True)
class Problem:
    """One item of work that failed."""

    part: str
    """Which part of recfs met it: "home tree", "commit", "catalogue" …"""
    path: str
    """What it concerns, in the words of its users; empty: the part as a whole."""
    reason: str
    since_s: float
    """Wall-clock time of the first failure, in seconds since the epoch."""
    tries: int
    failed_s: float = 0.0
    """Monotonic time of the last failure, in seconds."""

    @property
    def next_try_s(self) -> float | None:
        """In how many seconds it is tried again; None where that is not by the clock."""
        return max(0.0, self.failed_s + self.delay_s - time.monotonic()) if self.part in RETRIED else None

    @property
    def delay_s(self) -> float:
        """How long to leave it alone now."""
        return min(FIRST_S * 2.0 ** min(self.tries - 1, 10), LONGEST_S)

    def as_json(self) -> dict[str, Any]:
        """For `recfs status`."""
        since = datetime.fromtimestamp(self.since_s, UTC).isoformat(timespec="seconds")
        return {
            "part": self.part, "path": self.path, "reason": self.reason, "since": since, "tries": self.tries,
            "next_try_s": self.next_try_s,
        }  # fmt: skip


class Problems:
    """Everything that is set aside at this moment."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Hashable], Problem] = {}
        self._reasons: Counter[tuple[str, str]] = Counter()

    def note(self, part: str, item: Hashable, error: Exception, path: str = "", *, quiet: bool = False) -> Problem:
        """An item failed (again); *quiet*: whoever notes it has logged it. Raises nothing.

        Logged unless an item of *part* is set aside for the same reason already: a dead disk fails them all alike.
        """
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        reason = reason_of(error)
        problem = self._known.get((part, item))
        if problem is None:
            problem = self._known[part, item] = Problem(part, path, "", time.time(), 0)
        problem.tries += 1
        problem.failed_s = time.monotonic()
        known = self._reasons[part, reason]
        if problem.reason != reason:
            self._without(problem)
            self._reasons[part, reason] += 1
        if not quiet and not known:
            unexpected = not isinstance(error, (RecfsError, OSError))
            what = f"{part}: {path}" if path else part
            log.error("%s: %s; set aside, tried again later", what, reason, exc_info=error if unexpected else None)
        problem.path, problem.reason = path, reason
        return problem

    def first(self, part: str) -> str | None:
        """The oldest that is set aside of *part*, in a line; None when there is none."""
        for (known, _), problem in self._known.items():
            if known == part:
                return f"{problem.path}: {problem.reason}" if problem.path else problem.reason
        return None

    def solved(self, part: str, item: Hashable) -> None:
        """An item is done, or nobody's any more. Atomic, and cheap."""
        if self._known and (problem := self._known.pop((part, item), None)) is not None:
            self._without(problem)

    def _without(self, problem: Problem) -> None:
        key = (problem.part, problem.reason)
        self._reasons[key] -= 1
        if self._reasons[key] <= 0:
            del self._reasons[key]

    def has(self, part: str, item: Hashable) -> bool:
        """Whether an item is set aside."""
        return (part, item) in self._known

    def count(self, part: str) -> int:
        """How many items of *part* are set aside."""
        return sum(known == part for known, _ in self._known) if self._known else 0

    def counts(self) -> dict[str, int]:
        """How many are set aside, by part."""
        return dict(Counter(part for part, _ in self._known))

    def waited_for(self) -> list[Problem]:
        """What is set aside of the parts that somebody who drains waits for, oldest first."""
        return [problem for problem in self._known.values() if problem.part in RETRIED]

    @contextlib.contextmanager
    def aside(self, part: str, item: Hashable, path: str = "") -> Iterator[None]:
        """Work on one item: whatever it raises, cancellation apart, is noted and goes no further."""
        try:
            yield
        except* Exception as group:  # a group may hold Cancelled as well, which goes on
            self.note(part, item, group, path)
        else:
            self.solved(part, item)

    def as_json(self) -> list[dict[str, Any]]:
        """The list for `recfs status`, oldest first."""
        known = sorted(self._known.values(), key=lambda each: each.since_s)
        told = [each.as_json() for each in known[:NAMED]]
        if len(known) > NAMED:
            rest = known[NAMED:]
            more = Problem("", "", f"{len(rest)} more", rest[0].since_s, sum(each.tries for each in rest))
            told.append(more.as_json())
        return told


def reason_of(error: BaseException) -> str:
    """An exception in one line: the first one of a group, with its class unless its message was made for people."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, (RecfsError, OSError)):
        return str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}"


async def forever(part: str, step: Callable[[], Awaitable[object]], problems: Problems) -> NoReturn:
    """Repeat *step*, whatever it raises: after a failure it is left alone for a while.

    *step* has to wait by itself for something to do; a service's whole endless `run` is a step as well.
    """
    while True:
        failed: list[Problem] = []
        try:
            if problems.has(part, None):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_solved_after, LONGEST_S, part, problems)
                    await step()
                    nursery.cancel_scope.cancel()
            else:
                await step()
        except* Exception as group:
            failed.append(problems.note(part, None, group))
        else:
            problems.solved(part, None)
        if failed:
            await trio.sleep(failed[0].delay_s)


async def _solved_after(seconds: float, part: str, problems: Problems) -> None:
    """A step that has lasted so long has got over what the last one met."""
    await trio.sleep(seconds)
    problems.solved(part, None)


__all__ = ["Problem", "Problems", "forever", "reason_of"]
