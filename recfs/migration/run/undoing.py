"""Rollback: what a run brought is taken away again, as long as it is what was brought and its source is still there."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from recfs.core.migration.steps import Brought, Proof, Step
from recfs.errors import FsError
from recfs.migration.run.hashing import proven, sha256_of
from recfs.migration.run.trees import Tree, reason_of, seen_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from recfs.core.migration.steps import Row
    from recfs.migration.run.destination import Destination
    from recfs.migration.run.hashing import Meter
    from recfs.migration.run.state import State

_KEEP_EVERY: Final = 100
_BROUGHT = (Step.BEGUN, Step.COPIED, Step.VERIFIED)


class Undoing:
    """Takes back what the state says that was brought, whether or not the plan still names it."""

    def __init__(
        self, old: bytes, state: State, destination: Destination, meter: Meter,
        tell: Callable[[], None] = lambda: None, *, elsewhere: Sequence[bytes] = (),
    ) -> None:  # fmt: skip
        """*elsewhere*: directories outside the old tree that sources may be in."""
        self._old, self._elsewhere, self._state, self._destination = old, elsewhere, state, destination
        self._meter, self._tell = meter, tell
        self.todo = [
            row for row in state.rows() if row.step in _BROUGHT and row.brought in (Brought.NEW, Brought.MOVED)
        ]
        """What may be taken back."""
        self.kept = [row for row in state.rows() if _stays(row)]
        """What was brought, and stays: its source is deleted, or it took another file's place."""

    def gone(self) -> int:
        """How many were taken back."""
        return sum(row.step is Step.ROLLED_BACK for row in self.todo)

    def run(self) -> int:
        """Take all back; how many directories that the run had made are gone, too. What stays has a problem.

        Raises MountError, OutOfSpace, IoFailure.
        """
        with Tree(self._old, self._elsewhere) as sources, self._destination.open() as store:
            for at in range(0, len(self.todo), _KEEP_EVERY):
                rows = self.todo[at : at + _KEEP_EVERY]
                try:
                    for row in rows:
                        self._undo(row, sources, store)
                finally:
                    self._state.put(rows)
                self._tell()
            for row in self.kept:
                row.problem = _stays(row)
            self._state.put(self.kept)
            self._forget()
            made = sorted(self._state.directories, key=lambda each: -each.count(b"/"))
            # A directory may look empty where the daemon has not come to know yet what was put into its home tree.
            stay = {folder for row in (*self.todo, *self.kept) if not _is_back(row) for folder in _above(row.target)}
            gone = [folder for folder in made if folder not in stay and _removed(store, folder)]
            self._state.forget_directories(gone)
        return len(gone)

    def _undo(self, row: Row, sources: Tree, store: Tree) -> None:
        try:
            row.problem = self._one(row, sources, store)
        except FileNotFoundError:
            row.problem = "the source is gone: what was brought is all there is"
        except (OSError, FsError) as error:
            self._destination.check()
            row.problem = reason_of(error)
        if not row.problem:
            row.step, row.brought, row.left = Step.ROLLED_BACK, Brought.NOTHING, None
        self._meter.count(row.seen.size if row.seen is not None else 0)

    def _forget(self) -> None:
        """What was true of files that are gone: that duplicates have a twin, and what recordings were told."""
        gone = {row.target for row in self.todo if row.step is Step.ROLLED_BACK}
        twins = [row for row in self._state.rows() if row.target in gone and row.step is Step.VERIFIED]
        for row in twins:
            row.step = Step.PENDING
        self._state.put(twins)
        folders = {b"/".join(target.split(b"/")[:4]).decode("utf-8", "surrogateescape") for target in gone}
        self._state.forget_expiry(folders & self._state.recordings.keys())

    def _one(self, row: Row, sources: Tree, store: Tree) -> str:
        """Take one back; why not, or "". Raises FileNotFoundError where its source is gone, FsError, OSError."""
        if row.brought is Brought.MOVED:
            return self._moved_back(row, sources, store)
        there = store.look(row.target)
        if there is None:
            return ""
        if not stat.S_ISREG(there.st_mode):
            return "something that is no regular file came to the target"
        fd, seen = sources.open(row.source)
        try:
            if not seen.is_like(row.seen):
                return "the source changed since it was copied"
            row.look_again(seen)  # where only its ctime differs its bytes are looked at anew
            if there.st_size == seen.size and row.sha256 is None and row.step is not Step.BEGUN:
                row.sha256 = sha256_of(fd, self._meter, seen.size)
            if row.sha256 is not None and self._destination.ask(store, row.target) == row.sha256:
                proof = Proof.EQUAL
            elif row.step is Step.BEGUN:
                proof, _ = proven(fd, seen, store, row.target, self._destination.ask, self._meter)
            else:
                proof = Proof.OTHER
            if seen_of(os.fstat(fd)) != seen or sources.look(row.source) is None:
                return "the source changed since it was copied"
        finally:
            os.close(fd)
        if proof not in (Proof.EQUAL, Proof.BEGINNING, Proof.CUT_OFF):
            return "the file at the target is another than the run had brought: it was changed, or is being written"
        store.unlink(row.target)
        return ""

    def _moved_back(self, row: Row, sources: Tree, store: Tree) -> str:
        if not self._destination.is_home:
            return "it was moved into the home tree: stop the daemon, and roll back with --home"
        there, source = store.look(row.target), sources.look(row.source)
        if source is not None:
            is_back = row.seen is not None and source.st_ino == row.seen.inode
            if is_back and there is not None and there.st_ino == source.st_ino:
                store.unlink(row.target)
            return "" if is_back else "something else came in the place of the source"
        if there is None or row.seen is None or not seen_of(there).is_like(row.seen):
            return "the file at the target is another than the one that was moved there"
        sources.link_from(store, row.target, row.source)
        if row.was is not None and not os.geteuid():
            sources.give(row.source, row.was)
        sources.sync(row.source)
        others = sum(each.target == row.target and each is not row and each.step in _BROUGHT for each in self.todo)
        if not others:  # other names of it that went are made again first
            store.unlink(row.target)
        return ""


def _stays(row: Row) -> str:
    if row.brought is Brought.REPLACED and row.step in (*_BROUGHT, Step.CLEANED):
        return "it took the place of another file, which would not come back: what is there stays"
    if row.step is Step.CLEANED:
        return "its source is deleted: what was brought is all there is"
    return ""


def _is_back(row: Row) -> bool:
    return row.step is Step.ROLLED_BACK


def _above(target: bytes) -> Iterator[bytes]:
    """The directories that a file lies in."""
    while b"/" in target:
        target = target.rpartition(b"/")[0]
        yield target


def _removed(store: Tree, folder: bytes) -> bool:
    """Whether a directory that the run made is gone. One with anything in it stays."""
    try:
        return store.rmdir(folder) or store.look(folder) is None
    except (OSError, FsError):
        return False


__all__ = ["Undoing"]
