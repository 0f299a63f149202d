"""What is looked at now and then: a sweep has a name, a schedule, a pure decision and an act."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from recfs.core.sweeping import RunOutcome, Schedule
from recfs.ports.rows import SweepRow

if TYPE_CHECKING:
    import trio

Seen = TypeVar("Seen")
Decision = TypeVar("Decision")


def always(seen: Seen) -> Seen:
    """The decision of a sweep whose act judges each item by itself."""
    return seen


@dataclass(slots=True)
class Progress:
    """How far a run is; whoever acts keeps it, and looks whether it is to stop."""

    done: int = 0
    total: int | None = None
    """Out of how many; None: nobody knows."""
    is_stopping: bool = False
    """Somebody wants the run to end after what it is at; what is left is the next run's."""

    def begin(self, total: int | None = None) -> None:
        """A run begins with nothing done."""
        self.done, self.total, self.is_stopping = 0, total, False


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
    recorded: bool = True
    """Its runs are remembered, for `recfs sweep history`; False: of what looks every few seconds."""
    progress: Progress = field(default_factory=Progress)
    """Of the run under way."""


class History(Protocol):
    """Where runs are remembered. Atomic."""

    def last(self, name: str) -> SweepRow | None:
        """The last run of a sweep that ended, one way or the other."""

    def since_last_s(self, name: str) -> float | None:
        """How long ago it ended, in seconds of time that passed; None: no run is known of."""

    def begun(self, name: str, began_ns: int, *, asked: bool) -> SweepRow:
        """A run has found something to do: from now on a death leaves a trace of it."""

    def ended(
        self, row: SweepRow | None, name: str, began_ns: int, outcome: RunOutcome, result: str, took_s: float,
        *, asked: bool,
    ) -> None:  # fmt: skip
        """A run has ended; *row*: what `begun` said of it, None: it found nothing to do, or failed before."""
