"""What is looked at now and then: a sweep has a name, a schedule, a pure decision and an act."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from recfs.core.sweeping import Schedule

if TYPE_CHECKING:
    import trio

Seen = TypeVar("Seen")
Decision = TypeVar("Decision")


def always(seen: Seen) -> Seen:
    """The decision of a sweep whose act judges each item by itself."""
    return seen


@dataclass(frozen=True, slots=True)
class Sweep(Generic[Seen, Decision]):
    """One of them; `services/sweeps.py` runs it. Whatever its parts raise is this one's failure, and no other's."""

    name: str
    """In `recfs sweep list`, problems and logs; no two have the same."""
    part: str
    """The part of recfs whose problem a failure is, in `recfs status`."""
    schedule: Schedule
    look: Callable[[], Awaitable[Seen]]
    """Finds out what there is, and changes nothing that anybody relies on."""
    decide: Callable[[Seen], Decision | None]
    """What is to be done about it; None: nothing. Pure: the same answer for the same sight."""
    act: Callable[[Decision, trio.Nursery], Awaitable[str | None]]
    """Does it, and says in a few words what it did. What goes on after that is started in the nursery."""
    due: Callable[[], Awaitable[object]] | None = None
    """Waits until there may be something to look at; None: there always may."""
    mounted: bool = False
    """It runs only where the store is mounted, and not while a command has taken it into use."""
