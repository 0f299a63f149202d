"""Changes that the catalogue does not take: found among those of a batch, set aside in memory, and tried again later.

The rest of the batch is written, in one transaction still. The counters written meanwhile count what is set aside, so
the catalogue says that they are to be added up anew (`UNSURE`), until it has taken everything again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from recfs.errors import IoFailure, OutOfSpace
from recfs.ports.batch import Batch
from recfs.state.problems import LONGEST_S

if TYPE_CHECKING:
    from collections.abc import Hashable

    from recfs.ports.catalogue import Catalogue
    from recfs.state.nodes import Garbage
    from recfs.state.problems import Problems

PART = "catalogue"

REFUSED_IN_A_ROW = 16
"""When so many changes, and no other, were refused, it is not their fault: the catalogue takes nothing."""

UNSURE = "counters_unsure"
"""Store-wide fact: "1" while rows that the counters count are not in the catalogue. A start adds them up anew then."""

_COUNTED = ("nodes", "removed", "accounts")

_ROWS = frozenset(
    {
        "nodes",
        "accounts",
        "garbage",
        "objects",
        "journal",
        "unanswered",
        "sweeps",
        "trash",
        "recordings",
        "events",
        "media",
    }
)
"""Lists of rows, which begin with their key."""

Change = tuple[str, "Hashable"]
"""Which list of a batch, and which of its items."""


def _key(name: str, item: Any) -> Change:
    """What tells one change of a batch from another."""
    if name in _ROWS:
        return name, item[0]
    if name in ("xattrs", "whiteouts"):
        return name, item[:2]
    return name, item[0] if name == "meta" else item


@dataclass(slots=True)
class Refused:
    """A change the catalogue does not take."""

    item: Any
    """What its list holds, or the node, account or garbage entry whose row it is."""
    due_s: float
    """When it is to be tried again, by trio's clock."""
    publish: bool
    """Whether the publisher is waiting for it."""
    discard: bool
    """The same, of garbage."""


class Refusals:
    """What is set aside of the catalogue's changes."""

    def __init__(self, catalogue: Catalogue, problems: Problems) -> None:
        self._catalogue = catalogue
        self._problems = problems
        self._known: dict[Change, Refused] = {}
        self._tried: set[Change] = set()
        """What the batch under way changes, while anything is set aside."""

    def __len__(self) -> int:
        return len(self._known)

    def is_of(self, ino: int) -> bool:
        """Whether the catalogue did not take the last row of *ino*."""
        return bool(self._known) and any((name, ino) in self._known for name in ("nodes", "removed", "recordings"))

    @property
    def is_counted(self) -> bool:
        """Whether any of them changes what the counters count."""
        return any(name in _COUNTED for name, _ in self._known)

    @property
    def next_s(self) -> float:
        """When one is to be tried again, by trio's clock; infinite if there is none."""
        return min((each.due_s for each in self._known.values()), default=float("inf"))

    def renewed(self, change: Change) -> None:
        """A newer change takes the place of one that was refused, or makes it superfluous. Atomic."""
        if self._known and self._known.pop(change, None) is not None:
            self._problems.solved(PART, change)

    def due(self, *, all_of_them: bool = False) -> Iterator[tuple[Change, Refused]]:
        """Those to be tried again by now, or all. They stay set aside until the catalogue has taken them."""
        now = trio.current_time()
        for change in [change for change, each in self._known.items() if all_of_them or each.due_s <= now]:
            each = self._known[change]
            each.due_s = now + LONGEST_S
            yield change, each

    def set_aside(
        self, change: Change, item: Any, error: Exception, unpublished: dict[int, None], discarded: list[Garbage]
    ) -> None:
        """The catalogue refused *change*. *unpublished*, *discarded*: what its batch was to hand on. Atomic."""
        name, key = change
        path = getattr(item, "path", None) or getattr(item, "user", None) or f"{name} {key!r}"
        path = os.fsdecode(path) if isinstance(path, (str, bytes)) else str(path)
        problem = self._problems.note(PART, change, error, path)
        self._known[change] = Refused(
            item, trio.current_time() + problem.delay_s,
            publish=name == "nodes" and key in unpublished, discard=any(item is entry for entry in discarded),
        )  # fmt: skip

    def taken_but(self, refused: dict[Change, tuple[Any, Exception]]) -> None:
        """The batch that `apply` wrote is in the catalogue, but for *refused*. Atomic."""
        for change in [change for change in self._known if change in self._tried and change not in refused]:
            self.renewed(change)

    # --- writing -------------------------------------------------------------------------------------------------

    async def apply(self, batch: Batch) -> dict[Change, tuple[Any, Exception]]:
        """Write *batch* but for the changes that the catalogue does not take; returns those, each with its error.

        Raises IoFailure or OutOfSpace; nothing is written then.
        """
        self._tried = set()
        try:
            await self._catalogue.apply(batch)
        except Exception as error:
            if _is_of_all(error):
                raise
        else:
            self._tried = {_key(name, item) for name, item in batch.changes()} if self._known else set()
            return {}
        changes = batch.changes()
        self._tried = {_key(name, item) for name, item in changes}
        refused: dict[Change, tuple[Any, Exception]] = {}
        while True:
            found = await self._find([change for change in changes if _key(*change) not in refused])
            refused |= found
            rest = Batch.of([change for change in changes if _key(*change) not in refused])
            untrue = {key for name, key in refused if name in ("nodes", "removed")}
            rest.events = [event for event in rest.events if event.ino not in untrue]  # of what the rows do not say
            if any(name in _COUNTED for name, _ in refused):
                rest.meta[UNSURE] = "1"
            try:
                if rest:
                    await self._catalogue.apply(rest)
            except Exception as error:
                if _is_of_all(error):
                    raise
                if not found:
                    raise IoFailure(f"the catalogue takes the rows one by one, and not together: {error}") from error
            else:
                return refused

    async def _find(self, changes: list[tuple[str, Any]]) -> dict[Change, tuple[Any, Exception]]:
        """Find the changes that the catalogue does not take, by halves, without changing it. Raises as `apply`."""
        refused: dict[Change, tuple[Any, Exception]] = {}
        taken = 0
        waiting = [changes]
        while waiting:
            some = waiting.pop()
            try:
                await self._catalogue.apply(Batch.of(some), trial=True)
            except Exception as error:
                if _is_of_all(error):
                    raise
                if len(some) > 1:
                    half = len(some) // 2
                    waiting += [some[half:], some[:half]]
                    continue
                ((name, item),) = some
                refused[_key(name, item)] = (item, error)
                if not taken and len(refused) in (REFUSED_IN_A_ROW, len(changes)) and len(refused) > 1:
                    raise IoFailure(f"the catalogue takes no row at all: {error}") from error
            else:
                taken += len(some)
        return refused


def _is_of_all(error: Exception) -> bool:
    """Whether an error speaks of the catalogue as a whole, and not of what was to be written."""
    return isinstance(error, (IoFailure, OutOfSpace))


__all__ = ["PART", "UNSURE", "Change", "Refusals", "Refused"]
