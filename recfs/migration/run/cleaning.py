"""The end of a migration: verified sources are deleted, one by one, each after a last look at it and at its target."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from recfs.core.migration.plan import MOVED, Action
from recfs.core.migration.steps import Brought, Row, Step
from recfs.errors import FsError
from recfs.migration.plans import elsewhere_of
from recfs.migration.run.destination import CAME, check_other, check_source
from recfs.migration.run.trees import Tree, reason_of, seen_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.migration.plan import Entry, Plan
    from recfs.core.migration.steps import Seen
    from recfs.migration.run.destination import Destination
    from recfs.migration.run.hashing import Meter
    from recfs.migration.run.state import State

_KEEP_EVERY: Final = 100


class Sums(NamedTuple):
    """Files and bytes."""

    files: int
    size: int


class Cleaning:
    """Deletes what was verified, and nothing else. What is not in the plan, or stays as a link, is never touched."""

    def __init__(
        self, plan: Plan, old: bytes, state: State, destination: Destination, meter: Meter,
        tell: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._old, self._state, self._destination = old, state, destination
        self._elsewhere = elsewhere_of(plan)
        self._meter, self._tell = meter, tell
        self._twins = {
            entry.target: state.row(entry.source, entry.target) for entry in plan.entries if entry.action in MOVED
        }
        self._todo = [
            (entry, row)
            for entry in plan.entries
            if entry.action in MOVED or entry.action is Action.DUPLICATE
            if (row := state.row(entry.source, entry.target)).step is Step.VERIFIED and not row.problem
        ]
        self._by_seen: dict[Seen | None, list[Row]] = {}
        for _, row in self._todo:
            self._by_seen.setdefault(row.seen, []).append(row)
        self._cleaned = [
            (entry, row)
            for entry in plan.entries
            if entry.action in MOVED or entry.action is Action.DUPLICATE
            if (row := state.row(entry.source, entry.target)).step is Step.CLEANED
        ]

    def sums(self) -> Sums:
        """How much would be deleted."""
        return Sums(len(self._todo), sum(row.seen.size for _, row in self._todo if row.seen is not None))

    def deleted(self) -> int:
        """How many were deleted."""
        return sum(row.step is Step.CLEANED for _, row in self._todo)

    def run(self) -> int:
        """Delete; how many directories were left empty by that and are gone, too. What stays has a problem.

        Raises MountError, OutOfSpace, IoFailure.
        """
        folders: set[bytes] = set()
        changed: list[Row] = []
        with Tree(self._old, self._elsewhere) as sources, self._destination.open() as store:
            self._look_for_new(sources)
            try:
                # A duplicate goes first: its twin's source has to be there, or deleted by this.
                for entry, row in sorted(self._todo, key=lambda each: each[0].action is not Action.DUPLICATE):
                    self._one(entry, row, sources, store)
                    changed.append(row)
                    if row.step is Step.CLEANED:
                        folders.update(_above(entry.source))
                    self._meter.count(entry.size)
                    if len(changed) >= _KEEP_EVERY:
                        self._state.put(changed)
                        changed.clear()
                        self._tell()
            finally:
                self._state.put(changed)
            folders.update(
                folder for row in self._state.rows() if row.step is Step.CLEANED for folder in _above(row.source)
            )
            return sum(_emptied(sources, folder) for folder in sorted(folders, key=lambda each: -each.count(b"/")))

    def _look_for_new(self, sources: Tree) -> None:
        """What came to the path of a source that was deleted is another file, of which nothing is known yet."""
        came = []
        for entry, _ in self._cleaned:
            try:
                if sources.look(entry.source) is None:
                    continue
            except (OSError, FsError):
                continue  # a run tells it
            came.append(Row(entry.source, entry.target, problem="a new file came to its path: run it again"))
        self._state.put(came)

    def _one(self, entry: Entry, row: Row, sources: Tree, store: Tree) -> None:
        try:
            row.problem = self._refusal(entry, row, sources, store)
            if row.problem:
                row.step = Step.COPIED if entry.action in MOVED else Step.PENDING
                return
            found = sources.look(entry.source)
            if found is not None:  # else an earlier one was killed before it was written down
                check_other(seen_of(found), self._destination, store.look(entry.target))
                self._unlink(entry, found, sources)
        except (OSError, FsError) as error:
            self._destination.check()
            row.problem = reason_of(error)
            return
        row.step = Step.CLEANED

    def _unlink(self, entry: Entry, found: os.stat_result, sources: Tree) -> None:
        """Delete a source. That changes the ctime of its other names (hard links), which are to go, too."""
        if found.st_nlink == 1:
            sources.unlink(entry.source)
            return
        before = seen_of(found)
        with sources.named(entry.source) as name:
            sources.unlink(entry.source)
            after = seen_of(os.stat(name))
        if after.is_like(before):
            names = self._by_seen.pop(before, [])
            for row in names:
                row.seen = after
            self._by_seen[after] = names

    def _refusal(self, entry: Entry, row: Row, sources: Tree, store: Tree) -> str:
        """Why a source stays; "" where it may go, or is gone. Raises FsError, OSError."""
        twin = self._twins.get(entry.target)
        if twin is None or twin.step not in (Step.VERIFIED, Step.CLEANED) or twin.sha256 != row.sha256:
            return "the file that is to have its bytes is not verified"
        there = store.look(entry.target)
        if row.sha256 is None or there is None or self._destination.ask(store, entry.target) != row.sha256:
            return "the target has not those bytes any more: run it again"
        check_source(entry.source, self._destination)
        found = sources.look(entry.source)
        if found is None:
            folder = entry.source.rpartition(b"/")[0]
            is_lost = folder and sources.look(folder) is None
            return "the source is gone with its directory: is a disk not mounted that was?" if is_lost else ""
        if row.brought is Brought.MOVED:
            return CAME
        if seen_of(found) != row.seen:
            return "the source changed since it was verified: run it again, and verify it"
        return ""


def _above(source: bytes) -> set[bytes]:
    """The directories below the old tree's top that a file lies in."""
    if source.startswith(b"/"):
        return set()
    parts = source.split(b"/")
    return {b"/".join(parts[:depth]) for depth in range(1, len(parts))}


def _emptied(sources: Tree, folder: bytes) -> bool:
    try:
        return sources.rmdir(folder)
    except (OSError, FsError):
        return False


__all__ = ["Cleaning", "Sums"]
