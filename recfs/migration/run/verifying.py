"""Verification: every byte of every source against the sha256 that recfs itself has of the target.

A source is read once, and again only if its size, time or inode number changed. recfs has read its file when it sealed
it, so nothing is read through the mount, and what lies in S3 alone stays there.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from recfs.core.migration.plan import MOVED, Action
from recfs.core.migration.steps import Brought, Row, Seen, Step
from recfs.errors import FsError
from recfs.migration.plans import elsewhere_of
from recfs.migration.run.destination import CAME, GONE, check_other, check_source
from recfs.migration.run.hashing import Stopped, hashed
from recfs.migration.run.trees import Tree, mtime_of, reason_of, seen_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from recfs.core.migration.plan import Entry, Plan
    from recfs.migration.run.destination import Destination
    from recfs.migration.run.hashing import Meter
    from recfs.migration.run.state import State

_CHUNK: Final = 32
_TICK_S: Final = 0.5
_CHANGED: Final = "the source changed since it was copied: run it again"
_DIFFER: Final = "the bytes at the target are others than those of the source"
_NO_SUM: Final = "recfs has no checksum of the target: it is being written, was cut off, or was not taken over yet"


@dataclass(slots=True)
class _Found:
    entry: Entry
    row: Row
    seen: Seen | None = None
    sha256: str | None = None
    problem: str = ""
    was_read: bool = False
    differs: bool = False


class Verification:
    """Proves what was copied."""

    def __init__(
        self, plan: Plan, old: bytes, state: State, destination: Destination, meter: Meter, *, jobs: int = 1,
        tell: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._plan, self._old, self._state, self._destination = plan, old, state, destination
        self._elsewhere = elsewhere_of(plan)
        self._meter, self._jobs, self._tell = meter, jobs, tell
        self._twins: dict[bytes, Row] = {}

    def run(self) -> None:
        """Prove all; what was found is in the state. Raises MountError, OutOfSpace, IoFailure, KeyboardInterrupt."""
        moved = [entry for entry in self._plan.entries if entry.action in MOVED]
        self._twins = {entry.target: self._state.row(entry.source, entry.target) for entry in moved}
        self._prove(moved)
        self._prove([entry for entry in self._plan.entries if entry.action is Action.DUPLICATE])

    def _prove(self, entries: list[Entry]) -> None:
        known = {row.seen: row.sha256 for row in self._state.rows() if row.seen is not None and row.sha256 is not None}
        chunks = deque(entries[at : at + _CHUNK] for at in range(0, len(entries), _CHUNK))
        under_way: set[Future[list[_Found]]] = set()
        with ThreadPoolExecutor(self._jobs, "verify") as pool:
            try:
                while chunks or under_way:
                    while chunks and len(under_way) <= self._jobs:
                        under_way.add(pool.submit(self._chunk, chunks.popleft(), known))
                    done, under_way = wait(under_way, _TICK_S, FIRST_COMPLETED)
                    for future in done:
                        self._keep(future.result())
                    self._tell()
            except BaseException:
                self._meter.stop.set()
                raise

    def _chunk(self, entries: list[Entry], known: dict[Seen, str]) -> list[_Found]:
        """In a thread: nothing of the state is changed."""
        with self._destination.open() as store, Tree(self._old, self._elsewhere) as sources:
            found = []
            for entry in entries:
                each = _Found(entry, self._state.row(entry.source, entry.target))
                try:
                    if each.row.step is Step.CLEANED and sources.look(entry.source) is not None:
                        each.row = Row(entry.source, entry.target)  # another file, of which nothing is known
                    look = self._look if each.row.step is not Step.CLEANED else self._look_at_cleaned
                    look(each, store, sources, known)
                except Stopped:
                    break
                except (OSError, FsError) as error:
                    self._destination.check()
                    each.problem = reason_of(error)
                if not each.was_read:
                    self._meter.count(entry.size)
                found.append(each)
        return found

    def _look(self, each: _Found, store: Tree, sources: Tree, known: dict[Seen, str]) -> None:
        row, is_copy = each.row, each.entry.action in MOVED
        twin = self._twins.get(each.entry.target)
        if is_copy and not row.is_done:
            each.problem = row.problem or "it was not copied yet: run it"
        elif not is_copy and (twin is None or twin.step not in (Step.VERIFIED, Step.CLEANED) or twin.problem):
            each.problem = "the file that is to have its bytes is not verified"
        elif row.brought is Brought.MOVED:
            self._look_at_moved(each, store, sources)
        else:
            self._look_at_source(each, store, sources, known)
        if each.problem or row.brought is Brought.MOVED:
            return
        there = twin.sha256 if twin is not None and not is_copy else self._destination.ask(store, each.entry.target)
        if there is None:
            each.problem = _NO_SUM
        elif there != each.sha256 and is_copy and there == row.sha256:
            each.problem = _CHANGED
        elif there != each.sha256:
            each.problem, each.differs = _DIFFER, is_copy

    def _look_at_cleaned(self, each: _Found, store: Tree, _sources: Tree, _known: dict[Seen, str]) -> None:
        """The source is deleted: what is at the target is the only copy, or what users have made of it since."""
        if store.look(each.entry.target) is None:
            each.problem = GONE

    def _look_at_moved(self, each: _Found, store: Tree, sources: Tree) -> None:
        """The source itself lies there: nothing was copied, and there is nothing to compare it with but what it was."""
        row, found = each.row, store.look(each.entry.target)
        if found is None or row.seen is None:
            each.problem = "nothing is at the target any more"
        elif (found.st_size, mtime_of(found)) != (row.seen.size, row.seen.mtime_ns):
            each.problem = "what was moved there was changed since"
        elif sources.look(each.entry.source) is not None:
            each.problem = CAME
        else:
            each.seen, each.sha256 = row.seen, self._destination.ask(store, each.entry.target)
            each.problem = "" if each.sha256 is not None else _NO_SUM

    def _look_at_source(self, each: _Found, store: Tree, sources: Tree, known: dict[Seen, str]) -> None:
        row = each.row
        check_source(each.entry.source, self._destination)
        found = sources.look(each.entry.source)
        if found is None:
            each.problem = "the source is gone"
            return
        each.seen, there = seen_of(found), store.look(each.entry.target)
        check_other(each.seen, self._destination, there)
        if row.step is not Step.PENDING and not each.seen.is_like(row.seen):
            each.problem = _CHANGED
            return
        if there is None or there.st_size != each.seen.size:  # before any of it is read, however much that is
            each.problem = _DIFFER if there is not None else "nothing is at the target any more: run it again"
            each.differs = there is not None and each.entry.action in MOVED
            return
        each.sha256 = row.sha256 if row.seen == each.seen else None
        each.sha256 = each.sha256 or known.get(each.seen)
        if each.sha256 is None:
            each.was_read = True
            each.sha256, seen = hashed(sources, each.entry.source, self._meter)
            if seen != each.seen:
                each.problem = _CHANGED

    def _keep(self, found: list[_Found]) -> None:
        changed = []
        for each in found:
            row = each.row
            if each.differs:
                row.left = None  # what is there is not what the run had left: the next one compares
            if each.problem:
                row.step = Step.COPIED if row.step is Step.VERIFIED and each.entry.action in MOVED else row.step
                is_duplicate = each.entry.action is Action.DUPLICATE and row.step is not Step.CLEANED
                if is_duplicate and row.brought is not Brought.MOVED:
                    row.step = Step.PENDING
            elif each.sha256 is not None and row.step is not Step.CLEANED:
                if each.seen is not None:
                    row.look_again(each.seen)
                row.sha256, row.step = each.sha256, Step.VERIFIED
            row.problem = each.problem
            changed.append(row)
        self._state.put(changed)


__all__ = ["Verification"]
