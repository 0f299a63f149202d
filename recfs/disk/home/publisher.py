"""Brings the home tree to what the rows say: directories made, committed bytes carried home, renames followed,
garbage gone.

The order is always: row written → step on disk, directory fsynced → row says "published". The rows are the journal: a
crash in between leaves a pending row whose `home_ino` tells at the next start whether the step happened
(`fs/recovery`).

A batch is planned on the trio thread, with the metadata already saying where everything will lie, and carried out by a
thread. Until it is done `touches` is true for what it moves, and whoever needs such a path waits
(`PublisherWaits.ended`).
Files that programs may keep locked are left out of it (`inuse.py`), and what is under way in it is not handed to the
kernel (`worked_on`).
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import trio

from recfs.disk.home.aside import PART, RETRY_S, Aside
from recfs.disk.home.homeplan import BATCH_ITEMS, HomePlan, Job
from recfs.errors import IoFailure
from recfs.ports.rows import Pending
from recfs.state.nodes import DirNode, FileNode, Garbage, Node
from recfs.state.problems import forever, reason_of
from recfs.state.writebehind import BatchSubscriber, WriteBehind
from recfs.stores.steps import Outcome, StepKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recfs.disk.home.inuse import InUse
    from recfs.disk.home.path_resolver import PathResolver
    from recfs.state.tree import Tree
    from recfs.stores.local import LocalStore
    from recfs.stores.steps import Step

log = logging.getLogger("recfs.publisher")

Result = TypeVar("Result")

GATHER_S = 0.05
"""How long the first entry of a batch waits for others; nobody waits for the home tree but a drain."""
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What a step meets when a directory above it was removed out of band, or replaced by something else."""


class HomePublisher(BatchSubscriber):
    """The Publisher port, and its service."""

    def __init__(
        self,
        tree: Tree,
        behind: WriteBehind,
        places: PathResolver,
        store: LocalStore,
        limiter: trio.CapacityLimiter,
        in_use: InUse,
        *,
        retention_s: float,
    ) -> None:
        self._tree = tree
        self._behind = behind
        self._places = places
        self._store = store
        self._limiter = limiter
        self._aside = Aside(behind.problems)
        self._todo = HomePlan(tree, places, store, in_use, self._aside.add, retention_s=retention_s)
        in_use.given_back = self._given_back
        self._moving: set[int] = set()
        self.worked_on: set[int] = set()
        self._working = 0
        self._arranging = False
        """Whether the batch being carried out does anything but change attributes."""
        self._unsynced: list[tuple[Job, Outcome]] = []
        """Steps carried out whose fsync failed: their rows wait for one that does not."""
        self._done = trio.Event()
        self._wake = trio.Event()
        self._urgent = trio.Event()
        self._failed = False
        self._stuck = 0
        """How many entries of `_todo` wait for what is set aside: nothing else is done before they are."""
        self._unsynced_problem: str | None = None

    # --- the port ------------------------------------------------------------------------------------------------

    def add(self, ino: int) -> None:
        """The row of *ino* is written and has pending bits."""
        self._todo.nodes[ino] = None
        self._woken()

    def unpublished(self, ino: int) -> None:
        """As `BatchSubscriber.unpublished`."""
        self.add(ino)

    def discarded(self, entry: Garbage) -> None:
        """As `BatchSubscriber.discarded`."""
        if entry.held_by is None:
            self._todo.garbage[entry.gid] = entry
            self._woken()

    def stays(self, entry: Garbage) -> bool:
        """Whether *entry* lies where it is kept, in the trash. Not all that lies there is: some had to make room."""
        return self._todo.stays(entry)

    def purge(self, entry: Garbage) -> None:
        """The retention of *entry*, which lies in the trash, is over."""
        self._todo.garbage[entry.gid] = entry
        self._todo.expired.add(entry.gid)
        self._woken()

    def is_given_up(self, entry: Garbage) -> bool:
        """Whether `purge` was called of it."""
        return entry.gid in self._todo.expired

    def hurry(self) -> None:
        """Somebody waits for the home tree."""
        self._urgent.set()
        if self._aside and self._due(hurried=True):
            self._wake.set()

    def _given_back(self, ino: int) -> None:
        """No program can keep the file of *ino* locked any more."""
        if self._todo.take_up(ino):
            self._woken()

    def _woken(self) -> None:
        self._wake.set()
        if len(self._todo.nodes) + len(self._todo.garbage) >= BATCH_ITEMS:
            self._urgent.set()

    @property
    def is_moving(self) -> bool:
        """Whether the batch being carried out moves anything."""
        return bool(self._moving)

    def touches(self, inos: Sequence[int]) -> bool:
        """Whether the batch being carried out moves one of *inos*."""
        moving = self._moving
        return bool(moving) and not moving.isdisjoint(inos)

    async def batch_done(self) -> None:
        """Wait until the batch being carried out is done."""
        if self._working:
            await self._done.wait()

    async def no_batch(self) -> None:
        """Wait until no batch at all is being carried out, garbage included; none is until the next await."""
        while self._working:
            await self._done.wait()

    async def arranged(self) -> None:
        """Wait until nothing is being made, moved or removed, garbage included; nothing is until the next await."""
        while self._arranging:
            await self._done.wait()

    @property
    def is_working(self) -> bool:
        """Whether any batch is being carried out. Atomic."""
        return self._working > 0

    async def alone(self, call: Callable[[], Result]) -> Result:
        """What *call*, in a thread, makes of the home tree while no batch is at it. Raises what it raises."""
        return await trio.to_thread.run_sync(call, limiter=self._limiter)

    def remake_above(self, ino: int) -> None:
        """Have the directories above *ino*, as far as they were removed out of band, made again. Atomic."""
        node = self._tree.nodes.get(ino)
        folder = node.parent if node is not None else None
        while folder is not None and folder.parent is not folder and not self._is_made(folder):
            if not folder.pending and not folder.publishing and folder.moved is None:
                folder.pending, folder.home_ino = Pending.MAKE, None
                self._behind.node(folder)
                self._behind.publish(folder)
            folder = folder.parent

    def _is_made(self, folder: DirNode) -> bool:
        try:
            info = self._store.stat(self._places.home(folder))
        except OSError:
            return True  # nobody knows
        return info is not None and stat.S_ISDIR(info.st_mode)

    @property
    def depth(self) -> int:
        """How many entries are not where their rows want them, but for those that are in use."""
        return len(self._todo.nodes) + len(self._todo.garbage) + self._working + len(self._unsynced) + len(self._aside)

    @property
    def in_use(self) -> int:
        """How many entries are not where their rows want them because the kernel has the file open."""
        return self._todo.waiting

    @property
    def aside(self) -> int:
        """How many of them failed, and are left alone for a while, or wait for such."""
        return len(self._aside) + min(self._stuck, len(self._todo.nodes) + len(self._todo.garbage))

    @property
    def problem(self) -> str | None:
        """What keeps the home tree from being as the rows say; None if nothing does."""
        return self._unsynced_problem or self._behind.problems.first(PART)

    # --- what failed ---------------------------------------------------------------------------------------------

    def _due(self, *, hurried: bool = False) -> bool:
        """Take up again what has been left alone for long enough; whether there was any. Atomic."""
        due = self._aside.due(hurried=hurried)
        for what, number in due:
            if what == "node" and number in self._tree.nodes:
                self._todo.nodes[number] = None
            elif what == "garbage" and number in self._tree.garbage:
                self._todo.garbage[number] = self._tree.garbage[number]
            else:
                self._aside.gone((what, number))  # it was removed meanwhile
        return bool(due)

    # --- the service ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work for ever; what fails is left alone for a while and tried again."""
        await forever(PART, self._step, self._behind.problems)

    async def _step(self) -> None:
        with trio.move_on_at(self._aside.next_s):
            await self._wake.wait()
        self._due()
        with trio.move_on_after(GATHER_S):
            await self._urgent.wait()
        self._wake, self._urgent = trio.Event(), trio.Event()
        await self.publish_some()
        if self._failed:
            with trio.move_on_after(RETRY_S):
                await self._wake.wait()
            self._failed = False
        if self._todo.nodes or self._todo.garbage or self._unsynced:
            self._woken()  # what came meanwhile gathers like what comes next

    async def publish_some(self) -> None:
        """Plan and carry out one batch."""
        if self._unsynced and not await self._sync_again():
            return
        plan = self._todo.plan()
        if not plan.jobs:
            # Everything left waits for something else: a directory for entries that have yet to leave it.
            self._failed = bool(self._todo.nodes or self._todo.garbage)
            self._stuck = len(self._todo.nodes) + len(self._todo.garbage)
            return
        self._moving, self._working = plan.moving, len(plan.jobs)
        self._arranging = any(job.step.kind is not StepKind.ATTRS for job in plan.jobs)
        # Removing what a living file had before concerns nobody who opens that.
        items = (job.item for job in plan.jobs)
        self.worked_on = {each.ino for each in items if isinstance(each, Node) or each.ino not in self._tree.nodes}
        cause: Exception | None = None
        try:
            # A row that a power cut takes back must not find its step on disk done.
            await self._behind.synced()
            outcomes = await trio.to_thread.run_sync(
                self._apply, [job.step for job in plan.jobs], limiter=self._limiter
            )
        except Exception as error:
            cause = error
            outcomes = [Outcome(error=errno.EIO)] * len(plan.jobs)
        finally:
            self._moving, self._working, self._arranging, self.worked_on = set(), 0, False, set()
            self._done.set()
            self._done = trio.Event()
        self._finish(list(zip(plan.jobs, outcomes, strict=True)), cause)
        # What was not planned beside steps that all failed waits for them.
        self._stuck = len(self._todo.garbage) if all(outcome.error for outcome in outcomes) else 0

    def _apply(self, steps: Sequence[Step]) -> list[Outcome]:
        """In a thread. Should the store raise after all, each step is carried out by itself."""
        try:
            return self._store.apply(steps)
        except Exception:
            outcomes: list[Outcome] = []
            for step in steps:
                try:
                    outcomes += self._store.apply([step])
                except Exception as error:
                    outcomes.append(Outcome(error=errno.EIO, reason=reason_of(error)))
            return outcomes

    async def _sync_again(self) -> bool:
        try:
            await trio.to_thread.run_sync(self._store.sync_all, limiter=self._limiter)
        except Exception as error:
            self._failed = True
            self._unsynced_problem = f"fsync: {reason_of(error)}"
            return False
        self._unsynced_problem = None
        done, self._unsynced = self._unsynced, []
        self._finish([(job, replace(outcome, unsynced=0)) for job, outcome in done])
        return True

    # --- afterwards (atomic: no await) ---------------------------------------------------------------------------

    def _finish(self, done: list[tuple[Job, Outcome]], cause: Exception | None = None) -> None:
        problem = None
        # What failed is taken back in reverse: the first of several steps of one item knows where it really lies.
        for job, outcome in reversed(done):
            if outcome.error:
                self._not_done(job, outcome, cause)
        for job, outcome in done:
            if outcome.unsynced and not outcome.error:
                self._unsynced.append((job, outcome))
                self._failed = True
                problem = f"{os.fsdecode(job.step.path)}: fsync: {os.strerror(outcome.unsynced)}"
                continue
            if outcome.warning:
                log.warning("%s", outcome.warning)
            if isinstance(job.item, Node):
                job.item.publishing = 0
            if outcome.error:
                continue
            self._aside.over(job.item)
            if isinstance(job.item, Garbage):
                self._garbage_done(job.item, purged=job.purges)
            else:
                if not (isinstance(job.item, FileNode) and (job.item.staging is not None or job.item.state.is_remote)):
                    job.item.home_ino = outcome.home_ino  # else that was done to bytes which the file has no more
                self._behind.node(job.item)
        if problem is not None and self._unsynced_problem is None:
            log.error("home tree: %s; trying again every %g s", problem, RETRY_S)
        if problem is not None or not self._unsynced:
            self._unsynced_problem = problem

    def _not_done(self, job: Job, outcome: Outcome, cause: Exception | None) -> None:
        """Take a failed step back, and leave what it was for alone for a while."""
        item = job.item
        try:
            successor = self._take_back(job)
            if successor is not None and outcome.error in _GONE and isinstance(item, Node):
                self.remake_above(item.ino)
        except Exception as error:
            self._aside.add(item, error)
            return
        if successor is None or self._is_nowhere(job, outcome):
            self._aside.over(item)
            if successor is not None:
                self._give_up(successor)
            return
        if isinstance(successor, Node):
            self._todo.nodes.pop(successor.ino, None)
        else:
            self._todo.garbage.pop(successor.gid, None)
        if cause is None and outcome.reason:
            cause = IoFailure(f"{os.fsdecode(job.step.path)}: {outcome.reason}")
        self._aside.add(successor, cause or OSError(outcome.error, os.strerror(outcome.error)))

    def _is_nowhere(self, job: Job, outcome: Outcome) -> bool:
        """Whether what was to be moved was removed out of band: its directory is there, and it is not in it."""
        if outcome.error != errno.ENOENT or job.step.kind is not StepKind.MOVE or job.staging is not None:
            return False
        try:
            above = self._store.stat(os.path.dirname(job.step.path))
            return above is not None and stat.S_ISDIR(above.st_mode) and self._store.stat(job.step.path) is None
        except OSError:
            return False

    def _give_up(self, item: Node | Garbage) -> None:
        """What lay nowhere is not moved any more. A file keeps its name: reading it says that its bytes are missing."""
        log.warning("%s: it was removed out of band before it was moved", os.fsdecode(item.path))
        if isinstance(item, Garbage):
            self._todo.garbage.pop(item.gid, None)
            self._garbage_done(item, purged=True)
            return
        self._todo.nodes.pop(item.ino, None)
        self._tree.locations.forget(item, item.moved)
        item.moved = None
        if isinstance(item, FileNode):
            item.pending = 0
            self._behind.node(item)
        else:
            item.pending, item.home_ino = Pending.MAKE, None
            self._behind.publish(item)

    def _garbage_done(self, entry: Garbage, *, purged: bool) -> None:
        self._tree.locations.forget(entry, entry.place)
        if purged:
            self._tree.garbage.drop(entry.gid)
            self._todo.expired.discard(entry.gid)
            self._behind.purged(entry.gid)
        else:
            # Not before: a row that says "in the trash" too early would be all that is left of the place it lies at.
            entry.staging = entry.place = None
            self._behind.garbage(entry, discard=False)

    def _take_back(self, job: Job) -> Node | Garbage | None:
        """The step did not happen: the metadata says again where the entry really lies. Returns what to try again."""
        item = job.item
        if job.step.kind is StepKind.ATTRS and isinstance(item, Node):
            # Taken to staging meanwhile, it gets its attributes when it comes home; else it is tried again.
            if item.unlinked or getattr(item, "staging", None) is not None:
                return None
            item.pending |= job.pending
            return item
        if isinstance(item, Node) and item.unlinked:
            # Its bytes became garbage while the step was under way, at the place it never reached.
            of_it = (entry for entry in self._tree.garbage.values() if entry.ino == item.ino)
            successors = [entry for entry in of_it if not entry.in_trash]
            if not successors:
                return None
            item = successors[-1]
        if isinstance(item, Garbage):
            self._tree.locations.forget(item, item.place)
            item.staging, item.place = job.staging, job.place
            if item.place is not None:
                self._tree.locations.record(item, item.place)
            self._behind.garbage(item, discard=False)
            return item
        self._tree.locations.forget(item, item.moved)
        if isinstance(item, FileNode):
            item.staging = job.staging
        item.moved = job.place
        if item.moved is not None:
            self._tree.locations.record(item, item.moved)
        item.pending |= job.pending
        self._behind.node(item)
        return item
