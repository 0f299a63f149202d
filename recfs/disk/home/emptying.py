"""Directories that lost their name with everything in them: their files' bytes and rows go, some at a time.

The order is: the directory's row gone and its garbage row written, durably → its entry moved out of the home tree, into
the trash's place (one step of the publisher) → some of its files removed, fsynced → the rows of those removed → … →
the directory removed → its garbage row removed. The rows of the files are the journal: after a death at any point they
say what of it may still be there, and that it is recfs's own. What lies in it and is none of theirs, because somebody
has put it there past the mount, goes to lost+found with the directory.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import trio

from recfs.disk.home.aside import Aside
from recfs.errors import IoFailure
from recfs.stores.steps import Step, StepKind

if TYPE_CHECKING:
    from recfs.ports.rows import Content
    from recfs.state.nodes import Garbage
    from recfs.state.tree import Tree
    from recfs.state.writebehind import WriteBehind
    from recfs.stores.local import LocalStore
    from recfs.stores.steps import Outcome

log = logging.getLogger("recfs.publisher")

REMOVED_AT_ONCE = 1000
"""Files that a thread removes before it says so, with one fsync."""
ROWS_AT_ONCE = 250
"""Rows that are read or removed at once: a transaction of 2 ms."""


class Emptying:
    """The service, and what it has to do."""

    def __init__(self, tree: Tree, behind: WriteBehind, store: LocalStore) -> None:
        self._tree = tree
        self._behind = behind
        self._store = store
        self._limiter = trio.CapacityLimiter(1)
        self._due: dict[int, Garbage] = {}
        self._aside = Aside(behind.problems)
        self._wake = trio.Event()

    def add(self, entry: Garbage) -> None:
        """*entry* lies in the trash's place, or nowhere. Atomic."""
        self._due[entry.gid] = entry
        self._wake.set()

    def __len__(self) -> int:
        """How many directories there still are."""
        return len(self._due) + len(self._aside)

    @property
    def aside(self) -> int:
        """How many of them failed, and are left alone for a while."""
        return len(self._aside)

    def hurry(self) -> None:
        """Somebody waits for it: what failed is tried again. Atomic."""
        self._take_up(hurried=True)

    def _take_up(self, *, hurried: bool = False) -> None:
        for _, gid in self._aside.due(hurried=hurried):
            if gid in self._tree.garbage:
                self.add(self._tree.garbage[gid])

    async def run(self) -> None:
        """Empty one after the other, for ever; what fails is left alone for a while and tried again."""
        while True:
            with trio.move_on_at(self._aside.next_s):
                await self._wake.wait()
            self._wake = trio.Event()
            self._take_up()
            while self._due:
                entry = next(iter(self._due.values()))
                try:
                    await self._empty(entry)
                except Exception as error:  # whatever it is, it is this entry's
                    del self._due[entry.gid]
                    self._aside.add(entry, error)
                else:
                    del self._due[entry.gid]
                    self._aside.over(entry)

    async def _empty(self, entry: Garbage) -> None:
        path, after_ino = self._store.trash(entry.gid), 0
        failed: OSError | None = None
        while files := await self._some_of(entry, after_ino):
            after_ino = files[-1].ino
            try:
                await trio.to_thread.run_sync(self._store.empty, path, entry.home_ino, files, limiter=self._limiter)
            except OSError as error:
                failed = failed or error  # and the others need not wait for that
                continue
            for first in range(0, len(files), ROWS_AT_ONCE):
                self._behind.emptied(entry.ino, files[first].ino, files[first : first + ROWS_AT_ONCE][-1].ino)
                await self._behind.flush()
                await trio.lowlevel.checkpoint()
        if failed is not None:
            raise failed
        if await self._some_of(entry, 0):
            raise IoFailure(f"{os.fsdecode(entry.path)}: the catalogue does not let the rows go of what was in it")
        step = Step(StepKind.RMDIR, path, home_ino=entry.home_ino)
        (outcome,) = await trio.to_thread.run_sync(self._store.apply, [step], limiter=self._limiter)
        self._check(step, outcome)
        self._tree.garbage.drop(entry.gid)
        self._behind.purged(entry.gid)

    async def _some_of(self, entry: Garbage, after_ino: int) -> list[Content]:
        """Files that still have a row."""
        files: list[Content] = []
        while len(files) < REMOVED_AT_ONCE:
            more = await self._tree.catalogue.contents(entry.ino, after_ino, ROWS_AT_ONCE)
            files += more
            if len(more) < ROWS_AT_ONCE:
                break
            after_ino = more[-1].ino
            await trio.lowlevel.checkpoint()
        return files

    @staticmethod
    def _check(step: Step, outcome: Outcome) -> None:
        """Tell what the step met. Raises OSError or IoFailure where it failed, or may be undone by a power cut."""
        if outcome.error and outcome.reason:
            raise IoFailure(f"{os.fsdecode(step.path)}: {outcome.reason}")
        if number := outcome.error or outcome.unsynced:
            raise OSError(number, os.strerror(number))
        if outcome.warning:
            log.warning("%s", outcome.warning)


__all__ = ["Emptying"]
