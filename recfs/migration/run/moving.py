"""--move: sources of the same file system are renamed into the home tree, while no daemon runs. Not a byte is copied.

A name is made at the target and the old one removed (link(2), unlink(2)): nothing is ever replaced, and a death between
the two leaves both, which the next run sees by the inode number.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from recfs.core.migration.plan import MOVED, Action
from recfs.core.migration.steps import Brought, Proof, Seen, Step
from recfs.errors import FsError, InvalidArgument, InvalidPath
from recfs.migration.plans import elsewhere_of
from recfs.migration.run.destination import CAME, check_name, check_source, link_refusal
from recfs.migration.run.hashing import proven
from recfs.migration.run.trees import Tree, mtime_of, reason_of, seen_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from recfs.core.migration.plan import Entry, Plan
    from recfs.core.migration.steps import Row
    from recfs.migration.run.destination import Destination
    from recfs.migration.run.hashing import Meter
    from recfs.migration.run.state import State

_CHUNK: Final = 200
_OTHER_DISK: Final = "it is on another file system than the store: run without --move"
_OTHER_NAMES: Final = "the file has other names elsewhere (hard links): recfs takes it over when these are gone"


class Moving:
    """Moves the files of a plan to where they are to be."""

    def __init__(
        self, plan: Plan, old: bytes, state: State, destination: Destination, meter: Meter,
        tell: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Raises InvalidArgument where the two trees are on different file systems, OSError where one is not there."""
        self._plan, self._old, self._state, self._destination = plan, old, state, destination
        self._elsewhere = elsewhere_of(plan)
        self._meter, self._tell = meter, tell
        self._device = os.stat(destination.top).st_dev
        if not destination.is_home:
            raise InvalidArgument("--move renames files into the home tree: stop the daemon, and use --home, too")
        if os.stat(old).st_dev != self._device:
            raise InvalidArgument(
                f"{os.fsdecode(old)} and {os.fsdecode(destination.top)} are on different file systems, so nothing can"
                " be moved from one to the other: run without --move"
            )

    def run(self) -> None:
        """Move all; what could not be has a problem. Raises MountError, OutOfSpace, IoFailure."""
        moved = [entry for entry in self._plan.entries if entry.action in MOVED]
        with Tree(self._old, self._elsewhere) as sources, self._destination.open() as store:
            for chunk in _chunks(moved):
                begun = [each for entry in chunk if (each := self._begun(entry, sources, store)) is not None]
                made: list[bytes] = []
                lacking = store.lacking(entry.target for entry, _ in begun)
                self._state.put((), lacking)  # before they are made, as a run does
                for entry, row in begun:
                    try:
                        made += store.make_parents(entry.target, self._destination.owner(store, entry.target))
                    except (OSError, FsError) as error:
                        row.problem, row.brought = f"at the target: {reason_of(error)}", Brought.NOTHING
                self._state.put([row for _, row in begun], made)
                self._state.forget_directories(lacking.difference(made))
                for entry, row in begun:
                    if not row.problem:
                        self._move(entry, row, sources, store)
                self._synced(store, {entry.target.rpartition(b"/")[0]: entry.target for entry, _ in begun})
                self._state.put([row for _, row in begun])
                self._tell()
            self._drop_names(sources, store)
            self._look_for_names(moved, store)

    def _begun(self, entry: Entry, sources: Tree, store: Tree) -> tuple[Entry, Row] | None:
        """What is to be moved; None where it is done, or cannot be, which is written down."""
        row = self._state.row(entry.source, entry.target)
        self._meter.count(entry.size)
        try:
            if row.is_done:
                self._look_at_done(entry, row, sources, store)
                return None
            check_name(entry.target)
            check_source(entry.source, self._destination)
            source, there = sources.look(entry.source), store.look(entry.target)
            row.problem = self._refusal(row, source, there)
            if not row.problem and source is not None:
                row.problem = link_refusal(entry.source, source, sources)
            if not row.problem and there is not None and source is not None and not _same(source, there):
                row.problem = self._compared(entry, row, sources, store)
            elif not row.problem and there is None and self._destination.is_elsewhere(entry.target):
                row.problem = "the store has it, and not in the home tree: migrate it into the mount"
        except (OSError, FsError) as error:
            row.problem, source = reason_of(error), None
        if row.problem or row.is_done:
            self._state.put([row])
            return None
        if source is not None:
            row.look_again(seen_of(source))
            row.was = (source.st_uid, source.st_gid)
        row.step, row.brought = Step.BEGUN, Brought.MOVED
        return entry, row

    def _look_at_done(self, entry: Entry, row: Row, sources: Tree, store: Tree) -> None:
        """What came to the path of a source that was moved stays there, and is told."""
        if not row.is_away:
            return
        source = sources.look(entry.source)
        problem = CAME if source is not None and not _same_as(source, store.look(entry.target)) else ""
        if problem or row.problem == CAME:
            row.problem = problem
            self._state.put([row])

    def _refusal(self, row: Row, source: os.stat_result | None, there: os.stat_result | None) -> str:
        if source is None:
            was_moved = row.step is Step.BEGUN and there is not None and _is(there, row.seen)
            return "" if was_moved else "the source is gone"
        if not stat.S_ISREG(source.st_mode):
            return "it is no regular file"
        if source.st_dev != self._device:
            return _OTHER_DISK
        if there is not None and not stat.S_ISREG(there.st_mode):
            return "something that is no regular file is at the target"
        return ""

    def _compared(self, entry: Entry, row: Row, sources: Tree, store: Tree) -> str:
        """Something else is at the target: equal bytes count as done, others stay."""
        fd, seen = sources.open(entry.source)
        try:
            proof, sha256 = proven(fd, seen, store, entry.target, self._destination.ask, self._meter)
        finally:
            os.close(fd)
        if proof is not Proof.EQUAL:
            return "other bytes are at the target, and stay there"
        there = store.look(entry.target)
        row.look_again(seen)
        row.sha256, row.step, row.brought = sha256, Step.COPIED, Brought.THERE
        row.left = None if there is None else (there.st_size, mtime_of(there))
        return ""

    def _move(self, entry: Entry, row: Row, sources: Tree, store: Tree) -> None:
        made = False
        try:
            try:
                store.link_from(sources, entry.source, entry.target)
                made = True
            except FileExistsError:
                pass  # an earlier run was killed between the two
            except FileNotFoundError:
                if sources.look(entry.source) is not None:
                    raise
            there = store.look(entry.target)
            if there is None or not _is(there, row.seen):
                if made and there is not None and there.st_nlink > 1:  # it keeps the name that it was found by
                    store.unlink(entry.target)
                raise InvalidPath("another file came to the source or the target meanwhile")
            owner = self._destination.owner(store, entry.target)
            if owner is not None:
                store.give(entry.target, owner)
            source = sources.look(entry.source)
            if source is not None and _same(source, there):
                sources.unlink(entry.source)
            row.step, row.left = Step.COPIED, (there.st_size, mtime_of(there))
        except OSError as error:
            row.problem = _OTHER_DISK if error.errno == errno.EXDEV else reason_of(error)
        except FsError as error:
            row.problem = reason_of(error)

    def _drop_names(self, sources: Tree, store: Tree) -> None:
        """Have duplicates that are other names of a moved file lose these: recfs takes no file with several."""
        twins = {
            row.target: row for row in self._state.rows() if row.brought is Brought.MOVED and row.step is Step.COPIED
        }
        for entry in self._plan.entries:
            twin = twins.get(entry.target)
            if entry.action is not Action.DUPLICATE or twin is None or twin.seen is None:
                continue
            row = self._state.row(entry.source, entry.target)
            try:
                found, there = sources.look(entry.source), store.look(entry.target)
                if there is None or not _is(there, twin.seen):
                    continue
                if found is not None and _same(found, there):
                    row.seen, row.step, row.brought = twin.seen, Step.BEGUN, Brought.MOVED
                    row.was, row.problem = twin.was, ""
                    self._state.put([row])
                    sources.unlink(entry.source)
                elif found is not None or row.step is not Step.BEGUN:
                    continue
                row.step = Step.COPIED
            except (OSError, FsError) as error:
                row.problem = reason_of(error)
            self._state.put([row])

    def _look_for_names(self, moved: list[Entry], store: Tree) -> None:
        for entry in moved:
            row = self._state.row(entry.source, entry.target)
            if row.brought is not Brought.MOVED or row.step is not Step.COPIED or row.problem == CAME:
                continue
            there = store.look(entry.target)
            problem = _OTHER_NAMES if there is not None and there.st_nlink > 1 else ""
            if row.problem != problem:
                row.problem = problem
                self._state.put([row])

    def _synced(self, store: Tree, targets: dict[bytes, bytes]) -> None:
        for target in targets.values():
            try:
                store.sync(target)
            except (OSError, FsError):
                continue  # it could not be moved there, which is told


def _is(found: os.stat_result, seen: Seen | None) -> bool:
    return seen is not None and seen_of(found).is_like(seen)  # a name that comes or goes changes its ctime


def _same(a: os.stat_result, b: os.stat_result) -> bool:
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def _same_as(a: os.stat_result, b: os.stat_result | None) -> bool:
    return b is not None and _same(a, b)


def _chunks(entries: list[Entry]) -> Iterator[list[Entry]]:
    return (entries[at : at + _CHUNK] for at in range(0, len(entries), _CHUNK))


__all__ = ["Moving"]
